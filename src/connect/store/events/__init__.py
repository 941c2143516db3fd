"""Facts: recorded once by (source, external_id), decided once, read and searched by people."""
