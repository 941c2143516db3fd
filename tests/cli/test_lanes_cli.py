"""`connect targets` and `connect dead` against the real API."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from connect.cli.output import Exit
from connect.errors import InvalidEvent
from connect.store.dead_letters import Dead, keep_dead
from tests.cli.shell import Shell, purchase, shell_on
from tests.cli.test_actions_cli import FAIL


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        lines = "".join(json.dumps(purchase(n)) + "\n" for n in range(2))
        assert (await shell("events", "import", "-", stdin=lines)).code == Exit.OK
        yield shell


async def bury(pool: asyncpg.Pool, *bodies: bytes) -> None:
    error = InvalidEvent("external_id is missing")
    dead = [Dead(bus="orders", kind="event", body=body, attributes={"trace": "7"}, error=error) for body in bodies]
    async with pool.acquire() as connection:
        await keep_dead(connection, dead)


async def test_a_target_is_paused_resumed_and_recovered(shell: Shell, pool: asyncpg.Pool):
    assert "paused" in (await shell("targets", "pause", "points", "--note", "deploy")).out
    assert (await shell("targets", "list", "-o", "json")).json["items"][0]["status"] == "paused"
    assert "closed" in (await shell("targets", "resume", "points")).out
    await pool.execute(FAIL)
    since = ("--since", "2020-01-01T00:00:00Z")
    assert "2 action(s) match" in (await shell("targets", "recover", "points", *since, "--dry-run")).out
    assert "2 action(s) sent again" in (await shell("targets", "recover", "points", *since, "--yes")).out
    assert (await shell("targets", "pause", "poinst")).code == Exit.REFUSED


async def test_a_dead_event_is_shown_mended_from_a_file_and_replayed(shell: Shell, pool: asyncpg.Pool, tmp_path: Path):
    await bury(pool, b'{"event_type": "purchase.completed"}')
    [dead] = (await shell("dead", "list", "-o", "json")).json["items"]
    shown = await shell("dead", "show", dead["id"])
    assert all(word in shown.out for word in ("event_invalid", "trace: 7", '{"event_type": "purchase.completed"}'))
    assert (await shell("dead", "replay", dead["id"])).code == Exit.REFUSED
    mended = tmp_path / "fact.json"
    mended.write_text(json.dumps(purchase(7)))
    assert (await shell("dead", "mend", dead["id"], str(mended))).code == Exit.OK
    assert "replayed: dead event" in (await shell("dead", "replay", dead["id"])).out
    assert (await shell("dead", "list", "-o", "json")).json["items"] == []


async def test_all_that_match_are_replayed_and_those_refused_again_are_named(shell: Shell, pool: asyncpg.Pool):
    await bury(pool, json.dumps(purchase(8)).encode(), json.dumps(purchase(9)).encode(), b"{}")
    assert (await shell("dead", "replay", "--yes")).code == Exit.USAGE
    ran = await shell("dead", "replay", "--bus", "orders", "--yes")
    assert (ran.code, ran.out) == (Exit.FAILED, "2 replayed, 1 refused again\n")
    assert "external_id" in ran.err
