"""Reward actions over HTTP: searched, operated by people, ended by their targets' reports."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Struct

from connect.api.auth import Caller
from connect.api.jobs import accepted, owner
from connect.api.wire import (
    AnyRequest,
    caller,
    check_limit,
    read_bulk,
    read_json,
    read_optional_json,
    read_query,
    responses,
    rulebook,
    runtime,
)
from connect.dispatch.operating import operate, operate_all
from connect.dispatch.results import report_result
from connect.errors import Invalid, Located, NotAllowedNow, NotFound
from connect.model import DispatchAttempt, Job, Operation, ResultReport, RewardAction
from connect.store.actions import ActionFilter, list_actions, read_action, read_attempts
from connect.store.events.rows import read_event
from connect.store.jobs import make_job
from connect.store.operations import count_operable, given, operable
from connect.store.page import LIMIT_DEFAULT, Page
from connect.telemetry import ACTIONS

READING = (401, 403, 404, 422, 429, 503)
WRITING = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
AT_ONCE_MAX = 1_000
"""More than these are done by a job."""
OPERATIONS: tuple[Operation, ...] = ("retry", "cancel", "approve", "reject")


class ActionQuery(ActionFilter, kw_only=True, frozen=True):
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None


class ActionDetail(RewardAction, kw_only=True, frozen=True):
    """An action with its sendings; `attempts` is their count, as everywhere."""

    attempt_log: list[DispatchAttempt]


class Note(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a person does it; kept in the audit."""

    note: str = ""


class Bulk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All matching actions: first `dry_run` for the count, then `expect` set to it."""

    filter: ActionFilter
    dry_run: bool = False
    expect: int | None = None
    note: str = ""


class BulkAnswer(Struct, kw_only=True):
    matched: int


def _own(filters: ActionFilter, by: Caller) -> ActionFilter:
    """A bound key sees the actions of its own source's events, and of its own target, only."""
    if by.source is not None:
        filters = msgspec.structs.replace(filters, source=[by.source])
    if by.target is not None:
        filters = msgspec.structs.replace(filters, target=[by.target])
    return filters


async def _find(request: AnyRequest, connection: Any, action_id: UUID) -> RewardAction:
    """Raises `NotFound`, for what the key is not to see too."""
    by = caller(request)
    action = await read_action(connection, action_id)
    hidden = action is None or (by.target is not None and action.target != by.target)
    if action is not None and not hidden and by.source is not None:
        event = await read_event(connection, action.event_id)
        hidden = event is None or event.source != by.source
    if action is None or hidden:
        raise NotFound(f"there is no reward action {action_id}")
    return action


@get(
    "/internal/reward-actions",
    opt={"scope": "actions:read", "query": ActionQuery, "answers": {200: Page[RewardAction]}},
    tags=["reward actions"],
    summary="List actions, newest first",
    responses=responses(400, *READING),
)
async def search_actions(request: AnyRequest) -> Response[Any]:
    query = read_query(request, ActionQuery)
    filters = _own(
        ActionFilter(**{name: getattr(query, name) for name in ActionFilter.__struct_fields__}), caller(request)
    )
    async with runtime(request).pool.acquire() as connection:
        return Response(await list_actions(connection, filters, limit=check_limit(query.limit), cursor=query.cursor))


@get(
    "/internal/reward-actions/{action_id:uuid}",
    opt={"scope": "actions:read"},
    tags=["reward actions"],
    summary="One action with its attempts",
    responses=responses(*READING),
)
async def show_action(request: AnyRequest, action_id: FromPath[UUID]) -> ActionDetail:
    async with runtime(request).pool.acquire() as connection:
        action = await _find(request, connection, action_id)
        attempts = await read_attempts(connection, action_id)
    return ActionDetail(**msgspec.structs.asdict(action), attempt_log=attempts)


@post(
    "/internal/reward-actions/{action_id:uuid}/result",
    opt={"scope": "results:write", "body": ResultReport},
    tags=["reward actions"],
    status_code=200,
    summary="A target reports what came of a command",
    responses=responses(*WRITING),
)
async def report(request: AnyRequest, action_id: FromPath[UUID]) -> RewardAction:
    """Late, early and repeated reports are taken; one that contradicts an earlier report is 409. All are kept."""
    result = await read_json(request, ResultReport)
    async with runtime(request).pool.acquire() as connection:
        if caller(request).source is not None:
            await _find(request, connection, action_id)
        action, disposition = await report_result(connection, action_id, result, caller(request).target)
    if disposition == "refused":
        raise NotAllowedNow(f"action {action_id} was never sent, so it has no result yet (it is {action.status})")
    if disposition == "contradicted":
        raise NotAllowedNow(
            f"action {action_id} already ended as {action.status}; this report says {result.status}; it is kept"
        )
    if disposition == "applied":
        ACTIONS.labels(action.target, action.status).inc()
    return action


@post(
    "/internal/reward-actions/{action_id:uuid}/{operation:str}",
    opt={"scope": "actions:operate", "optional_body": Note},
    tags=["reward actions"],
    status_code=200,
    summary="Retry, cancel, approve or reject one action",
    responses=responses(*WRITING),
)
async def operate_one(request: AnyRequest, action_id: FromPath[UUID], operation: FromPath[str]) -> RewardAction:
    known = _operation(operation)
    order = await read_optional_json(request, Note)
    async with runtime(request).pool.acquire() as connection:
        await _find(request, connection, action_id)
        return await operate(
            connection, rulebook(request), known, action_id, actor=caller(request).name, note=order.note
        )


@post(
    "/internal/reward-actions/{operation:str}",
    opt={"scope": "actions:operate", "body": Bulk, "answers": {200: BulkAnswer, 202: Job}},
    tags=["reward actions"],
    status_code=200,
    summary="Retry, cancel, approve or reject all matching actions",
    responses=responses(*WRITING),
)
async def operate_many(request: AnyRequest, operation: FromPath[str]) -> Response[Any]:
    """With `dry_run` only the count; then with `expect` set to it: another count is 409 and nothing is done.

    Over 1,000 are a job: 202, and `Location` names it.
    """
    known = _operation(operation)
    order = await read_bulk(request, Bulk)
    if order.filter.is_empty:
        raise Invalid(
            "an empty filter would match every action: name at least one field",
            errors=[Located("#/filter", "is empty")],
        )
    filters = _own(order.filter, caller(request))
    async with runtime(request).pool.acquire() as connection:
        if order.dry_run:
            return Response(BulkAnswer(matched=await count_operable(connection, known, filters)))
        if order.expect is None:
            raise Invalid(
                "say how many you expect: the count a dry run gave", errors=[Located("#/expect", "is missing")]
            )
        by = caller(request)
        if order.expect > AT_ONCE_MAX:
            ids = await operable(connection, known, filters)
            if len(ids) == order.expect:
                task = {"operation": known, "note": order.note}
                return accepted(await make_job(connection, "actions", ids, task, owner(by), given(filters)))
        matched = await operate_all(
            connection, rulebook(request), known, filters, expect=order.expect, actor=by.name, note=order.note
        )
    return Response(BulkAnswer(matched=matched))


def _operation(text: str) -> Operation:
    if text not in OPERATIONS:
        raise NotFound(f"an action can be {', '.join(OPERATIONS)}; there is no {text!r}")
    return text


ROUTES = [search_actions, show_action, report, operate_one, operate_many]
