"""The database away, the connection to a broker cut, the broker itself gone and back: kept, given again, told once."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.brokers import SERVERS
from tests.chaos.buses import Buses, metric, on_buses, reader_of
from tests.chaos.feeder import Fact, purchases
from tests.chaos.harness import moment
from tests.chaos.processes import Node
from tests.conftest import eventually

pytestmark = pytest.mark.chaos

BROKERS = sorted(SERVERS)
AWAY_S = 7.0
CPU_SHARE_MAX = 0.3
"""The most of one core that a consumer takes while it waits for its database; one that spins takes all of it."""
GROWTH_MAX_KB = 30_000
TRIES_MAX = 12
"""At a database that is away for `AWAY_S`: pauses double, up to ten seconds."""
HELD_MAX = 1500
"""Three batches: one in hand, one fetched, one on its way."""


@contextlib.asynccontextmanager
async def database_away(url: str) -> AsyncIterator[None]:
    """It takes no connection, and those it had are ended."""
    parts = urlsplit(url)
    name = parts.path[1:]
    other: asyncpg.Connection = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    try:
        await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        yield
    finally:
        await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await other.close()


def facts_of(buses: Buses, count: int) -> list[Fact]:
    """Nine of ten give nothing: what is waited for is their recording."""
    facts = purchases(buses.up.rng, count)
    return [{**fact, "event_type": "page.viewed"} if n % 10 else fact for n, fact in enumerate(facts)]


def cpu_s(node: Node) -> float:
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory_kb(node: Node) -> int:
    lines = Path(f"/proc/{node.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def told(node: Node, event: str) -> int:
    return node.log.read_text(errors="replace").count(f'"event":"{event}"')


@pytest.mark.timeout(200)
@pytest.mark.parametrize("broker", BROKERS)
async def test_while_the_database_is_away_messages_stay_at_the_broker_and_nobody_spins(
    broker: str, database_url: str, tmp_path: Path
):
    async with on_buses(database_url, tmp_path, broker) as buses:
        [worker], stand_in = buses.up.workers, buses.brokers[broker]
        facts = facts_of(buses, 2500)
        await buses.put(facts[:100])
        await buses.stored(100)
        async with database_away(database_url):
            await buses.put(facts[100:])
            await eventually(lambda: told(worker, "bus.not_taken"), timeout_s=30)
            waiting, begun = await stand_in.waiting(), time.monotonic()
            cpu_before, memory_before = cpu_s(worker), memory_kb(worker)
            await moment(begun + AWAY_S)
            assert waiting >= len(facts) - 100 - HELD_MAX
            assert await stand_in.waiting() >= waiting - HELD_MAX, "it goes on fetching"
            assert cpu_s(worker) - cpu_before < CPU_SHARE_MAX * AWAY_S
            assert memory_kb(worker) - memory_before < GROWTH_MAX_KB
            assert told(worker, "bus.not_taken") <= TRIES_MAX
            assert told(worker, "bus.opened") == 1, "it gave its messages back"
            assert await metric(worker, "connect_bus_lag", bus=broker) >= len(facts) - 100
            buses.up.fired["database away"] += 1
        await buses.finish({"database away": 1})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("broker", BROKERS)
async def test_a_consumer_told_to_stop_while_the_database_is_away_leaves_and_its_messages_wait_for_others(
    broker: str, database_url: str, tmp_path: Path
):
    async with on_buses(database_url, tmp_path, broker) as buses:
        [worker] = buses.up.workers
        facts = facts_of(buses, 2000)
        async with database_away(database_url):
            await buses.put(facts)
            await eventually(lambda: told(worker, "bus.not_taken"), timeout_s=30)
            reader = reader_of(worker)
            worker.terminate()
            death = await worker.died(timeout_s=30)
            assert (death.cause, death.code) == ("stopped", 0), worker.tail()
        await buses.given_up(reader)
        await worker.start()
        await buses.finish({})
