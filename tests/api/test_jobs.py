"""More than a thousand at once are a job: done in steps, once, by whichever worker lives."""

import asyncio
import os
import sys
from typing import Any
from uuid import UUID, uuid4

import pytest

from connect.intake.live import LiveRules
from connect.jobs.runner import JobRunner
from connect.store.jobs import STEP_ROWS, TRIES_MAX, lease_job, lock_step
from connect.store.keys import create_key
from tests.conftest import eventually
from tests.dispatch.stand_in import add_actions
from tests.serving import Api

MANY = 1_500
FILTER = {"status": ["failed"]}
PATH = "/internal/reward-actions/retry"
FAILED = {"status": "failed", "attempts": 5, "failure": "exhausted", "due_at": None}
COUNT = "SELECT count(*) FROM reward_action WHERE status = $1"
WORKER = """
import asyncio, sys
from connect.intake.live import LiveRules
from connect.jobs.runner import JobRunner
from connect.store.pool import open_pool

async def main(database_url):
    pool = await open_pool(database_url)
    rules = LiveRules(pool)
    await rules.refresh()
    await JobRunner(pool, rules, lease_s=1).run(asyncio.Event())

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def job(api: Api, pool: Any) -> dict[str, Any]:
    """A retry of 1,500 failed actions, accepted and not begun."""
    await add_actions(pool, MANY, **FAILED)
    reply = await api.post(PATH, {"filter": FILTER, "expect": MANY, "note": "it is back"})
    assert reply.status == 202, reply.body
    assert reply.headers["location"] == f"/internal/jobs/{reply.json['id']}"
    return reply.json


async def runner_of(pool: Any, lease_s: float = 30) -> JobRunner:
    rules = LiveRules(pool)
    await rules.refresh()
    return JobRunner(pool, rules, lease_s)


async def shown(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    return (await api.get(f"/internal/jobs/{job['id']}")).json


async def test_over_a_thousand_are_retried_by_a_job_with_one_audit_row(api: Api, pool: Any, job: dict[str, Any]):
    assert (job["status"], job["done"], job["total"]) == ("queued", 0, MANY)
    assert await pool.fetchval(COUNT, "pending") == 0
    runner = await runner_of(pool)
    assert await runner.tick()
    assert (await shown(api, job))["done"] == 500
    while await runner.tick():
        pass
    ended = await shown(api, job)
    assert (ended["status"], ended["done"], ended["result"]) == ("done", MANY, {"changed": MANY, "passed_by": 0})
    assert await pool.fetchval(COUNT, "pending") == MANY
    rows = await pool.fetch("SELECT actor, note, detail ->> 'job' FROM audit WHERE verb = 'retry'")
    assert [tuple(row) for row in rows] == [("bootstrap", "it is back", job["id"])]


async def test_actions_that_left_the_state_meanwhile_are_passed_by(api: Api, pool: Any, job: dict[str, Any]):
    await pool.execute(
        "UPDATE reward_action SET status = 'cancelled', failure = NULL"
        " WHERE id IN (SELECT id FROM reward_action LIMIT 7)"
    )
    runner = await runner_of(pool)
    while await runner.tick():
        pass
    assert (await shown(api, job))["result"] == {"changed": MANY - 7, "passed_by": 7}


async def test_another_count_is_a_conflict_and_makes_no_job(api: Api, pool: Any):
    await add_actions(pool, 3, **FAILED)
    reply = await api.post(PATH, {"filter": FILTER, "expect": MANY})
    assert (reply.status, reply.json["matched"]) == (409, 3)
    assert (await api.get("/internal/jobs")).json["items"] == []


async def test_a_worker_killed_within_a_step_is_followed_by_another_and_each_action_is_done_once(
    database_url: str, api: Api, pool: Any, job: dict[str, Any]
):
    environment = {**os.environ, "CONNECT_ENV": "test", "CONNECT_FAILPOINT": "jobs.step:2"}
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, database_url, env=environment)
    assert await asyncio.wait_for(killed.wait(), 60) == -9
    assert await eventually(lambda: pool.fetchval(COUNT, "pending")) == 500
    assert (await shown(api, job))["done"] == 500
    runner = await runner_of(pool)

    async def ended() -> bool:
        await runner.tick()
        return (await shown(api, job))["status"] == "done"

    await eventually(ended, timeout_s=20)
    assert (await shown(api, job))["result"] == {"changed": MANY, "passed_by": 0}


async def test_a_cancel_keeps_what_was_done_and_stops_the_rest(api: Api, pool: Any, job: dict[str, Any]):
    runner = await runner_of(pool)
    assert await runner.tick()
    assert (await api.post(f"/internal/jobs/{job['id']}/cancel")).json["status"] == "cancelled"
    assert not await runner.tick()
    assert await pool.fetchval(COUNT, "pending") == 500
    assert (await api.post(f"/internal/jobs/{job['id']}/cancel")).status == 409


async def test_a_step_that_fails_five_times_fails_the_job_with_its_error(api: Api, pool: Any, job: dict[str, Any]):
    await pool.execute("ALTER TABLE reward_action ADD CONSTRAINT broken CHECK (status <> 'pending')")
    runner = await runner_of(pool)
    for _ in range(TRIES_MAX):
        assert (await shown(api, job))["status"] != "failed"
        assert not await runner.tick()
    ended = await shown(api, job)
    assert ended["status"] == "failed"
    assert "broken" in ended["error"]


async def test_jobs_need_the_scope_of_what_they_do_and_a_bound_key_sees_none_of_others(
    api: Api, pool: Any, job: dict[str, Any]
):
    async with pool.acquire() as connection:
        _, reader = await create_key(connection, "reader", ["actions:read"], source=None)
        _, bound = await create_key(connection, "bound", ["actions:operate"], source="shop")
    assert (await api.with_key(reader).get("/internal/jobs")).status == 403
    assert (await api.with_key(bound).get("/internal/jobs")).json["items"] == []
    assert (await api.with_key(bound).get(f"/internal/jobs/{job['id']}")).status == 404
    assert (await api.with_key(bound).post(f"/internal/jobs/{job['id']}/cancel")).status == 404
    assert (await api.get(f"/internal/jobs/{uuid4()}")).status == 404


async def test_a_worker_that_lost_its_lease_does_no_step(pool: Any, job: dict[str, Any]):
    async with pool.acquire() as connection:
        first, second = uuid4(), uuid4()
        assert str(await lease_job(connection, first, 0)) == job["id"]
        assert str(await lease_job(connection, second, 30)) == job["id"]
        async with connection.transaction():
            assert await lock_step(connection, UUID(job["id"]), first) is None
            step = await lock_step(connection, UUID(job["id"]), second)
    assert step is not None
    assert len(step.ids) == STEP_ROWS


async def test_two_workers_at_once_do_each_step_once(api: Api, pool: Any, job: dict[str, Any]):
    runners = [await runner_of(pool) for _ in range(4)]

    async def work(runner: JobRunner) -> None:
        while (await shown(api, job))["status"] != "done":
            await runner.tick()

    await asyncio.wait_for(asyncio.gather(*(work(runner) for runner in runners)), 60)
    assert (await shown(api, job))["result"] == {"changed": MANY, "passed_by": 0}
    assert (await shown(api, job))["done"] == MANY
