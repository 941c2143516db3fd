"""`connect rules diff --history`, on a database that a real API filled, and `connect doctor --replay`."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connect.cli.health.doctor import diagnose
from connect.cli.output import Exit
from connect.config import Settings
from tests.cli.conftest import RULE
from tests.cli.shell import Shell, shell_on

DOUBLED = {**RULE, "actions": [{**RULE["actions"][0], "amount": "context.amount * 2"}]}


@pytest.fixture
async def shell(settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    """Four events are decided: 5 and 1 points for u1, 7 for another."""
    monkeypatch.setenv("CONNECT_DATABASE_URL", database_url)
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


def written(folder: Path, rule: dict[str, Any]) -> str:
    file = folder / "rules.json"
    worth = {"points": {"scale": 0, "worth": "0.01 EUR"}}
    file.write_text(json.dumps({"version": 1, "units": worth, "rules": [rule]}))
    return str(file)


async def test_an_unchanged_ruleset_differs_in_nothing_and_says_so(shell: Shell, tmp_path: Path):
    ran = await shell("rules", "diff", written(tmp_path, RULE), "--history", "all")
    assert ran.code == Exit.OK, ran
    assert "4 events, the whole history" in ran.out
    assert "difference: nothing, to the last action" in ran.out


async def test_a_doubled_rate_is_shown_by_rule_unit_day_and_user_with_money(shell: Shell, tmp_path: Path):
    ran = await shell("rules", "diff", written(tmp_path, DOUBLED), "--history", "30d", "-o", "json")
    assert ran.code == Exit.OK, ran
    history = json.loads(ran.out)["history"]
    assert history["same"] is False
    [total] = history["totals"]
    assert (total["was"]["net"], total["would"]["net"], total["difference"]) == ("13", "26", "13")
    assert (total["difference_money"], total["currency"]) == ("0.13", "EUR")
    assert sum(int(day["difference"]) for day in history["days"]) == 13
    [users] = history["users"]
    assert (users["measure"], users["gaining"], users["losing"]) == ("EUR", 2, 0)
    shown = await shell("rules", "diff", written(tmp_path, DOUBLED), "--history", "30d")
    assert "cashback  points  13         26          +13         +0.13 EUR" in shown.out


@pytest.mark.parametrize("window", ["30", "0d", "30 d", "month"])
async def test_a_length_of_time_that_is_none_is_told(window: str, shell: Shell, tmp_path: Path):
    ran = await shell("rules", "diff", written(tmp_path, RULE), "--history", window)
    assert ran.code == Exit.USAGE
    assert "write a number and h, d or w (30d), or all" in ran.err


async def test_doctor_decides_stored_events_again_and_finds_an_amount_changed_by_hand(settings: Settings, pool: Any):
    found = {finding.check: finding for finding in await diagnose(settings, replay=100)}
    assert found["replay"].level == "ok"
    assert found["replay"].detail == "4 events decided again: all 3 actions are the stored ones"
    event_id = await pool.fetchval("UPDATE reward_action SET amount = 6 WHERE amount = 5 RETURNING event_id")
    found = {finding.check: finding for finding in await diagnose(settings, replay=100)}
    assert found["replay"].level == "fail"
    assert found["replay"].examples[0].startswith(f"event {event_id}: amount of action ")
