"""The way to a broker cut, the broker itself gone and back: messages are given again, and each is told once."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import SERVERS
from tests.chaos.buses import SLOWER, Buses, metric, on_buses, reader_of
from tests.chaos.feeder import purchases
from tests.chaos.harness import meanwhile, moment
from tests.chaos.own_brokers import own_broker
from tests.chaos.processes import Node, all_of
from tests.conftest import eventually

pytestmark = pytest.mark.chaos

WAITING = """
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'connect-worker' AND wait_event_type = 'Lock'
"""
LONG_COMMITS = SLOWER.replace("0.05", "0.3")
"""While one lasts more messages come: they wait in the reader's memory, where they go with its connection."""
HEARTBEATS_S = 45
"""A server of RabbitMQ takes a client for dead after two or three of its ten seconds."""


async def through_restarts(
    buses: Buses, strike: Callable[[], Awaitable[None]], facts: int, times: int, over_s: float
) -> None:
    """Each strike falls while facts are put and taken; what was put and not confirmed is put once more."""
    up, [worker] = buses.up, buses.up.workers
    await up.pool.execute(LONG_COMMITS)
    reported = purchases(up.rng, facts)
    share = facts // times
    for number in range(times):
        opened = worker.log.read_text().count('"event":"bus.opened"')
        part = reported[number * share : (number + 1) * share]
        async with meanwhile(buses.put(part, parcel=20, over_s=over_s)):
            await moment(time.monotonic() + up.rng.uniform(0.1, 0.5) * over_s)
            await strike()
        await buses.given_up(reader_of(worker))
        await eventually(
            lambda before=opened: worker.log.read_text().count('"event":"bus.opened"') > before, timeout_s=60
        )
        up.fired["broker struck"] += 1
    await buses.finish({"broker struck": times})
    assert worker.log.read_text().count('"event":"bus.unavailable"') >= times, "void: it noticed nothing"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("broker", sorted(SERVERS))
@pytest.mark.parametrize(
    ("facts", "times", "over_s"), [(300, 1, 1.5), pytest.param(8000, 8, 4.0, marks=pytest.mark.slow)]
)
async def test_a_broker_that_dies_and_comes_back_in_the_middle_loses_and_doubles_nothing(
    broker: str, facts: int, times: int, over_s: float, database_url: str, tmp_path: Path
):
    async with (
        own_broker(broker, tmp_path) as own,
        on_buses(database_url, tmp_path, brokers={broker: own.stand_in}) as buses,
    ):
        await through_restarts(buses, own.strike, facts, times, over_s)


@contextlib.asynccontextmanager
async def event_locked(pool: Any) -> AsyncIterator[None]:
    """Nothing is recorded for as long as the block lasts."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await connection.execute("LOCK TABLE event IN SHARE MODE")
        yield


@pytest.mark.timeout(200)
@pytest.mark.parametrize("broker", ["nats", "redis", pytest.param("rabbitmq", marks=pytest.mark.slow)])
async def test_a_connection_silent_for_longer_than_the_window_gives_its_messages_to_another_reader(
    broker: str, database_url: str, tmp_path: Path
):
    """The first reader is in the middle of its commit, and may go on with it when the other has the same messages."""
    async with on_buses(database_url, tmp_path, broker, workers=2, start=False) as buses:
        up, stand_in = buses.up, buses.brokers[broker]
        first, second = up.workers
        second.environ[f"CONNECT_BUS__{broker.upper()}__URL"] = stand_in.direct_url
        await all_of(up.apis[0].start(), first.start())
        facts = purchases(up.rng, 200)
        async with event_locked(up.pool):
            await buses.put(facts[:100])
            await eventually(lambda: up.pool.fetchval(WAITING), timeout_s=20)
            stand_in.relay.silent = True
            await stand_in.give_up_on(reader_of(first))
            await second.start()
            await eventually(lambda: _holds(second), timeout_s=HEARTBEATS_S, every_s=0.1)
        await eventually(lambda: _took(second, broker), timeout_s=30)
        stand_in.relay.silent = False
        stand_in.cut()
        await buses.put(facts[100:])
        await buses.finish({})


def _holds(worker: Node) -> bool:
    """It was given messages that it cannot write yet."""
    return '"event":"bus.not_taken"' in worker.log.read_text()


async def _took(worker: Node, broker: str) -> bool:
    return await metric(worker, "connect_bus_messages_total", bus=broker, result="taken") > 0
