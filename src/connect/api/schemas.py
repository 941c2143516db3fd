"""Schemas of event types, proposed from what was reported."""

import asyncio
from typing import Annotated, Any

from litestar import post
from msgspec import Meta, Struct

from connect.api.wire import AnyRequest, caller, read_json, responses, runtime
from connect.engine.schema import learn_schema
from connect.errors import NotFound
from connect.model import EventType
from connect.store.events.search import contexts_of_type

SAMPLE_MAX = 20_000
"""Contexts read for one proposal: what a process can hold beside its work."""


class Learn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which type, and from how many of its newest events."""

    event_type: EventType
    sample: Annotated[int, Meta(ge=1, le=SAMPLE_MAX)] = 2_000


class Learnt(Struct, kw_only=True):
    """Goes into the ruleset under `schemas`, once a person has looked it over."""

    event_type: str
    sampled: int
    schema: dict[str, Any]


@post(
    "/internal/rules/learn-schema",
    opt={"scope": "rules:read", "body": Learn},
    tags=["rules"],
    status_code=200,
    summary="Propose a schema of an event type from stored events",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 429, 503),
)
async def learn(request: AnyRequest) -> Learnt:
    """A JSON Schema of `context`; fields that every sampled event has are required in it."""
    order = await read_json(request, Learn)
    async with runtime(request).pool.acquire() as connection:
        contexts = await contexts_of_type(connection, order.event_type, order.sample, caller(request).source)
    if not contexts:
        raise NotFound(f"no event of type {order.event_type} is stored, so there is nothing to learn from")
    schema = await asyncio.to_thread(learn_schema, contexts)
    return Learnt(event_type=order.event_type, sampled=len(contexts), schema=schema)


ROUTES: list[Any] = [learn]
