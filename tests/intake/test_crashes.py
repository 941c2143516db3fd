"""A process that dies with all of a decision written and nothing committed: nothing of it stands."""

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from connect.intake.backlog import Backlog
from tests.conftest import eventually
from tests.intake.rule_model import CASHBACK, Intake, intake_on, purchase

PROCESS = """
import asyncio, sys
from connect.intake.backlog import Backlog
from connect.store.pool import open_pool
from tests.intake.rule_model import CASHBACK, intake_on, purchase

async def main(database_url, role):
    pool = await open_pool(database_url)
    async with intake_on(pool, CASHBACK) as intake:
        if role == "decide":
            await Backlog(pool, intake.rules).tick()
        await intake.report(purchase(1))

asyncio.run(main(*sys.argv[1:]))
"""


async def written(pool: Any) -> int:
    """Actions that were ever inserted, committed or not."""
    return await pool.fetchval("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'reward_action'")


async def _written_since(pool: Any, before: int) -> int:
    return await written(pool) - before


async def one_more(intake: Intake, role: str) -> None:
    """Does the work again, by a process that lives."""
    if role == "decide":
        await intake.pool.execute("UPDATE event SET decide_at = now()")
        await Backlog(intake.pool, intake.rules).tick()
    else:
        await intake.report(purchase(1))


@pytest.mark.parametrize("role", ["intake", "decide"])
async def test_what_is_written_and_not_committed_when_its_process_dies_never_was(
    role: str, database_url: str, pool: Any
) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        if role == "decide":
            await intake.report(purchase(1), processing="queued")
        before = await written(pool)
        dying = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, database_url, role, stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "CONNECT_ENV": "test", "CONNECT_FAILPOINT": f"{role}.before_commit"},
        )  # fmt: skip
        assert await asyncio.wait_for(dying.wait(), 60) == -signal.SIGKILL
        assert await eventually(lambda: _written_since(pool, before)) == 1
        assert await intake.given() == []
        assert set((await intake.stored("limit|")).values()) <= {"0"}
        await one_more(intake, role)
        assert await intake.given() == [("cashback", "u1", "100", "pending", "0", False)]
        assert list((await intake.stored("limit|")).values()) == ["100", "1"]
