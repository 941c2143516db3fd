"""Targets over HTTP: how their lanes stand; paused, resumed, and what failed at them since a moment sent again."""

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from litestar import get, post
from litestar.params import FromPath
from msgspec import Struct

from connect.api.actions import WRITING, BulkAnswer, Note
from connect.api.auth import Caller
from connect.api.wire import AnyRequest, caller, read_bulk, read_optional_json, responses, rulebook, runtime
from connect.dispatch.operating import operate_all
from connect.errors import Invalid, Located, NotFound, TargetMismatch
from connect.model import ZonedTime
from connect.store import targets
from connect.store.actions import ActionFilter
from connect.store.operations import count_operable
from connect.store.targets import Gate, LaneCounts, LaneHealth


class TargetLane(Struct, kw_only=True):
    """A target as all processes see it, and what waits for it."""

    name: str
    configured: bool
    """Whether this process's settings name it; what none names waits."""
    transport: str | None
    """The scheme of its url."""
    status: LaneHealth
    paused_at: datetime | None = None
    paused_by: str | None = None
    failures: int = 0
    """Faults of the target, one after the other."""
    opened_at: datetime | None = None
    open_until: datetime | None = None
    held_until: datetime | None = None
    last_failure: str | None = None
    due: int = 0
    in_flight: int = 0
    oldest_due_age_s: float | None = None
    failed: int = 0
    awaiting_approval: int = 0
    blocked: int = 0


class Lanes(Struct, kw_only=True):
    items: list[TargetLane]
    next_cursor: str | None = None


class Recover(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that failed at the target since then: first `dry_run` for the count, then `expect` set to it."""

    since: ZonedTime
    dry_run: bool = False
    expect: int | None = None
    note: str = ""


@get(
    "/internal/targets",
    opt={"scope": "actions:read"},
    tags=["targets"],
    summary="How the targets' lanes stand",
    responses=responses(401, 403, 429, 503),
)
async def list_targets(request: AnyRequest) -> Lanes:
    """Those of the settings, and those that actions wait for without."""
    async with runtime(request).pool.acquire() as connection:
        found = await _lanes(request, connection)
    bound = caller(request).target
    return Lanes(items=[lane for name, lane in sorted(found.items()) if bound in (None, name)])


@post(
    "/internal/targets/{name:str}/pause",
    opt={"scope": "actions:operate", "optional_body": Note},
    tags=["targets"],
    status_code=200,
    summary="Send nothing to a target for now",
    responses=responses(*WRITING),
)
async def pause_target(request: AnyRequest, name: FromPath[str]) -> TargetLane:
    """No process claims anything for it from now on; what is on its way is finished. Nothing is lost or given up."""
    order = await read_optional_json(request, Note)
    async with runtime(request).pool.acquire() as connection:
        await _find(request, connection, name)
        await targets.pause(connection, name, actor=caller(request).name, note=order.note)
        return await _find(request, connection, name)


@post(
    "/internal/targets/{name:str}/resume",
    opt={"scope": "actions:operate", "optional_body": Note},
    tags=["targets"],
    status_code=200,
    summary="Send to a target again",
    responses=responses(*WRITING),
)
async def resume_target(request: AnyRequest, name: FromPath[str]) -> TargetLane:
    """Resumes a target: waiting commands go out as fast as its lane allows, with as much patience left as they had."""
    order = await read_optional_json(request, Note)
    async with runtime(request).pool.acquire() as connection:
        await _find(request, connection, name)
        await targets.resume(connection, name, actor=caller(request).name, note=order.note)
        return await _find(request, connection, name)


@post(
    "/internal/targets/{name:str}/recover",
    opt={"scope": "actions:operate", "body": Recover},
    tags=["targets"],
    status_code=200,
    summary="Send again what failed at a target since a moment",
    responses=responses(*WRITING),
)
async def recover_target(request: AnyRequest, name: FromPath[str]) -> BulkAnswer:
    """With `dry_run` only the count; then with `expect` set to it: another count is 409 and nothing is done."""
    order = await read_bulk(request, Recover)
    source = caller(request).source
    filters = ActionFilter(target=[name], failed_since=order.since, source=[source] if source else [])
    async with runtime(request).pool.acquire() as connection:
        await _find(request, connection, name)
        if order.dry_run:
            return BulkAnswer(matched=await count_operable(connection, "retry", filters))
        if order.expect is None:
            raise Invalid(
                "say how many you expect: the count a dry run gave", errors=[Located("#/expect", "is missing")]
            )
        matched = await operate_all(
            connection, rulebook(request), "retry", filters,
            expect=order.expect, actor=caller(request).name, note=order.note,
        )  # fmt: skip
    return BulkAnswer(matched=matched)


async def _find(request: AnyRequest, connection: Any, name: str) -> TargetLane:
    """Raises `NotFound`, and `TargetMismatch` for a key that is bound to another target."""
    by: Caller = caller(request)
    if by.target not in (None, name):
        raise TargetMismatch(f"this key is for target {by.target!r} only")
    found = await _lanes(request, connection)
    if name not in found:
        raise NotFound(f"there is no target {name!r} (known: {', '.join(sorted(found)) or 'none'})")
    return found[name]


async def _lanes(request: AnyRequest, connection: Any) -> dict[str, TargetLane]:
    settings = runtime(request).settings.targets
    gates = await targets.read_gates(connection)
    counts = await targets.lane_counts(connection, sorted({*settings, *gates}))
    return {
        name: _lane(name, urlsplit(settings[name].url).scheme if name in settings else None, gates.get(name), count)
        for name, count in counts.items()
    }


def _lane(name: str, transport: str | None, gate: Gate | None, counts: LaneCounts) -> TargetLane:
    shared = {} if gate is None else {
        field: getattr(gate, field)
        for field in ("paused_at", "paused_by", "failures", "opened_at", "open_until", "held_until", "last_failure")
    }  # fmt: skip
    waiting = {field: getattr(counts, field) for field in LaneCounts.__struct_fields__}
    return TargetLane(
        name=name, configured=transport is not None, transport=transport,
        status="closed" if gate is None else gate.standing, **shared, **waiting,
    )  # fmt: skip


ROUTES: list[Any] = [list_targets, pause_target, resume_target, recover_target]
