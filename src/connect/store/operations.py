"""Does what a person asks of actions: retry, cancel, approve, reject, one or all that match, or all of a stopped rule.

Each leaves an audit row: who (`actor`), the note, the filter and the count.

The guards say in SQL what `lifecycle.allowed` says in Python; a test holds the two together.
"""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

import msgspec

from connect.errors import CountChanged, Invalid, NotAllowedNow, NotFound
from connect.model import Operation, RewardAction
from connect.store.actions import ACTION_COLUMNS, ActionFilter, read_action, to_action, where
from connect.store.pool import Connection

GUARDS: dict[Operation, str] = {
    # What was taken back, or may be, is not sent again; where a person rejected the taking back, it may be.
    "retry": """status = 'failed' AND reversed = 0 AND NOT EXISTS (
        SELECT FROM reward_action AS undo WHERE undo.reverses = reward_action.id
            AND (undo.status <> 'cancelled' OR undo.last_error IS NOT NULL))""",
    "cancel": "(status = 'failed' OR (status = 'pending' AND attempts = 0))",
    # What its original no longer has is not taken back once more: something else took it meanwhile.
    "approve": """status = 'awaiting_approval' AND (reverses IS NULL OR frees_claim OR EXISTS (
        SELECT FROM reward_action AS original WHERE original.id = reward_action.reverses
            AND original.reversed + reward_action.amount <= original.amount))""",
    "reject": "status = 'awaiting_approval'",
}
CHANGES: dict[Operation, str] = {
    # The next sending is a new attempt under the same id, with a full measure of patience.
    "retry": "status = 'pending', failure = NULL, due_at = now(), retries = 0, give_up_at = NULL, completed_at = NULL",
    "cancel": "status = 'cancelled', failure = NULL, due_at = NULL, completed_at = now()",
    "approve": "status = 'pending', due_at = greatest(now(), hold_until)",
    "reject": "status = 'cancelled', completed_at = now()",
}
NEEDED: dict[Operation, str] = {
    "retry": "only a failed action that nothing takes back can be retried",
    "cancel": "only an action that was never sent, or one that failed, can be cancelled",
    "approve": "only an action that awaits approval can be approved, "
    "and a reversal while its original still has as much",
    "reject": "only an action that awaits approval can be rejected",
}

ONE = f"""
WITH changed AS (
    UPDATE reward_action SET {{change}} WHERE id = $1 AND {{guard}} RETURNING {ACTION_COLUMNS}
), audited AS (
    INSERT INTO audit (actor, verb, subject, note) SELECT $2, $3, 'action/' || id, $4 FROM changed
)
SELECT * FROM changed
"""

# Reversals of one original may each fit into what it has and not all together: as many go, by id, as fit.
TOGETHER: dict[Operation, str] = {
    "approve": """
        reward_action.reverses IS NULL OR reward_action.frees_claim OR (
            SELECT original.amount - original.reversed FROM reward_action AS original
            WHERE original.id = reward_action.reverses
        ) >= sum(amount) FILTER (WHERE NOT frees_claim) OVER (PARTITION BY reward_action.reverses ORDER BY id)""",
}
OPERABLE = """
SELECT id FROM (SELECT id, {together} AS fits FROM reward_action WHERE {guard} AND {condition}) AS matching
WHERE fits ORDER BY id
"""
EVENTS_BEHIND = """
SELECT DISTINCT coalesce(original.event_id, action.event_id) AS event_id
FROM reward_action AS action LEFT JOIN reward_action AS original ON original.id = action.reverses
WHERE action.id = ANY($1)
"""
# Approved reversals that waited: from now on their amount is out of what their originals hold.
FREE_CLAIMS = """
WITH approved AS (
    UPDATE reward_action SET frees_claim = true
    WHERE id = ANY($1) AND reverses IS NOT NULL AND NOT frees_claim AND status = 'pending'
    RETURNING reverses, amount
), freed AS (
    SELECT reverses AS id, sum(amount) AS amount FROM approved GROUP BY 1
)
UPDATE reward_action AS original SET reversed = least(original.amount, original.reversed + freed.amount)
FROM freed WHERE original.id = freed.id
"""
# Reversals that a person cancelled before they were sent: their originals hold the amount again.
KEEP_CLAIMS = """
WITH dropped AS (
    UPDATE reward_action SET frees_claim = false
    WHERE id = ANY($1) AND reverses IS NOT NULL AND frees_claim AND status = 'cancelled'
    RETURNING reverses, amount
), kept AS (
    SELECT reverses AS id, sum(amount) AS amount FROM dropped GROUP BY 1
)
UPDATE reward_action AS original SET reversed = greatest(0, original.reversed - kept.amount)
FROM kept WHERE original.id = kept.id AND original.status <> 'cancelled'
"""
# Never sent: it waits for its time, or behind others of its user. What is taken back goes on when its rule is stopped.
_UNSENT = """attempts = 0 AND reverses IS NULL
    AND (status = ANY('{{{statuses}}}') OR (status = 'blocked' AND lane_position IS NOT NULL))"""
UNSENT = "SELECT id FROM reward_action WHERE rule_key = $1 AND {unsent} ORDER BY id"

COUNT = f"SELECT count(*) FROM ({OPERABLE}) AS operable"

# Locked in the order of ids; nothing is changed unless the count is the expected one.
MANY = """
WITH locked AS MATERIALIZED (
    SELECT id, amount, reverses, frees_claim FROM reward_action
    WHERE id = ANY($6) AND {guard} AND {condition} ORDER BY id FOR UPDATE
), matched AS MATERIALIZED (
    SELECT id FROM (SELECT id, {together} AS fits FROM locked AS reward_action) AS matching WHERE fits
), counted AS MATERIALIZED (
    SELECT count(*) AS matched FROM matched
), changed AS (
    UPDATE reward_action SET {change}
    WHERE id = ANY(ARRAY(SELECT id FROM matched)) AND (SELECT matched FROM counted) = $1
), audited AS (
    INSERT INTO audit (actor, verb, subject, note, detail)
    SELECT $2, $3, 'actions', $4, $5 FROM counted WHERE matched = $1 AND matched > 0
)
SELECT matched FROM counted
"""

# Those of a job's step that are still in a state for it; the job's audit row tells of them.
STEP = """
WITH locked AS MATERIALIZED (
    SELECT id, amount, reverses, frees_claim FROM reward_action
    WHERE id = ANY($1) AND {guard} AND {condition} ORDER BY id FOR UPDATE
), matched AS MATERIALIZED (
    SELECT id FROM (SELECT id, {together} AS fits FROM locked AS reward_action) AS matching WHERE fits
)
UPDATE reward_action SET {change} WHERE id = ANY(ARRAY(SELECT id FROM matched)) RETURNING id
"""

Pending = Literal["keep", "review", "cancel"]
"""The fate of a stopped rule's actions that were never sent: nothing changes, a person approves each, none is sent."""

STOP_CHANGES: dict[Pending, str] = {
    "review": "status = 'awaiting_approval', due_at = NULL",
    "cancel": CHANGES["cancel"],
}
# What waits for a person's approval is not sent either: a cancel takes it along, so that nobody approves it later.
STOPPED: dict[Pending, str] = {
    "review": _UNSENT.format(statuses="pending"),
    "cancel": _UNSENT.format(statuses="pending,awaiting_approval"),
}
STOP = """
WITH changed AS (
    UPDATE reward_action SET {change} WHERE id = ANY(ARRAY(
        SELECT id FROM reward_action WHERE rule_key = $1 AND {unsent} ORDER BY id FOR UPDATE
    )) RETURNING id
), counted AS MATERIALIZED (
    SELECT count(*) AS changed FROM changed
), audited AS (
    INSERT INTO audit (actor, verb, subject, note, detail)
    SELECT $2, 'stop', 'rule/' || $1, $3, $4::jsonb || jsonb_build_object('count', changed) FROM counted
)
SELECT changed FROM counted
"""


async def operate(
    connection: Connection, operation: Operation, action_id: UUID, *, actor: str, note: str = ""
) -> RewardAction:
    """Does it to one action. Raises `NotFound`, and `NotAllowedNow` where the action's state forbids it."""
    query = ONE.format(change=CHANGES[operation], guard=GUARDS[operation])
    row = await connection.fetchrow(query, action_id, actor, operation, _checked(note))
    if row is not None:
        return to_action(row)
    action = await read_action(connection, action_id)
    if action is None:
        raise NotFound(f"there is no reward action {action_id}")
    raise NotAllowedNow(f"{NEEDED[operation]}; this one is {action.status} after {action.attempts} attempts")


async def count_operable(connection: Connection, operation: Operation, filters: ActionFilter) -> int:
    """How many actions match the filter and are in a state for it: what `operate_all` then expects."""
    condition, values = _condition(filters, first=1)
    return await connection.fetchval(_over(COUNT, operation, condition), *values)


async def operable(connection: Connection, operation: Operation, filters: ActionFilter) -> list[UUID]:
    """The actions that match the filter and are in a state for it. Raises `Invalid` on an empty filter."""
    condition, values = _condition(filters, first=1)
    rows = await connection.fetch(_over(OPERABLE, operation, condition), *values)
    return [row["id"] for row in rows]


async def events_behind(connection: Connection, action_ids: Sequence[UUID]) -> list[UUID]:
    """The events that gave these actions; of a reversal, the event that gave what it takes back."""
    return [row["event_id"] for row in await connection.fetch(EVENTS_BEHIND, list(action_ids))]


async def unsent(connection: Connection, rule_key: str, pending: Pending) -> list[UUID]:
    """The actions that stopping their rule changes."""
    if pending == "keep":
        return []
    return [row["id"] for row in await connection.fetch(UNSENT.format(unsent=STOPPED[pending]), rule_key)]


async def settle_claims(connection: Connection, action_ids: Sequence[UUID]) -> None:
    """Settles reversals among these: approved ones are out of what their originals hold, cancelled ones in it again."""
    await connection.execute(FREE_CLAIMS, list(action_ids))
    await connection.execute(KEEP_CLAIMS, list(action_ids))


async def operate_all(
    connection: Connection, operation: Operation, filters: ActionFilter, *, only: Sequence[UUID], expect: int,
    actor: str, note: str = "",
) -> int:  # fmt: skip
    """Does it to those of `only` that match and are in a state for it, all or none, and returns how many.

    Raises `CountChanged` when they are not `expect`, `Invalid` on an empty filter.
    """
    condition, values = _condition(filters, first=7)
    query = _over(MANY, operation, condition)
    detail: dict[str, Any] = {"count": expect, "filter": given(filters)}
    matched = await connection.fetchval(query, expect, actor, operation, _checked(note), detail, list(only), *values)
    if matched != expect:
        raise CountChanged(
            f"{matched} actions match now and {expect} were expected: nothing was changed; count again (dry_run)",
            extra={"matched": matched},
        )
    return matched


async def operate_step(connection: Connection, operation: Operation, action_ids: Sequence[UUID]) -> list[UUID]:
    """Does it to those that are in a state for it, and returns these. Writes no audit row."""
    rows = await connection.fetch(_over(STEP, operation, "true"), list(action_ids))
    return [row["id"] for row in rows]


async def stop_rule(connection: Connection, key: str, pending: Pending, *, by: str, note: str = "") -> int:
    """Settles what becomes of the rule's actions that were never sent, and returns how many changed.

    Publishing the rule as disabled is the caller's part; what is sent already takes its course.
    """
    if pending == "keep":
        return 0
    query = STOP.format(change=STOP_CHANGES[pending], unsent=STOPPED[pending])
    return await connection.fetchval(query, key, by, _checked(note), {"pending": pending})


def _over(query: str, operation: Operation, condition: str) -> str:
    return query.format(
        change=CHANGES[operation],
        guard=GUARDS[operation],
        together=TOGETHER.get(operation, "true"),
        condition=condition,
    )


def _condition(filters: ActionFilter, first: int) -> tuple[str, list[Any]]:
    if filters.is_empty:
        raise Invalid("an empty filter would match every action: name at least one field")
    return where(filters, first)


def given(filters: ActionFilter) -> dict[str, Any]:
    """The fields that a caller set, as the audit keeps them."""
    return {name: value for name, value in msgspec.to_builtins(filters).items() if value not in ([], None)}


def _checked(note: str) -> str:
    if "\0" in note:
        raise Invalid("a note cannot hold the character U+0000")
    return note
