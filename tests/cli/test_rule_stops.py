"""A rule that was stopped stays so, whoever applies, publishes or rolls back, unless they name it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connect.cli.output import Exit
from connect.cli.remote import remote
from connect.cli.rules.versions import publish_stored
from tests.cli.shell import RULES, Shell, shell_on

STAYS = "rule cashback stays stopped (by bootstrap at {at} UTC: too much): --revive cashback lets it give again"
WAS = "rule cashback {verb} again; it was stopped by bootstrap at {at} UTC: too much"
EVENT = {
    "event_type": "purchase.completed",
    "actor_user_id": "u1",
    "context": {"currency": "EUR", "amount_minor": 5000},
}


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    """Version 1 is RULES, version 2 has one of its rules stopped."""
    async with shell_on(database_url, monkeypatch) as shell:
        assert (await shell("rules", "stop", "cashback", "--note", "too much")).code == Exit.OK
        yield shell


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    return file


async def said(shell: Shell, words: str, verb: str = "gives") -> str:
    """The words with the moment of the stop."""
    assert shell.api is not None
    at = await shell.api.runtime.pool.fetchval("SELECT at FROM audit WHERE verb = 'stop'")
    return words.format(at=at.strftime("%Y-%m-%d %H:%M"), verb=verb)


async def gives(shell: Shell) -> bool:
    number = len((await shell("events", "list", "-o", "json")).json["items"])
    sent = await shell("events", "send", "-", "--id", f"e{number}", "-o", "json", stdin=json.dumps(EVENT))
    return bool(sent.json["actions"])


async def test_applying_the_file_of_before_leaves_a_stopped_rule_stopped_and_says_so(shell: Shell, file: Path):
    stays = await said(shell, STAYS)
    for extra in (["--check"], []):
        ran = await shell("rules", "apply", str(file), *extra)
        assert (ran.code, ran.out) == (Exit.OK, "the server (version 2) has this already\n")
        assert stays in ran.err.splitlines()
    compared = await shell("rules", "diff", str(file))
    assert (compared.code, stays in compared.err) == (Exit.OK, True)
    other = RULES.replace("big-spender\n", "big-spender\n    priority: 3\n")
    ran = await shell("rules", "apply", "-", "--prune", "-o", "json", stdin=other)
    assert ran.json["changes"] == ["change rule big-spender: priority 0 -> 3"]
    assert ([stop["note"] for stop in ran.json["still_stopped"]], ran.json["revived"]) == (["too much"], [])
    assert not await gives(shell)


async def test_a_file_that_says_enabled_did_not_mean_the_stop(shell: Shell):
    on = RULES.replace("key: cashback\n", "key: cashback\n    enabled: true\n")
    assert (await shell("rules", "apply", "-", "--check", stdin=on)).code == Exit.OK


async def test_a_rule_that_is_named_gives_again_and_whose_stop_that_ends_is_told(shell: Shell, file: Path):
    checked = await shell("rules", "apply", str(file), "--revive", "cashback", "--check")
    assert (checked.code, "change rule cashback: enabled false -> true" in checked.out) == (Exit.USAGE, True)
    assert await said(shell, WAS, "would give") in checked.err.splitlines()
    assert not await gives(shell)
    ran = await shell("rules", "apply", str(file), "--revive", "cashback", "--note", "mended")
    assert (ran.code, ran.out.splitlines()[-1][:20]) == (Exit.OK, "published as version")
    assert await said(shell, WAS) in ran.err.splitlines()
    assert await gives(shell)
    again = await shell("rules", "apply", str(file), "--revive", "cashback", "--check")
    assert (again.code, "stopped" in again.err) == (Exit.OK, False)


async def test_a_rule_that_nobody_has_cannot_be_revived(shell: Shell, file: Path):
    ran = await shell("rules", "apply", str(file), "--revive", "cashbak")
    said = ran.err.splitlines()[-1]
    assert (ran.code, said) == (Exit.USAGE, "connect: --revive cashbak: the ruleset has no rule of that key.")


async def test_a_stopped_rule_that_the_file_renames_stays_stopped(shell: Shell):
    renamed = RULES.replace("key: cashback\n", "key: money-back\n    formerly: cashback\n")
    ran = await shell("rules", "apply", "-", "--prune", stdin=renamed)
    assert (ran.code, "rule money-back stays stopped" in ran.err) == (Exit.OK, True)
    assert not await gives(shell)


async def test_a_rollback_to_before_the_stop_leaves_it_standing_unless_the_rule_is_named(shell: Shell):
    ran = await shell("rules", "rollback", "1")
    assert (ran.code, ran.out) == (Exit.OK, f"version {ran.out.split()[1]} is live, with 2 rule(s)\n")
    assert ran.err.splitlines() == [await said(shell, STAYS)]
    assert not await gives(shell)
    assert "rollback to version 1 (cashback still stopped)" in (await shell("rules", "versions")).out
    ran = await shell("rules", "rollback", "1", "--revive", "cashback")
    assert (ran.code, ran.err.splitlines()) == (Exit.OK, [await said(shell, WAS)])
    assert await gives(shell)


async def test_a_draft_of_before_the_stop_leaves_it_standing_unless_the_rule_is_named(shell: Shell):
    assert shell.api is not None
    body = RULES.replace("0.02", "0.03").encode()
    posted = await shell.api.call("POST", "/internal/ruleset/versions", raw=body, Content_Type="application/yaml")
    draft = str(posted.json["version"])
    ran = await shell("rules", "publish", draft, "--note", "three percent", "-o", "json")
    assert (ran.code, [stop["key"] for stop in ran.json["still_stopped"]]) == (Exit.OK, ["cashback"])
    assert not await gives(shell)
    ran = await shell("rules", "publish", draft, "--revive", "cashback")
    assert (ran.code, ran.err.splitlines()) == (Exit.OK, [await said(shell, WAS)])
    assert await gives(shell)


async def test_a_rule_that_a_document_switched_off_is_switched_on_by_one(shell: Shell, file: Path):
    off = RULES.replace("key: big-spender\n", "key: big-spender\n    enabled: false\n")
    assert (await shell("rules", "apply", "-", stdin=off)).code == Exit.OK
    ran = await shell("rules", "apply", str(file))
    assert (ran.code, ran.out.splitlines()[0]) == (Exit.OK, "change rule big-spender: enabled false -> true")
    assert "rule big-spender" not in ran.err


async def test_history_is_compared_with_what_applying_would_publish(shell: Shell, file: Path):
    ran = await shell("rules", "diff", str(file), "--history", "all")
    assert (ran.code, await said(shell, STAYS) in ran.err.splitlines()) == (Exit.OK, True), ran
    ran = await shell("rules", "diff", str(file), "--history", "all", "--revive", "cashback")
    assert (ran.code, "change rule cashback: enabled false -> true" in ran.out) == (Exit.OK, True), ran


async def test_a_mistyped_rule_is_not_stopped_and_the_one_meant_is_named(shell: Shell):
    ran = await shell("rules", "stop", "cashbak")
    assert (ran.code, ran.err) == (
        Exit.REFUSED,
        "connect: the live ruleset has no rule 'cashbak': did you mean cashback?\n",
    )


async def test_a_stop_between_reading_and_publishing_stands(shell: Shell):
    """The rollback read version 1, in which nothing was stopped."""
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(publish_stored, remote(), 1, '"1"', "")
    assert ended.value.code == Exit.REFUSED
    assert not await gives(shell)
