"""`connect events why` over many events: by user, rule and outcome."""

import json
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from connect.cli.events import app as events
from connect.cli.output import Exit
from connect.model import Outcome
from tests.cli.shell import Shell, purchase, shell_on


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


async def test_why_tells_what_a_rule_made_of_a_users_events(shell: Shell):
    await shell("events", "import", "-", stdin="\n".join(json.dumps(purchase(n)) for n in range(4)))
    which = ("--rule", "big-spender", "--outcome", "not_matched")
    ran = await shell("events", "why", "--user", "u1", *which)
    assert ran.code == Exit.OK, ran.err
    [heading, told] = ran.out.splitlines()
    assert heading.split() == ["RECEIVED", "EXTERNAL", "ID", "ACTOR", "RULE", "REASON"]
    assert "order-1 " in told
    assert (
        "its condition did not hold: line 1 `context.amount_minor >= 100000`, with context.amount_minor = 5000" in told
    )
    every = await shell("events", "why", *which, "-o", "json")
    assert sorted(row["external_id"] for row in every.json["items"]) == [f"order-{n}" for n in range(4)]
    assert {(row["rule"], row["outcome"]) for row in every.json["items"]} == {("big-spender", "not_matched")}
    page = await shell("events", "why", *which, "--limit", "1")
    assert "--cursor" in page.err
    listed = await shell("events", "list", *which, "-o", "json")
    assert len(listed.json["items"]) == 4
    for arguments in ([], ["order-1", "--user", "u1"]):
        assert (await shell("events", "why", *arguments)).code == Exit.USAGE


def test_the_command_line_names_the_outcomes_of_the_model():
    assert get_args(Outcome) == get_args(events.Outcome)
