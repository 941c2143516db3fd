"""Does what people ask of actions, and gives back what that frees: limits and budgets follow in the same transaction.

Cancelling and rejecting take an action out of what its limits and budgets hold. Approving a reversal that waited for a
person takes its amount out then. Locks are taken as deciding takes them: state first, then actions.
"""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

from connect.engine.decide import keys_given_back
from connect.engine.decide.reversal import give_back
from connect.engine.index import Rulebook
from connect.engine.state import Memory
from connect.errors import CountChanged
from connect.model import Operation, RewardAction
from connect.store import operations, state
from connect.store.actions import ActionFilter, actions_of_events, lock_actions_of_events, read_action, release
from connect.store.events.rows import read_events
from connect.store.order import enter_again


async def operate(
    connection: Any, rulebook: Rulebook, operation: Operation, action_id: UUID, *, actor: str, note: str = ""
) -> RewardAction:
    """Does it to one action. Raises `NotFound`, and `NotAllowedNow` where the action's state forbids it."""
    async with claims_kept(connection, rulebook, [action_id] if operation != "retry" else []):
        action = await operations.operate(connection, operation, action_id, actor=actor, note=note)
        await operations.settle_claims(connection, [action_id])
        await enter_again(connection, [action_id])
    return await read_action(connection, action_id) or action


async def operate_all(
    connection: Any, rulebook: Rulebook, operation: Operation, filters: ActionFilter, *,
    expect: int, actor: str, note: str = "",
) -> int:  # fmt: skip
    """Does it to every action that matches and is in a state for it, all or none, and returns how many.

    Raises `CountChanged` when they are not `expect`, `Invalid` on an empty filter.
    """
    ids = await operations.operable(connection, operation, filters)
    if len(ids) != expect:
        raise CountChanged(
            f"{len(ids)} actions match now and {expect} were expected: nothing was changed; count again (dry_run)",
            extra={"matched": len(ids)},
        )
    async with claims_kept(connection, rulebook, ids if operation != "retry" else []):
        matched = await operations.operate_all(
            connection, operation, filters, only=ids, expect=expect, actor=actor, note=note
        )
        await operations.settle_claims(connection, ids)
        await enter_again(connection, ids)
    return matched


async def operate_step(connection: Any, rulebook: Rulebook, operation: Operation, action_ids: Sequence[UUID]) -> int:
    """Does it to those of a job's step that are still in a state for it, and returns how many."""
    async with claims_kept(connection, rulebook, action_ids if operation != "retry" else []):
        changed = await operations.operate_step(connection, operation, action_ids)
        await operations.settle_claims(connection, changed)
        await enter_again(connection, changed)
    return len(changed)


async def stop_pending(
    connection: Any, rulebook: Rulebook, key: str, pending: operations.Pending, *, by: str, note: str = ""
) -> int:
    """Settles what becomes of a stopped rule's actions that were never sent, and returns how many changed."""
    ids = await operations.unsent(connection, key, pending)
    async with claims_kept(connection, rulebook, ids):
        return await operations.stop_rule(connection, key, pending, by=by, note=note)


@contextlib.asynccontextmanager
async def claims_kept(connection: Any, rulebook: Rulebook, action_ids: Sequence[UUID]) -> AsyncGenerator[None]:
    """A transaction at whose end limits and budgets hold what the live actions come to, whatever was done to these."""
    async with connection.transaction():
        events = await read_events(connection, await operations.events_behind(connection, action_ids))
        given = await actions_of_events(connection, sorted(events))
        keys = {key for found, event in events.items() for key in keys_given_back(rulebook, event, given[found])}
        locked = await state.lock(connection, keys)
        memory = Memory({key: row.stored for key, row in locked.items()})
        before = await lock_actions_of_events(connection, sorted(events))
        yield
        after = await actions_of_events(connection, sorted(events))
        for found, event in events.items():
            then, now = _by_id(before[found]), _by_id(after[found])
            shared = sorted(then.keys() & now.keys())
            give_back(rulebook, memory, event, [then[one] for one in shared], [now[one] for one in shared])
        await state.save(connection, memory.changes(), set())
        await release(connection, action_ids)


def _by_id(actions: Sequence[RewardAction]) -> dict[UUID, RewardAction]:
    return {action.id: action for action in actions}
