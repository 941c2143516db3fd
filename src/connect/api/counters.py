"""Counters over HTTP: how far they are built, and building them anew from the stored events."""

from typing import Any

from litestar import get, post
from msgspec import Struct

from connect.api.publishing import READING, WRITING, take_effect
from connect.api.wire import AnyRequest, caller, read_optional_json, responses, runtime
from connect.errors import Conflict, Located, NotFound
from connect.store.published_context import CounterRow, history_size, read_counters
from connect.store.rules import rebuild_counters


class Rebuild(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which counters of the live ruleset, by name (none: all), and why."""

    names: list[str] = []
    note: str = ""


class Counters(Struct, kw_only=True):
    items: list[CounterRow]
    next_cursor: str | None = None
    history: int
    """Stored events, about: what `counted` of a counter that is building goes towards."""


@get(
    "/internal/counters",
    opt={"scope": "rules:read"},
    tags=["rules"],
    summary="The counters of the live ruleset",
    responses=responses(*READING),
)
async def show_counters(request: AnyRequest) -> Counters:
    async with runtime(request).pool.acquire() as connection:
        return Counters(items=await read_counters(connection), history=await history_size(connection))


@post(
    "/internal/counters/rebuild",
    opt={"scope": "rules:write", "optional_body": Rebuild},
    tags=["rules"],
    status_code=202,
    summary="Build counters anew from the stored events",
    responses=responses(*WRITING),
)
async def rebuild(request: AnyRequest) -> Counters:
    """Published as a new version of the same rules; who reads the counters is not live until a worker is done."""
    order = await read_optional_json(request, Rebuild)
    async with runtime(request).pool.acquire() as connection:
        known = {row.name: row.status for row in await read_counters(connection)}
        if unknown := [name for name in order.names if name not in known]:
            at = f"#/names/{order.names.index(unknown[0])}"
            names = ", ".join(known) or "none"
            raise NotFound(f"the live ruleset has no counter {unknown[0]!r} (it has: {names})", errors=[_at(at)])
        if any(known[name] == "building" for name in order.names or known):
            raise Conflict("it is being built already: GET /internal/counters shows how far it is")
        await rebuild_counters(connection, order.names, caller(request).name, order.note)
    await take_effect(request)
    return await show_counters.fn(request)


def _at(pointer: str) -> Located:
    return Located(pointer, "is not a counter of the live ruleset")


ROUTES: list[Any] = [show_counters, rebuild]
