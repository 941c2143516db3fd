"""`connect status` tells of processes, lanes and events, and says when it calls the system unhealthy."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

from connect.cli.health.status import age, look
from connect.config import Settings
from connect.errors import InvalidEvent
from connect.store.dead_letters import Dead, keep_dead
from connect.store.targets import pause
from tests.conftest import free_port

OVERDUE = "UPDATE reward_action SET due_at = now() - interval '301 seconds' WHERE user_id = 'u1'"
UNDECIDED = """
UPDATE event SET status = 'received', decide_at = now(), decided_at = NULL, received_at = now() - interval '301 seconds'
WHERE external_id = '1'
"""
FAILED = "UPDATE event SET status = 'failed', decided_at = NULL WHERE external_id = '1'"
GONE = "UPDATE process SET seen_at = now() - interval '21 seconds' WHERE role = "

UNHEALTHY = [
    (OVERDUE, "target points: the oldest due action waits for 5 min"),
    (UNDECIDED, "the oldest undecided event waits for 5 min"),
    (FAILED, "1 events could not be decided"),
    (f"{GONE} 'worker'", "no worker is running: `connect worker` starts one"),
    (f"{GONE} 'api'", "no api is running: `connect api` starts one"),
    ("DELETE FROM schema_migration", "the schema is at version 0"),
]


async def test_what_waits_is_counted_by_lane(settings: Settings, pool: asyncpg.Pool):
    """Three actions are owed: two of u1, one of another user."""
    await pool.execute("""
        UPDATE reward_action SET status = 'dispatched', attempts = 1, due_at = now() + interval '1 minute'
        WHERE user_id <> 'u1'
    """)
    found = await look(settings)
    [lane] = found.lanes
    assert (lane.target, lane.configured, lane.due, lane.in_flight, lane.waiting) == ("points", True, 2, 1, 3)
    assert 0 < lane.oldest_due_age_s < 120
    assert (found.healthy, found.problems, found.needs, found.ruleset_version) == (True, [], [], 1)
    assert [(process.role, process.alive, process.ruleset_version) for process in found.processes] == [
        ("api", True, 1),
        ("worker", True, 1),
    ]


STATES = [
    ("status = 'dispatched', attempts = 1, accepted_at = now(), due_at = now() + interval '1 day'", "awaiting_result"),
    ("attempts = 2, due_at = now() + interval '1 hour'", "retrying"),
    ("due_at = now() + interval '1 hour', hold_until = now() + interval '1 hour'", "scheduled"),
    ("status = 'failed', failure = 'refused', due_at = NULL", "refused"),
    ("status = 'failed', failure = 'exhausted', due_at = NULL", "exhausted"),
    ("status = 'failed', failure = 'reported', due_at = NULL", "reported"),
    ("status = 'awaiting_approval', due_at = NULL", "awaiting_approval"),
    ("status = 'blocked', due_at = NULL", "blocked"),
    ("status = 'completed', due_at = NULL", None),
]


async def test_each_state_has_a_column_of_its_own(settings: Settings, pool: asyncpg.Pool):
    columns = {column for _, column in STATES if column} | {"due", "in_flight"}
    for change, column in STATES:
        await pool.execute("UPDATE reward_action SET status = 'pending', failure = NULL, due_at = now(), attempts = 0, "
                           "accepted_at = NULL")  # fmt: skip
        await pool.execute(f"UPDATE reward_action SET {change}")
        found = await look(settings)
        [lane] = found.lanes
        assert {name for name in columns if getattr(lane, name)} == ({column} if column else set()), change
        assert found.healthy, "a person's work is not a fault"


async def test_what_needs_a_person_comes_with_the_command_that_helps(settings: Settings, pool: asyncpg.Pool):
    await pool.execute("UPDATE reward_action SET status = 'awaiting_approval', due_at = NULL WHERE user_id = 'u1'")
    await pool.execute("""
        UPDATE reward_action SET status = 'failed', failure = 'exhausted', due_at = NULL, target = 'gone'
        WHERE user_id <> 'u1'
    """)
    await pool.execute(FAILED)
    commands = [need.command for need in (await look(settings)).needs]
    assert commands == [
        "connect events replay --status failed",
        "connect actions list --target gone --failure exhausted",
        "connect actions list --target points --status awaiting_approval",
    ]
    orphan = (await look(replace(settings, targets={}))).needs[2]
    assert "2 actions wait for target points, which the settings do not name" in orphan.what


@pytest.mark.parametrize(("sql", "problem"), UNHEALTHY)
async def test_what_is_unhealthy_is_said(settings: Settings, pool: asyncpg.Pool, sql: str, problem: str):
    await pool.execute(sql)
    found = await look(settings)
    assert not found.healthy
    [said] = found.problems
    assert problem in said


AGES = [(0.4, "0 s"), (119, "119 s"), (300, "5 min"), (7200, "2 h"), (172_800, "2 d")]


@pytest.mark.parametrize(("seconds", "text"), AGES)
def test_an_age_is_read_at_a_glance(seconds: float, text: str):
    assert age(seconds) == text


# --- the command ----------------------------------------------------------------------------------


async def run_status(tmp_path: Path, *arguments: str, **environ: str) -> tuple[int | None, str]:
    """The real command in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONNECT_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connect", "status", *arguments),
        cwd=tmp_path,
        env={**kept, **environ},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_command_exits_by_health(settings: Settings, pool: asyncpg.Pool, tmp_path: Path):
    database = {"CONNECT_DATABASE_URL": settings.database_url or ""}
    configured = {**database, "CONNECT_TARGETS__POINTS__URL": settings.targets["points"].url}
    code, output = await run_status(tmp_path, "-o", "json", **configured)
    report: dict[str, Any] = msgspec.json.decode(output)
    assert (code, report["healthy"], report["lanes"][0]["due"]) == (0, True, 3)
    await pool.execute(OVERDUE)
    code, output = await run_status(tmp_path, **database)
    assert code == 1
    assert "points (not configured)" in output
    assert "unhealthy: target points: the oldest due action waits for 5 min" in output


async def test_a_database_that_is_away_is_unhealthy(tmp_path: Path):
    code, output = await run_status(tmp_path, CONNECT_DATABASE_URL=f"postgresql://a:hidden@127.0.0.1:{free_port()}/b")
    assert (code, "does not answer" in output, "hidden" in output) == (1, True, False)
    code, output = await run_status(tmp_path, "-o", "json", CONNECT_HOME=str(tmp_path / "none"))
    assert (code, "no embedded PostgreSQL runs" in output) == (1, True)


async def test_a_paused_target_needs_a_person_and_is_not_overdue(settings: Settings, pool: asyncpg.Pool):
    await pool.execute(OVERDUE)
    async with pool.acquire() as connection:
        await pause(connection, "points", actor="ops")
    found = await look(settings)
    assert (found.healthy, found.lanes[0].standing) == (True, "paused")
    [need] = found.needs
    assert (need.what, need.command) == ("target points is paused by ops", "connect targets resume points")


async def test_messages_that_could_not_be_recorded_need_a_person(settings: Settings, pool: asyncpg.Pool):
    dead = Dead(bus="orders", kind="event", body=b"{", attributes={}, error=InvalidEvent("no JSON"))
    async with pool.acquire() as connection:
        await keep_dead(connection, [dead])
    [need] = (await look(settings)).needs
    assert (need.what, need.command) == (
        "1 messages of bus orders could not be recorded",
        "connect dead list --bus orders",
    )
