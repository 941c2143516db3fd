"""A database with real events in it, decided by the real API, and what a healthy installation has beside it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from connect.config import Settings
from connect.model import Target
from connect.store.keys import create_key
from connect.store.processes import beat
from tests.serving import serving

SECRET = "whsec_c2VjcmV0LW9mLWEtdGVzdC10YXJnZXQ="
RULE: dict[str, Any] = {
    "key": "cashback",
    "event_type": "purchase.completed",
    "actions": [
        {"target": "points", "command": "credit", "recipient": "actor", "unit": "points", "amount": "context.amount"}
    ],
}
EVENTS: list[dict[str, Any]] = [
    {
        "external_id": "1", "actor_user_id": "u1", "occurred_at": "2026-11-22T10:00:00.123456789+01:00",
        "context": {"amount": 5},
    },
    {
        "external_id": "2", "actor_user_id": "u1",
        "context": {"amount": 1.0, "share": 0.1, "tiny": 1e-7, "list": [{"a": None}]},
    },
    {
        "external_id": "3", "actor_user_id": "\u00fc\u4e16", "source": "shop/1",
        "parties": {"upline": ["a", "b"], "none": []},
        "context": {"amount": 7, "text": "\u00e9\\\"\u2028", "big": 9007199254740993},
    },
    {"external_id": "4", "actor_user_id": "u4"},
]  # fmt: skip
"""Numbers, times and texts that a table could give back otherwise than it got them."""


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    """A target that takes connections."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Target(url=f"http://127.0.0.1:{port}/credit", internal=True, secret=(SECRET,))


@pytest.fixture
async def settings(database_url: str, pool: asyncpg.Pool, target: Target) -> Settings:
    """Settings of a healthy installation: four events decided, three actions owed, a key, an API and a worker alive."""
    async with serving(database_url, event_age_max_days=0) as api:
        assert (await api.post("/internal/rules", RULE)).status == 201
        for event in EVENTS:
            reply = await api.post("/internal/events", {"event_type": "purchase.completed", **event})
            assert reply.status == 201, reply.body
    async with pool.acquire() as connection:
        await beat(connection, uuid4(), "api", 1)
        await beat(connection, uuid4(), "worker", 1)
        await create_key(connection, "shop", ["events:write"], source=None)
    return Settings(database_url=database_url, targets={"points": target})
