"""Consumers killed again and again while facts come in over brokers: none lost, none twice, each action once in effect.

Every choice comes from a seed, printed with the run; CONNECT_TEST_SEED repeats one (the moments of the machine vary).
"""

import time
from pathlib import Path

import pytest

from tests.brokers import SERVERS
from tests.chaos.buses import KILL, SLOWER, Buses, on_buses
from tests.chaos.feeder import purchases
from tests.chaos.harness import SEED, meanwhile, moment
from tests.conftest import eventually

pytestmark = pytest.mark.chaos

BROKERS = sorted(SERVERS)


async def through_kills(buses: Buses, facts: int, kills: int, over_s: float) -> None:
    """A share of the facts for each kill, which falls in its first half or, where nothing is in hand then, later."""
    up = buses.up
    await up.pool.execute(SLOWER)
    reported = purchases(up.rng, facts)
    share = facts // (kills + 1)
    for worker in up.workers:
        worker.keep_alive()
    for kill in range(kills):
        victim = up.rng.choice(up.workers)
        await eventually(lambda victim=victim: victim.lives)
        await victim.ready()
        part = reported[kill * share : (kill + 1) * share]
        async with meanwhile(buses.put(part, parcel=10, over_s=over_s / kills)) as flow:
            await moment(time.monotonic() + up.rng.uniform(0, 0.5) * over_s / kills)
            await buses.kill(victim, flow)
    await buses.put(reported[kills * share :])
    await buses.finish({KILL: kills})


@pytest.mark.timeout(200)
@pytest.mark.parametrize("broker", BROKERS)
async def test_3_kills_of_the_consumer_while_1000_messages_go_through_lose_and_double_nothing(
    broker: str, database_url: str, tmp_path: Path
):
    async with on_buses(database_url, tmp_path, broker) as buses:
        await through_kills(buses, 1000, 3, over_s=4.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
@pytest.mark.parametrize("broker", BROKERS)
async def test_8_kills_of_consumers_while_10000_messages_go_through_lose_and_double_nothing(
    broker: str, seed: int, external_database_url: str, tmp_path: Path
):
    async with on_buses(external_database_url, tmp_path, broker, workers=2, seed=seed) as buses:
        await through_kills(buses, 10_000, 8, over_s=40)
