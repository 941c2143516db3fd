"""Events in single tables with deletion in batches, or in monthly partitions with an identity table."""
