"""Batches of 1,000 over HTTP under ten rules: with counters, limits and a budget, beside the same without.

`python -m bench.rule_model` prints CPU time an event (the API's and PostgreSQL's), medians of interleaved repeats.
Both sides give the same actions, and that is counted before their time is believed: caps are wide, so that what is
compared is the cost of keeping state and nothing else.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec.structs import replace

from bench.memory import ready
from connect.cli.run.everything import free_port
from connect.model import Budget, BudgetUse, Counter, Effect, Limit, RewardRule, Ruleset
from connect.store.embedded import EmbeddedPostgres
from connect.store.migrate import migrate
from connect.store.pool import open_pool
from connect.store.rules import change

EVENTS = 10_000
BATCH = 1_000
REPEATS = 5
SETTLES_WITHIN_S = 7.0
"""After this long no publish still has its lag: what a process works out anew meanwhile would be measured with it. So
would what the first events of each user after a publish work out, so each measurement has as many events before it."""
KEY = "bench-" + "k" * 32
TICKS_S = os.sysconf("SC_CLK_TCK")

PLAIN = Ruleset(
    timezone="Europe/Berlin",
    rules=[
        RewardRule(
            key=f"rule-{n}",
            event_type="purchase.completed",
            condition=['context.currency == "EUR"', f"context.amount_minor >= {1000 if n == 0 else 9000 + 100 * n}"],
            actions=[Effect(target="points", command="credit", unit="points", recipient="actor", amount=5 + n)],
        )
        for n in range(10)
    ],
)


def _bounded(rule: RewardRule, n: int) -> RewardRule:
    limits = [Limit(per="recipient", every="day", uses=1_000_000), Limit(per="actor", every="month", amount=10**12)]
    lines = [*rule.lines, "counters.purchases >= 1"] if n == 0 else rule.condition
    return replace(
        rule,
        limits=limits if n % 2 == 0 else limits[:1],
        budget=BudgetUse(name="pot") if n < 3 else None,
        condition=lines,
    )


BOUNDED = replace(
    PLAIN,
    budgets={"pot": Budget(unit="points", cap=10**15)},
    counters={
        "purchases": Counter(event_type="purchase.completed", of="actor", kind="count"),
        "spent": Counter(
            event_type="purchase.completed", of="actor", kind="sum", value="context.amount_minor", every="month"
        ),
    },
    rules=[_bounded(rule, n) for n, rule in enumerate(PLAIN.rules)],
)


def bodies(run: str) -> list[bytes]:
    documents: list[dict[str, Any]] = [
        {
            "external_id": f"{run}-{n}",
            "source": "bench",
            "event_type": "purchase.completed",
            "actor_user_id": f"u{n * 7919 % 3000}",
            "context": {"order_id": f"o{n}", "amount_minor": n % 10_000, "currency": "EUR", "items": [{"sku": "a1"}]},
        }
        for n in range(EVENTS)
    ]
    return [msgspec.json.encode(documents[start : start + BATCH]) for start in range(0, EVENTS, BATCH)]


def cpu_s(pid: int) -> float:
    """Returns the CPU seconds of the process and all below it, ended ones that were waited for included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS_S + sum(cpu_s(int(child)) for child in children)


def _postmaster(folder: Path) -> int:
    return int(next(folder.rglob("postmaster.pid")).read_text().split()[0])


async def report(url: str, run: str, pids: list[int]) -> list[float]:
    """Microseconds of CPU an event, of each process."""
    everything, before = bodies(run), list(map(cpu_s, pids))
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for body in everything:
            async with session.post(f"{url}/internal/events/batch", data=body) as reply:
                assert (await reply.json())["created"] == BATCH
    return [(cpu_s(pid) - spent) / EVENTS * 1e6 for pid, spent in zip(pids, before, strict=True)]


async def given(pool: Any, run: str) -> list[tuple[str, int, str]]:
    rows = await pool.fetch(
        "SELECT rule_key, count(*), sum(amount) FROM reward_action JOIN event ON event.id = event_id "
        "WHERE external_id LIKE $1 GROUP BY 1 ORDER BY 1",
        f"{run}-%",
    )
    return [tuple(row) for row in rows]


async def compare(pool: Any, url: str, pids: list[int]) -> None:
    measured: dict[str, list[list[float]]] = {"plain": [], "with counters, limits, a budget": []}
    for repeat in range(REPEATS):
        for (name, values), document in zip(measured.items(), (PLAIN, BOUNDED), strict=True):
            async with pool.acquire() as connection:
                await change(connection, lambda _, document=document: document, "bench", "")
                await connection.execute("UPDATE counter SET status = 'live', live_at = now()")
            await asyncio.sleep(SETTLES_WITHIN_S)
            await report(url, f"warm{name[:5]}{repeat}", pids)
            values.append(await report(url, f"{name[:5]}{repeat}", pids))
        if await given(pool, f"plain{repeat}") != await given(pool, f"with {repeat}"):
            raise SystemExit("the two sides gave different actions")
    print(f"{EVENTS:,} events in batches of {BATCH:,}, {REPEATS} repeats; medians of CPU us an event")
    print("| | api | PostgreSQL | both | of plain |")
    print("|---|---|---|---|---|")
    plain = statistics.median(map(sum, measured["plain"]))
    for name, values in measured.items():
        both = statistics.median(map(sum, values))
        api, postgres = (statistics.median(one) for one in zip(*values, strict=True))
        print(f"| {name} | {api:,.0f} | {postgres:,.0f} | {both:,.0f} | {both / plain:.2f} |")


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="connect-bench-") as folder:
        async with await EmbeddedPostgres.start(Path(folder) / "home") as server:
            await migrate(server.url)
            pool = await open_pool(server.url)
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
                postmaster = await asyncio.to_thread(_postmaster, Path(folder))
                await compare(pool, f"http://127.0.0.1:{port}", [api.pid, postmaster])
            finally:
                api.terminate()
                await api.wait()
                await pool.close()


if __name__ == "__main__":
    asyncio.run(main())
