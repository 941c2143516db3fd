"""64 reporters over two API and two worker processes share a budget of 1,000: it is granted to its last point."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec
import pytest

from connect.authoring import read_and_check
from connect.model import Ruleset
from tests.chaos.harness import SEED, Cluster, cluster
from tests.conftest import eventually
from tests.serving import KEY

pytestmark = pytest.mark.whole

REPORTERS = 64
POT = 1_000
RULES = f"""
version: 1
units: {{ points: {{ scale: 0 }} }}
budgets: {{ pot: {{ unit: points, cap: {POT} }} }}
rules:
  - key: bonus
    event_type: purchase.completed
    budget: {{ from: pot }}
    actions: [ {{ target: points, command: credit, recipient: actor, amount: context.points, unit: points }} ]
"""
# By the state that each decision read under its lock: what was refused, and what of it would still have fitted.
DENIALS = f"""
SELECT count(*) AS denied, count(*) FILTER (WHERE used + wanted <= {POT}) AS fitted FROM (
    SELECT (state -> 'usage' ->> 'budget|pot|points')::numeric AS used, (context ->> 'points')::numeric AS wanted
    FROM event, json_array_elements(trace) AS entry WHERE entry ->> 1 = 'short_of_budget'
) AS denials
"""
BY_A_WORKER = "SELECT count(*) FROM event WHERE tries > 0"
GRANTED = "SELECT sum(amount) FROM reward_action"
STORED = "SELECT value FROM state WHERE key = 'budget|pot|points'"


def rules() -> Ruleset:
    document, problems = read_and_check(RULES)
    assert document is not None, problems
    return document


async def report(up: Cluster, reporter: int, points: list[int]) -> None:
    """One after the other over a connection of its own, to either process; every fourth to be decided by a worker."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for n, amount in enumerate(points):
            fact = {
                "external_id": f"order-{reporter}-{n}", "source": "shop", "event_type": "purchase.completed",
                "occurred_at": datetime.now(UTC).isoformat(), "actor_user_id": f"u{reporter}",
                "context": {"points": amount},
            }  # fmt: skip
            queued = {"Prefer": "respond-async"} if (reporter + n) % 4 == 0 else {}
            url = up.apis[(reporter + n) % 2].url + "/internal/events"

            async def told(url: str = url, fact: Any = fact, queued: Any = queued) -> bool:
                async with session.post(url, data=msgspec.json.encode(fact), headers=queued) as reply:
                    assert reply.status in (200, 201, 202, 503), await reply.text()
                    return reply.status < 300

            await eventually(told, timeout_s=60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("server", "amounts"),
    [("database_url", [8]), ("external_database_url", [1, 3, 7, 20])],
    ids=["embedded", "external"],
)
async def test_64_reporters_are_granted_the_whole_budget_and_not_a_point_more(
    database_url: str, external_database_url: str, server: str, amounts: list[int], tmp_path: Path
):
    """On the embedded PostgreSQL, and on the one that runs beside us where there is one."""
    rng, url = Random(SEED), database_url if server == "embedded" else external_database_url
    wanted = [[rng.choice(amounts) for _ in range(5)] for _ in range(REPORTERS)]
    assert sum(map(sum, wanted)) > 2 * POT
    async with cluster(url, tmp_path, apis=2, workers=2, rules=rules()) as up:
        await asyncio.gather(*(report(up, n, points) for n, points in enumerate(wanted)))
        assert await up.all_ended()
        granted, stored = await up.pool.fetchval(GRANTED), await up.pool.fetchval(STORED)
        denied, fitted = await up.pool.fetchrow(DENIALS)
        assert await up.pool.fetchval(BY_A_WORKER) > 0, "void: the APIs decided everything"
    assert (granted, stored) == (str(POT), str(POT))
    assert denied > 0, "void: all that was asked for fitted"
    assert fitted == 0
