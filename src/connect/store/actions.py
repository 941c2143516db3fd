"""Reward actions: rows made at deciding, read and searched by people."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from connect.model import ActionStatus, DispatchAttempt, Failure, RewardAction, TakenBack, ZonedTime
from connect.store import order
from connect.store.page import Page, page
from connect.store.pool import Connection

ACTION_COLUMNS = ", ".join(RewardAction.__struct_fields__)

ACTIONS_OF_EVENTS = f"SELECT {ACTION_COLUMNS} FROM reward_action WHERE event_id = ANY($1) ORDER BY created_at, id"
LOCK_ACTIONS_OF_EVENTS = f"""
SELECT {ACTION_COLUMNS} FROM reward_action WHERE event_id = ANY($1) ORDER BY id FOR UPDATE
"""
LOCK_ACTIONS = "SELECT FROM reward_action WHERE id = ANY($1) ORDER BY id FOR UPDATE"
TAKE_BACK = """
UPDATE reward_action AS action SET
    reversed = taken.reversed,
    status = CASE WHEN taken.cancel THEN 'cancelled' ELSE action.status END,
    due_at = CASE WHEN taken.cancel THEN NULL ELSE action.due_at END,
    completed_at = CASE WHEN taken.cancel THEN now() ELSE action.completed_at END
FROM unnest($1::uuid[], $2::numeric[], $3::boolean[]) AS taken (id, reversed, cancel)
WHERE action.id = taken.id
"""
# A reversal that waits goes on as the end of its original decides: an undo of what had effect, a person's matter where
# nobody knows or the terms say so, nothing where there was no effect.
RELEASE = """
UPDATE reward_action AS undo SET
    status = CASE WHEN NOT {effect} THEN 'cancelled' WHEN {review} THEN 'awaiting_approval' ELSE 'pending' END,
    due_at = CASE WHEN {effect} AND NOT {review} THEN now() END,
    completed_at = CASE WHEN NOT {effect} THEN now() END,
    last_error = CASE WHEN NOT {effect} THEN 'nothing to take back: the original had no effect' END
FROM reward_action AS original
WHERE undo.reverses = original.id AND original.id = ANY($1) AND original.status IN ('completed', 'failed', 'cancelled')
    AND ((undo.status = 'blocked' AND undo.lane_position IS NULL)
        OR (undo.status = 'awaiting_approval' AND NOT {effect}))
RETURNING undo.id
""".format(
    effect="(original.status = 'completed' OR original.failure IS NOT DISTINCT FROM 'exhausted')",
    review="(original.status <> 'completed' OR undo.command = 'reverse' "
    "OR original.reversal ->> 'after_completion' = 'review')",
)
CASCADES = f"""
SELECT {", ".join(f"action.{name}" for name in RewardAction.__struct_fields__)}, event.state -> 'counters' AS counters,
    EXISTS (SELECT FROM reward_action AS undo WHERE undo.reverses = action.id AND NOT undo.frees_claim) AS is_reversed
FROM event JOIN reward_action AS action ON action.event_id = event.id
WHERE action.rule_key = ANY($1) AND action.reverses IS NULL AND action.status <> 'cancelled' AND (
    event.actor_user_id = ANY($2) OR event.primary_subject_user_id = ANY($2)
    OR (event.parties <> '{{}}' AND EXISTS (
        SELECT FROM jsonb_path_query(event.parties, '$.*[*]') AS party WHERE party #>> '{{}}' = ANY($2))))
ORDER BY action.id
"""
ACTION = f"SELECT {ACTION_COLUMNS} FROM reward_action WHERE id = $1"
ATTEMPTS = """
SELECT n, started_at, duration_ms, outcome, status_code, error, excerpt
FROM dispatch_attempt WHERE action_id = $1 ORDER BY n
"""
GIVEN_RULES = """
SELECT event_id, array_agg(DISTINCT rule_key) AS keys FROM reward_action
WHERE event_id = ANY($1) AND reverses IS NULL GROUP BY 1
"""


class ActionFilter(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which actions: every given field must match; within a field any of its values."""

    status: list[ActionStatus] = []
    target: list[str] = []
    rule: list[str] = []
    user_id: list[str] = []
    event_id: list[UUID] = []
    failure: list[Failure] = []
    source: list[str] = []
    since: ZonedTime | None = None
    until: ZonedTime | None = None
    """Half-open on `created_at`."""
    failed_since: ZonedTime | None = None
    """Only failed ones, by when they ended."""

    @property
    def is_empty(self) -> bool:
        return self == ActionFilter()


FILTERS = {
    "status": "status = ANY(${n}::text[])",
    "target": "target = ANY(${n}::text[])",
    "rule": "rule_key = ANY(${n}::text[])",
    "user_id": "user_id = ANY(${n}::text[])",
    "event_id": "event_id = ANY(${n}::uuid[])",
    "failure": "failure = ANY(${n}::text[])",
    "source": "event_id IN (SELECT id FROM event WHERE source = ANY(${n}::text[]))",
    "since": "created_at >= ${n}",
    "until": "created_at < ${n}",
    "failed_since": "status = 'failed' AND completed_at >= ${n}",
}


def where(filters: ActionFilter, first: int = 1) -> tuple[str, list[Any]]:
    """A condition on reward_action whose parameters start at `$first`, and their values."""
    given = {name: value for name in FILTERS if (value := getattr(filters, name)) not in ([], None)}
    clauses = [FILTERS[name].replace("{n}", str(first + index)) for index, name in enumerate(given)]
    return " AND ".join(clauses) or "true", list(given.values())


def to_action(row: Any) -> RewardAction:
    return msgspec.convert(dict(row), RewardAction, strict=True)


async def actions_of_events(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, list[RewardAction]]:
    """Every event id of `event_ids` is a key; one without actions has an empty list."""
    actions: dict[UUID, list[RewardAction]] = {event_id: [] for event_id in event_ids}
    for row in await connection.fetch(ACTIONS_OF_EVENTS, list(actions)):
        actions[row["event_id"]].append(to_action(row))
    return actions


async def lock_actions_of_events(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, list[RewardAction]]:
    """As `actions_of_events`; no process claims, settles or changes them before the transaction ends."""
    actions: dict[UUID, list[RewardAction]] = {event_id: [] for event_id in event_ids}
    for row in await connection.fetch(LOCK_ACTIONS_OF_EVENTS, list(actions)):
        actions[row["event_id"]].append(to_action(row))
    return actions


async def lock_actions(connection: Connection, ids: Sequence[UUID]) -> None:
    """In the order of ids, so that who locks several waits for others and never in a circle."""
    await connection.execute(LOCK_ACTIONS, list(ids))


async def read_cascades(
    connection: Connection, rules: Sequence[str], users: Sequence[str]
) -> list[tuple[RewardAction, dict[str, Any], bool]]:
    """Live actions of these rules in events that name these users, with the counters read, and whether reversed."""
    found: list[tuple[RewardAction, dict[str, Any], bool]] = []
    for row in await connection.fetch(CASCADES, list(rules), list(users)):
        columns = dict(row)
        counters, is_reversed = columns.pop("counters"), columns.pop("is_reversed")
        found.append((to_action(columns), counters or {}, is_reversed))
    return found


async def take_back(connection: Connection, taken: Sequence[TakenBack]) -> None:
    """Carries out what decisions do to actions that stood before them; reversals of cancelled ones end with them."""
    if not taken:
        return
    rows = sorted(taken, key=lambda one: one.action_id)
    ids = [one.action_id for one in rows]
    await connection.execute(TAKE_BACK, ids, [one.reversed for one in rows], [one.cancel for one in rows])
    await release(connection, ids)


async def release(connection: Connection, ended: Sequence[UUID]) -> None:
    """Lets go on what waited for the end of these actions: their reversals, and who is behind them in order."""
    async with connection.transaction():
        released = [row["id"] for row in await connection.fetch(RELEASE, list(ended))]
        if released:
            await order.enter_again(connection, released)
        await order.leave(connection, ended)


async def given_rules(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, frozenset[str]]:
    """Rule keys that already gave for each event, in any version: a replay skips them."""
    return {row["event_id"]: frozenset(row["keys"]) for row in await connection.fetch(GIVEN_RULES, list(event_ids))}


async def read_action(connection: Connection, action_id: UUID) -> RewardAction | None:
    row = await connection.fetchrow(ACTION, action_id)
    return to_action(row) if row else None


async def read_attempts(connection: Connection, action_id: UUID) -> list[DispatchAttempt]:
    return [msgspec.convert(dict(row), DispatchAttempt) for row in await connection.fetch(ATTEMPTS, action_id)]


async def list_actions(
    connection: Connection, filters: ActionFilter, *, limit: int, cursor: str | None
) -> Page[RewardAction]:
    condition, values = where(filters)
    return await page(
        connection,
        "reward_action",
        ACTION_COLUMNS,
        to_action,
        condition,
        values,
        order_by="created_at",
        limit=limit,
        cursor=cursor,
    )
