"""Sums over what was recorded and given."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from connect.store.pool import Connection

GIVEN = """
SELECT rule_key, unit,
    (count(*) FILTER (WHERE reverses IS NULL))::integer AS actions,
    coalesce(sum(amount) FILTER (WHERE reverses IS NULL), 0) AS amount,
    coalesce(sum(amount) FILTER (WHERE
        CASE WHEN reverses IS NULL THEN action.status = 'cancelled' ELSE action.status <> 'cancelled' END
    ), 0) AS taken_back,
    (count(*) FILTER (WHERE reverses IS NULL AND action.status = 'cancelled'))::integer AS cancelled,
    (count(*) FILTER (WHERE action.status = 'failed'))::integer AS failed,
    (count(*) FILTER (WHERE action.status NOT IN ('completed', 'failed', 'cancelled')))::integer AS open
FROM reward_action AS action JOIN event ON event.id = action.event_id
WHERE event.source = $1 AND external_id = ANY($2) GROUP BY rule_key, unit
"""
"""The amount taken back: the whole of an action that was never sent, which is cancelled; else what those that undo
it come to, which are cancelled themselves where there proved to be nothing to undo."""
RECORDED = """
SELECT count(*)::integer AS events, (count(*) FILTER (WHERE status = 'decided'))::integer AS decided,
    (count(*) FILTER (WHERE status = 'received'))::integer AS undecided
FROM event WHERE source = $1 AND external_id = ANY($2)
"""

LAST_OCCURRED = "SELECT max(occurred_at) FROM event WHERE source = $1"


async def given_by_rule(connection: Connection, source: str, external_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns what each rule gave for these events, what was taken back of it, and how many of both ended badly."""
    return [dict(row) for row in await connection.fetch(GIVEN, source, external_ids)]


async def recorded(connection: Connection, source: str, external_ids: Sequence[str]) -> tuple[int, int, int]:
    """How many of these events are recorded, and how many of those are decided, or are still to be."""
    row = await connection.fetchrow(RECORDED, source, external_ids)
    return row["events"], row["decided"], row["undecided"]


async def last_occurred(connection: Connection, source: str) -> datetime | None:
    """When the latest event of a source occurred; None where there is none."""
    return await connection.fetchval(LAST_OCCURRED, source)
