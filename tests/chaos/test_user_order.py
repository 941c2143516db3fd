"""Commands of each user in order (`order_by = "user"`) over four worker processes, some killed, at a failing target."""

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import pytest

from connect.engine.index import Rulebook
from tests.chaos.checker import Observed, faults_of
from tests.chaos.feeder import Fact, History
from tests.chaos.harness import Cluster, cluster, meanwhile, moment
from tests.chaos.processes import all_of
from tests.conftest import eventually

pytestmark = pytest.mark.chaos

ENTERS = "went from pending to blocked"
USERS, EACH = 8, 20
KILLS = 3
MISBEHAVIOUR = [
    {"target": "points", "fault": "error", "probability": 0.1},
    {"target": "points", "fault": "error_after_effect", "probability": 0.1, "status": 500},
    {"target": "points", "fault": "reset_after_effect", "probability": 0.05},
]


def purchase(user: str, number: int) -> Fact:
    """Earns 100 points and its number."""
    return {
        "external_id": f"{user}-{number}", "source": "shop", "event_type": "purchase.completed",
        "occurred_at": "2026-11-22T10:00:00Z", "actor_user_id": user,
        "context": {"amount_minor": 50 * (100 + number), "currency": "EUR"},
    }  # fmt: skip


async def report_in_turn(up: Cluster, numbers: range) -> None:
    """Users side by side, each one's facts singly: the next goes off when the one before was answered."""

    async def report(user: str) -> None:
        for number in numbers:
            await up.feed([purchase(user, number)])

    await asyncio.gather(*(report(f"u{user}") for user in range(USERS)))


def faults_but_entering(history: History, rulebook: Rulebook, observed: Observed) -> list[str]:
    """An action enters its lane in the transaction that makes it, where it goes behind those that are there."""
    return [fault for fault in faults_of(history, rulebook, observed) if not fault.endswith(ENTERS)]


@pytest.mark.timeout(120)
async def test_each_users_commands_keep_their_order_under_4_workers_while_the_target_fails_and_workers_die(
    database_url: str, tmp_path: Path
):
    """Half of the facts wait in long lanes when the workers start, the others come while these are at work."""
    async with cluster(database_url, tmp_path, workers=4, start=False, judge=faults_but_entering) as up:
        for node in up.nodes:
            node.environ["CONNECT_TARGETS__POINTS__ORDER_BY"] = "user"
        await up.apis[0].start()
        await up.misbehave(*({**fault, "seed": up.rng.randrange(1000)} for fault in MISBEHAVIOUR))
        await report_in_turn(up, range(EACH // 2))
        for worker in up.workers:
            worker.keep_alive()
        await all_of(*(worker.start() for worker in up.workers))
        async with meanwhile(report_in_turn(up, range(EACH // 2, EACH))):
            for victim in up.rng.sample(up.workers, KILLS):
                await moment(time.monotonic() + up.rng.uniform(0.1, 0.5))
                await up.kill(victim)
        await all_of(*(eventually(lambda node=node: node.lives, timeout_s=30) for node in up.workers))
        await up.all_ended()
        fired = await up.behave()
        assert [kind for kind, times in fired.items() if not times] == [], f"void: only these fired: {fired}"
        await up.finish(["kill worker"])
        done: dict[str, list[int]] = defaultdict(list)
        for effect in await up.ledger():
            done[effect["user_id"]].append(int(effect["amount"]) - 100)
        assert dict(done) == {f"u{user}": list(range(EACH)) for user in range(USERS)}
