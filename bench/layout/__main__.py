"""Events in single tables with deletion in batches, and in monthly partitions with an identity table: what each costs.

`python -m bench.layout [EVENTS] [--together]` makes a server of its own. It loads a year in one layout, measures, drops
it and does the same with the other: at 5,000,000 events half an hour and 11 GB of the disk. With `--together` both are
there at once and are measured in turn, so that what else the machine does falls on both: twice the disk. A yardstick
before each phase tells how the machine changed meanwhile. Rows are loaded with fsync off and measured with it on and
autovacuum off. The statements are today's, shortened (`statements`); rows are made on the server, so no parameters are
parsed. Last is the share of HOT updates of today's claim and settle. It is not part of `make bench`: it takes too long.
"""

import asyncio
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from bench.layout import hot
from bench.layout import statements as sql
from bench.layout.loading import load, tell_sizes
from bench.layout.lookups import measure_lookups, measure_plans
from bench.layout.retention import measure_retention
from bench.layout.run import EVENTS, ROUNDS, TOGETHER, Run, timed
from bench.layout.writing import measure_records, measure_settling
from connect.store.embedded import EmbeddedPostgres
from connect.store.embedded.owner import SETTINGS
from connect.store.migrate import migrate

SERVER = {
    "shared_buffers": "2GB",
    "autovacuum": "off",
    "max_wal_size": "2GB",
    "maintenance_work_mem": "512MB",
    "checkpoint_timeout": "15min",
}


async def yardstick(run: Run) -> None:
    connection = run.connection
    await connection.execute("CREATE TABLE IF NOT EXISTS yardstick (n bigint)")
    commits = [await timed(connection, "INSERT INTO yardstick VALUES (1)") for _ in range(50)]
    sums = [await timed(connection, "SELECT sum(n) FROM generate_series(1, 200000) AS n") for _ in range(5)]
    commit, cpu = statistics.median(commits), statistics.median(sums)
    run.tell("yardstick", f"a commit {commit:.2f} ms", f"a sum {cpu:.1f} ms", f"load {os.getloadavg()[0]:.2f}")


async def measure(layouts: Sequence[str], home: Path) -> None:
    SETTINGS.update(SERVER, fsync="off")
    async with await EmbeddedPostgres.start(home) as server:
        for layout in layouts:
            url = await fresh(server.url, layout)
            connection = await asyncpg.connect(url)
            await load(Run(layout, url, connection))
            await connection.close()
    await asyncio.to_thread(os.sync)
    SETTINGS["fsync"] = "on"
    async with await EmbeddedPostgres.start(home) as server:
        urls = {layout: address(server.url, layout) for layout in layouts}
        runs = [Run(layout, url, await asyncpg.connect(url)) for layout, url in urls.items()]
        await measure_in_turn(runs)
        for run in runs:
            await run.connection.close()
            await drop(server.url, run.layout)


async def measure_in_turn(runs: Sequence[Run]) -> None:
    for run in runs:
        run.tell("fsync", await run.connection.fetchval("SHOW fsync"))
        await tell_sizes(run)
    for _ in range(ROUNDS):
        for step in (measure_lookups, measure_plans, measure_records, measure_settling):
            for run in runs:
                await yardstick(run)
                await step(run)
    for run in runs:
        await yardstick(run)
        await measure_retention(run)
    for run in runs:
        run.tell_added()


def address(url: str, database: str) -> str:
    return url.replace("@/connect?", f"@/{database}?")


async def fresh(url: str, layout: str) -> str:
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {layout}")
    await connection.close()
    await migrate(address(url, layout))
    return address(url, layout)


async def drop(url: str, layout: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP DATABASE {layout} WITH (FORCE)")
    await connection.close()


async def main() -> None:
    print(f"{EVENTS:,} events over {sql.MONTHS} months\n")
    with tempfile.TemporaryDirectory(prefix="connect-bench-") as folder:
        home = Path(folder) / "home"
        for layouts in [("single", "monthly")] if TOGETHER else [("single",), ("monthly",)]:
            await measure(layouts, home)
        async with await EmbeddedPostgres.start(home) as server:
            await hot.main(server.url)


if __name__ == "__main__":
    asyncio.run(main())
