"""Taking in a target's report: lock, judge, write. The judging is `lifecycle.report`."""

from uuid import UUID

import msgspec

from connect.dispatch.lifecycle import report
from connect.errors import NotFound, TargetMismatch
from connect.model import Disposition, ResultReport, RewardAction
from connect.store.actions import release
from connect.store.pool import Connection
from connect.store.results import end_action, keep_report, lock_action


async def report_result(
    connection: Connection, action_id: UUID, result: ResultReport, target_bound: str | None
) -> tuple[RewardAction, Disposition]:
    """Takes a report in, in a transaction of its own, and keeps it whatever it does to the action.

    `applied` and `repeated` are for a 200; `contradicted` and `refused` (never sent) for a 409. `target_bound` is the
    target the reporter's key is bound to. Raises `NotFound`, and `TargetMismatch` for another target's action.
    """
    async with connection.transaction():
        locked = await lock_action(connection, action_id)
        if locked is None:
            raise NotFound(f"there is no reward action {action_id}")
        action, now = locked
        if target_bound is not None and action.target != target_bound:
            raise TargetMismatch(
                f"this key reports results of target {target_bound!r}; action {action_id} is for {action.target!r}"
            )
        disposition, ending = report(action, result, now)
        await keep_report(connection, action_id, result, disposition)
        if ending is not None:
            action = await end_action(connection, action_id, **msgspec.structs.asdict(ending))
            await release(connection, [action_id])
        return action, disposition
