"""The checker is worth something: a bug put into a copied tree is caught, and the tree as it is passes the trial."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos import mutants
from tests.chaos.feeder import Fact, purchases
from tests.chaos.harness import Cluster, cluster, meanwhile
from tests.chaos.model_rules import shop_life
from tests.chaos.mutants import MUTANTS, Mutant, grow
from tests.chaos.processes import all_of
from tests.chaos.recount import WHOLE_MODEL
from tests.conftest import eventually

pytestmark = pytest.mark.chaos

QUICK = (mutants.ACK_BEFORE_COMMIT, mutants.NEW_KEY_PER_ATTEMPT, mutants.READ_CHECK_WRITE)
"""In every run; the others in the slow one."""
ENDED_WITHIN_S = 12
"""An action that waits longer has not ended: leases and retries here take about three seconds."""
Scenario = Callable[[Cluster], Awaitable[None]]


def rewarded(up: Cluster, count: int) -> list[Fact]:
    """Purchases that each earn points."""
    facts = purchases(up.rng, count)
    return [
        {**fact, "event_type": "purchase.completed", "context": {"amount_minor": 1000 + n, "currency": "EUR"}}
        for n, fact in enumerate(facts)
    ]


@contextlib.asynccontextmanager
async def table_locked(up: Cluster, table: str) -> AsyncIterator[None]:
    async with up.pool.acquire() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
        yield


WAITING = """
SELECT array_agg(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'connect-api' AND wait_event_type = 'Lock'
"""
STILL_WAIT = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1) AND wait_event_type = 'Lock'"


async def _dies_while_waiting_for(up: Cluster, table: str) -> None:
    """The lock outlives the statement that waits for it, so that what was not committed by then never is."""
    api = up.apis[0]
    api.keep_alive()
    async with meanwhile(up.feed(rewarded(up, 12), singles=1)), table_locked(up, table):
        waiting = await eventually(lambda: up.pool.fetchval(WAITING))
        with contextlib.suppress(AssertionError):  # an answer that was given too early gets out
            await eventually(lambda: len(up.history.answers) >= 5, timeout_s=0.4)
        await up.kill(api)

        async def none_waits() -> bool:
            return not await up.pool.fetchval(STILL_WAIT, waiting)

        await eventually(none_waits)


async def an_api_dies_while_its_commit_waits(up: Cluster) -> None:
    await _dies_while_waiting_for(up, "event")


async def an_api_dies_while_its_actions_wait(up: Cluster) -> None:
    await _dies_while_waiting_for(up, "reward_action")


async def an_event_is_reported_twice(up: Cluster) -> None:
    facts = rewarded(up, 10)
    await up.feed(facts)
    await up.feed(facts)


async def a_sender_is_paused_beyond_its_lease(up: Cluster) -> None:
    """The target hangs on the first attempt; its successor completes it while the first sender stands still."""
    first, second = up.workers
    await up.misbehave({"target": "points", "fault": "hang", "times": 5, "seconds": 30})
    await up.feed(rewarded(up, 5))
    await eventually(lambda: up.pool.fetchval("SELECT count(*) = 5 FROM reward_action WHERE status = 'dispatched'"))
    first.pause()
    await second.start()
    await eventually(lambda: up.pool.fetchval("SELECT count(*) = 5 FROM reward_action WHERE status = 'completed'"), 30)
    await second.stop()
    first.go_on()
    attempts = "SELECT count(*) >= 5 FROM dispatch_attempt WHERE n = 1"
    await eventually(lambda: up.pool.fetchval(attempts), 30)  # it settles what it remembers
    up.fired["pause worker"] += 1


async def a_sender_is_killed(up: Cluster) -> None:
    worker = up.workers[0]
    worker.keep_alive()
    await up.misbehave({"target": "points", "fault": "hang", "times": 5, "seconds": 30})
    await up.feed(rewarded(up, 5))
    await eventually(lambda: up.pool.fetchval("SELECT count(*) = 5 FROM reward_action WHERE status = 'dispatched'"))
    await up.kill(worker)
    await worker.ready()


async def a_decider_dies(up: Cluster) -> None:
    worker = up.workers[0]
    await worker.stop()
    await up.feed(rewarded(up, 5), queued=True)
    await worker.start("decide.after_claim", ready=False)
    await worker.died()
    await up.time_passes()
    await worker.start()


async def _failing(up: Cluster, fault: str) -> None:
    await up.misbehave({"target": "points", "fault": fault, "times": 10})
    await up.feed(rewarded(up, 10), singles=0)
    await eventually(lambda: up.pool.fetchval("SELECT count(*) >= 10 FROM dispatch_attempt"), 30)
    assert await up.behave() == {fault: 10}, "void"


async def a_target_fails_after_the_effect(up: Cluster) -> None:
    await _failing(up, "error_after_effect")


async def a_target_fails_before_the_effect(up: Cluster) -> None:
    await _failing(up, "error")


async def shops_report_all_at_once(up: Cluster) -> None:
    """Two API processes meet the same users, orders and budget; then all is reported once more."""
    await up.apis[1].start()
    facts = shop_life(up.rng, 240, users=12)
    await up.feed(facts, singles=0.9)
    await up.feed(facts[::2], singles=0.5)


OF_THE_WHOLE_MODEL = {"shops_report_all_at_once"}
"""Their rules are `model_rules`, their judge is `recount`."""
SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        an_api_dies_while_its_commit_waits, an_api_dies_while_its_actions_wait, an_event_is_reported_twice,
        a_sender_is_paused_beyond_its_lease, a_sender_is_killed, a_decider_dies, a_target_fails_after_the_effect,
        a_target_fails_before_the_effect, shops_report_all_at_once,
    )
}  # fmt: skip


async def tried(database_url: str, folder: Path, scenario: str, tree: Path | None = None) -> list[str]:
    """Returns what the checker says of a scenario on a tree: ours, or a mutant's. The second worker stands by."""
    how = {"apis": 2, **WHOLE_MODEL} if scenario in OF_THE_WHOLE_MODEL else {}
    async with cluster(database_url, folder, workers=2, start=False, tree=tree, **how) as up:
        await all_of(up.apis[0].start(), up.workers[0].start())
        await SCENARIOS[scenario](up)
        return await up.faults(ENDED_WITHIN_S)


async def catch(mutant: Mutant, database_url: str, folder: Path) -> None:
    tree = grow(mutant, folder)
    await migrate_by(tree, database_url)
    told = await tried(database_url, folder, mutant.scenario, tree)
    assert any(mutant.told in sentence for sentence in told), f"{mutant.name} got away; the checker said {told[:5]}"


async def migrate_by(tree: Path, database_url: str) -> None:
    """The mutant's own schema; and proof that it is the mutant that runs."""
    program = f"import connect.store.migrate as m, asyncio; print(m.__file__); asyncio.run(m.migrate({database_url!r}))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env={**os.environ, "PYTHONPATH": str(tree)}, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert told.decode().startswith(str(tree)), told
    assert process.returncode == 0


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_fits_its_source(mutant: Mutant, tmp_path: Path):
    assert (grow(mutant, tmp_path) / "connect" / mutant.patches[0].file).exists()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: mutant.name)
async def test_the_checker_catches(mutant: Mutant, empty_database_url: str, tmp_path: Path):
    await catch(mutant, empty_database_url, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if mutant not in QUICK], ids=lambda mutant: mutant.name
)
async def test_the_checker_catches_also(mutant: Mutant, empty_database_url: str, tmp_path: Path):
    await catch(mutant, empty_database_url, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_tree_as_it_is_passes_the_same_trial(scenario: str, database_url: str, tmp_path: Path):
    assert await tried(database_url, tmp_path, scenario) == []
