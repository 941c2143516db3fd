"""A publish, a rollback and a stop while events pour in: every process follows within 2 s, and nothing is lost."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import aiohttp
import pytest

from connect.authoring import read_and_check
from connect.engine.index import Rulebook
from connect.model import Ruleset
from tests.chaos.checker import Observed, illegal_changes, lost_or_doubled_events
from tests.chaos.feeder import Fact, History
from tests.chaos.harness import SEED, Cluster, cluster, meanwhile
from tests.conftest import eventually
from tests.serving import KEY

pytestmark = pytest.mark.whole

FOLLOWED_WITHIN = timedelta(seconds=2)
TEXT = """
version: 1
units: { points: { scale: 0 } }
rules:
  - key: visit
    event_type: shop.visited
    actions: [ { target: points, command: credit, recipient: actor, amount: AMOUNT, unit: points } ]
  - key: bonus
    event_type: purchase.completed
    limits: [ { per: recipient, every: day, uses: 100000 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: AMOUNT, unit: points } ]
"""
# What each event was decided by, and what it gave.
DECIDED = """
SELECT event.external_id, event.ruleset_version AS version, event.event_type, event.decided_at, event.tries > 0 AS late,
    coalesce(sum(action.amount), 0)::integer AS amount
FROM event LEFT JOIN reward_action AS action ON action.event_id = event.id GROUP BY event.id
"""


def giving(amount: int) -> Ruleset:
    document, problems = read_and_check(TEXT.replace("AMOUNT", str(amount)))
    assert document is not None, problems
    return document


def facts(count: int) -> list[Fact]:
    """With and without state to lock, of a few users each."""
    rng = Random(SEED)
    return [
        {"external_id": f"fact-{n}", "source": "shop", "event_type": rng.choice(["shop.visited", "purchase.completed"]),
         "occurred_at": datetime.now(UTC).isoformat(), "actor_user_id": f"u{rng.randrange(20)}", "context": {}}
        for n in range(count)
    ]  # fmt: skip


def judge(history: History, _: Rulebook, observed: Observed) -> list[str]:
    return [*lost_or_doubled_events(history, observed), *illegal_changes(observed)]


async def publish(up: Cluster, method: str, path: str, body: str = "{}", kind: str = "application/json") -> datetime:
    """Publishes through the first API process; returns the moment at which that was answered."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, up.apis[0].url + path, data=body) as reply,
    ):
        assert reply.status == 200, await reply.text()
    return datetime.now(UTC)


async def decided_by(up: Cluster, version: int) -> None:
    """Returns when a good many events were decided by the version, by APIs and by workers, and the next may come."""
    enough = "SELECT count(*) FILTER (WHERE tries = 0) > 30 AND count(*) FILTER (WHERE tries > 0) > 30 FROM event"
    await eventually(lambda: up.pool.fetchval(f"{enough} WHERE ruleset_version = $1", version), timeout_s=30)


@pytest.mark.timeout(300)
async def test_publish_rollback_and_stop_under_load_are_followed_within_two_seconds_and_lose_nothing(
    database_url: str, tmp_path: Path
):
    reported = facts(1200)
    answered: dict[int, datetime] = {}
    async with cluster(database_url, tmp_path, apis=2, workers=2, rules=giving(1), judge=judge) as up:
        async with (
            meanwhile(up.feed(reported[::2], over_s=6, singles=0.8)),
            meanwhile(up.feed(reported[1::2], over_s=6, singles=0.8, queued=True)),
        ):
            await decided_by(up, 1)
            answered[2] = await publish(up, "PUT", "/internal/ruleset", TEXT.replace("AMOUNT", "2"), "application/yaml")
            await decided_by(up, 2)
            answered[3] = await publish(up, "POST", "/internal/ruleset/versions/1/publish")
            await decided_by(up, 3)
            answered[4] = await publish(up, "POST", "/internal/rules/bonus/stop", '{"pending": "keep"}')
            await decided_by(up, 4)
        await up.finish()
        decided = [dict(row) for row in await up.pool.fetch(DECIDED)]
    gives = {1: (1, 1), 2: (2, 2), 3: (1, 1), 4: (1, 0)}  # per visit, per purchase
    assert len(decided) == len(reported)
    for event in decided:
        assert event["amount"] == gives[event["version"]][event["event_type"] == "purchase.completed"], event
        due = [version for version, at in answered.items() if event["decided_at"] > at + FOLLOWED_WITHIN]
        assert event["version"] >= max(due, default=1), f"{event}, and {answered}"
