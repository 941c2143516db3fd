"""Misbehaviour on order: what a target does wrong, how often, and for which requests.

A fault lives in a middleware around the command routes, so that the receiver itself stays an example to read.
Each fault draws from its own seeded generator: the same requests in the same order meet the same faults.
"""

import asyncio
import random
import socket
import struct
from typing import Annotated, Literal

from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import Meta, Struct

Kind = Literal[
    "error", "reset", "hang", "rate_limited", "redirect", "unauthorized",
    "slow", "error_after_effect", "reset_after_effect", "conflict_after_effect", "garbage",
    "accept_and_report_twice", "contradict", "report_failed", "accept_and_forget",
]  # fmt: skip
"""First line: no effect happens. Second: it does, and the answer is spoilt. Third: 202, and the report is odd."""

REPORTS: dict[str, tuple[str, ...]] = {
    "accept_and_report_twice": ("completed", "completed"),
    "contradict": ("completed", "failed"),
    "report_failed": ("failed",),
    "accept_and_forget": (),
}
"""The results a target will report after it accepted, in order."""

KEY = web.RequestKey("key", str)
"""The command's Idempotency-Key."""

RESULTS = web.RequestKey("results", tuple[str, ...])
"""Set: the handler accepts with 202 and reports these later."""

BEFORE_EFFECT = {"error", "reset", "hang", "rate_limited", "redirect", "unauthorized"}


class Fault(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One misbehaviour. Without `times` or `probability` each request is hit; with both, until `times` are used up."""

    target: Literal["points", "nft", "gateway", "*"]
    fault: Kind
    times: Annotated[int, Meta(ge=1)] | None = None
    probability: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: int = 0
    match: str | None = None
    """Hits only requests whose body contains this text: a user's id, a rule's key."""
    seconds: Annotated[float, Meta(ge=0, le=3600)] = 30
    """How long `hang` and `slow` take."""
    retry_after: Annotated[int, Meta(ge=0, le=86_400)] = 1
    """Seconds, sent with `rate_limited`."""
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    """The status of `error` and `error_after_effect` (503), `garbage` (200) and `redirect` (307)."""


class Armed:
    """A fault that is set, and how often it has fired: a test whose faults never fired proves nothing."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.fired = 0
        self._random = random.Random(fault.seed)  # noqa: S311  (chance for tests, not secrets)

    def fires(self, target: str, body: bytes) -> bool:
        fault = self.fault
        if fault.target not in (target, "*") or (fault.times is not None and self.fired >= fault.times):
            return False
        if fault.match is not None and fault.match.encode() not in body:
            return False
        if fault.probability is not None and self._random.random() >= fault.probability:
            return False
        self.fired += 1
        return True


class Faults:
    """The faults in force, in the order they were set; the first that fires is the request's."""

    def __init__(self) -> None:
        self.armed: list[Armed] = []

    def add(self, faults: list[Fault]) -> None:
        self.armed += [Armed(fault) for fault in faults]

    def clear(self, target: str | None = None) -> None:
        self.armed = [one for one in self.armed if target is not None and one.fault.target != target]

    def next_for(self, target: str, body: bytes) -> Fault | None:
        return next((one.fault for one in self.armed if one.fires(target, body)), None)


async def apply(fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer of a target that misbehaves so."""
    if fault.fault in BEFORE_EFFECT:
        return await _fail(fault, request)
    if fault.fault in REPORTS:
        request[RESULTS] = REPORTS[fault.fault]
        return await handler(request)
    return await _spoil(fault, request, await handler(request))


async def _fail(fault: Fault, request: web.Request) -> web.StreamResponse:
    match fault.fault:
        case "hang":
            await asyncio.sleep(fault.seconds)
            return _reset(request)
        case "reset":
            return _reset(request)
        case "rate_limited":
            return _told(429, "too many requests", {"Retry-After": str(fault.retry_after)})
        case "redirect":
            return _told(fault.status or 307, "moved", {"Location": str(request.url)})
        case "unauthorized":
            return _told(401, "told to refuse")
        case _:
            return _told(fault.status or 503, "told to fail")


async def _spoil(fault: Fault, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """The command was handled (or refused: then that answer stands); only its answer suffers."""
    if answer.status >= 300:
        return answer
    match fault.fault:
        case "slow":
            await asyncio.sleep(fault.seconds)
            return answer
        case "reset_after_effect":
            return _reset(request)
        case "conflict_after_effect":
            return web.json_response({"id": request[KEY], "status": "completed"}, status=409)
        case "garbage":
            junk = random.Random(fault.seed).randbytes(512)  # noqa: S311
            return web.Response(body=junk, status=fault.status or 200, content_type="application/json")
        case _:
            return _told(fault.status or 503, "told to fail after the effect")


def _told(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"reason": reason}, status=status, headers=headers)


def _reset(request: web.Request) -> web.Response:
    """Cuts the connection with an RST: a zero linger throws unsent data away instead of closing in order."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)
