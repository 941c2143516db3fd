"""Sums over what was recorded and given."""

from collections.abc import Sequence
from typing import Any

from connect.store.pool import Connection

GIVEN = """
SELECT rule_key, unit, count(*)::integer AS actions, sum(amount) AS amount,
    (count(*) FILTER (WHERE action.status = 'completed'))::integer AS completed,
    (count(*) FILTER (WHERE action.status = 'failed'))::integer AS failed
FROM reward_action AS action JOIN event ON event.id = action.event_id
WHERE event.source = $1 AND external_id = ANY($2) GROUP BY rule_key, unit
"""
RECORDED = """
SELECT count(*)::integer AS events, (count(*) FILTER (WHERE status = 'decided'))::integer AS decided
FROM event WHERE source = $1 AND external_id = ANY($2)
"""


async def given_by_rule(connection: Connection, source: str, external_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What each rule gave for these events: actions, amount, completed, failed."""
    return [dict(row) for row in await connection.fetch(GIVEN, source, external_ids)]


async def recorded(connection: Connection, source: str, external_ids: Sequence[str]) -> tuple[int, int]:
    """How many of these events are recorded, and how many of those are decided."""
    row = await connection.fetchrow(RECORDED, source, external_ids)
    return row["events"], row["decided"]
