"""`connect rules new`, `test` and `diff`, and that `apply` sends nothing that is red."""

from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from connect.cli.output import Exit
from connect.cli.rules.changes import differences
from connect.cli.rules.local import TEMPLATES
from tests.cli.shell import Shell, shell_on

GREEN = """\
version: 1
units: { points: {} }
rules:
  - key: cashback
    event_type: purchase.completed
    condition: [context.currency == "EUR", context.amount_minor >= 1000]
    limits: [{ per: actor, every: day, uses: 3 }]
    actions:
      - { target: points, command: credit, unit: points, recipient: actor,
          amount: context.amount_minor * 0.02, round: down }
  - key: welcome
    event_type: user.joined
    limits: [{ per: actor, every: ever, uses: 1 }]
    actions: [{ target: points, command: credit, unit: points, recipient: actor, amount: 100 }]
tests:
  - name: two percent & no more
    given:
      - { external_id: e1, event_type: purchase.completed, actor_user_id: u1,
          context: { currency: EUR, amount_minor: 12990 } }
      - { external_id: e2, event_type: purchase.completed, actor_user_id: u1,
          context: { currency: EUR, amount_minor: 999 } }
    expect:
      e1: [{ rule: cashback, user_id: u1, amount: 259 }]
      e2: []
"""
RED = GREEN.replace("amount: 259", "amount: 260").replace("e2: []", "e2: [{ rule: cashback, amount: 19 }]")


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


# --- new -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
async def test_a_new_ruleset_is_commented_checked_and_green_from_the_start(template: str, tmp_path: Path):
    file = tmp_path / "rules.yaml"
    ran = await Shell()("rules", "new", str(file), "--template", template)
    assert ran.code == Exit.OK, ran
    assert f"connect rules test {file}" in ran.out
    assert file.read_text().count("#") >= 5
    assert (await Shell()("rules", "check", str(file), "--strict")).out == f"{file}: no problems\n"
    assert (await Shell()("rules", "test", str(file), "--strict")).code == Exit.OK
    assert (await Shell()("rules", "new", "--template", template)).out == file.read_text()


async def test_all_templates_go_onto_one_server_one_after_the_other(shell: Shell):
    """Each has a test of its own, which the next one's timezone or units would turn red."""
    for template in TEMPLATES:
        text = (await Shell()("rules", "new", "--template", template)).out
        ran = await shell("rules", "apply", "-", stdin=text)
        assert ran.code == Exit.OK, ran
        assert (template == TEMPLATES[0]) or "change " not in ran.out, ran.out


async def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path):
    file = tmp_path / "rules.yaml"
    file.write_text("mine")
    ran = await Shell()("rules", "new", str(file))
    assert (ran.code, ran.err) == (
        Exit.USAGE,
        f"connect: {file} is there already and was not overwritten: name another file.\n",
    )
    assert file.read_text() == "mine"
    ran = await Shell()("rules", "new", str(tmp_path / "none" / "rules.yaml"))
    assert (ran.code, f"there is no folder {tmp_path / 'none'}." in ran.err) == (Exit.USAGE, True)


# --- test ----------------------------------------------------------------------------------------


async def test_green_tests_are_told_with_the_rules_that_none_makes_give(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CONNECT_API_KEY", raising=False)
    ran = await Shell()("rules", "test", "-", stdin=GREEN)
    assert (ran.code, ran.err) == (Exit.OK, "")
    assert ran.out.splitlines() == [
        "ok   two percent & no more",
        "1 test: 1 passed, 0 red",
        "rules that no test makes give: welcome",
    ]
    assert (await Shell()("rules", "test", "-", "--strict", stdin=GREEN)).code == Exit.FAILED


async def test_a_red_test_is_told_with_each_difference_and_why():
    ran = await Shell()("rules", "test", "-", stdin=RED)
    assert ran.code == Exit.FAILED
    why = "its condition did not hold: line 2 `context.amount_minor >= 1000`, with context.amount_minor = 999"
    assert ran.out.splitlines()[:7] == [
        "RED  two percent & no more",
        "       e1: missing points 260 for u1 by cashback",
        "         why: gave, with context.amount_minor = 12990",
        "       e1: unexpected points 259 for u1 by cashback",
        "         why: gave, with context.amount_minor = 12990",
        "       e2: missing points 19 for anyone by cashback",
        f"         why: {why}",
    ]


async def test_machines_get_the_tests_with_the_trace_of_each_event():
    ran = await Shell()("rules", "test", "-", "-o", "json", stdin=RED)
    assert (ran.code, ran.json["ok"], ran.json["uncovered"]) == (Exit.FAILED, False, ["welcome"])
    [test] = ran.json["tests"]
    assert [difference["kind"] for difference in test["differences"]] == ["missing", "unexpected", "missing"]
    assert [(event["event"], event["trace"][0]["outcome"]) for event in test["events"]] == [
        ("e1", "gave"), ("e2", "not_matched"),
    ]  # fmt: skip
    assert test["events"][0]["actions"][0]["amount"] == "259"


@pytest.mark.parametrize(("text", "failures"), [(GREEN, 0), (RED, 1)])
async def test_a_pipeline_gets_junit_xml(text: str, failures: int, tmp_path: Path):
    report = tmp_path / "report.xml"
    await Shell()("rules", "test", "-", "--junit", str(report), stdin=text)
    [suite] = ElementTree.parse(report).getroot()  # noqa: S314  our own
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "1", str(failures))
    [case] = suite.iter("testcase")
    assert case.get("name") == "two percent & no more"
    told = [failure.text or "" for failure in case.iter("failure")]
    assert len(told) == failures
    assert all("e1: missing points 260 for u1 by cashback (gave" in text for text in told)
    assert "welcome" in (suite.findtext("system-out") or "")


async def test_a_report_that_cannot_be_written_is_a_sentence(tmp_path: Path):
    ran = await Shell()("rules", "test", "-", "--junit", str(tmp_path), stdin=GREEN)
    assert (ran.code, ran.err) == (Exit.USAGE, f"connect: {tmp_path}: Is a directory.\n")


async def test_a_file_with_errors_is_not_tested():
    ran = await Shell()("rules", "test", "-", stdin=GREEN.replace(">= 1000", ">=> 1000"))
    assert (ran.code, ran.out) == (Exit.FAILED, "")
    assert ran.err.endswith("connect: stdin has 1 error(s): no test was run.\n")


async def test_what_is_skipped_is_told_and_fails_only_where_that_is_asked():
    off = GREEN.replace("key: cashback\n", "key: cashback\n    enabled: false\n")
    ran = await Shell()("rules", "test", "-", stdin=off)
    assert ran.code == Exit.OK
    assert "       skipped: e1: points 259 for u1 by cashback: the rule is not live, disabled" in ran.out.splitlines()


# --- diff ----------------------------------------------------------------------------------------

BEFORE = """
version: 1
timezone: UTC
units: { points: { worth: 0.01 EUR }, nft: {} }
budgets: { autumn: { unit: points, cap: 1000 }, old: { unit: points, cap: 5 } }
safety: { review_above: { points: 100 } }
counters: { n: { event_type: x, of: actor, kind: count } }
groups: { g: { pick: first } }
schemas: { x: { type: object, properties: { a: { type: integer } } } }
rules:
  - key: r
    event_type: x
    condition: [context.a == 1, context.b == 2]
    limits: [{ per: recipient, every: day, uses: 3 }, { per: rule, within: 6h, amount: 10 }]
    budget: { from: autumn }
    actions:
      - { target: points, command: credit, unit: points, recipient: actor, amount: context.a * 0.02, round: down }
      - { target: points, command: credit, unit: points, recipient: subject, amount: 1 }
    reversal: { event_type: y, same: context.a }
  - { key: gone, event_type: x, actions: [{ target: nft, command: mint, unit: nft, recipient: actor, amount: 1 }] }
tests: [{ name: t, given: [{ external_id: e, event_type: x }], expect: {} }]
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a * 0.02", "a * 0.03", "change rule r: amount of {} to actor context.a * 0.02 -> context.a * 0.03"),
        ("subject, amount", "subject, hold: 2d, amount", "change rule r: hold of {} to subject none -> 2d"),
        ("context.b == 2", "context.b == 3", "change rule r: condition context.b == 2 -> context.b == 3"),
        (", context.b == 2", "", "change rule r: condition removed: context.b == 2"),
        (
            "[context.a == 1, context.b == 2]",
            "[context.b == 2, context.a == 1]",
            "change rule r: the order of the condition's lines",
        ),
        ("uses: 3", "uses: 5", "change rule r: limit a day per recipient 3 uses -> 5 uses"),
        (", { per: rule, within: 6h, amount: 10 }", "", "change rule r: limit removed: 10 points within 6h"),
        ("within: 6h,", "within: 6h, uses: 2,", "change rule r: limit added: 2 uses within 6h"),
        ("{ from: autumn }", "{ from: autumn, when_short: clip }", "change rule r: budget.when_short deny -> clip"),
        ("    budget: { from: autumn }\n", "", "change rule r: budget removed: from autumn"),
        ("same: context.a }", "same: context.a, fraction: '0.5' }", "change rule r: reversal.fraction 1 -> 0.5"),
        ("    event_type: x\n", "    event_type: x\n    enabled: false\n", "change rule r: enabled true -> false"),
        ("cap: 1000 }", "cap: 2000 }", "change budget autumn: cap 1000 -> 2000"),
        (", old: { unit: points, cap: 5 }", "", "retire budget old"),
        ("cap: 5 }", "cap: 5 }, b: { unit: nft, cap: 7 }", "add budget b: unit nft, cap 7"),
        ("kind: count", "kind: count, every: day", "change counter n: every none -> day"),
        ("pick: first", "pick: highest, unit: points", "change group g: pick first -> highest"),
        ("points: 100", "points: 200", "change safety.review_above.points 100 -> 200"),
        ("type: integer", "type: string", "change schema x: properties.a.type integer -> string"),
        ("0.01 EUR", "0.02 EUR", "change unit points: worth 0.01 EUR -> 0.02 EUR"),
        ("timezone: UTC", "timezone: Europe/Berlin", "change timezone UTC -> Europe/Berlin"),
        ("external_id: e,", "external_id: f,", "change test t: given"),
        ("tests: [", "tests: [{ name: u, given: [{ external_id: e, event_type: x }], expect: {} }, ", "add test u"),
        ("{ key: gone", "{ key: come", "add rule come: x gives nft.mint 1 nft to actor"),
        ("{ key: gone", "{ key: come", "retire rule gone"),
    ],
)  # fmt: skip
def test_each_change_is_said_with_its_old_and_its_new_value(old: str, new: str, expected: str):
    assert old in BEFORE
    said = [change.words for change in differences(read(BEFORE), read(BEFORE.replace(old, new, 1)))]
    assert expected.format("points.credit.points") in said
    assert len(said) <= 2


def read(text: str):
    from connect.authoring.document import read_document

    return msgspec.to_builtins(read_document(text).value)


def test_two_spellings_of_one_ruleset_do_not_differ():
    spelled = BEFORE.replace("condition: [", "priority: 0\n    enabled: true\n    condition: [", 1).replace(
        "cap: 5", "cap: 5"
    )
    assert differences(read(BEFORE), read(spelled)) == []


async def test_a_diff_says_what_applying_would_change_and_changes_nothing(shell: Shell, tmp_path: Path):
    file = tmp_path / "rules.yaml"
    file.write_text(GREEN.replace("0.02", "0.03").replace("amount: 259", "amount: 389"))
    ran = await shell("rules", "diff", str(file))
    assert (ran.code, ran.out.splitlines()) == (
        Exit.OK,
        [
            "add rule welcome: user.joined gives points.credit 100 points to actor",
            "change rule cashback: amount of points.credit.points "
            "context.amount_minor * 0.02 -> context.amount_minor * 0.03",
            "change rule cashback: limit added: 3 uses a day per actor",
            "add test two percent & no more",
        ],
    )
    pruned = await shell("rules", "diff", str(file), "--prune", "-o", "json")
    assert pruned.json["version"] == 1
    assert {"verb": "retire", "noun": "rule", "name": "big-spender", "words": "retire rule big-spender"} in [
        {name: text for name, text in change.items() if text} for change in pruned.json["changes"]
    ]
    assert (await shell("rules", "apply", str(file))).code == Exit.OK
    after = await shell("rules", "diff", str(file))
    assert (after.code, after.out) == (Exit.OK, "the server (version 2) has this already\n")


# --- apply ---------------------------------------------------------------------------------------


async def test_nothing_is_sent_while_a_test_is_red(shell: Shell):
    for extra in ((), ("--check",), ("--prune",)):
        ran = await shell("rules", "apply", "-", *extra, stdin=RED)
        assert ran.code == Exit.FAILED, ran
        assert "RED  two percent & no more" in ran.err
        assert "e1: missing points 260 for u1 by cashback" in ran.err
        assert "what applying would change:\n  " in ran.err
        assert ran.err.endswith("connect: with stdin the ruleset has 1 of 1 test(s) red: nothing was sent.\n")
    assert len((await shell("rules", "versions", "-o", "json")).json["items"]) == 1


async def test_tests_on_the_server_are_held_against_a_file_that_changes_their_rule(shell: Shell):
    assert (await shell("rules", "apply", "-", stdin=GREEN)).code == Exit.OK
    rule = GREEN[: GREEN.index("  - key: welcome")].replace("0.02", "0.03")
    ran = await shell("rules", "apply", "-", stdin=rule)
    assert (ran.code, "e1: unexpected points 389 for u1 by cashback" in ran.err) == (Exit.FAILED, True)


async def test_a_file_that_breaks_what_the_server_has_is_told_so(shell: Shell):
    schema = "{ type: object, properties: { amount_minor: { type: integer } }, additionalProperties: false }"
    ran = await shell("rules", "apply", "-", stdin=f"version: 1\nschemas:\n  purchase.completed: {schema}\n")
    assert ran.code == Exit.FAILED, ran
    assert "error: with this file, on the server (#/rules/0/condition/0): " in ran.err
    assert "currency" in ran.err
    assert "unbounded" not in ran.err
