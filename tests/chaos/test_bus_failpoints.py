"""A consumer dies at each named place on the way from a broker to the acknowledgement, with messages in its hands."""

from pathlib import Path

import pytest

from tests.brokers import SERVERS
from tests.chaos.buses import Buses, on_buses, reader_of
from tests.chaos.feeder import Fact, purchases
from tests.chaos.test_failpoints import BUS, DECIDE, INTAKE

pytestmark = pytest.mark.chaos

PART = 60
"""Facts that are put before each death."""


async def die_at(buses: Buses, failpoint: str, facts: list[Fact], roles: str) -> None:
    """Starts the consumer on what is put, and has it die there; what it held is another's then."""
    [worker] = buses.up.workers
    await buses.put(facts)
    await worker.start(failpoint, "--roles", roles, ready=False)
    reader = reader_of(worker)
    assert (await worker.died()).failpoint == failpoint, worker.tail()
    await buses.given_up(reader)
    await buses.up.time_passes()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("broker", sorted(SERVERS))
async def test_a_consumer_that_dies_at_each_failpoint_in_turn_loses_and_doubles_nothing(
    broker: str, database_url: str, tmp_path: Path
):
    """All ends are equal: the checker holds them against what deciding in memory gives."""
    async with on_buses(database_url, tmp_path, broker, start=False) as buses:
        await buses.up.apis[0].start()
        facts = purchases(buses.up.rng, PART * 5)
        for number, failpoint in enumerate([*INTAKE, *BUS]):
            await die_at(buses, failpoint, facts[number * PART : (number + 1) * PART], "bus")
        await buses.put(facts[4 * PART :])
        await buses.up.workers[0].start()
        await buses.finish({})
        assert buses.up.failpoints() == dict.fromkeys([*INTAKE, *BUS], 1)


@pytest.mark.timeout(200)
async def test_a_worker_that_decides_later_dies_at_each_failpoint_and_loses_and_doubles_nothing(
    database_url: str, tmp_path: Path
):
    async with on_buses(database_url, tmp_path, "redis", start=False, CONNECT_PROCESSING="queued") as buses:
        await buses.up.apis[0].start()
        everywhere = [*INTAKE, *BUS, *DECIDE]
        facts = purchases(buses.up.rng, PART * len(everywhere))
        for number, failpoint in enumerate(everywhere):
            roles = "bus,decide" if failpoint in DECIDE else "bus"
            await die_at(buses, failpoint, facts[number * PART : (number + 1) * PART], roles)
        await buses.up.workers[0].start()
        await buses.finish({})
        assert buses.up.failpoints() == dict.fromkeys(everywhere, 1)
