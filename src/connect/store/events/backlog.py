"""The backlog: events that wait to be decided, and decisions of stored events."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from connect.model import EconomicEvent, RewardAction
from connect.store.events.fence import FENCE, refuse_outdated
from connect.store.events.rows import (
    ACTION_LIST,
    ACTION_ROW,
    EVENT_COLUMNS,
    action_rows,
    to_event,
)
from connect.store.order import enter
from connect.store.pool import Connection, RawJson

TRIES_MAX = 5
"""Tries at deciding before an event is `failed`; each is counted before it begins."""

DECIDE_LEASE_S = 30
"""A worker that claimed an event for deciding and died gives it back after this long."""

CLAIM_TO_DECIDE = f"""
UPDATE event SET tries = tries + 1, decide_at = now() + make_interval(secs => {DECIDE_LEASE_S})
WHERE id = ANY(ARRAY(
    SELECT id FROM event WHERE decide_at <= now() AND tries < {TRIES_MAX} AND (tries = 0) = $2
    ORDER BY decide_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING {EVENT_COLUMNS}, fingerprint
"""

FAIL_EXHAUSTED = f"""
UPDATE event SET status = 'failed', decide_at = NULL,
    failure = coalesce(failure, 'deciding it ended its worker each time')
WHERE id = ANY(ARRAY(
    SELECT id FROM event WHERE decide_at <= now() AND tries >= {TRIES_MAX} LIMIT 500 FOR UPDATE SKIP LOCKED))
RETURNING id, source, external_id, failure
"""

GIVE_BACK = """
UPDATE event SET decide_at = now() + make_interval(secs => $2), failure = $3,
    tries = CASE WHEN $4 THEN greatest(tries - 1, 0) ELSE tries END
WHERE id = ANY($1) AND status = 'received'
"""

SAVE_DECISIONS = f"""
WITH decided AS (
    UPDATE event SET status = 'decided', ruleset_version = d.ruleset_version, decided_at = d.decided_at,
        trace = d.trace, state = d.state, decide_at = NULL, failure = NULL
    FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::json[], $7::jsonb[])
        AS d (id, ruleset_version, decided_at, trace, state)
    WHERE event.id = d.id AND (event.status = 'received' OR $6) AND {FENCE.format(version="d.ruleset_version")}
    RETURNING event.id
), owed AS (
    INSERT INTO reward_action ({ACTION_LIST})
    SELECT {ACTION_LIST} FROM jsonb_to_recordset($5::jsonb) AS action ({ACTION_ROW})
    WHERE event_id IN (SELECT id FROM decided) OR reverses IS NOT NULL
    ON CONFLICT (id) DO NOTHING
)
SELECT id FROM decided
"""

LOCK_FOR_REPLAY = f"SELECT {EVENT_COLUMNS} FROM event WHERE id = ANY($1) ORDER BY id FOR UPDATE"

LOCK_TO_DECIDE = "SELECT id FROM event WHERE id = ANY($1) AND status = 'received' ORDER BY id FOR UPDATE SKIP LOCKED"


async def claim_to_decide(connection: Connection, count: int, *, fresh: bool) -> list[EconomicEvent]:
    """Takes undecided events in order of receipt and counts the try.

    `fresh` ones were never tried; the others may have ended their worker and are to be taken one at a time.
    """
    rows = await connection.fetch(CLAIM_TO_DECIDE, count, fresh)
    return sorted((to_event(row) for row in rows), key=lambda event: (event.received_at, event.id))


async def fail_exhausted(connection: Connection) -> list[dict[str, Any]]:
    """Ends events whose last try is over: they wait for a person's replay."""
    return [dict(row) for row in await connection.fetch(FAIL_EXHAUSTED)]


async def give_back(
    connection: Connection, event_ids: Sequence[UUID], *, after_s: float, failure: str | None, uncount: bool = False
) -> None:
    """Returns claimed events to the queue. `uncount`: the try was not the event's fault (a lock, a lost database)."""
    await connection.execute(GIVE_BACK, list(event_ids), after_s, failure, uncount)


class DecidedRow(Struct, frozen=True):
    """Holds what deciding a stored event gave."""

    event_id: UUID
    ruleset_version: int
    decided_at: datetime
    trace: str
    state: str | None
    actions: Sequence[tuple[RewardAction, str]]


async def save_decisions(
    connection: Connection, decided: Sequence[DecidedRow], *, again: bool = False, in_order: Collection[str] = ()
) -> set[UUID]:
    """Stores decisions with their actions; returns the ids that this call decided. In a transaction of the caller's.

    Events decided meanwhile by another process are left alone, unless `again` (a replay, which holds their rows).
    Raises `Outdated` where rules that are no longer live decided them.
    """
    rows = await connection.fetch(
        SAVE_DECISIONS,
        [row.event_id for row in decided],
        [row.ruleset_version for row in decided],
        [row.decided_at for row in decided],
        [RawJson(row.trace) for row in decided],
        action_rows([action for row in decided for action in row.actions]),
        again,
        [None if row.state is None else RawJson(row.state) for row in decided],
    )
    saved = {row["id"] for row in rows}
    if len(saved) < len(decided):
        await refuse_outdated(connection, [row.ruleset_version for row in decided])
    owed = [action for row in decided if row.event_id in saved for action, _ in row.actions]
    if placed := [action.id for action in owed if action.target in in_order]:
        await enter(connection, placed, in_order)
    return saved


async def lock_to_decide(connection: Connection, event_ids: Sequence[UUID]) -> set[UUID]:
    """Locks, of these events, those that still wait to be decided and that nobody else is deciding."""
    return {row["id"] for row in await connection.fetch(LOCK_TO_DECIDE, list(event_ids))}


async def lock_for_replay(connection: Connection, event_ids: Sequence[UUID]) -> list[EconomicEvent]:
    return [to_event(row) for row in await connection.fetch(LOCK_FOR_REPLAY, list(event_ids))]
