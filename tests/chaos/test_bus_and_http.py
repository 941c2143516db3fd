"""One fact told over HTTP and two brokers at the same time, as reporters do that change from one way to another."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.buses import metric, on_buses
from tests.chaos.feeder import purchases
from tests.chaos.processes import all_of

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(120)
@pytest.mark.parametrize("processing", ["inline", pytest.param("queued", marks=pytest.mark.slow)])
async def test_the_same_events_over_http_and_two_buses_at_once_give_one_set_of_actions(
    processing: str, database_url: str, tmp_path: Path
):
    """Each way in an order of its own and by a process of its own: now this one is first with a fact, now that one."""
    async with on_buses(
        database_url, tmp_path, "redis", "rabbitmq", workers=2, start=False, CONNECT_PROCESSING=processing
    ) as buses:
        up, queued = buses.up, processing == "queued"
        [api], [first, second] = up.apis, up.workers
        del first.environ["CONNECT_BUS__RABBITMQ__URL"], second.environ["CONNECT_BUS__REDIS__URL"]
        await all_of(*(node.start() for node in up.nodes))
        facts = purchases(up.rng, 300)
        await asyncio.gather(
            up.feed(up.rng.sample(facts, len(facts)), singles=0.2, queued=queued),
            *(reporter.put(up.rng.sample(facts, len(facts)), parcel=20) for reporter in buses.reporters.values()),
        )
        await buses.settled()
        told = {
            result: [await metric(node, "connect_events_total", result=result) for node in (api, first, second)]
            for result in ("created", "duplicate", "conflict", "refused")
        }
        await buses.finish({})
        assert sum(told["created"]) == len(facts), told
        assert sum(told["conflict"] + told["refused"]) == 0, told
        assert min(told["created"]) > 0, f"void: one way was never first: {told}"
        assert min(told["duplicate"]) > 0, f"void: one way was never second: {told}"
