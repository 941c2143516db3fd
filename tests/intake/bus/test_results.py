"""Results that come back over a queue: each ends its action, and what makes no sense is kept with its reason."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from connect.dispatch.results import ResultMessages
from connect.intake.bus import open_bus
from connect.intake.bus.consumer import Consumer
from connect.model import DeadEvent
from connect.store.dead_letters import DeadFilter, list_dead
from tests.brokers import STAND_INS, BrokerStandIn, standing_in_for
from tests.conftest import eventually
from tests.dispatch.stand_in import action_of, add_actions


@pytest.fixture(params=sorted(STAND_INS))
async def broker(request: Any) -> AsyncIterator[BrokerStandIn]:
    async with standing_in_for(request.param) as stand_in:
        yield stand_in


@asynccontextmanager
async def taking_results(pool: Any, broker: BrokerStandIn) -> AsyncGenerator[None]:
    """As a worker does it for `results_url` of target points."""
    stop, address = asyncio.Event(), broker.address()
    take = ResultMessages(pool, "points").take
    consumer = Consumer(pool, "points", lambda: open_bus(address, reader="one"), take, kind="result")
    running = asyncio.create_task(consumer.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


def result(action_id: UUID, status: str = "completed", **fields: Any) -> bytes:
    return msgspec.json.encode({"action_id": action_id, "status": status, **fields})


async def dead_results(pool: Any) -> list[DeadEvent]:
    return (await list_dead(pool, DeadFilter(), limit=50, cursor=None)).items


async def test_each_result_ends_its_action_however_often_it_comes(pool: Any, broker: BrokerStandIn):
    done, failed, waiting = await add_actions(pool, 3, attempts=1)
    bus = open_bus(broker.address(), reader="zero")
    await bus.open()
    await bus.close()
    said = [result(done, reference="0xabc"), result(failed, "failed", reason="no such user")]
    await broker.put([*said, *said])
    async with taking_results(pool, broker):
        await eventually(lambda: _has(pool, failed, "failed"))
        await eventually(lambda: _none_left(broker))
    assert (await action_of(pool, done)).reference == "0xabc"
    assert ((await action_of(pool, failed)).failure, (await action_of(pool, waiting)).status) == ("reported", "pending")
    assert await dead_results(pool) == []


async def test_results_that_make_no_sense_are_kept_with_the_reason(pool: Any, broker: BrokerStandIn):
    [unsent] = await add_actions(pool, 1)
    [other] = await add_actions(pool, 1, target="nft", attempts=1)
    [done] = await add_actions(pool, 1, attempts=1)
    bus = open_bus(broker.address(), reader="zero")
    await bus.open()
    await bus.close()
    wrong = [b"{", result(uuid4()), result(unsent), result(other), result(done, "done"), result(done, extra=1)]
    await broker.put([*wrong, result(done), result(done, "failed")])
    async with taking_results(pool, broker):
        await eventually(lambda: _none_left(broker))
    kept = await dead_results(pool)
    assert {one.kind for one in kept} == {"result"}
    assert sorted(one.code for one in kept) == sorted(
        ["invalid", "not_found", "conflict", "target_mismatch", "invalid", "invalid", "conflict"]
    )
    assert (await action_of(pool, done)).status == "completed"
    assert (await action_of(pool, other)).status == "pending"


async def _has(pool: Any, action_id: UUID, status: str) -> bool:
    return (await action_of(pool, action_id)).status == status


async def _none_left(broker: BrokerStandIn) -> bool:
    return await broker.pending() == 0
