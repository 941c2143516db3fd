"""Who talks to a sandbox in its tests: Connect's sending side, a test's own questions, and Connect's receiving side."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from connect.sandbox.reporter import Settings
from connect.sandbox.server import Running, serve


def command(type_: str = "points.credit", amount: str = "259", **changes: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "type": type_,
        "user_id": "u1",
        "amount": amount,
        "unit": type_.split(".")[0],
        "params": {},
        "event": {
            "id": str(uuid4()),
            "source": "shop",
            "external_id": "order-1001",
            "event_type": "purchase.completed",
            "occurred_at": "2026-11-22T10:00:00Z",
        },
        "rule": {"key": "cashback-2", "version": 3},
        "reverses": None,
    } | changes


class Caller:
    """Talks to one sandbox as Connect and as a test would."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    async def send(
        self, message: dict[str, Any] | bytes, target: str = "points", key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any], Any]:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        if key is None and isinstance(message, dict):
            key = f'"{message["id"]}"'
        if key:
            headers["Idempotency-Key"] = key
        async with self.session.post(
            f"{self.url}/{target}", data=body, headers=headers, allow_redirects=False
        ) as reply:
            return reply.status, await reply.json(content_type=None) if reply.status != 204 else {}, reply.headers

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        async with self.session.request(method, self.url + path, json=body) as reply:
            assert reply.status < 300, await reply.text()
            return await reply.json() if reply.status != 204 else None

    async def misbehave(self, fault: str, target: str = "points", **settings: Any) -> None:
        await self.ask("POST", "/misbehave", {"target": target, "fault": fault} | settings)

    async def effects(self) -> list[dict[str, Any]]:
        return (await self.ask("GET", "/ledger"))["items"]


class Connect:
    """The one route of Connect that the gateway calls: records reports, and can be down for a while."""

    def __init__(self) -> None:
        self.url = ""
        self.reports: list[tuple[str, str | None, dict[str, Any]]] = []
        self.answers: list[int] = []
        """Status of the next answers; 200 when empty."""

    async def take(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 200
        self.reports.append((request.match_info["id"], request.headers.get("Authorization"), await request.json()))
        return web.Response(status=status)

    def statuses(self) -> list[str]:
        return [report["status"] for _, _, report in self.reports]


@asynccontextmanager
async def sandbox(settings: Settings | None = None, ledger_file: Path | None = None) -> AsyncIterator[Caller]:
    running: Running = await serve(settings=settings, ledger_file=ledger_file)
    async with aiohttp.ClientSession() as session:
        yield Caller(running.url, session)
    await running.stop()


async def all_have_status(caller: Caller, status: str) -> bool:
    return all(effect["status"] == status for effect in await caller.effects())
