"""A Connect over a real connection that keeps a ledger and does to requests what a test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Fault = Callable[["FaultyConnect", web.Request], Awaitable[web.StreamResponse]]


class FaultyConnect:
    """Records each identity once, as Connect does. `faults` are used up one a request; after them it is well."""

    def __init__(self) -> None:
        self.url = ""
        self.faults: list[Fault] = []
        self.requests: list[list[bytes]] = []
        """The lines of each request, in the order of arrival."""
        self.headers: list[dict[str, str]] = []
        self.recorded: dict[str, Any] = {}
        self.order: list[str] = []
        self.conflicts: set[str] = set()
        self.released = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((await request.read()).split(b"\n"))
        self.headers.append(dict(request.headers))
        return await (self.faults.pop(0) if self.faults else well)(self, request)

    def record(self, lines: list[bytes], *, unavailable: int = 0) -> list[dict[str, Any]]:
        """A result for each line; the first `unavailable` ones are turned away."""
        return [
            {"external_id": None, "status": "unavailable", "event_id": None} if index < unavailable else self._one(line)
            for index, line in enumerate(lines)
        ]

    def _one(self, line: bytes) -> dict[str, Any]:
        event = json.loads(line)
        identity = event.get("external_id")
        result = {"external_id": identity, "event_id": f"id-{identity}", "actions": 1, "error": None}
        if not identity:
            return {
                **result,
                "status": "invalid",
                "error": {"code": "event_invalid", "detail": "external_id is missing"},
            }
        if identity in self.conflicts:
            return {**result, "status": "conflict", "error": {"code": "event_conflict", "detail": "other content"}}
        if identity in self.recorded:
            return {**result, "status": "duplicate"}
        self.recorded[identity] = event
        self.order.append(identity)
        return {**result, "status": "created"}


async def well(server: FaultyConnect, _: web.Request) -> web.StreamResponse:
    return web.json_response({"results": server.record(server.requests[-1])})


async def cut(_: FaultyConnect, request: web.Request) -> web.StreamResponse:
    """The connection is reset before anything was recorded."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_after_recording(server: FaultyConnect, request: web.Request) -> web.StreamResponse:
    """Everything is recorded, and the answer is lost."""
    server.record(server.requests[-1])
    return await cut(server, request)


async def cut_the_answer(server: FaultyConnect, request: web.Request) -> web.StreamResponse:
    """Everything is recorded; half of the answer arrives."""
    body = json.dumps({"results": server.record(server.requests[-1])}).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return await cut(server, request)


async def hang(server: FaultyConnect, _: web.Request) -> web.StreamResponse:
    """Everything is recorded; the answer never comes."""
    server.record(server.requests[-1])
    await server.released.wait()
    return web.Response()


async def half(server: FaultyConnect, _: web.Request) -> web.StreamResponse:
    """The first half of the events is turned away."""
    lines = server.requests[-1]
    return web.json_response({"results": server.record(lines, unavailable=(len(lines) + 1) // 2)})


def answer(status: int, body: Any = None, **headers: str) -> Fault:
    async def behave(_: FaultyConnect, __: web.Request) -> web.StreamResponse:
        return web.json_response(
            body, status=status, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )

    return behave


def at_most(bytes_max: int) -> Fault:
    """Behaves like a proxy that takes only requests of so many bytes."""

    async def behave(server: FaultyConnect, request: web.Request) -> web.StreamResponse:
        if sum(map(len, server.requests[-1])) > bytes_max:
            return web.Response(status=413, text="<html>Request Entity Too Large</html>")
        return await well(server, request)

    return behave


@asynccontextmanager
async def faulty_connect() -> AsyncIterator[FaultyConnect]:
    server = FaultyConnect()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/internal/events/batch", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.released.set()
        await runner.cleanup()
