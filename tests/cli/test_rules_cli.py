"""`connect rules`: checked on this machine, applied to the real API."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connect.cli.output import Exit
from connect.cli.remote import remote
from connect.cli.rules.changes import differences
from connect.cli.rules.versions import publish_over
from tests.cli.shell import Shell, shell_on

ONE_MORE = """\
version: 1
units:
  nft: {}
rules:
  - key: cashback
    event_type: purchase.completed
    priority: 5
    limits: [{ per: actor, every: ever, uses: 9 }]
    actions: [{ target: points, command: credit, unit: points, recipient: actor, amount: 3 }]
  - key: welcome
    event_type: user.joined
    limits: [{ per: actor, every: ever, uses: 1 }]
    actions: [{ target: points, command: credit, unit: points, recipient: actor, amount: 100 }]
"""
BROKEN = """\
version: 1
rules:
  - key: a
    event_type: x
    limits: [{ per: actor, every: ever, uses: 1 }]
    condition:
      - context.a == 1
      - context.b === 2
    actions: [{ target: points, command: credit, unit: points, recipient: actor, amount: contxt.c }]
"""


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text(ONE_MORE)
    return file


def rename(file: Path, old: str, new: str) -> None:
    """Writes ONE_MORE with a rule under another key."""
    file.write_text(ONE_MORE.replace(f"key: {old}", f"key: {new}"))


async def live(shell: Shell) -> tuple[int, dict[str, int]]:
    """The live version, and the priority of each of its rules."""
    [version] = [item for item in (await shell("rules", "versions", "-o", "json")).json["items"] if item["live"]]
    rules = (await shell("rules", "export", "-o", "json")).json["rules"]
    return version["version"], {rule["key"]: rule.get("priority", 0) for rule in rules}


async def document(shell: Shell, version: int) -> dict[str, Any]:
    assert shell.api is not None
    return (await shell.api.get(f"/internal/ruleset/versions/{version}")).json["document"]


async def test_a_good_file_has_no_problems_and_needs_no_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CONNECT_API_KEY", raising=False)
    ran = await Shell()("rules", "check", "-", stdin=ONE_MORE.replace("nft: {}", "points: {}"))
    assert (ran.code, ran.out, ran.err) == (Exit.OK, "stdin: no problems\n", "")


async def test_each_error_is_shown_in_its_place_with_a_caret_and_what_to_do(tmp_path: Path):
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)
    ran = await Shell()("rules", "check", str(file))
    assert ran.code == Exit.FAILED
    lines = ran.out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith(f"{file}:8:"))
    assert "error: " in lines[place]
    assert lines[place + 1].strip() == "- context.b === 2"
    assert lines[place + 1][lines[place + 2].index("^")] == "="
    assert "compare with ==" in lines[place + 3]
    column = BROKEN.splitlines()[8].index("contxt") + 1
    assert any(line.startswith(f"{file}:9:{column}: error:") for line in lines)
    assert lines[-1] == f"{file}: 2 error(s), 1 warning(s)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1:1: error: the document is empty"),
        ("rules: [", "error: this is no valid YAML"),
        ("rules:\n  - key: a\n    key: b\n", ":3:5: error: 'key' stands twice"),
        ("[]", ":1:1: error: "),
        ("version: 1\nrulez: []\n", ":2:"),
        ("version: 1\n" + "a: " + "x" * 500, ":2:"),
        ("\tversion: 1", ":1:"),
    ],
)
async def test_a_file_that_cannot_be_read_is_told_with_its_place(text: str, said: str):
    ran = await Shell()("rules", "check", "-", stdin=text)
    assert ran.code == Exit.FAILED
    assert said in ran.out
    assert max(map(len, ran.out.splitlines())) < 300


@pytest.mark.parametrize("command", ["check", "test", "diff", "apply"])
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ([], "connect: name the ruleset's file, or - for stdin: `connect rules COMMAND rules.yaml`."),
        (["a.yaml", "b.yaml"], "connect: `connect rules COMMAND` takes one file at a time: leave out b.yaml."),
        (
            ["no-such.yaml"],
            "connect: there is no file no-such.yaml: `connect rules new no-such.yaml` writes one to start from.",
        ),
        (["."], "connect: . is a directory: name the ruleset's file, such as one.json or two.yaml."),
        (["empty"], "connect: empty is a directory: name the ruleset's file."),
    ],
)
async def test_a_file_that_is_not_there_or_is_none_is_told_with_what_to_name(
    command: str, named: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CONNECT_API_KEY", "a-key-that-no-server-is-asked-with")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("two.yaml", "one.json", "notes.txt"):
        (tmp_path / name).touch()
    ran = await Shell()("rules", command, *named)
    told = " ".join(ran.err.split())  # some lines are as wide as the terminal
    assert (ran.code, ran.out, told) == (Exit.USAGE, "", said.replace("COMMAND", command))


async def test_a_mistyped_option_is_not_taken_for_a_file():
    ran = await Shell()("rules", "check", "--strct")
    assert (ran.code, "There is no option --strct" in ran.err) == (Exit.USAGE, True)


async def test_a_file_that_is_no_text_is_a_sentence():
    assert "stdin: this is not UTF-8 text" in (await Shell()("rules", "check", "-", stdin=b"\xff\xfe")).err


async def test_a_person_at_a_terminal_is_told_that_stdin_is_read():
    ran = await Shell().on_terminal("rules", "check", "-", typed="version: 1\nrules: []\n\x04")
    assert "reading the ruleset from stdin: paste it, and end with Ctrl-D" in ran.out
    assert (ran.code, "stdin: no problems" in ran.out) == (Exit.OK, True)


HELD_IN_HELP = {
    "check": ("ends with 1 too", "Ends with 0 if there is no error", "For example:"),
    "apply": ("Ends with 2 if it would change anything", "Publish nothing", "For example:"),
    "test": ("Ends with 0 if all are green", "For example:"),
}


@pytest.mark.parametrize("command", HELD_IN_HELP)
async def test_help_says_what_an_option_does_and_how_the_command_ends(command: str):
    told = " ".join((await Shell()("rules", command, "--help")).out.replace("\u2502", " ").split())
    assert all(words in told for words in HELD_IN_HELP[command]), told


async def test_machines_get_the_problems_as_json():
    ran = await Shell()("rules", "check", "-", "-o", "json", stdin=BROKEN)
    assert ran.code == Exit.FAILED
    assert ran.json["ok"] is False
    assert [(error["pointer"], error["line"]) for error in ran.json["errors"]] == [
        ("#/rules/0/condition/1", 8), ("#/rules/0/actions/0/amount", 9),
    ]  # fmt: skip


async def test_warnings_are_errors_where_they_are_asked_to_be():
    plain = await Shell()("rules", "check", "-", stdin=ONE_MORE)
    assert (plain.code, plain.out.count("stdin:9:56: warning: the unit points is not declared")) == (Exit.OK, 1)
    strict = await Shell()("rules", "check", "-", "--strict", stdin=ONE_MORE)
    assert (strict.code, strict.out.splitlines()[-1]) == (Exit.FAILED, "stdin: 2 error(s), 0 warning(s)")


async def test_applying_lays_the_file_over_what_the_server_has(shell: Shell, file: Path):
    ran = await shell("rules", "apply", str(file))
    assert ran.code == Exit.OK, ran
    assert ran.out.splitlines() == [
        "add rule welcome: user.joined gives points.credit 100 points to actor",
        "change rule cashback: amount of points.credit.points context.amount_minor * 0.02 -> 3",
        "change rule cashback: round of points.credit.points down -> none",
        "change rule cashback: priority 0 -> 5",
        'change rule cashback: condition removed: context.currency == "EUR"',
        "change rule cashback: condition removed: context.amount_minor >= 1000",
        "change rule cashback: limit added: 9 uses ever per actor",
        "add unit nft",
        "published as version 2",
    ]
    assert await live(shell) == (2, {"cashback": 5, "big-spender": 0, "welcome": 0})
    units = (await shell("rules", "export", "-o", "json")).json["units"]
    assert sorted(units) == ["nft", "points"]


async def test_applying_again_publishes_nothing(shell: Shell, file: Path):
    await shell("rules", "apply", str(file))
    again = await shell("rules", "apply", str(file))
    assert (again.code, again.out) == (Exit.OK, "the server (version 2) has this already\n")
    assert (await live(shell))[0] == 2


async def test_rules_that_only_the_server_has_are_named_with_how_to_retire_them(shell: Shell, file: Path):
    kept = "1 rule on the server is not in {} and stays: big-spender (--prune would retire it)\n"
    for command in ("diff", "apply", "apply"):
        ran = await shell("rules", command, str(file))
        assert (ran.code, ran.err.endswith(kept.format(file))) == (Exit.OK, True), ran
    rename(file, "cashback", "money-back")
    checked = await shell("rules", "apply", str(file), "--check")
    assert "2 rules on the server are not in " in checked.err
    assert "and stay: big-spender, cashback (--prune would retire them)" in checked.err
    machine = await shell("rules", "apply", str(file), "-o", "json")
    assert (machine.json["kept"], machine.err) == (["big-spender", "cashback"], "")
    pruned = await shell("rules", "apply", str(file), "--prune")
    assert (pruned.code, "on the server" in pruned.err) == (Exit.OK, False)


async def test_a_renamed_rule_whose_former_key_is_live_is_told_how_to_retire_that(shell: Shell, file: Path):
    rename(file, "cashback", "money-back\n    formerly: cashback")
    ran = await shell("rules", "apply", str(file))
    assert ran.code == Exit.FAILED
    assert "hint: the server still has that rule, and the file does not: --prune retires it" in ran.err
    assert (await shell("rules", "apply", str(file), "--prune")).code == Exit.OK
    rename(file, "welcome", "hello\n    formerly: cashback")
    ran = await shell("rules", "apply", str(file))
    assert "hint: only a key that no rule has any more" in ran.err


async def test_pruning_retires_what_the_file_does_not_name(shell: Shell, file: Path):
    ran = await shell("rules", "apply", str(file), "--prune")
    assert "retire rule big-spender" in ran.out
    assert await live(shell) == (2, {"cashback": 5, "welcome": 0})


async def test_a_check_changes_nothing_and_ends_with_2_on_a_difference(shell: Shell, file: Path):
    ran = await shell("rules", "apply", str(file), "--check")
    assert ran.code == Exit.USAGE == 2
    assert "add rule welcome" in ran.out
    assert (await live(shell))[0] == 1
    await shell("rules", "apply", str(file))
    assert (await shell("rules", "apply", str(file), "--check")).code == Exit.OK
    pruned = await shell("rules", "apply", str(file), "--check", "--prune", "-o", "json")
    changes = ["retire rule big-spender", "retire unit points"]
    assert (pruned.code, pruned.json) == (
        Exit.USAGE,
        {"version": 2, "changes": changes, "kept": [], "still_stopped": [], "revived": []},
    )


async def test_an_explicit_setting_of_the_file_goes_over_the_servers(shell: Shell):
    assert (await shell("rules", "apply", "-", stdin="version: 1\ntimezone: Europe/Prague\n")).code == Exit.OK
    kept = await shell("rules", "apply", "-", "--check", stdin="version: 1\n")
    assert kept.code == Exit.OK, kept
    back = await shell("rules", "apply", "-", stdin="version: 1\ntimezone: UTC\n")
    assert back.out.splitlines()[0] == "change timezone Europe/Prague -> UTC"


async def test_a_note_is_kept_with_the_version(shell: Shell, file: Path):
    ran = await shell("rules", "apply", str(file), "--note", "November campaign")
    assert ran.code == Exit.OK, ran
    table = await shell("rules", "versions")
    assert "November campaign" in table.out
    assert table.out.splitlines()[1].split()[:2] == ["2", "live"]


async def test_a_file_with_errors_is_not_sent(shell: Shell):
    ran = await shell("rules", "apply", "-", stdin=BROKEN)
    assert ran.code == Exit.FAILED
    assert ran.err.endswith("connect: stdin has 2 error(s): nothing was sent.\n")
    assert (await live(shell))[0] == 1


async def test_an_export_can_be_applied(shell: Shell):
    text = (await shell("rules", "export")).out
    assert "key: cashback" in text
    assert (await shell("rules", "check", "-", stdin=text)).code == Exit.OK
    for export in (text, (await shell("rules", "export", "-o", "json")).out):
        assert (await shell("rules", "apply", "-", "--prune", "--check", stdin=export)).code == Exit.OK


async def test_a_rollback_brings_an_old_version_back_as_a_new_one(shell: Shell, file: Path):
    await shell("rules", "apply", str(file), "--prune")
    assert (await shell("rules", "rollback", "2")).code == Exit.REFUSED
    ran = await shell("rules", "rollback", "1")
    assert (ran.code, ran.out.splitlines()[-1]) == (Exit.OK, "version 3 is live, with 2 rule(s)")
    changes = differences(await document(shell, 2), await document(shell, 1))
    assert ran.out.splitlines()[:-1] == [change.words for change in changes] != []
    assert await live(shell) == (3, {"cashback": 0, "big-spender": 0})
    assert "rollback to version 1" in (await shell("rules", "versions")).out


async def test_a_draft_is_published_by_its_number(shell: Shell):
    assert shell.api is not None
    draft = (
        await shell.api.call(
            "POST", "/internal/ruleset/versions", raw=ONE_MORE.encode(), Content_Type="application/yaml"
        )
    ).json
    assert "draft" in (await shell("rules", "versions")).out
    assert (await shell("rules", "rollback", str(draft["version"]))).code == Exit.REFUSED
    ran = await shell("rules", "publish", str(draft["version"]), "--note", "go", "-o", "json")
    assert (ran.code, ran.json["live"]) == (Exit.OK, True)
    assert (await shell("rules", "publish", "99")).code == Exit.REFUSED


async def test_a_stopped_rule_gives_nothing_more_and_its_unsent_actions_wait(shell: Shell):
    event = {"external_id": "1", "event_type": "purchase.completed", "actor_user_id": "u1",
             "context": {"currency": "EUR", "amount_minor": 5000}}  # fmt: skip
    await shell("events", "send", "-", stdin=json.dumps(event))
    ran = await shell("rules", "stop", "cashback", "--pending", "review", "--note", "too much")
    assert (ran.code, ran.out) == (Exit.OK, "rule cashback is stopped; 1 action(s) not yet sent await approval\n")
    sent = await shell("events", "send", "-", "--id", "2", "-o", "json", stdin=json.dumps(event))
    assert sent.json["actions"] == []
    assert (await shell("rules", "stop", "no-such-rule")).code == Exit.REFUSED
    assert (await shell("rules", "stop", "cashback", "--pending", "burn")).code == Exit.USAGE


async def test_a_change_on_the_server_meanwhile_is_not_overwritten(shell: Shell, file: Path):
    """Two read version 1 at about the same time: the second to publish is told, or sees the first one's version."""
    ran = await shell.spawn(
        f"connect rules apply {file} & connect rules apply {file} --prune & wait %1; a=$?; wait %2; echo $a $?"
    )
    codes = sorted(ran.out.splitlines()[-1].split())
    assert codes in (["0", "0"], ["0", "4"]), ran
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(publish_over, remote(), {"version": 1}, '"1"', "")
    assert ended.value.code == Exit.REFUSED
    assert 2 <= (await live(shell))[0] <= codes.count("0") + 1  # whoever comes second may find nothing left to change


async def test_a_rule_is_judged_beside_the_units_the_server_has(shell: Shell):
    assert (await shell("rules", "apply", "-", stdin="version: 1\nunits: { gold: { scale: 2 } }\n")).code == Exit.OK
    rule = ONE_MORE.replace("unit: points", "unit: gold").replace("amount: 3", "amount: 3.25")
    ran = await shell("rules", "apply", "-", stdin=rule)
    assert (ran.code, "warning" in ran.err) == (Exit.OK, False), ran
