"""Recounting looks at a bounded number of rows however many there are: `doctor` must not slow down what it looks at."""

from typing import Any

from connect.store.health import wrong_state
from connect.store.recount import EVENTS_READ_MAX
from tests.intake.rule_model import intake_on
from tests.store.test_schema import EVENTS

RULES = """
version: 1
counters:
  seen: { event_type: type-7, of: actor, kind: count }
"""
WRONG = """
INSERT INTO state (key, value) SELECT 'counter|' || id || '|||u' || n, 5001 FROM counter, generate_series(0, $1) AS n
"""
OF_FORTY = (
    EVENTS.replace("n % 5000", "n % 40").replace("'type-' || n % 50", "'type-7'").replace("n % 10 ", "0 * n + 1 ")
)
"""50,000 decided events of 40 users."""
PAGES = "SELECT pg_relation_size('state') / current_setting('block_size')::integer"
READ = """
SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_user_tables WHERE relname = 'state'
"""


async def blocks_read(connection: Any) -> int:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return await connection.fetchval(READ)


async def test_a_part_of_what_rules_remember_is_read_where_it_is_much(pool: Any) -> None:
    async with intake_on(pool, RULES), pool.acquire() as connection:
        await connection.execute(WRONG, 200_000)
        before = await blocks_read(connection)
        _, counters = await wrong_state(connection)
        read = await blocks_read(connection) - before
        assert len(counters) > 100
        assert read < await connection.fetchval(PAGES) / 2


async def test_a_recount_ends_after_so_many_events_and_says_what_it_found_until_then(pool: Any) -> None:
    async with intake_on(pool, RULES), pool.acquire() as connection:
        await connection.execute(OF_FORTY)
        await connection.execute(WRONG, 39)
        _, counters = await wrong_state(connection)
        of_each = 50_000 // 40
        assert len(counters) == EVENTS_READ_MAX // of_each
