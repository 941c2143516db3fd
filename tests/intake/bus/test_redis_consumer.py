"""Facts over Redis Streams, against the Redis that runs here: recorded once, the bad ones told, and none lost."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from redis.asyncio import Redis

from connect.brokers import parse_address
from connect.brokers.address import Address
from connect.config import BusSettings, Settings
from connect.intake.bus import open_bus
from connect.intake.bus.consumer import Consumer
from connect.intake.bus.facts import Facts, terms_of
from connect.intake.live import LiveRules
from connect.intake.record import Recorder
from connect.store.dead import DeadFilter, list_dead
from tests.conftest import eventually

REDIS = os.environ.get("CONNECT_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


def fact(number: int, **fields: Any) -> bytes:
    return msgspec.json.encode({"external_id": f"order-{number}", "event_type": "purchase.completed", **fields})


@asynccontextmanager
async def stream() -> AsyncGenerator[tuple[Any, Address]]:
    """A client, and the address of a stream of this test's own."""
    name = f"connect-test-{secrets.token_hex(6)}"
    client: Any = Redis.from_url(REDIS)
    try:
        yield client, parse_address(f"{REDIS}?stream={name}")
    finally:
        await client.delete(name)
        await client.aclose()


@asynccontextmanager
async def consuming(pool: Any, address: Address) -> AsyncGenerator[None]:
    rules = LiveRules(pool)
    recorder = Recorder(pool, rules)
    flusher, stop = asyncio.create_task(recorder.run()), asyncio.Event()
    terms = terms_of(BusSettings(url=address.url, source="shop"), Settings())
    consumer = Consumer(
        pool, "orders", lambda: open_bus(address, reader="one"), Facts(recorder, terms, {}, "inline").take
    )
    running = asyncio.create_task(consumer.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running
        recorder.close()
        await flusher


async def test_one_bad_message_of_500_is_kept_with_its_reason_and_the_others_are_recorded(pool: Any):
    async with stream() as (client, address):
        pipe = client.pipeline()
        for number in range(500):
            pipe.xadd(address.name, {"event": fact(number) if number != 77 else b'{"event_type": "x"}'})
        await pipe.execute()
        async with consuming(pool, address):
            await eventually(lambda: _pending(client, address, 0, 500))
        assert await pool.fetchval("SELECT count(*) FROM event WHERE source = 'shop'") == 499
        [dead] = (await list_dead(pool, DeadFilter(), limit=10, cursor=None)).items
        assert (dead.bus, dead.code, dead.times, dead.body) == ("orders", "event_invalid", 1, '{"event_type": "x"}')
        assert "external_id" in dead.reason


async def test_a_conflict_and_a_repeat_are_told_apart(pool: Any):
    async with stream() as (client, address):
        for body in (fact(1, context={"a": 1}), fact(1, context={"a": 1.0}), fact(1, context={"a": 2})):
            await client.xadd(address.name, {"event": body})
        async with consuming(pool, address):
            await eventually(lambda: _pending(client, address, 0, 3))
        [dead] = (await list_dead(pool, DeadFilter(), limit=10, cursor=None)).items
        assert (dead.code, dead.event_id) == ("event_conflict", await pool.fetchval("SELECT id FROM event"))


async def _pending(client: Any, address: Address, pending: int, read: int) -> bool:
    groups = await client.xinfo_groups(address.name)
    return bool(groups) and (groups[0]["pending"], groups[0].get("entries-read")) == (pending, read)
