"""Two API and two worker processes on one PostgreSQL: the work is spread, and all comes out as decided in memory."""

from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.chaos.feeder import purchases
from tests.chaos.harness import SEED, cluster, meanwhile
from tests.chaos.processes import Node

pytestmark = pytest.mark.whole


async def metric(node: Node, name: str) -> float:
    """The sum of a metric over its labels, as the process itself tells it."""
    async with aiohttp.ClientSession() as session, session.get(f"{node.url}/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@pytest.mark.timeout(300)
async def test_two_apis_and_two_workers_share_the_work_and_agree_with_deciding_in_memory(
    external_database_url: str, tmp_path: Path
):
    facts = purchases(Random(SEED), 800)
    async with cluster(external_database_url, tmp_path, apis=2, workers=2) as up:
        async with meanwhile(up.feed(facts[:400], over_s=2)), meanwhile(up.feed(facts[400:], over_s=2, queued=True)):
            pass
        await up.finish()
        sent = [await metric(worker, "connect_action_attempts_total") for worker in up.workers]
        recorded = [await metric(api, "connect_events_total") for api in up.apis]
        assert min(sent) > sum(sent) * 0.1, sent
        assert min(recorded) > sum(recorded) * 0.2, recorded
        assert up.history.unanswered == 0
