"""Letting the oldest months go while somebody records: deletion in batches and vacuum, or detaching and dropping."""

import asyncio
import time
from contextlib import suppress

import asyncpg

from bench.layout import statements as sql
from bench.layout.run import BATCH, DELETED_AT_ONCE, GROWTH, ONE_PLAN, Run, log_position, recording, timed

DELETED_GENTLY = 1_000
WARM_UP = 50
"""Events of a reporter that are not counted: it connects, and its statement is planned."""


class Reporter:
    """Somebody who records one event after the other while something else goes on, and sees each pause."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.found: list[float] = []

    async def __aenter__(self) -> "Reporter":
        self._task = asyncio.create_task(self._report())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _report(self) -> None:
        connection = await asyncpg.connect(self._run.url)
        try:
            await connection.execute(ONE_PLAN)
            statement = list(recording(self._run.layout).values())[-1]
            while True:
                self.found.append(await timed(connection, statement, *self._run.take(1)))
        finally:
            connection.terminate()

    def tell(self, what: str) -> None:
        del self.found[:WARM_UP]
        self._run.tell_times(f"one recorded meanwhile: {what}", self.found)
        self._run.tell(f"longest pause: {what}", f"{max(self.found):.1f} ms")


async def delete_month(run: Run, end: str, at_once: int, rests: bool) -> list[float]:
    """With rests it stands still after each batch for as long as that took."""
    moment = await run.connection.fetchval(f"SELECT '{end} 00:00:00Z'::timestamptz")
    found: list[float] = []
    while True:
        begun = time.perf_counter()
        done = await run.connection.execute(sql.DELETE_BATCH, moment, at_once)
        if done.split()[-1] == "0":
            return found
        found.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(found[-1] / 1e3 * rests)


async def vacuum(run: Run, rests: bool) -> None:
    await run.connection.execute(f"SET vacuum_cost_delay = {2 * rests}")
    for table in sql.TABLES:
        await run.connection.execute(f"VACUUM {table}")


async def detach_month(run: Run, day: str) -> list[float]:
    """Detaches the children first, so that nothing is ever there without its event."""
    found: list[float] = []
    for table in reversed(sql.TABLES):
        name = sql.partition(table, day)
        begun = time.perf_counter()
        await run.connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY")
        await run.connection.execute(f"DROP TABLE {name}")
        found.append((time.perf_counter() - begun) * 1e3)
    return found


async def let_go(run: Run, day: str, end: str, what: str, rests: bool = False) -> None:
    """Lets one month go, and says how long it took and what it logged."""
    before, begun = await log_position(run), time.monotonic()
    if run.layout == "single":
        parts = await delete_month(run, end, DELETED_GENTLY if rests else DELETED_AT_ONCE, rests)
    else:
        parts = await detach_month(run, day)
    took, logged = time.monotonic() - begun, await log_position(run) - before
    pieces = f"{len(parts)} parts, the longest {max(parts):.0f} ms"
    run.tell(f"a month let go {what}", f"{took:.2f} s", pieces, f"log {logged / 1e6:.1f} MB")
    if run.layout == "single":
        before, begun = await log_position(run), time.monotonic()
        await vacuum(run, rests)
        took, logged = time.monotonic() - begun, await log_position(run) - before
        run.tell(f"vacuum after it {what}", f"{took:.1f} s", f"log {logged / 1e6:.1f} MB")


async def bytes_in_all(run: Run) -> int:
    rows = await run.connection.fetch(sql.SIZES)
    return sum(row["bytes"] for row in rows if row["of_table"] != "yardstick")


async def measure_retention(run: Run) -> None:
    """Lets the oldest month go in one rush, the next gently, both beside a reporter, and the third alone."""
    days = sql.months()
    async with Reporter(run) as alone:
        await asyncio.sleep(5)
    alone.tell("nothing")
    before = await bytes_in_all(run)
    for number, rests in enumerate((False, True)):
        what = "with rests" if rests else "in one rush"
        async with Reporter(run) as beside:
            await asyncio.sleep(1)
            await let_go(run, *days[number], f"beside a reporter, {what}", rests)
            await asyncio.sleep(1)
        beside.tell(f"a month let go, {what}")
    await let_go(run, *days[2], "alone")
    freed = before - await bytes_in_all(run)
    run.tell("disk given back by three months", f"{freed / 2**20:.0f} MiB")
    await tell_bloat(run)
    await measure_growth(run)


async def measure_growth(run: Run) -> None:
    before = await bytes_in_all(run)
    await run.connection.execute(ONE_PLAN)
    statement = list(recording(run.layout).values())[-1]
    for _ in range(GROWTH // BATCH):
        run.add(f"record: {BATCH}, after months went", await timed(run.connection, statement, *run.take(BATCH)))
    grown = await bytes_in_all(run) - before
    run.tell(f"disk grown by {GROWTH:,} more events", f"{grown / 2**20:.1f} MiB")


async def tell_bloat(run: Run) -> None:
    await run.connection.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    if run.layout == "monthly":
        return
    for table in sql.TABLES:
        free = await run.connection.fetchval(f"SELECT approx_free_percent FROM pgstattuple_approx('{table}')")
        density = await run.connection.fetchval(f"SELECT avg_leaf_density FROM pgstatindex('{table}_pkey')")
        run.tell(f"left in {table}", f"{free:.1f} % of the rows' pages free", f"primary key {density:.0f} % full")
