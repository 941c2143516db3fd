"""A candidate ruleset over stored events, beside deciding the same events by it live, and the results compared.

`python -m bench.backtest [EVENTS]` prints CPU time an event, of this process and of PostgreSQL. The live side decides
row by row, as the engine does for single events; the backtest of its own rules must then differ in nothing, to the
last action, before its time is believed. The database is an embedded one with fsync off, which only helps live.
"""

import asyncio
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from msgspec.structs import replace

from bench.rule_model import BOUNDED, _postmaster, cpu_s
from connect.backtest.compare import compare
from connect.engine.periods import FIRST
from connect.intake.live import LiveRules
from connect.intake.normalize import NormalEvent, Terms, convert_reported, normalize
from connect.intake.record import Recorder
from connect.model import Ruleset, Unit
from connect.store.embedded import EmbeddedPostgres
from connect.store.history import snapshot
from connect.store.migrate import migrate
from connect.store.pool import open_pool
from connect.store.rules import change
from connect.telemetry import set_up_logging

EVENTS = 5_000
CANDIDATE = replace(BOUNDED, units={"points": Unit(worth="0.01 EUR")})
WRITERS = 4


def facts(count: int) -> list[NormalEvent]:
    """Nine in ten earn, by ten rules with limits, counters and a budget; users come again."""
    now = datetime.now(UTC)
    return [
        normalize(
            convert_reported(
                {
                    "external_id": f"e{n}",
                    "source": "bench",
                    "event_type": "purchase.completed",
                    "actor_user_id": f"u{n * 7919 % 3000}",
                    "context": {
                        "order_id": f"o{n}", "amount_minor": n * 104_729 % 10_000, "currency": "EUR",
                        "items": [{"sku": f"a{n % 7}", "price_minor": n % 900} for _ in range(n % 6)],
                    },
                }
            ),
            Terms(age_max_days=0),
            now,
        )
        for n in range(count)
    ]  # fmt: skip


async def live(pool: Any, document: Ruleset, events: list[NormalEvent]) -> None:
    """Each event in a group of its own: several writers, none with more than one event in hand."""
    async with pool.acquire() as connection:
        await change(connection, lambda _: document, "bench", "")
    rules = LiveRules(pool)
    await rules.refresh()
    recorders = [Recorder(pool, rules) for _ in range(WRITERS)]
    flushers = [asyncio.create_task(one.run()) for one in recorders]

    async def one_by_one(recorder: Recorder, share: list[NormalEvent]) -> None:
        for event in share:
            await recorder.submit([event], "inline")

    await asyncio.gather(*(one_by_one(one, events[n::WRITERS]) for n, one in enumerate(recorders)))
    for one in recorders:
        one.close()
    await asyncio.gather(*flushers)


async def main(count: int = EVENTS) -> None:
    set_up_logging("error")
    with tempfile.TemporaryDirectory(prefix="connect-bench-") as folder:
        async with await EmbeddedPostgres.start(Path(folder) / "home") as server:
            await migrate(server.url)
            await _hasten(server.url)
            pids = [_postmaster(Path(folder))]
            pool = await open_pool(server.url)
            measured: dict[str, tuple[float, float]] = {}
            begun = _now(pids)
            await live(pool, CANDIDATE, facts(count))
            measured["live, one by one"] = _since(begun, pids)
            begun = _now(pids)
            async with snapshot(server.url) as connection:
                compared = await compare(connection, CANDIDATE, CANDIDATE, FIRST, {})
            measured["backtest"] = _since(begun, pids)
            await pool.close()
    pairs = compared.tally.pairs().values()
    if compared.events != count or not pairs or not all(pair.is_same for pair in pairs):
        raise SystemExit("the backtest differs from what was decided live")
    given = sum(pair.was.actions for pair in pairs)
    print(
        f"| {count:,} events, ten rules with state, {given:,} actions, equal | CPU us/event | events/s | CPU, of live |"
    )
    print("|---|---|---|---|")
    base = measured["live, one by one"][1]
    for name, (wall, cpu) in measured.items():
        print(f"| {name} | {cpu / count * 1e6:,.0f} | {count / wall:,.0f} | {cpu / base:.2f} |")
    print(f"\nmemory at the most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


async def _hasten(url: str) -> None:
    connection: Any = await asyncpg.connect(url)
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        await connection.execute(f"ALTER SYSTEM SET {setting} = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


def _now(pids: list[int]) -> tuple[float, float]:
    return time.perf_counter(), time.process_time() + sum(map(cpu_s, pids))


def _since(begun: tuple[float, float], pids: list[int]) -> tuple[float, float]:
    wall, cpu = _now(pids)
    return wall - begun[0], cpu - begun[1]


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
