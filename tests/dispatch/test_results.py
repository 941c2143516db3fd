"""Targets report later: early, late, twice, against what is known; all of it is kept."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from connect.dispatch.results import report_result
from connect.errors import NotFound, TargetMismatch
from connect.model import ResultReport
from tests.conftest import eventually
from tests.dispatch.stand_in import action_of, add_actions

DONE = ResultReport(status="completed", reference="0x1")
NOT_DONE = ResultReport(status="failed", reason="out of gas")
SENT: dict[str, Any] = {"status": "dispatched", "attempts": 1}
EXHAUSTED: dict[str, Any] = {
    "status": "failed", "failure": "exhausted", "attempts": 9, "due_at": None, "last_error": "HTTP 500",
    "completed_at": datetime.now(UTC),
}  # fmt: skip


async def reported(pool: Any, id: Any, *results: ResultReport, bound: str | None = None) -> list[str]:
    async with pool.acquire() as connection:
        return [(await report_result(connection, id, result, bound))[1] for result in results]


async def kept(pool: Any, id: Any) -> list[tuple[str, str]]:
    rows = await pool.fetch("SELECT * FROM result_report WHERE action_id = $1 ORDER BY received_at", id)
    return [(row["status"], row["disposition"]) for row in rows]


async def test_a_report_completes_what_was_sent_and_is_kept(pool: Any):
    (id,) = await add_actions(pool, 1, **SENT)
    assert await reported(pool, id, DONE, DONE, NOT_DONE) == ["applied", "repeated", "contradicted"]
    action = await action_of(pool, id)
    assert (action.status, action.reference, action.due_at, action.attempts) == ("completed", "0x1", None, 1)
    assert action.completed_at is not None
    assert await kept(pool, id) == [("completed", "applied"), ("completed", "repeated"), ("failed", "contradicted")]


async def test_a_report_of_failure_ends_the_action(pool: Any):
    (id,) = await add_actions(pool, 1, status="pending", attempts=2)
    assert await reported(pool, id, NOT_DONE, NOT_DONE, DONE) == ["applied", "repeated", "contradicted"]
    action = await action_of(pool, id)
    assert (action.status, action.failure, action.last_error) == ("failed", "reported", "out of gas")
    assert action.due_at is None


async def test_a_late_report_mends_what_was_given_up(pool: Any):
    (id,) = await add_actions(pool, 1, **EXHAUSTED)
    assert await reported(pool, id, DONE) == ["applied"]
    action = await action_of(pool, id)
    assert (action.status, action.failure, action.last_error) == ("completed", None, None)


async def test_a_report_on_what_was_never_sent_is_refused_and_kept(pool: Any):
    (id,) = await add_actions(pool, 1)
    assert await reported(pool, id, DONE) == ["refused"]
    assert (await action_of(pool, id)).status == "pending"
    assert await kept(pool, id) == [("completed", "refused")]


async def test_of_many_reports_at_once_one_is_applied(pool: Any):
    (id,) = await add_actions(pool, 1, **SENT)
    told = await asyncio.gather(*(reported(pool, id, DONE) for _ in range(8)))
    assert sorted(word for (word,) in told) == ["applied"] + ["repeated"] * 7
    assert len(await kept(pool, id)) == 8


async def test_a_report_waits_for_the_one_before_and_is_judged_after_it(pool: Any):
    (id,) = await add_actions(pool, 1, **SENT)

    async def waits() -> bool:
        return await pool.fetchval("SELECT bool_or(wait_event_type = 'Lock') FROM pg_stat_activity")

    async with pool.acquire() as connection, connection.transaction():
        assert (await report_result(connection, id, DONE, None))[1] == "applied"
        later = asyncio.create_task(reported(pool, id, NOT_DONE))
        await eventually(waits)
    assert await later == ["contradicted"]
    assert (await action_of(pool, id)).status == "completed"


async def test_a_key_reports_for_its_own_target_only(pool: Any):
    (id,) = await add_actions(pool, 1, **SENT)
    with pytest.raises(TargetMismatch):
        await reported(pool, id, DONE, bound="nft")
    assert await kept(pool, id) == []
    assert await reported(pool, id, DONE, bound="points") == ["applied"]


async def test_a_report_on_an_unknown_action_is_not_found(pool: Any):
    with pytest.raises(NotFound):
        await reported(pool, uuid4(), DONE)
