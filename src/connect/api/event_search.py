"""Facts over HTTP: found, shown, explained, decided again."""

import asyncio
import time
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta, Struct

from connect.api.auth import Caller
from connect.api.wire import (
    AnyRequest,
    caller,
    check_limit,
    newest_rulebook,
    read_bulk,
    read_query,
    responses,
    rulebook,
    runtime,
)
from connect.engine.explain import Read, SpelledOut, spell_out
from connect.errors import CountChanged, Invalid, Located, NotFound
from connect.intake.backlog import replay
from connect.model import EconomicEvent, Ruleset
from connect.store.actions import actions_of_events
from connect.store.events.rows import read_event
from connect.store.events.search import EventFilter, list_events, matching_events, read_trace
from connect.store.page import LIMIT_DEFAULT, Page
from connect.store.rules import read_version

REPLAY_BATCH = 500
WAIT_MAX_S = 30
WAIT_STEP_S = 0.1


class EventWithActions(Struct, kw_only=True):
    event: EconomicEvent
    actions: list[Any]


class TraceAnswer(Struct, kw_only=True):
    event_id: UUID
    ruleset_version: int | None
    rules: list[SpelledOut]
    failure: str | None = None


class EventQuery(EventFilter, kw_only=True, frozen=True):
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None


class BulkReplay(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    filter: EventFilter
    dry_run: bool = False
    expect: int | None = None


@get(
    "/internal/events",
    opt={"scope": "events:read", "query": EventQuery, "answers": {200: Page[EconomicEvent]}},
    tags=["events"],
    summary="List facts, newest first",
    responses=responses(400, 401, 403, 422, 429, 503),
)
async def search_events(request: AnyRequest) -> Response[Any]:
    """With `rule` and `outcome` those whose trace says so, such as `rule=cashback-2&outcome=limited`."""
    query = read_query(request, EventQuery)
    filters = _own(
        EventFilter(**{name: getattr(query, name) for name in EventFilter.__struct_fields__}), caller(request)
    )
    async with runtime(request).pool.acquire() as connection:
        return Response(await list_events(connection, filters, limit=check_limit(query.limit), cursor=query.cursor))


def _own(filters: EventFilter, by: Caller) -> EventFilter:
    """A bound key sees its own source's events only. Raises `Invalid` for an outcome of no rule."""
    if filters.outcome and not filters.rule:
        raise Invalid("an outcome is a rule's: name the rule too", errors=[Located("#/outcome", "needs `rule`")])
    return filters if by.source is None else msgspec.structs.replace(filters, source=[by.source])


async def find_event(request: AnyRequest, connection: Any, event_id: UUID) -> EconomicEvent:
    """Raises `NotFound`, for another source's event too: a bound key does not learn that it exists."""
    event = await read_event(connection, event_id)
    bound = caller(request).source
    if event is None or (bound is not None and event.source != bound):
        raise NotFound(f"there is no event {event_id}")
    return event


class WaitQuery(Struct, kw_only=True, frozen=True):
    """How long the answer may take."""

    wait: Annotated[float, Meta(ge=0, le=WAIT_MAX_S)] = 0
    """Seconds to wait until an undecided event is decided."""


@get(
    "/internal/events/{event_id:uuid}",
    opt={"scope": "events:read", "query": WaitQuery},
    tags=["events"],
    summary="One fact and its actions",
    responses=responses(401, 403, 404, 422, 429, 503),
)
async def show_event(request: AnyRequest, event_id: FromPath[UUID]) -> EventWithActions:
    """With `wait` (seconds, at most 30) it is answered when the event is decided, or as it is by then."""
    until = time.monotonic() + read_query(request, WaitQuery).wait
    while (found := await _event_with_actions(request, event_id)).event.status == "received":
        if time.monotonic() >= until:
            break
        await asyncio.sleep(min(WAIT_STEP_S, max(until - time.monotonic(), 0)))
    return found


async def _event_with_actions(request: AnyRequest, event_id: UUID) -> EventWithActions:
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
        trace = await read_trace(connection, event_id)
        document = (
            (await read_version(connection, event.ruleset_version)).document if event.ruleset_version else Ruleset()
        )
    live = rulebook(request)
    read = Read(event, trace.counters, live.rules if live.version == event.ruleset_version else {})
    rules = await asyncio.to_thread(spell_out, trace.entries, document, read)
    return TraceAnswer(event_id=event_id, ruleset_version=event.ruleset_version, rules=rules, failure=trace.failure)


@post(
    "/internal/events/{event_id:uuid}/replay",
    opt={"scope": "actions:operate"},
    tags=["events"],
    status_code=200,
    summary="Decide a fact again by the live rules",
    responses=responses(401, 403, 404, 409, 429, 503),
)
async def replay_event(request: AnyRequest, event_id: FromPath[UUID]) -> EventWithActions:
    """Rules that already gave for it are left out; nothing is given twice. Mends a failed event.

    409 for a decided event while a counter is built from history.
    """
    async with runtime(request).pool.acquire() as connection:
        await find_event(request, connection, event_id)
        await replay(connection, [event_id], await newest_rulebook(request), *_targets(request))
    return await _event_with_actions(request, event_id)


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
        rules = await newest_rulebook(request)
        for start in range(0, len(ids), REPLAY_BATCH):
            await replay(connection, ids[start : start + REPLAY_BATCH], rules, *_targets(request))
    return {"matched": len(ids), "replayed": len(ids)}


def _targets(request: AnyRequest) -> tuple[dict[str, dict[str, str]], frozenset[str]]:
    """Returns what the settings say of targets and deciding has to know."""
    settings = runtime(request).settings
    return settings.undo, settings.ordered


ROUTES = [search_events, show_event, show_trace, replay_event, replay_events]
