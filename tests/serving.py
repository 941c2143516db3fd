"""The real API on a real port of this process, and a client that speaks to it."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import uvicorn

from connect.api.app import create_app
from connect.config import Settings
from tests.conftest import eventually, free_port

KEY = "test-key-with-all-scopes-0123456789abcdef"


class Reply(msgspec.Struct):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Api(msgspec.Struct):
    """A client bound to one server and one key."""

    url: str
    session: aiohttp.ClientSession
    key: str | None = KEY
    runtime: Any = None

    def with_key(self, key: str | None) -> "Api":
        return msgspec.structs.replace(self, key=key)

    async def call(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> Reply:
        content = raw if raw is not None else None if body is None else msgspec.json.encode(body)
        data = None if content is None else io.BytesIO(content)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        skip = () if "Content-Type" in sent else ("Content-Type",)
        request = self.session.request(
            method, self.url + path, data=data, headers=sent, allow_redirects=False, skip_auto_headers=skip
        )
        async with request as reply:
            return Reply(reply.status, reply.headers, await reply.read())

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.call("GET", path, raw=None, **headers)

    async def post(self, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Reply:
        return await self.call("POST", path, body, raw=raw, **headers)


@contextlib.asynccontextmanager
async def serving(database_url: str, **settings: Any) -> AsyncIterator[Api]:
    """Serves the API on a free port until the block ends, and drains it."""
    port = free_port()
    app = create_app(Settings(**{"bootstrap_key": KEY, "port": port, **settings}), database_url)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, http="httptools", ws="none", lifespan="on")
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # pytest keeps its own handlers
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started or task.done())
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            yield Api(f"http://127.0.0.1:{port}", session, runtime=app.state.runtime)
    finally:
        server.should_exit = True
        await task
