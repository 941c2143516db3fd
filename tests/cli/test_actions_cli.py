"""`connect actions` against the real API."""

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from connect.cli.output import Exit
from tests.cli.shell import Shell, purchase, shell_on

FAIL = """
UPDATE reward_action SET status = 'failed', failure = 'exhausted', due_at = NULL, attempts = 3, completed_at = now(),
    last_error = 'points answered 500' WHERE rule_key = 'cashback'
"""
ATTEMPT = """
INSERT INTO dispatch_attempt (action_id, n, started_at, duration_ms, outcome, status_code, error)
SELECT id, 1, now(), 12.3, 'retry', 500, 'points answered 500' FROM reward_action WHERE rule_key = 'cashback'
"""


@pytest.fixture
async def shell(database_url: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    """Three purchases: three failed actions of the points service, and three of the NFT service that await approval."""
    async with shell_on(database_url, monkeypatch) as shell:
        lines = "".join(json.dumps(purchase(n, amount_minor=200_000)) + "\n" for n in range(3))
        ran = await shell("events", "import", "-", stdin=lines)
        assert ran.code == Exit.OK, ran
        await pool.execute(FAIL)
        await pool.execute(ATTEMPT)
        yield shell


async def ids(shell: Shell, *filters: str) -> list[str]:
    return [item["id"] for item in (await shell("actions", "list", *filters, "-o", "json")).json["items"]]


async def test_actions_are_listed_by_what_they_are(shell: Shell):
    assert len(await ids(shell)) == 6
    assert len(await ids(shell, "--status", "failed", "--target", "points")) == 3
    assert len(await ids(shell, "--user", "u1", "--user", "u2")) == 4
    assert len(await ids(shell, "--failure", "refused")) == 0
    assert len(await ids(shell, "--rule", "big-spender", "--since", "2026-01-01T00:00:00Z")) == 3
    table = await shell("actions", "list", "--limit", "2")
    assert len(table.out.splitlines()) == 3
    assert "--cursor" in table.err


async def test_an_action_is_shown_with_its_attempts(shell: Shell):
    [action] = await ids(shell, "--status", "failed", "--user", "u1")
    ran = await shell("actions", "show", action)
    assert ran.code == Exit.OK
    assert "last_error" in ran.out
    assert ran.out.splitlines()[-1].split()[0] == "1"
    assert "points answered 500" in ran.out.splitlines()[-1]
    assert (await shell("actions", "show", action, "-o", "json")).json["attempt_log"][0]["status_code"] == 500


@pytest.mark.parametrize(
    ("operation", "status", "after"),
    [
        ("retry", "failed", "pending"),
        ("cancel", "failed", "cancelled"),
        ("approve", "awaiting_approval", "pending"),
        ("reject", "awaiting_approval", "cancelled"),
    ],
)
async def test_one_action_is_operated_and_the_note_is_kept(
    shell: Shell, pool: asyncpg.Pool, operation: str, status: str, after: str
):
    [action] = await ids(shell, "--status", status, "--user", "u1")
    ran = await shell("actions", operation, action, "--note", "a good reason")
    assert (ran.code, ran.out) == (Exit.OK, f"action {action} is now {after}\n")
    assert await pool.fetchval("SELECT note FROM audit WHERE verb = $1", operation) == "a good reason"
    again = await shell("actions", operation, action)
    assert (again.code, again.out) == (Exit.REFUSED, "")
    assert again.err.startswith("connect: ")


async def test_many_are_counted_then_operated_with_a_consent(shell: Shell):
    which = ["--target", "points", "--failure", "exhausted"]
    counted = await shell("actions", "retry", *which, "--dry-run", "-o", "json")
    assert (counted.code, counted.json) == (Exit.OK, {"matched": 3})
    refused = await shell("actions", "retry", *which)
    assert (refused.code, refused.out) == (Exit.USAGE, "")
    assert "Add --yes to go on" in refused.err
    assert len(await ids(shell, "--status", "failed")) == 3
    done = await shell("actions", "retry", *which, "--yes", "--note", "points is back")
    assert (done.code, done.out) == (Exit.OK, "retry: 3 action(s) done\n")
    assert await ids(shell, "--status", "failed") == []
    nothing = await shell("actions", "retry", *which, "--yes")
    assert (nothing.code, nothing.out) == (Exit.OK, "0 action(s) match\n")


async def test_a_terminal_is_asked(shell: Shell):
    no = await shell.on_terminal("actions", "approve", "--rule", "big-spender", typed="n\n")
    assert "Approve 3 action(s)? [y/N]" in no.out
    assert "nothing was done" in no.out
    yes = await shell.on_terminal("actions", "approve", "--rule", "big-spender", typed="yes\n")
    assert (yes.code, "approve: 3 action(s) done" in yes.out) == (Exit.OK, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["retry"], Exit.USAGE, "say which"),
        (["retry", "6f1c2b7a-0000-5000-8000-000000000000"], Exit.REFUSED, "there is no reward action"),
        (["retry", "6f1c2b7a-0000-5000-8000-000000000000", "--rule", "x"], Exit.USAGE, "not both"),
        (["show", "../../readyz"], Exit.USAGE, "into UUID"),
        (["list", "--event", "not-an-id"], Exit.REFUSED, "event_id"),
        (["list", "--status", "lost"], Exit.USAGE, "status"),
    ],
)
async def test_what_is_wrong_is_a_sentence_and_an_exit_code(shell: Shell, arguments: list[str], code: Exit, said: str):
    ran = await shell("actions", *arguments)
    assert (ran.code, said in ran.err, ran.out, "Traceback" in ran.err) == (code, True, "", False), ran
