"""Batches of 500 over HTTP until decided, beside the storage floor: the same rows by one bare connection.

`python -m bench.intake` prints a table of medians over interleaved repeats. The database is an embedded one with fsync
on; what each side stored is counted before its time is believed. Only the ratio of one run says something.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.memory import ready
from connect.cli.run.everything import free_port
from connect.engine.index import Rulebook
from connect.intake.deciding import decide_plain
from connect.intake.normalize import NormalEvent, Terms, convert_reported, normalize
from connect.intake.record import decided_row
from connect.model import Effect, RewardRule, Ruleset
from connect.store.embedded import EmbeddedPostgres
from connect.store.events.record import record
from connect.store.migrate import migrate
from connect.store.pool import open_pool
from connect.store.rules import change

EVENTS = 10_000
BATCH = 500
CONNECTIONS = 2
REPEATS = 5
KEY = "bench-" + "k" * 32

RULES = Ruleset(
    rules=[
        RewardRule(
            key=f"rule-{n}",
            event_type="purchase.completed",
            condition=['context.currency == "EUR"', f"context.amount_minor >= {1000 if n == 0 else 9000 + 100 * n}"],
            actions=[Effect(target="points", command="credit", unit="points", recipient="actor", amount=5 + n)],
        )
        for n in range(10)
    ]
)


def documents(run: str) -> list[dict[str, Any]]:
    """About 1.2 actions an event under the ten rules."""
    return [
        {
            "external_id": f"{run}-{n}",
            "source": "bench",
            "event_type": "purchase.completed",
            "actor_user_id": f"u{n % 1000}",
            "context": {"order_id": f"o{n}", "amount_minor": n % 10_000, "currency": "EUR", "items": [{"sku": "a1"}]},
        }
        for n in range(EVENTS)
    ]


async def over_http(url: str, run: str) -> float:
    """Events a second, decided and committed."""
    everything = documents(run)
    bodies = [msgspec.json.encode(everything[start : start + BATCH]) for start in range(0, EVENTS, BATCH)]
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def post_some(share: list[bytes]) -> None:
            for body in share:
                async with session.post(f"{url}/internal/events/batch", data=body) as reply:
                    assert (await reply.json())["created"] == BATCH

        begun = time.perf_counter()
        await asyncio.gather(*(post_some(bodies[index::CONNECTIONS]) for index in range(CONNECTIONS)))
        return EVENTS / (time.perf_counter() - begun)


async def floor(pool: Any, run: str) -> float:
    """Measures the same rows, decided beforehand, by the same statement on one connection."""
    rulebook = Rulebook.compile(1, RULES, {})
    now = datetime.now(UTC)
    normals: list[NormalEvent] = [normalize(convert_reported(each), Terms(), now) for each in documents(run)]
    rows = [decided_row(normal, decide_plain(normal.event, rulebook, now)) for normal in normals]
    async with pool.acquire() as connection:
        begun = time.perf_counter()
        for start in range(0, EVENTS, BATCH):
            await record(connection, rows[start : start + BATCH])
        return EVENTS / (time.perf_counter() - begun)


async def stored(pool: Any, run: str) -> tuple[int, int]:
    events = await pool.fetchval("SELECT count(*) FROM event WHERE external_id LIKE $1", f"{run}-%")
    query = "SELECT count(*) FROM reward_action JOIN event ON event.id = event_id WHERE external_id LIKE $1"
    return events, await pool.fetchval(query, f"{run}-%")


async def compare(pool: Any, url: str) -> None:
    measured: dict[str, list[float]] = {"HTTP": [], "floor": []}
    for repeat in range(REPEATS):
        measured["floor"].append(await floor(pool, f"floor{repeat}"))
        measured["HTTP"].append(await over_http(url, f"http{repeat}"))
        if await stored(pool, f"http{repeat}") != await stored(pool, f"floor{repeat}"):
            raise SystemExit("the two sides stored different numbers of rows")
    medians = {name: statistics.median(values) for name, values in measured.items()}
    print(f"| {EVENTS:,} events in batches of {BATCH}, {REPEATS} repeats | events/s (median) | of the floor |")
    print("|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:,.0f} | {median / medians['floor']:.2f} |")


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="connect-bench-") as folder:
        async with await EmbeddedPostgres.start(Path(folder) / "home") as server:
            await migrate(server.url)
            pool = await open_pool(server.url)
            async with pool.acquire() as connection:
                await change(connection, lambda _: RULES, "bench", "")
            port = free_port()
            settings = {
                "CONNECT_DATABASE_URL": server.url,
                "CONNECT_BOOTSTRAP_KEY": KEY,
                "CONNECT_LOG_LEVEL": "warning",
            }
            api = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "connect", "api", "--port", str(port), env={**os.environ, **settings}, cwd=folder
            )
            try:
                while not await asyncio.to_thread(ready, f"http://127.0.0.1:{port}"):  # noqa: ASYNC110  another process
                    await asyncio.sleep(0.05)
                await compare(pool, f"http://127.0.0.1:{port}")
            finally:
                api.terminate()
                await api.wait()
                await pool.close()


if __name__ == "__main__":
    asyncio.run(main())
