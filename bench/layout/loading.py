"""Making the tables of a layout, filling them, and telling what they take."""

import asyncio
import time

import asyncpg

from bench.layout import statements as sql
from bench.layout.run import CHUNK, DISPATCHED, EVENTS, Run


async def prepare(run: Run) -> dict[str, list[str]]:
    """Makes the tables without indexes; returns what makes these, by table."""
    connection = run.connection
    await connection.execute(sql.ROWS.format(first=sql.FIRST_MONTH, events=EVENTS))
    keys: dict[str, list[str]] = {}
    for table, column in sql.TABLES.items():
        primary = sql.PRIMARY_KEYS[table]
        keys[table] = await sql.strip_keys(connection, table)
        if run.layout == "monthly":
            await sql.cut_by_month(connection, table)
            primary += f", {column}"
        keys[table].append(f"ALTER TABLE {table} ADD PRIMARY KEY ({primary})")
    await connection.execute(sql.IDENTITY)
    keys["identity"] = list(sql.IDENTITY_KEYS)
    if run.layout == "monthly":
        await connection.execute(sql.LOCATOR)
        keys["action_locator"] = [sql.LOCATOR_KEY]
    else:
        keys["event"].append("ALTER TABLE event ADD UNIQUE (source, external_id)")
    return keys


async def load(run: Run) -> None:
    """Loads two tables at a time, each in the order of its events, and then makes the indexes."""
    begun = time.monotonic()
    keys = await prepare(run)
    loaded = [table for table in sql.LOADS if table in keys and (run.layout, table) != ("single", "identity")]
    turns = asyncio.Semaphore(2)

    async def fill(table: str) -> None:
        async with turns:
            connection = await asyncpg.connect(run.url)
            more = [EVENTS - 2 * DISPATCHED, EVENTS - DISPATCHED] if table == "reward_action" else []
            for first in range(0, EVENTS, CHUNK):
                await connection.execute(sql.LOADS[table], first, min(first + CHUNK, EVENTS) - 1, *more)
            for statement in keys[table]:
                await connection.execute(statement)
            await connection.execute(f"VACUUM (ANALYZE) {table}")
            await connection.close()

    await asyncio.gather(*(fill(table) for table in loaded))
    for statement in keys["identity"] if "identity" not in loaded else ():
        await run.connection.execute(statement)
    await run.connection.execute("CHECKPOINT")
    run.tell("loaded", f"{time.monotonic() - begun:.0f} s")


async def tell_sizes(run: Run) -> None:
    total = 0
    for row in await run.connection.fetch(sql.SIZES):
        if row["of_table"].split("_")[0] in ("event", "reward", "dispatch", "identity", "action"):
            total += row["bytes"]
            run.tell(f"size of {row['of_table']}, {row['name']}", f"{row['bytes'] / 2**20:.0f} MiB",
                f"{row['bytes'] / EVENTS:.0f} B an event")  # fmt: skip
    run.tell("size in all", f"{total / 2**20:.0f} MiB", f"{total / EVENTS:.0f} B an event")
