"""Facts over HTTP: reported singly, in batches and as CloudEvents; read, explained, decided again."""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import UNSET, Struct, UnsetType

from connect.api.auth import Caller, require
from connect.api.problems import Problem, to_problem
from connect.api.wire import (
    BATCH_BODY_MAX,
    BODY_MAX,
    AnyRequest,
    caller,
    check_limit,
    media_type,
    prefers,
    read_body,
    read_bulk,
    read_query,
    responses,
    rulebook,
    runtime,
)
from connect.engine.explain import SpelledOut, spell_out
from connect.errors import (
    BodyTooLarge,
    ConnectError,
    CountChanged,
    Invalid,
    Located,
    MediaTypeRefused,
    NotFound,
    NotJson,
)
from connect.intake import cloudevents
from connect.intake.backlog import replay
from connect.intake.normalize import (
    NormalEvent,
    Terms,
    convert_reported,
    decode_any,
    decode_reported,
    given_id,
    normalize,
)
from connect.intake.record import Processing, Recorded
from connect.jsonvalue import is_array, is_object
from connect.model import EconomicEvent, Effects, Ruleset, Warning_
from connect.store.actions import actions_of_events
from connect.store.events import EventFilter, list_events, matching_events, read_event, read_trace
from connect.store.page import LIMIT_DEFAULT, Page
from connect.store.rules import read_version

BATCH_MAX = 1000
REPLAY_BATCH = 500
JSON = "application/json"
NDJSON = "application/x-ndjson"
RESPOND_ASYNC = "respond-async"
NOTHING_DONE = (400, 401, 403, 413, 415, 422, 429, 503)
"""What a report may be refused with. None of these burns the identity."""


class EventAnswer(Struct, kw_only=True):
    """What became of a reported fact; `actions` are absent while it is undecided (202)."""

    event: EconomicEvent
    actions: list[Any] | UnsetType = UNSET
    duplicate: bool
    warnings: list[Warning_] | UnsetType = UNSET


class BatchResult(Struct, kw_only=True):
    """One item's outcome; `error` says why an item was not recorded."""

    external_id: str | None
    status: str
    event_id: UUID | None = None
    actions: int = 0
    error: Problem | None = None


class BatchAnswer(Struct, kw_only=True):
    results: list[BatchResult]
    created: int = 0
    duplicate: int = 0
    conflict: int = 0
    invalid: int = 0
    unavailable: int = 0


REPORTED = {201: EventAnswer, 202: EventAnswer, 200: (EventAnswer, BatchAnswer)}
"""201 and 202: recorded now; 200: known already, or a batch of CloudEvents answered like a batch."""


class EventWithActions(Struct, kw_only=True):
    event: EconomicEvent
    actions: list[Any]


class TraceAnswer(Struct, kw_only=True):
    event_id: UUID
    ruleset_version: int | None
    rules: list[SpelledOut]
    failure: str | None = None


class EffectsQuery(Struct, kw_only=True, frozen=True):
    effects: Effects = "all"


class EventQuery(EventFilter, kw_only=True, frozen=True):
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None


class BulkReplay(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    filter: EventFilter
    dry_run: bool = False
    expect: int | None = None


Parsed = tuple[Any, dict[str, Any]]
"""A reported event and its extension attributes."""


@post(
    "/internal/events",
    opt={"scope": "events:write", "query": EffectsQuery, "events": "one", "answers": REPORTED},
    tags=["events"],
    summary="Report a fact",
    responses=responses(409, *NOTHING_DONE),
)
async def report_event(request: AnyRequest) -> Response[Any]:
    """Records the fact once and, inline, answers what it earned. CloudEvents in three forms are taken too."""
    kind = media_type(request)
    if kind == cloudevents.BATCHED:
        items = _items(await read_body(request, BATCH_BODY_MAX))
        return await _report_batch(request, [_guarded(cloudevents.from_structured, item) for item in items])
    normal = normalize_for(request, *await _read_one(request, kind))
    [answer] = await runtime(request).recorder.submit([normal], _processing(request))
    if isinstance(answer, ConnectError):
        raise answer
    return _reply(request, answer, asked_async=prefers(request, RESPOND_ASYNC))


@post(
    "/internal/events/batch",
    opt={"scope": "events:write", "query": EffectsQuery, "events": "many", "answers": {200: BatchAnswer}},
    tags=["events"],
    status_code=200,
    summary="Report up to 1,000 facts",
    responses=responses(*NOTHING_DONE),
)
async def report_batch(request: AnyRequest) -> Response[Any]:
    """An item never fails its neighbours; of two items of one identity the first is created."""
    kind = media_type(request)
    body = await read_body(request, BATCH_BODY_MAX)
    if kind == NDJSON:
        parsed = [_guarded(_from_line, line) for line in body.splitlines() if line.strip()]
    elif kind == cloudevents.BATCHED:
        parsed = [_guarded(cloudevents.from_structured, item) for item in _items(body)]
    elif kind == JSON:
        parsed = [_guarded(_from_document, item) for item in _items(body)]
    else:
        raise _wrong_media_type(kind, JSON, NDJSON, cloudevents.BATCHED)
    return await _report_batch(request, parsed)


async def _read_one(request: AnyRequest, kind: str) -> Parsed:
    body = await read_body(request, BODY_MAX)
    headers = request.headers
    if kind == cloudevents.STRUCTURED:
        return cloudevents.from_structured(decode_any(body))
    if kind != JSON and not (kind == "" and cloudevents.is_binary(headers)):
        raise _wrong_media_type(kind, JSON, cloudevents.STRUCTURED, cloudevents.BATCHED)
    if cloudevents.is_binary(headers):
        return cloudevents.from_binary(headers.items(), body)
    return decode_reported(body), {}


def _wrong_media_type(kind: str, *taken: str) -> MediaTypeRefused:
    return MediaTypeRefused(f"send Content-Type: {' or '.join(taken)}, not {kind or 'nothing'!r}")


def _items(body: bytes) -> list[Any]:
    document = decode_any(body)
    if is_object(document) and document.keys() == {"events"}:
        document = document["events"]
    if not is_array(document):
        raise Invalid('send an array of events, or {"events": [...]}', errors=[Located("#", "must be an array")])
    return document


def _from_line(line: bytes) -> Parsed:
    return decode_reported(line), {}


def _from_document(document: Any) -> Parsed:
    return convert_reported(document), {}


def _guarded(parse: Callable[[Any], Parsed], item: Any) -> Parsed | tuple[str | None, ConnectError]:
    """The parsed item, or what is wrong with it beside the external_id it claims."""
    try:
        return parse(item)
    except (NotJson, Invalid) as error:
        return given_id(item), error


async def _report_batch(request: AnyRequest, parsed: list[Any]) -> Response[Any]:
    if len(parsed) > BATCH_MAX:
        raise BodyTooLarge(f"a batch takes at most {BATCH_MAX} events, this one has {len(parsed)}")
    results: list[BatchResult | None] = [None] * len(parsed)
    taken: list[tuple[int, NormalEvent]] = []
    for index, (first, second) in enumerate(parsed):
        if isinstance(second, ConnectError):
            results[index] = BatchResult(external_id=first, status="invalid", error=to_problem(second))
            continue
        try:
            taken.append((index, normalize_for(request, first, second)))
        except ConnectError as error:
            results[index] = BatchResult(external_id=first.external_id, status="invalid", error=to_problem(error))
    answers = await runtime(request).recorder.submit([normal for _, normal in taken], _processing(request))
    for (index, normal), answer in zip(taken, answers, strict=True):
        results[index] = _batch_result(normal.event.external_id, answer)
    body = BatchAnswer(results=[result for result in results if result is not None])
    for result in body.results:
        setattr(body, result.status, getattr(body, result.status) + 1)
    return Response(body, status_code=HTTPStatus.OK)


def _batch_result(external_id: str, answer: Recorded | ConnectError) -> BatchResult:
    if isinstance(answer, Recorded):
        return BatchResult(
            external_id=external_id, status=answer.result, event_id=answer.event.id, actions=len(answer.actions)
        )
    status = {HTTPStatus.CONFLICT: "conflict", HTTPStatus.SERVICE_UNAVAILABLE: "unavailable"}.get(
        HTTPStatus(answer.status), "invalid"
    )
    event_id = answer.extra.get("event_id")
    return BatchResult(
        external_id=external_id,
        status=status,
        event_id=UUID(str(event_id)) if event_id else None,
        error=to_problem(answer),
    )


def normalize_for(request: AnyRequest, reported: Any, extensions: dict[str, Any]) -> NormalEvent:
    """The fact on its reporter's terms. Raises `SourceMismatch`, `InvalidEvent`, `ScopeMissing`."""
    settings = runtime(request).settings
    effects = read_query(request, EffectsQuery).effects
    if effects == "none":
        require(caller(request), "events:backfill")
    terms = Terms(
        bound_source=caller(request).source,
        effects=effects,
        age_max_days=settings.event_age_max_days,
        ahead_max_s=settings.event_ahead_max_s,
    )
    return normalize(reported, terms, datetime.now(UTC), extensions=extensions)


def _processing(request: AnyRequest) -> Processing:
    return "queued" if prefers(request, RESPOND_ASYNC) else runtime(request).settings.processing


def _reply(request: AnyRequest, answer: Recorded, *, asked_async: bool) -> Response[Any]:
    event = answer.event
    headers = {"Location": f"/internal/events/{event.id}"}
    if asked_async:
        headers["Preference-Applied"] = RESPOND_ASYNC
    if answer.result == "duplicate":
        body = EventAnswer(event=event, actions=list(answer.actions), duplicate=True, warnings=[])
        return Response(body, status_code=HTTPStatus.OK, headers=headers)
    if event.status == "received":
        return Response(EventAnswer(event=event, duplicate=False), status_code=HTTPStatus.ACCEPTED, headers=headers)
    body = EventAnswer(event=event, actions=list(answer.actions), duplicate=False, warnings=list(answer.warnings))
    return Response(body, status_code=HTTPStatus.CREATED, headers=headers)


@get(
    "/internal/events",
    opt={"scope": "events:read", "query": EventQuery, "answers": {200: Page[EconomicEvent]}},
    tags=["events"],
    summary="List facts, newest first",
    responses=responses(400, 401, 403, 422, 429, 503),
)
async def search_events(request: AnyRequest) -> Response[Any]:
    query = read_query(request, EventQuery)
    filters = _own(
        EventFilter(**{name: getattr(query, name) for name in EventFilter.__struct_fields__}), caller(request)
    )
    async with runtime(request).pool.acquire() as connection:
        return Response(await list_events(connection, filters, limit=check_limit(query.limit), cursor=query.cursor))


def _own(filters: EventFilter, by: Caller) -> EventFilter:
    """A bound key sees its own source's events only."""
    return filters if by.source is None else msgspec.structs.replace(filters, source=[by.source])


async def find_event(request: AnyRequest, connection: Any, event_id: UUID) -> EconomicEvent:
    """Raises `NotFound`, for another source's event too: a bound key does not learn that it exists."""
    event = await read_event(connection, event_id)
    bound = caller(request).source
    if event is None or (bound is not None and event.source != bound):
        raise NotFound(f"there is no event {event_id}")
    return event


@get(
    "/internal/events/{event_id:uuid}",
    opt={"scope": "events:read"},
    tags=["events"],
    summary="One fact and its actions",
    responses=responses(401, 403, 404, 429, 503),
)
async def show_event(request: AnyRequest, event_id: FromPath[UUID]) -> EventWithActions:
    async with runtime(request).pool.acquire() as connection:
        event = await find_event(request, connection, event_id)
        actions = await actions_of_events(connection, [event_id])
    return EventWithActions(event=event, actions=list(actions[event_id]))


@get(
    "/internal/events/{event_id:uuid}/trace",
    opt={"scope": "events:read"},
    tags=["events"],
    summary="Why a fact earned what it earned",
    responses=responses(401, 403, 404, 429, 503),
)
async def show_trace(request: AnyRequest, event_id: FromPath[UUID]) -> TraceAnswer:
    """Per rule of its type: gave, or which line failed and on what values."""
    async with runtime(request).pool.acquire() as connection:
        event = await find_event(request, connection, event_id)
        trace, failure = await read_trace(connection, event_id)
        document = (
            (await read_version(connection, event.ruleset_version)).document if event.ruleset_version else Ruleset()
        )
    rules = spell_out(trace, document)
    return TraceAnswer(event_id=event_id, ruleset_version=event.ruleset_version, rules=rules, failure=failure)


@post(
    "/internal/events/{event_id:uuid}/replay",
    opt={"scope": "actions:operate"},
    tags=["events"],
    status_code=200,
    summary="Decide a fact again by the live rules",
    responses=responses(401, 403, 404, 429, 503),
)
async def replay_event(request: AnyRequest, event_id: FromPath[UUID]) -> EventWithActions:
    """Rules that already gave for it are left out; nothing is given twice. Mends a failed event."""
    async with runtime(request).pool.acquire() as connection:
        await find_event(request, connection, event_id)
        await replay(connection, [event_id], rulebook(request), runtime(request).settings.undo)
    return await show_event.fn(request, event_id)


@post(
    "/internal/events/replay",
    opt={"scope": "actions:operate", "body": BulkReplay},
    tags=["events"],
    status_code=200,
    summary="Decide matching facts again",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 429, 503),
)
async def replay_events(request: AnyRequest) -> dict[str, int]:
    """First with `dry_run` for the count, then with `expect` set to it; another count is 409 and nothing is done."""
    order = await read_bulk(request, BulkReplay)
    if order.filter.is_empty:
        raise Invalid(
            "an empty filter would match every event: name at least one field", errors=[Located("#/filter", "is empty")]
        )
    async with runtime(request).pool.acquire() as connection:
        ids = await matching_events(connection, _own(order.filter, caller(request)))
        if order.dry_run:
            return {"matched": len(ids)}
        if order.expect is None:
            raise Invalid(
                "say how many you expect: the count a dry run gave", errors=[Located("#/expect", "is missing")]
            )
        if order.expect != len(ids):
            sentence = f"the filter now matches {len(ids)} events, not {order.expect}: look again with dry_run"
            raise CountChanged(sentence, extra={"matched": len(ids)})
        for start in range(0, len(ids), REPLAY_BATCH):
            part = ids[start : start + REPLAY_BATCH]
            await replay(connection, part, rulebook(request), runtime(request).settings.undo)
    return {"matched": len(ids), "replayed": len(ids)}


ROUTES = [report_event, report_batch, search_events, show_event, show_trace, replay_event, replay_events]
