"""Dead events over HTTP: what a bus brought and could not be recorded, mended and replayed."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get, patch, post
from litestar.params import FromPath
from msgspec import Struct

from connect.api.actions import WRITING
from connect.api.wire import AnyRequest, caller, check_limit, read_json, read_query, responses, runtime
from connect.dispatch.results import take_result
from connect.errors import Conflict, ConnectError, Invalid, Located, SourceMismatch, TargetMismatch
from connect.intake.bus import Message
from connect.intake.bus.event_sink import terms_of
from connect.intake.bus.reading import read_message
from connect.intake.normalize import Terms
from connect.model import DeadEvent
from connect.store import dead_letters as dead
from connect.store.dead_letters import DeadFilter
from connect.store.page import LIMIT_DEFAULT, Page


class DeadQuery(DeadFilter, kw_only=True, frozen=True):
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None


class Mend(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another content: `event` as JSON, or `body` as text, and the attributes where those are at fault."""

    event: dict[str, Any] | None = None
    body: str | None = None
    attributes: dict[str, str] | None = None
    note: str = ""


@get(
    "/internal/dead-events",
    opt={"scope": "events:read", "query": DeadQuery, "answers": {200: Page[DeadEvent]}},
    tags=["dead events"],
    summary="List dead events, newest first",
    responses=responses(400, 401, 403, 422, 429, 503),
)
async def list_dead_events(request: AnyRequest) -> Response[Any]:
    """Messages of a bus that were refused. With `replayed=true` those that were dealt with."""
    _unbound(request)
    query = read_query(request, DeadQuery)
    filters = DeadFilter(bus=query.bus, code=query.code, replayed=query.replayed)
    async with runtime(request).pool.acquire() as connection:
        return Response(await dead.list_dead(connection, filters, limit=check_limit(query.limit), cursor=query.cursor))


@get(
    "/internal/dead-events/{dead_id:uuid}",
    opt={"scope": "events:read"},
    tags=["dead events"],
    summary="One dead event",
    responses=responses(401, 403, 404, 429, 503),
)
async def show_dead_event(request: AnyRequest, dead_id: FromPath[UUID]) -> DeadEvent:
    _unbound(request)
    async with runtime(request).pool.acquire() as connection:
        found, _ = await dead.read_dead(connection, dead_id)
    return found


@patch(
    "/internal/dead-events/{dead_id:uuid}",
    opt={"scope": "actions:operate", "body": Mend},
    tags=["dead events"],
    status_code=200,
    summary="Mend a dead event",
    responses=responses(*WRITING),
)
async def mend_dead_event(request: AnyRequest, dead_id: FromPath[UUID]) -> DeadEvent:
    """Gives it another content; a replay then takes that. Nothing is recorded yet."""
    _unbound(request)
    order = await read_json(request, Mend)
    if (order.event is None) == (order.body is None):
        raise Invalid("send one of `event` and `body`", errors=[Located("#", "needs event or body")])
    body = msgspec.json.encode(order.event) if order.body is None else order.body.encode("utf-8", "replace")
    async with runtime(request).pool.acquire() as connection, connection.transaction():
        found, _ = await dead.read_dead(connection, dead_id, lock=True)
        attributes = found.attributes if order.attributes is None else order.attributes
        mended = await dead.mend_dead(
            connection, dead_id, body, attributes, actor=caller(request).name, note=order.note
        )
        if mended is None:
            raise _dealt_with(found)
    return mended


@post(
    "/internal/dead-events/{dead_id:uuid}/replay",
    opt={"scope": "actions:operate"},
    tags=["dead events"],
    status_code=200,
    summary="Take a dead event in again",
    responses=responses(*WRITING),
)
async def replay_dead_event(request: AnyRequest, dead_id: FromPath[UUID]) -> DeadEvent:
    """Recorded once, whatever happened meanwhile. Refused again, it stays dead, with its new reason."""
    _unbound(request)
    run = runtime(request)
    async with run.pool.acquire() as connection:
        found, body = await dead.read_dead(connection, dead_id)
    if found.replayed_at is not None:
        raise _dealt_with(found)
    event_id, refusal = None, None
    try:
        if found.kind == "event":
            event_id = await _record(request, found, body)
        else:
            async with run.pool.acquire() as connection:
                refusal = await take_result(connection, found.bus, body)
    except ConnectError as error:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        refusal = error
    async with run.pool.acquire() as connection, connection.transaction():
        if refusal is None:
            return await dead.mark_replayed(connection, dead_id, event_id, actor=caller(request).name)
        await dead.mark_still_dead(connection, dead_id, refusal)
    raise refusal


async def _record(request: AnyRequest, found: DeadEvent, body: bytes) -> UUID:
    """Raises what refuses it."""
    run = runtime(request)
    bus = run.settings.bus.get(found.bus)
    terms = terms_of(bus, run.settings) if bus is not None else Terms()
    normal = read_message(Message(body, found.attributes), terms, run.sources, datetime.now(UTC))
    [answer] = await run.recorder.submit([normal], run.settings.processing)
    if isinstance(answer, ConnectError):
        raise answer
    return answer.event.id


def _dealt_with(found: DeadEvent) -> Conflict:
    became = f", as event {found.event_id}" if found.event_id else ""
    return Conflict(f"dead event {found.id} was replayed at {found.replayed_at}{became}")


def _unbound(request: AnyRequest) -> None:
    """Refuses a key bound to a source or a target: a refused message has no certain one of either."""
    by = caller(request)
    if by.source is not None:
        raise SourceMismatch(f"this key is bound to source {by.source!r}; dead events need one that is not")
    if by.target is not None:
        raise TargetMismatch(f"this key is bound to target {by.target!r}; dead events need one that is not")


ROUTES: list[Any] = [list_dead_events, show_dead_event, mend_dead_event, replay_dead_event]
