"""What a person does to actions: retry, cancel, approve, reject, one or all that match, or all of a stopped rule.

Each leaves an audit row: who (`actor`), the note, the filter and the count.

The guards say in SQL what `dispatch.lifecycle.allowed` says in Python; a test holds the two together.
"""

from typing import Any, Literal
from uuid import UUID

import msgspec

from connect.errors import CountChanged, Invalid, NotAllowedNow, NotFound
from connect.model import Operation, RewardAction
from connect.store.actions import ACTION_COLUMNS, ActionFilter, read_action, to_action, where
from connect.store.pool import Connection

GUARDS: dict[Operation, str] = {
    "retry": "status = 'failed'",
    "cancel": "(status = 'failed' OR (status = 'pending' AND attempts = 0))",
    "approve": "status = 'awaiting_approval'",
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
    "retry": "only a failed action can be retried",
    "cancel": "only an action that was never sent, or one that failed, can be cancelled",
    "approve": "only an action that awaits approval can be approved",
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

COUNT = "SELECT count(*) FROM reward_action WHERE {guard} AND {condition}"

# Locked in the order of ids; nothing is changed unless the count is the expected one.
MANY = """
WITH matched AS MATERIALIZED (
    SELECT id FROM reward_action WHERE {guard} AND {condition} ORDER BY id FOR UPDATE
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

Pending = Literal["keep", "review", "cancel"]
"""What becomes of a stopped rule's actions that were never sent: nothing, a person approves each, none is sent."""

STOP_CHANGES: dict[Pending, str] = {
    "review": "status = 'awaiting_approval', due_at = NULL",
    "cancel": CHANGES["cancel"],
}
STOP = """
WITH changed AS (
    UPDATE reward_action SET {change} WHERE id = ANY(ARRAY(
        SELECT id FROM reward_action WHERE rule_key = $1 AND status = 'pending' AND attempts = 0 ORDER BY id FOR UPDATE
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
    return await connection.fetchval(COUNT.format(guard=GUARDS[operation], condition=condition), *values)


async def operate_all(
    connection: Connection, operation: Operation, filters: ActionFilter, *, expect: int, actor: str, note: str = ""
) -> int:
    """Does it to every action that matches and is in a state for it, all or none, and returns how many.

    Raises `CountChanged` when they are not `expect`, `Invalid` on an empty filter.
    """
    condition, values = _condition(filters, first=6)
    query = MANY.format(change=CHANGES[operation], guard=GUARDS[operation], condition=condition)
    detail: dict[str, Any] = {"count": expect, "filter": _given(filters)}
    matched = await connection.fetchval(query, expect, actor, operation, _checked(note), detail, *values)
    if matched != expect:
        raise CountChanged(
            f"{matched} actions match now and {expect} were expected: nothing was changed; count again (dry_run)",
            extra={"matched": matched},
        )
    return matched


async def stop_rule(connection: Connection, key: str, pending: Pending, *, by: str, note: str = "") -> int:
    """Settles what becomes of the rule's actions that were never sent, and returns how many changed.

    Publishing the rule as disabled is the caller's part; what is sent already takes its course.
    """
    if pending == "keep":
        return 0
    query = STOP.format(change=STOP_CHANGES[pending])
    return await connection.fetchval(query, key, by, _checked(note), {"pending": pending})


def _condition(filters: ActionFilter, first: int) -> tuple[str, list[Any]]:
    if filters.is_empty:
        raise Invalid("an empty filter would match every action: name at least one field")
    return where(filters, first)


def _given(filters: ActionFilter) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(filters).items() if value not in ([], None)}


def _checked(note: str) -> str:
    if "\0" in note:
        raise Invalid("a note cannot hold the character U+0000")
    return note
