"""How many updates of reward_action are HOT while 20,000 actions are claimed and settled by the store's functions."""

import time
from datetime import UTC, datetime
from typing import Any

from connect.model import ClaimedCommand, DispatchAttempt, Settlement
from connect.store.claims import LaneClaim, claim, settle
from connect.store.migrate import migrate
from connect.store.pool import open_pool
from tests.dispatch.stand_in import target_at

ACTIONS, SLOTS = 20_000, 20
ADD = """
INSERT INTO reward_action (id, event_id, rule_key, rule_version, effect_key, target, command, recipient_role, user_id,
    amount, unit, params, status, attempts, due_at, created_at, body)
SELECT gen_random_uuid(), gen_random_uuid(), 'r-' || n % 40, 1, 'e', 'wallet', 'credit', 'actor', 'u' || n % 5000, 1,
    'points', '{}', 'pending', 0, now() - interval '1 min', now() - interval '1 min', repeat('x', 350)
FROM generate_series(1, $1::integer) AS n
"""
UPDATES = """
SELECT n_tup_upd AS updated, n_tup_hot_upd AS hot, pg_relation_size(relid) AS rows, pg_indexes_size(relid) AS indexes
FROM pg_stat_user_tables WHERE relname = 'reward_action'
"""


def answered(command: ClaimedCommand) -> tuple[Settlement, DispatchAttempt]:
    now = datetime.now(UTC)
    settlement = Settlement(id=command.id, n=command.n, status="completed", retries=command.retries, completed_at=now)
    return settlement, DispatchAttempt(n=command.n, started_at=now, duration_ms=5, outcome="completed", status_code=200)


async def updates(connection: Any) -> Any:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return await connection.fetchrow(UPDATES)


async def main(url: str) -> None:
    await migrate(url)
    lane = {"wallet": LaneClaim(slots=SLOTS, target=target_at("http://127.0.0.1:1"))}
    async with await open_pool(url, size_max=1) as pool, pool.acquire() as connection:
        await connection.execute(ADD, ACTIONS)
        await connection.execute("VACUUM ANALYZE reward_action")
        before, begun = await updates(connection), time.monotonic()
        while commands := await claim(connection, lane):
            await settle(connection, [answered(command) for command in commands])
        took_s, after = time.monotonic() - begun, await updates(connection)
        updated, hot = after["updated"] - before["updated"], after["hot"] - before["hot"]
        print(f"| today | HOT of {updated:,} updates by claim and settle | {hot:,} ({hot / updated:.1%}) |")
        for part in ("rows", "indexes"):
            print(
                f"| today | bytes of {part} | {before[part] / 1e6:.1f} MB before | {after[part] / 1e6:.1f} MB after |"
            )
        print(f"| today | an action, claimed and settled {SLOTS} at a time | {took_s / ACTIONS * 1e6:.0f} us |")
