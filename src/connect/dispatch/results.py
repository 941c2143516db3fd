"""Taking in a target's report: lock, judge, write. The judging is `lifecycle.report`."""

from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec

from connect.errors import Conflict, ConnectError, Invalid, Located, NotFound, TargetMismatch
from connect.lifecycle import report
from connect.model import Disposition, ResultReport, RewardAction
from connect.store.actions import release
from connect.store.pool import Connection
from connect.store.results import end_action, keep_report, lock_action
from connect.telemetry import ACTIONS


class ResultMessage(ResultReport, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A result as a queue brings it: it says itself which action it is about."""

    action_id: UUID

    @property
    def report(self) -> ResultReport:
        return ResultReport(status=self.status, reference=self.reference, reason=self.reason)


class _Message(Protocol):
    @property
    def body(self) -> bytes: ...


class ResultMessages:
    """Takes messages of one target's results queue in."""

    def __init__(self, pool: Any, target: str) -> None:
        self._pool, self._target = pool, target

    async def take(self, messages: Sequence[_Message]) -> list[ConnectError | None]:
        """For each message None where it did something or said what was known, or why it is refused for good."""
        async with self._pool.acquire() as connection:
            return [await take_result(connection, self._target, message.body) for message in messages]


async def take_result(connection: Connection, target: str, body: bytes) -> ConnectError | None:
    """Takes one result of a target in; why it is refused, where it is. Raises what the database raises."""
    try:
        said = decode_result(body)
        action, disposition = await report_result(connection, said.action_id, said.report, target)
    except (Invalid, NotFound, TargetMismatch) as error:
        return error
    if disposition == "applied":
        ACTIONS.labels(action.target, action.status).inc()
    if disposition in ("applied", "repeated"):
        return None
    return Conflict(f"action {action.id} is {action.status}: a report of `{said.status}` contradicts it")


def decode_result(body: bytes) -> ResultMessage:
    """Raises `Invalid` that says where and what."""
    try:
        return msgspec.json.decode(body, type=ResultMessage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        sentence = f"the message is no result of the form {{action_id, status, reference, reason}}: {error}"
        raise Invalid(sentence, errors=[Located("#", str(error))]) from error


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
