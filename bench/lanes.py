"""Commands to eight healthy targets, alone and beside a ninth that hangs with 100,000 due: from due until answered.

`python -m bench.lanes` prints percentiles over the commands of all interleaved repeats, and fails where the p99 beside
it is more than `RATIO_MAX` of the one alone. Commands become due one by one: those that come together all wait for the
same pause of the machine, and two pauses in a repeat would be its p99. Of each repeat's time the first third is before
the breaker opens, with every slot of the ninth's lane taken by sendings that hang; then probes follow. The database is
an embedded one with fsync on; one dispatcher, its targets and the reporter share this process.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from connect.dispatch.dispatcher import Dispatcher
from connect.model import Target
from connect.store.embedded import EmbeddedPostgres
from connect.store.migrate import migrate
from connect.store.pool import open_pool
from connect.telemetry import set_up_logging
from tests.dispatch.stand_in import dispatching, standing_in, target_at

HEALTHY = 8
FLOOD = 100_000
FOR_S = 9.0
EVERY_S = 0.0125
"""One command becomes due so often, for each healthy target in turn."""
WARM_UP_S = 0.5
"""Commands of this time are not counted: connections are made, statements prepared."""
HANGS_S = 3.0
REPEATS = 5
RATIO_MAX = 1.5
ENDS_WITHIN_S = 30.0

ADD = """
INSERT INTO reward_action (id, event_id, rule_key, rule_version, effect_key, target, command, recipient_role, user_id,
    amount, unit, params, status, attempts, due_at, created_at, body)
SELECT gen_random_uuid(), gen_random_uuid(), 'r', 1, 'e', target, 'credit', 'actor', 'u' || n, 1, 'points', '{}',
    'pending', 0, at, at, '{}'
FROM unnest($1::text[]) AS target, generate_series(1, $2::integer) AS n,
    LATERAL (SELECT clock_timestamp() - $3::float8 * n * interval '1 s' AS at) AS due
"""
UNANSWERED = "SELECT count(*) FROM reward_action WHERE target <> 'hanging' AND status <> 'completed'"
FOUND = """
SELECT extract(epoch FROM completed_at - created_at)::float8 * 1000 AS ms
FROM reward_action WHERE target <> 'hanging' ORDER BY created_at
"""


async def flood(pool: Any) -> None:
    await pool.execute(ADD, ["hanging"], FLOOD, 0.001)
    await pool.execute("ANALYZE reward_action")


async def report(pool: Any, dispatcher: Dispatcher, names: list[str]) -> None:
    """Commands become due at an even pace; the dispatcher is told, as by whoever records in its process."""
    begun = time.monotonic()
    for tick in range(round(FOR_S / EVERY_S)):
        await asyncio.sleep(max(begun + tick * EVERY_S - time.monotonic(), 0))
        await pool.execute(ADD, [names[tick % len(names)]], 1, 0)
        dispatcher.notify()


async def run_once(pool: Any, targets: Mapping[str, Target], *, beside: bool) -> list[float]:
    """Milliseconds of each command of a healthy target."""
    for table in ("reward_action", "dispatch_attempt", "target"):
        await pool.execute(f"TRUNCATE {table}")
    if beside:
        await flood(pool)
    names = [name for name in targets if name != "hanging"]
    async with dispatching(pool, targets, poll_s=0.5, housekeeping_s=15, drain_s=0) as dispatcher:
        await report(pool, dispatcher, names)
        give_up_at = time.monotonic() + ENDS_WITHIN_S
        while await pool.fetchval(UNANSWERED):
            if time.monotonic() > give_up_at:
                raise SystemExit(f"healthy targets' commands are unanswered after {ENDS_WITHIN_S} s more")
            await asyncio.sleep(0.1)
    due = await pool.fetchval("SELECT count(*) FROM reward_action WHERE target = 'hanging' AND status <> 'completed'")
    found = [row["ms"] for row in await pool.fetch(FOUND)]
    if len(found) != round(FOR_S / EVERY_S) or due != FLOOD * beside:
        raise SystemExit(f"{len(found)} healthy commands beside {due} of the target that hangs: void")
    return found[round(WARM_UP_S / EVERY_S) :]


async def compare(pool: Any, targets: Mapping[str, Target]) -> float:
    measured: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(REPEATS):
        for beside, found in measured.items():
            found += await run_once(pool, targets, beside=beside)
    percentiles = {beside: statistics.quantiles(found, n=100) for beside, found in measured.items()}
    p50, p99 = ({beside: found[n - 1] for beside, found in percentiles.items()} for n in (50, 99))
    print(f"| {HEALTHY} healthy targets, {len(measured[False]):,} commands each | p50 ms | p99 ms |")
    print("|---|---|---|")
    print(f"| alone | {p50[False]:.1f} | {p99[False]:.1f} |")
    print(f"| beside one that hangs with {FLOOD:,} due | {p50[True]:.1f} | {p99[True]:.1f} |")
    print(f"| ratio (p99: {RATIO_MAX} at the most) | {p50[True] / p50[False]:.2f} | {p99[True] / p99[False]:.2f} |")
    return p99[True] / p99[False]


async def main() -> None:
    set_up_logging("error")
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="connect-bench-"))
        server = await stack.enter_async_context(await EmbeddedPostgres.start(Path(folder) / "home"))
        await migrate(server.url)
        pool = await stack.enter_async_context(await open_pool(server.url))
        healthy = [await stack.enter_async_context(standing_in()) for _ in range(HEALTHY)]
        hanging = await stack.enter_async_context(standing_in())
        hanging.behave = hanging.hang
        targets = {f"healthy-{n}": target_at(one.url) for n, one in enumerate(healthy)}
        targets["hanging"] = target_at(hanging.url, timeout_s=HANGS_S)
        ratio = await compare(pool, targets)
    if ratio > RATIO_MAX:
        raise SystemExit(f"a target that hangs makes the p99 of healthy ones {ratio:.2f} times what it is alone")


if __name__ == "__main__":
    asyncio.run(main())
