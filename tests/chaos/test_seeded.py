"""Processes killed, paused and cut off at random moments while targets misbehave: nothing lost or doubled, all ended.

Every choice comes from a seed, printed with the run; CONNECT_TEST_SEED repeats one (the moments of the machine vary).
"""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
from msgspec import Struct

from connect.store.embedded import EmbeddedPostgres
from connect.store.migrate import migrate
from tests.chaos.feeder import Fact, purchases
from tests.chaos.harness import SEED, Cluster, Void, cluster, meanwhile, moment
from tests.chaos.processes import all_of
from tests.conftest import eventually

pytestmark = pytest.mark.chaos

MISBEHAVIOUR: list[dict[str, Any]] = [
    {"target": "points", "fault": "error_after_effect", "probability": 0.06, "status": 500},
    {"target": "points", "fault": "reset_after_effect", "probability": 0.04},
    {"target": "points", "fault": "reset", "probability": 0.03},
    {"target": "points", "fault": "rate_limited", "probability": 0.02, "retry_after": 1},
    {"target": "points", "fault": "hang", "probability": 0.02, "seconds": 5},
    {"target": "nft", "fault": "accept_and_report_twice", "probability": 0.3},
    {"target": "nft", "fault": "contradict", "probability": 0.3},
    {"target": "nft", "fault": "accept_and_forget", "probability": 0.1},
    {"target": "gateway", "fault": "error", "probability": 0.2},
]
KINDS = ("kill api", "kill worker", "pause api", "pause worker", "cut connection")
ANSWERS_WITHIN_S = 60


class Blow(Struct, frozen=True, order=True):
    """One fault of a run's plan."""

    at_s: float
    kind: str
    victim: int


def planned(rng: Random, over_s: float, blows: int) -> list[Blow]:
    """Each kind at least once, the rest as chance has it."""
    kinds = [*KINDS, *rng.choices(KINDS, k=blows - len(KINDS))]
    return sorted(Blow(rng.uniform(0.1, 1) * over_s, kind, rng.randrange(100)) for kind in kinds)


async def strike(up: Cluster, blow: Blow) -> None:
    role = blow.kind.rpartition(" ")[2]
    nodes = up.workers if role == "worker" else up.apis
    victim = nodes[blow.victim % len(nodes)]
    if blow.kind == "cut connection":
        await up.cut_connections()
    elif blow.kind.startswith("kill"):
        await eventually(lambda: victim.lives, timeout_s=ANSWERS_WITHIN_S)
        await up.kill(victim)
    else:
        await eventually(lambda: victim.lives, timeout_s=ANSWERS_WITHIN_S)
        await up.pause_beyond_the_lease(victim)


async def batter(up: Cluster, blows: list[Blow]) -> None:
    """Blows fall at their moments, so that a pause and a kill may overlap."""
    begun = time.monotonic()

    async def fall(blow: Blow) -> None:
        await moment(begun + blow.at_s)
        await strike(up, blow)

    await all_of(*(fall(blow) for blow in blows))


async def run(
    up: Cluster, reported: list[Fact], over_s: float, blows: int, misbehaviour: Sequence[dict[str, Any]] = MISBEHAVIOUR
) -> dict[str, int]:
    """Feeds and batters, ends all faults, and checks. Returns how often each misbehaviour fired."""
    for node in up.nodes:
        node.keep_alive()
    await up.misbehave(*({**fault, "seed": up.rng.randrange(1000)} for fault in misbehaviour))
    plan = planned(up.rng, over_s, blows)
    async with (
        meanwhile(up.feed(reported[::2], over_s=over_s)),
        meanwhile(up.feed(reported[1::2], over_s=over_s, queued=True)),
    ):
        await batter(up, plan)
    fired = await up.behave()
    await all_of(*(eventually(lambda node=node: node.lives, timeout_s=ANSWERS_WITHIN_S) for node in up.nodes))
    await all_of(*(node.ready() for node in up.nodes))
    await up.time_passes()
    await up.finish(KINDS, timeout_s=120)
    if not up.history.unanswered:
        raise Void("void: no report met a fault")
    print(f"faults: {dict(up.fired)}; misbehaviour: {fired}; reports unanswered: {up.history.unanswered}")
    return fired


def expect_fired(fired: dict[str, int]) -> None:
    if missing := [fault["fault"] for fault in MISBEHAVIOUR if not fired.get(fault["fault"])]:
        raise Void(f"void: this misbehaviour never fired: {missing}")


@pytest.mark.timeout(300)
async def test_a_quarter_minute_of_seeded_faults_loses_and_doubles_nothing(external_database_url: str, tmp_path: Path):
    async with cluster(external_database_url, tmp_path, apis=2, workers=2) as up:
        expect_fired(await run(up, purchases(up.rng, 900), over_s=12, blows=8))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [SEED, SEED + 1, SEED + 2, SEED + 3])
async def test_two_minutes_of_seeded_faults_lose_and_double_nothing(
    seed: int, external_database_url: str, tmp_path: Path
):
    async with cluster(external_database_url, tmp_path, apis=2, workers=2, seed=seed) as up:
        expect_fired(await run(up, purchases(up.rng, 8000), over_s=120, blows=60))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_a_postgresql_that_crashes_again_and_again_loses_and_doubles_nothing(seed: int, tmp_path: Path):
    """Its postmaster and all backends die by SIGKILL; the next start recovers from the log what was committed."""
    server = await EmbeddedPostgres.start(tmp_path / "home")
    try:
        await migrate(server.url)
        async with cluster(server.url, tmp_path, apis=2, workers=2, seed=seed) as up:
            for node in up.nodes:
                node.keep_alive()
            async with meanwhile(up.feed(purchases(up.rng, 3000), over_s=45)):
                for crash in range(5):
                    await moment(time.monotonic() + up.rng.uniform(4, 9))
                    await crash_postgres(server)
                    up.fired["postmaster crash"] += 1
                    assert await eventually(lambda: answers(server.url), timeout_s=ANSWERS_WITHIN_S), f"crash {crash}"
            await up.time_passes()
            await up.finish(["postmaster crash"], timeout_s=120)
            if not up.history.unanswered:
                raise Void("void: no report met a crash")
    finally:
        await server.stop()


async def crash_postgres(server: EmbeddedPostgres) -> None:
    """kill -9 of the postmaster; its backends end themselves at once, with nothing written that was not already."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(server.url)
    directory = await connection.fetchval("SHOW data_directory")
    await connection.close()
    pid = int((await asyncio.to_thread((Path(directory) / "postmaster.pid").read_text)).split("\n", 1)[0])
    os.kill(pid, signal.SIGKILL)


async def answers(url: str) -> bool:
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(url, timeout=5)
        await connection.execute("SELECT 1")
        await connection.close()
        return True
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False
