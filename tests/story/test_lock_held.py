"""A process stopped while it held locks does not stop intake: events are taken within 2 s and decided later."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.chaos.feeder import purchases
from tests.chaos.harness import SEED, cluster, moment

ANSWERED_WITHIN_S = 2.0

# Everything that a decision writes to is locked, as by a process stopped between its statements and its COMMIT.
pytestmark = pytest.mark.whole

HOLDER = """
import asyncio, asyncpg, sys

async def hold():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute("BEGIN; LOCK TABLE reward_action IN SHARE ROW EXCLUSIVE MODE")
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


@contextlib.asynccontextmanager
async def stopped_holder(database_url: str) -> AsyncIterator[Any]:
    """A process with an open transaction and its locks, standing still by SIGSTOP until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, database_url, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("held_for_s", [6, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.chaos])])
async def test_a_lock_held_by_a_stopped_process_delays_deciding_and_not_intake(
    held_for_s: int, database_url: str, tmp_path: Path
):
    facts = purchases(Random(SEED), held_for_s * 30)
    async with cluster(database_url, tmp_path) as up:
        await up.feed(facts[:30])  # the first requests of a process pay for its warming up
        up.history.answers.clear()
        async with stopped_holder(database_url):
            begun = time.monotonic()
            await up.feed(facts[30:], over_s=held_for_s - 2, singles=0.8)
            answers = [answer for told in up.history.answers.values() for answer in told]
            slowest_s = max(answer.after_s for answer in answers)
            undecided = await up.pool.fetchval("SELECT count(*) FROM event WHERE status = 'received'")
            await moment(begun + held_for_s)
        assert undecided == len(facts) - 30
        assert {answer.status for answer in answers} <= {"202", "200", "created", "duplicate"}
        assert up.history.unanswered == 0
        assert slowest_s < ANSWERED_WITHIN_S
        await up.feed(facts[:30])  # duplicates: acknowledged anew, for the checker
        await up.finish()
