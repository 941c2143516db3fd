"""A target over a real connection that can be told to misbehave, and actions for it in a real database."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web
from multidict import CIMultiDictProxy

from connect.dispatch.dispatcher import Dispatcher
from connect.model import ClaimedCommand, RewardAction, Target
from connect.store.actions import read_action

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def accept(_: web.Request) -> web.StreamResponse:
    return web.json_response({"reference": "ref-1"})


def answer(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return behave


class StandIn:
    """Keeps every request; what each key brought about is done once, as an idempotent service does it."""

    def __init__(self) -> None:
        self.url = ""
        self.behave: Behaviour = accept
        self.requests: list[tuple[str, bytes, CIMultiDictProxy[str]]] = []
        self.effects: dict[str, int] = {}
        self.released = asyncio.Event()

    @property
    def keys(self) -> list[str]:
        return [key for key, _, _ in self.requests]

    async def hang(self, _: web.Request) -> web.StreamResponse:
        """Until `released` is set."""
        await self.released.wait()
        return web.json_response({})

    def in_turn(self, *behaviours: Behaviour) -> Behaviour:
        """One behaviour a request, the last for all that follow."""
        left = list(behaviours)

        async def behave(request: web.Request) -> web.StreamResponse:
            return await (left.pop(0) if len(left) > 1 else left[0])(request)

        return behave

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        key = request.headers["Idempotency-Key"].strip('"')
        self.requests.append((key, body, request.headers))
        self.effects[key] = 1  # by key: a repeat finds it done
        return await self.behave(request)


@asynccontextmanager
async def standing_in() -> AsyncGenerator[StandIn]:
    target = StandIn()
    app = web.Application()
    app.router.add_post("/{path:.*}", target.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    target.url = f"http://{host}:{port}/commands"
    try:
        yield target
    finally:
        target.released.set()
        await runner.cleanup()


def target_at(url: str, **settings: Any) -> Target:
    """Patience for tests: retries come quickly."""
    return Target(**({"url": url, "internal": True, "backoff_base_s": 0.01, "backoff_cap_s": 0.05} | settings))


@asynccontextmanager
async def dispatching(pool: Any, targets: Mapping[str, Target], **settings: Any) -> AsyncGenerator[Dispatcher]:
    """A dispatcher at work; at the end it drains."""
    stop = asyncio.Event()
    dispatcher = Dispatcher(pool, targets, **({"poll_s": 0.05, "housekeeping_s": 0.1} | settings))
    running = asyncio.create_task(dispatcher.run(stop))
    try:
        yield dispatcher
    finally:
        stop.set()
        await running


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def command(**fields: Any) -> ClaimedCommand:
    """A first attempt, claimed at noon."""
    action_id = fields.get("id", UUID("6f1c0e8e-2f5a-5b77-9a51-0d3a5f2c1b44"))
    given = {
        "id": action_id, "event_id": UUID("01932c07-a000-7000-8000-000000000001"), "target": "points",
        "body": body_of(action_id), "n": 1, "retries": 0, "give_up_at": NOON + timedelta(days=3), "claimed_at": NOON,
        "lease_until": NOON + timedelta(seconds=30),
    }  # fmt: skip
    return ClaimedCommand(**(given | fields))


async def add_actions(pool: Any, count: int, **columns: Any) -> list[UUID]:
    """Actions that are due now unless `columns` say otherwise; each has a body of its own."""
    ids = [uuid4() for _ in range(count)]
    row = {
        "event_id": uuid4(), "rule_key": "cashback", "rule_version": 1, "effect_key": "points.credit.points",
        "target": "points", "command": "credit", "recipient_role": "actor", "user_id": "u1", "amount": "259",
        "unit": "points", "params": {}, "status": "pending", "attempts": 0, "due_at": datetime.now(UTC),
        "created_at": datetime.now(UTC),
    } | columns  # fmt: skip
    names = ["id", "body", *row]
    query = (
        f"INSERT INTO reward_action ({', '.join(names)}) VALUES ({', '.join(f'${n + 1}' for n in range(len(names)))})"
    )
    await pool.executemany(query, [(id, body_of(id), *row.values()) for id in ids])
    return ids


def body_of(action_id: UUID) -> str:
    return f'{{"id":"{action_id}","type":"points.credit","amount":"259","note":"gr\u00fc\u00dfe"}}'


async def action_of(pool: Any, action_id: UUID) -> RewardAction:
    action = await read_action(pool, action_id)
    assert action is not None
    return action


async def count_of(pool: Any, status: str) -> int:
    return await pool.fetchval("SELECT count(*) FROM reward_action WHERE status = $1", status)


async def has_ended(pool: Any, action_id: UUID, status: str) -> RewardAction | None:
    action = await action_of(pool, action_id)
    return action if action.status == status else None


async def end_leases(pool: Any) -> None:
    """Ends the leases of a sender that died or stands still, as the passing of time does."""
    await pool.execute("UPDATE reward_action SET due_at = now() WHERE status = 'dispatched'")
