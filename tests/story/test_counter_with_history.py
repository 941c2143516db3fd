"""A counter added to a live ruleset with history: old customers are no new ones, while it is built and afterwards."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random

import aiohttp
import pytest

from connect.authoring import read_and_check
from connect.model import Ruleset
from tests.chaos.feeder import Answer, Fact
from tests.chaos.harness import SEED, Cluster, cluster, meanwhile
from tests.conftest import eventually
from tests.serving import KEY
from tests.story.test_publish_under_load import judge

pytestmark = pytest.mark.whole

PLAIN = """
version: 1
units: { points: { scale: 0 } }
rules:
  - key: thanks
    event_type: purchase.completed
    actions: [ { target: points, command: credit, recipient: actor, amount: 1, unit: points } ]
"""
WITH_COUNTER = (
    PLAIN
    + """
  - key: welcome
    event_type: purchase.completed
    condition: counters.purchases == 1
    actions: [ { target: points, command: credit, recipient: actor, amount: 500, unit: points } ]
counters: { purchases: { event_type: purchase.completed, of: actor, kind: count } }
"""
)
WELCOMED = "SELECT user_id, count(*) AS times FROM reward_action WHERE rule_key = 'welcome' GROUP BY 1"
HELD = "SELECT split_part(key, '|', 5) AS user_id, value::integer AS count FROM state WHERE key LIKE 'counter|%'"
BOUGHT = "SELECT actor_user_id AS user_id, count(*)::integer AS count FROM event GROUP BY 1"


def rules(text: str) -> Ruleset:
    document, problems = read_and_check(text)
    assert document is not None, problems
    return document


def purchases(prefix: str, users: list[str]) -> list[Fact]:
    return [
        {"external_id": f"{prefix}-{n}", "source": "shop", "event_type": "purchase.completed",
         "occurred_at": datetime.now(UTC).isoformat(), "actor_user_id": user, "context": {}}
        for n, user in enumerate(users)
    ]  # fmt: skip


async def publish(up: Cluster, text: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/yaml"}
    url = f"{up.apis[0].url}/internal/ruleset"
    async with aiohttp.ClientSession(headers=headers) as session, session.put(url, data=text) as reply:
        assert reply.status == 200, await reply.text()


async def is_built(up: Cluster) -> bool:
    return await up.pool.fetchval("SELECT status = 'live' FROM counter")


@pytest.mark.timeout(300)
async def test_a_counter_added_under_load_pays_no_old_customer_for_a_first_purchase(
    external_database_url: str, tmp_path: Path
):
    rng = Random(SEED)
    old, new = [f"old{n}" for n in range(80)], [f"new{n}" for n in range(40)]
    history = purchases("then", [*old, *rng.choices(old, k=1200)])
    meanwhile_bought = purchases("now", rng.choices(old, k=500))
    later = purchases("later", [*rng.choices(old, k=60), *new, *new])
    async with cluster(external_database_url, tmp_path, apis=2, workers=2, rules=rules(PLAIN), judge=judge) as up:
        await up.feed(history, singles=0)
        async with meanwhile(up.feed(meanwhile_bought, over_s=5, singles=0.8)):
            await publish(up, WITH_COUNTER)
            assert not await is_built(up), "void: there was no history to build it from"
        await eventually(lambda: is_built(up), timeout_s=60)
        asked = "SELECT count(*) FROM event, json_array_elements(trace) AS entry WHERE entry ->> 0 = 'welcome' AND "
        assert await up.pool.fetchval(asked + "entry ->> 1 = 'not_live'") > 0, "void: no purchase met the building"
        await eventually(lambda: _follow(up), timeout_s=30)
        await up.feed(later)
        await up.finish()
        assert dict(await up.pool.fetch(WELCOMED)) == dict.fromkeys(new, 1)
        assert dict(await up.pool.fetch(HELD)) == dict(await up.pool.fetch(BOUGHT))


async def _follow(up: Cluster) -> bool:
    """Whether both APIs read the counter, tried by a purchase of an old customer at each."""
    number = await up.pool.fetchval("SELECT count(*) FROM event")
    probes = purchases(f"probe{number}", ["old0", "old0"])
    for api, fact in zip(up.apis, probes, strict=True):
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.post(f"{api.url}/internal/events", json=fact) as reply:
                assert reply.status == 201, await reply.text()
                event = (await reply.json())["event"]["id"]
            name = fact["external_id"]
            up.history.facts[name] = fact
            up.history.answers[name].append(Answer(name, "201", event, 0))
            async with session.get(f"{api.url}/internal/events/{event}/trace") as reply:
                outcomes = {rule["rule"]: rule["outcome"] for rule in (await reply.json())["rules"]}
        if outcomes["welcome"] == "not_live":
            return False
    return True
