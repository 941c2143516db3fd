"""Facts over HTTP: reported singly, in batches and as CloudEvents."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import UUID

from litestar import Response, post
from msgspec import UNSET, Struct, UnsetType

from connect.api.auth import require
from connect.api.problems import Problem, to_problem
from connect.api.wire import (
    BATCH_BODY_MAX,
    BODY_MAX,
    AnyRequest,
    caller,
    media_type,
    prefers,
    read_body,
    read_query,
    responses,
    runtime,
)
from connect.errors import (
    BodyTooLarge,
    ConnectError,
    Invalid,
    Located,
    MediaTypeRefused,
    NotJson,
)
from connect.intake import cloudevents
from connect.intake.answers import Recorded
from connect.intake.normalize import (
    NormalEvent,
    Terms,
    convert_reported,
    decode_any,
    decode_reported,
    given_id,
    normalize,
)
from connect.intake.record import Processing
from connect.jsonvalue import is_array, is_object
from connect.model import EconomicEvent, Effects, Warning_

BATCH_MAX = 1000
JSON = "application/json"
NDJSON = "application/x-ndjson"
RESPOND_ASYNC = "respond-async"
NOTHING_DONE = (400, 401, 403, 413, 415, 422, 429, 503)
"""A report may be refused with these statuses. None of them burns the identity."""


class EventAnswer(Struct, kw_only=True):
    """Tells what became of a reported fact; `actions` are absent while the fact is undecided (202)."""

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
    decided: bool = False
    """false for a recorded event: a worker decides it (`GET /internal/events/{id}?wait=10` waits for that)."""
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


class EffectsQuery(Struct, kw_only=True, frozen=True):
    effects: Effects = "all"


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
        return await _report_batch(request, _cloud_events(request, await read_body(request, BATCH_BODY_MAX)))
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
        parsed = _cloud_events(request, body)
    elif kind == JSON:
        parsed = [_guarded(_from_document, item) for item in _items(body)]
    else:
        raise _wrong_media_type(kind, JSON, NDJSON, cloudevents.BATCHED)
    return await _report_batch(request, parsed)


async def _read_one(request: AnyRequest, kind: str) -> Parsed:
    body = await read_body(request, BODY_MAX)
    headers = request.headers
    if kind == cloudevents.STRUCTURED:
        return cloudevents.from_structured(decode_any(body), runtime(request).sources)
    if kind != JSON and not (kind == "" and cloudevents.is_binary(headers)):
        raise _wrong_media_type(kind, JSON, cloudevents.STRUCTURED, cloudevents.BATCHED)
    if cloudevents.is_binary(headers):
        return cloudevents.from_binary(headers.items(), body, runtime(request).sources)
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


def _cloud_events(request: AnyRequest, body: bytes) -> list[Any]:
    parse = partial(cloudevents.from_structured, sources=runtime(request).sources)
    return [_guarded(parse, item) for item in _items(body)]


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
            external_id=external_id,
            status=answer.result,
            event_id=answer.event.id,
            actions=len(answer.actions),
            decided=answer.event.status == "decided",
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


ROUTES = [report_event, report_batch]
