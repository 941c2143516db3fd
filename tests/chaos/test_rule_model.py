"""Limits, budgets, counters and refunds while processes die: what rules remember is what a recount has."""

from pathlib import Path
from random import Random

import pytest

from tests.chaos.harness import SEED, Cluster, cluster, meanwhile
from tests.chaos.model_rules import shop_life
from tests.chaos.processes import all_of
from tests.chaos.recount import WHOLE_MODEL
from tests.chaos.test_failpoints import DECIDE, INTAKE
from tests.chaos.test_seeded import MISBEHAVIOUR, run
from tests.conftest import eventually

pytestmark = pytest.mark.chaos

OF_TARGETS_USED = [fault for fault in MISBEHAVIOUR if fault["target"] != "gateway"]


async def expect_all_was_asked_of_the_rules(up: Cluster) -> None:
    """A run in which nothing was limited, clipped, counted out or taken back would prove nothing."""
    told = "SELECT DISTINCT entry ->> 0, entry ->> 1 FROM event, json_array_elements(trace) AS entry"
    outcomes = {tuple(row) for row in await up.pool.fetch(told)}
    wanted = {
        ("cashback", "limited"), ("bonus", "short_of_budget"), ("cashback", "took_back"), ("third", "gave"),
        ("third", "took_back"), ("friend", "limited"),
    }  # fmt: skip
    assert wanted <= outcomes, f"void: {sorted(wanted - outcomes)} never came"


@pytest.mark.timeout(300)
async def test_dying_while_deciding_leaves_limits_budgets_and_counters_as_a_recount_has_them(
    database_url: str, tmp_path: Path
):
    facts = shop_life(Random(SEED), 300)
    async with cluster(database_url, tmp_path, start=False, **WHOLE_MODEL) as up:
        [api], [worker] = up.apis, up.workers
        api.keep_alive(["intake.after_commit:3"])
        worker.keep_alive(DECIDE[1:])
        await all_of(api.start("intake.before_commit:3"), worker.start(DECIDE[0], ready=False))
        async with meanwhile(up.feed(facts[:150], singles=0.3)), meanwhile(up.feed(facts[150:], queued=True)):
            await eventually(lambda: _died_everywhere(up), timeout_s=60, every_s=0.5)
        await up.time_passes()
        await up.finish()
        assert up.failpoints() == dict.fromkeys([*INTAKE, *DECIDE], 1)
        await expect_all_was_asked_of_the_rules(up)


async def _died_everywhere(up: Cluster) -> bool:
    await up.time_passes()  # what a dead worker claimed is the next one's
    return up.failpoints().keys() == {*INTAKE, *DECIDE}


@pytest.mark.timeout(300)
async def test_seconds_of_seeded_faults_leave_limits_budgets_and_counters_as_a_recount_has_them(
    external_database_url: str, tmp_path: Path
):
    async with cluster(external_database_url, tmp_path, apis=2, workers=2, **WHOLE_MODEL) as up:
        await run(up, shop_life(up.rng, 320), over_s=4, blows=5, misbehaviour=OF_TARGETS_USED)
        await expect_all_was_asked_of_the_rules(up)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_a_minute_of_seeded_faults_leaves_limits_budgets_and_counters_as_a_recount_has_them(
    seed: int, external_database_url: str, tmp_path: Path
):
    async with cluster(
        external_database_url, tmp_path, apis=2, workers=2, seed=seed, **WHOLE_MODEL,
    ) as up:  # fmt: skip
        await run(up, shop_life(up.rng, 4000, users=300), over_s=60, blows=30, misbehaviour=OF_TARGETS_USED)
        await expect_all_was_asked_of_the_rules(up)
