"""Measures what ids that are all hash cost the primary key of events, beside ids ordered by the reported moment.

`python -m bench.event_ids` inserts as many ids of both kinds into two tables, turn and turn about, and prints
microseconds and bytes of write-ahead log a row, and the size of each index.
"""

import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from connect.intake.normalize import event_id
from connect.store.embedded import EmbeddedPostgres

ROUNDS, BATCHES, BATCH = 5, 200, 500
FIRST = datetime(2026, 11, 1, tzinfo=UTC)
KINDS = ("reported", "left out")


def ids(kind: str, start: int) -> list[UUID]:
    moments = [
        FIRST + timedelta(milliseconds=10 * n) if kind == "reported" else None for n in range(start, start + BATCH)
    ]
    return [event_id("shop", f"order-{n}", at) for n, at in enumerate(moments, start=start)]


async def insert(connection: Any, table: str, kind: str, start: int) -> tuple[float, float]:
    """Microseconds and bytes of write-ahead log a row."""
    batches = [ids(kind, start + place * BATCH) for place in range(BATCHES)]
    before, begun = await connection.fetchval("SELECT pg_current_wal_insert_lsn()"), time.perf_counter()
    for batch in batches:
        await connection.execute(f"INSERT INTO {table} SELECT unnest($1::uuid[]), repeat('x', 900)", batch)
    took_s = time.perf_counter() - begun
    logged = await connection.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", before)
    return took_s * 1e6 / (BATCHES * BATCH), float(logged) / (BATCHES * BATCH)


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="connect-bench-") as folder:
        async with await EmbeddedPostgres.start(Path(folder) / "home") as server:
            connection = await asyncpg.connect(server.url)
            await compare(connection)
            await connection.close()


async def compare(connection: Any) -> None:
    tables = {kind: f"ids_{place}" for place, kind in enumerate(KINDS)}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for table in tables.values():
        await connection.execute(f"CREATE TABLE {table} (id uuid PRIMARY KEY, content text)")
    for number in range(ROUNDS):
        for kind, table in tables.items():
            found[kind].append(await insert(connection, table, kind, number * BATCHES * BATCH))
    for kind, table in tables.items():
        took, logged = (statistics.median(column) for column in zip(*found[kind], strict=True))
        size = await connection.fetchval("SELECT pg_relation_size($1::regclass)", f"{table}_pkey")
        of_index = size / (ROUNDS * BATCHES * BATCH)
        print(f"moment {kind:9} {took:6.1f} us, {logged:6.0f} B of log and {of_index:5.1f} B of index a row")


if __name__ == "__main__":
    asyncio.run(main())
