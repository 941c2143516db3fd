"""A process dies at each named place, with work in its hands: nothing is lost, every target effect happens once."""

import re
from pathlib import Path
from random import Random

import pytest

import connect
from tests.chaos.feeder import purchases
from tests.chaos.harness import SEED, cluster

pytestmark = pytest.mark.chaos

INTAKE = ("intake.before_commit", "intake.after_commit")
DECIDE = ("decide.after_claim", "decide.before_commit", "decide.after_commit")
BUS = ("bus.before_ack", "bus.after_ack")
"""Died at in test_bus_failpoints.py."""
JOBS = ("jobs.step",)
"""Died at in tests/api/test_jobs.py."""
DISPATCH = {"claim.after": 2, "send.before": 30, "send.after": 30, "settle.before": 3, "settle.after": 3}
"""And at which reaching it dies: in the middle, with more behind it."""


def test_every_failpoint_of_the_source_is_died_at():
    source = Path(connect.__file__).parent
    found = {name for file in source.rglob("*.py") for name in re.findall(r'\breach\("([^"]+)"\)', file.read_text())}
    assert found == {*INTAKE, *DECIDE, *BUS, *DISPATCH, *JOBS}


@pytest.mark.timeout(300)
async def test_dying_at_every_failpoint_in_turn_loses_and_doubles_nothing(database_url: str, tmp_path: Path):
    """One database and one history through ten deaths; the slow test below gives each failpoint 2,000 of its own."""
    facts = purchases(Random(SEED), 420)
    async with cluster(database_url, tmp_path, start=False) as up:
        [api], [worker] = up.apis, up.workers
        api.keep_alive(["intake.after_commit:2"])
        await api.start("intake.before_commit:3")
        await up.feed(facts[:120], over_s=0.5)
        assert sorted(death.failpoint for death in api.deaths) == sorted(INTAKE)

        for number, failpoint in enumerate(DECIDE):
            await up.feed(facts[120 + number * 20 : 140 + number * 20], queued=True)
            await worker.start(failpoint, "--roles", "decide", ready=False)
            assert (await worker.died()).failpoint == failpoint, worker.tail()
            await up.time_passes()
        await up.feed(facts[180:])
        for failpoint, nth in DISPATCH.items():
            await worker.start(f"{failpoint}:{nth}", "--roles", "dispatch", ready=False)
            assert (await worker.died()).failpoint == failpoint, worker.tail()
        await worker.start()
        await up.time_passes()
        await up.finish()
        assert up.failpoints() == dict.fromkeys([*INTAKE, *DECIDE, *DISPATCH], 1)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("failpoint", [*INTAKE, *DECIDE, *DISPATCH])
async def test_2000_events_while_a_process_dies_there_again_and_again(
    failpoint: str, database_url: str, tmp_path: Path
):
    facts = purchases(Random(SEED), 2000)
    nth = DISPATCH.get(failpoint, 3 if failpoint in INTAKE else 1)
    async with cluster(database_url, tmp_path, start=False) as up:
        [api], [worker] = up.apis, up.workers
        armed, other = (api, worker) if failpoint in INTAKE else (worker, api)
        armed.keep_alive([f"{failpoint}:{nth * times}" for times in (2, 1)])
        await other.start()
        await armed.start(f"{failpoint}:{nth}", ready=False)
        await up.feed(facts, over_s=10, queued=failpoint in DECIDE)
        await up.time_passes()
        await up.finish(timeout_s=120)
        assert up.failpoints() == {failpoint: 3}, "void: it did not die there three times"
