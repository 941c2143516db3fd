"""An event that cannot be decided is tried five times, soon and alone, whatever the fault is."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from connect.intake.backlog import Backlog
from tests.conftest import eventually
from tests.intake.rule_model import CASHBACK, Intake, intake_on, purchase

BREAKING = """
CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = '{code}'; END $$;
CREATE TRIGGER break BEFORE INSERT ON reward_action FOR EACH ROW
    WHEN (NEW.user_id LIKE 'poison%') EXECUTE FUNCTION break()
"""
INTERNAL, STATEMENT_TIMEOUT = "XX000", "57014"


async def tally(intake: Intake) -> dict[tuple[str, int], int]:
    rows = await intake.pool.fetch("SELECT status, tries, count(*) AS n FROM event GROUP BY 1, 2")
    return {(row["status"], row["tries"]): row["n"] for row in rows}


@pytest.mark.timeout(60)
async def test_a_fault_of_a_whole_batch_ends_in_five_tries_within_seconds(pool: Any) -> None:
    """Each goes alone after the first try; with a pause after each failure these took 40 s, and 500 a quarter hour."""
    async with intake_on(pool, CASHBACK) as intake:
        await pool.execute(BREAKING.format(code=INTERNAL))
        await intake.report(*(purchase(n, user=f"poison{n}") for n in range(20)), processing="queued")
        stop = asyncio.Event()

        async def ended() -> bool:
            return await tally(intake) == {("failed", 5): 20}

        with capture_logs() as told:  # printed in colours, each traceback takes half a second
            running = asyncio.create_task(Backlog(pool, intake.rules).run(stop))
            await eventually(ended, timeout_s=20)
            stop.set()
            await running
        assert [one["events"] for one in told if one["event"] == "decide.failed"] == [20, *[1] * 80]


@pytest.mark.parametrize("code", [INTERNAL, STATEMENT_TIMEOUT])
async def test_an_event_that_cannot_be_decided_holds_its_batch_up_once(code: str, pool: Any) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        await pool.execute(BREAKING.format(code=code))
        good = [purchase(n, user=f"u{n}") for n in range(3)]
        await intake.report(purchase("bad", user="poison"), *good, processing="queued")
        backlog = Backlog(pool, intake.rules)
        for _ in range(5):
            await backlog.tick()
            await pool.execute("UPDATE event SET decide_at = received_at WHERE decide_at IS NOT NULL AND tries = 1")
        assert await tally(intake) == {("decided", 2): 3, ("received", 2): 1}
