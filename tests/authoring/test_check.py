"""A ruleset may not say these things, each with its place, and is only warned of others."""

from typing import Any

import pytest

from connect.authoring import RuleProblem, check_rule, check_ruleset, convert_rule, read_and_check
from connect.errors import InvalidRuleset
from connect.model import Ruleset, Unit
from tests.engine.examples import UNITS, each, effect, rule

LIMITS = [{"per": "recipient", "every": "day", "uses": 1}]


def problems(action: dict[str, Any] | None = None, **fields: Any) -> list[RuleProblem]:
    return check_rule(rule(actions=[action] if action else None, **{"limits": LIMITS, **fields}), Ruleset(units=UNITS))


@pytest.mark.parametrize(
    ("action", "says", "pointer", "severity"),
    [
        (effect(amount="context.a * 0.5"), "more than the 0 decimal places", "/amount", "error"),
        (effect(amount="context.a / 3", unit="money"), "more than the 2 decimal places", "/amount", "error"),
        (effect(amount="2.5"), "more than the 0 decimal places", "/amount", "error"),
        (effect(amount="-5"), "negative", "/amount", "error"),
        (effect(amount=-5), "negative", "/amount", "error"),
        (effect(amount="1 / (2 - 2)", round="down"), "division by zero", "/amount", "error"),
        (effect(amount=" * ".join(["999999999999999"] * 5)), "more than 60 digits", "/amount", "error"),
        (effect(amount=0), "never gives", "/amount", "warning"),
        (effect(amount="context.a +"), "", "/amount", "error"),
        (effect(amount="variant.rate * 2", round="down"), "this rule has no variants", "/amount", "error"),
        (effect(unit="coins"), "declared: points, token, money", "/unit", "warning"),
        (effect(recipient="everyone"), "actor, subject or parties.<role>", "/recipient", "error"),
        (effect(recipient="parties."), "actor, subject or parties.<role>", "/recipient", "error"),
        (effect(recipient=None), "either `recipient` or `each`", "", "error"),
        (effect(amount=None), "one amount", "", "error"),
        (each() | {"recipient": "actor", "amount": 1}, "either", "", "error"),
        (each(amount=1) | {"amount": 1}, "one amount", "", "error"),
        (each(**{"as": "context", "recipient": "context.u"}, amount=1), "of its own", "/each/as", "error"),
        (each(**{"in": "contxt.i"}, amount=1), "did you mean context", "/each/in", "error"),
        (each(recipient="other.u", amount=1), "unknown name other", "/each/recipient", "error"),
        (each(recipient="actor", amount=1), "unknown name actor", "/each/recipient", "error"),
        (effect(params={"a": [{"b/c": "=contxt.x"}]}), "unknown name contxt", "/params/a/0/b~1c", "error"),
        (effect(params={"a": "x" * 17_000}), "over 16384 bytes", "/params", "error"),
    ],
)
def test_what_an_action_says_is_checked(action: dict[str, Any], says: str, pointer: str, severity: str):
    found = problems(action)
    assert [(problem.pointer, problem.severity) for problem in found] == [(f"#/actions/0{pointer}", severity)]
    assert says in f"{found[0].message} {found[0].hint}"


START = "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "says", "pointer"),
    [
        (
            {"starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z"},
            "ends before it starts",
            "#/ends_at",
        ),
        ({"starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-02T01:00:00+01:00"}, "ends before", "#/ends_at"),
        ({"condition": "context.a ="}, "", "#/condition"),
        ({"condition": ["true", "contxt.a == 1"]}, "unknown name contxt", "#/condition/1"),
        ({"condition": "counters.purchases == 10"}, "no counter is called purchases", "#/condition"),
    ],
)
def test_what_a_rule_says_is_checked(fields: dict[str, Any], says: str, pointer: str):
    (problem,) = problems(**fields)
    assert (problem.pointer, problem.severity, says in problem.message) == (pointer, "error", True)


def test_a_good_rule_has_no_problems():
    assert problems() == []
    assert problems(effect(amount="context.a * 0.5", round="down")) == []
    assert problems(effect(amount="context.a * 0.5", unit="money")) == []


def test_effects_of_a_rule_need_keys_of_their_own():
    twice = rule(limits=LIMITS, actions=[effect(), effect(recipient="subject")])
    assert [problem.pointer for problem in check_rule(twice, Ruleset(units=UNITS))] == ["#/actions/1"]
    named = rule(limits=LIMITS, actions=[effect(), effect(recipient="subject", key="for-subject")])
    assert check_rule(named, Ruleset(units=UNITS)) == []


def test_keys_of_rules_are_theirs_alone():
    (problem,) = check_ruleset(Ruleset(units=UNITS, rules=[rule(key, limits=LIMITS) for key in "aba"]))
    assert (problem.pointer, problem.message.split(":")[0]) == ("#/rules/2/key", "rule 1 has the key a already")


@pytest.mark.parametrize(
    ("timezone", "expected"),
    [
        ("UTC", []),
        ("Europe/Berlin", []),
        *((name, ["#/timezone"]) for name in ("", "Berlin", "../x", "/etc", "Europe", "a\0")),
    ],
)
def test_the_timezone_is_one_there_is(timezone: str, expected: list[str]):
    assert [problem.pointer for problem in check_ruleset(Ruleset(timezone=timezone))] == expected


HEAD = "units: { points: {} }\nrules:\n  - key: r\n    event_type: e\n"
TAIL = """\
    limits: [ { per: recipient, every: day, uses: 1 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 1, unit: points } ]
"""


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("    condition: contxt.a == 1\n", (5, 16)),
        ("    condition: 1 == contxt.a\n", (5, 21)),
        ("    condition: '\"it''s\" == contxt.a'\n", (5, 28)),
        ('    condition: "\\"\\u00e4\\" == contxt.a"\n', (5, 31)),
        ("    condition:\n      - context.a == 1\n      - 1 == contxt.a\n", (7, 14)),
        ("    condition: |\n      context.a == 1 &&\n\n        contxt.b == 2\n", (8, 9)),
        ("    condition: >\n      context.a == 1 &&\n      contxt.b == 2\n", (5, 16)),
        ("    condition: context.a == 1 &&\n      contxt.b == 2\n", (5, 16)),
        ("    condition: [ context.a == 1, contxt.b == 2 ]\n", (5, 34)),
    ],
)
def test_an_error_in_an_expression_has_its_place_in_the_document(condition: str, expected: tuple[int, int]):
    with pytest.raises(InvalidRuleset) as caught:
        read_and_check(HEAD + condition + TAIL)
    (error,) = caught.value.errors
    assert "contxt" in error.detail
    assert (error.line, error.column) == expected


def test_an_expression_in_params_has_its_place_behind_the_equals_sign():
    with pytest.raises(InvalidRuleset) as caught:
        read_and_check(HEAD + TAIL.replace("unit: points", "unit: points, params: { a: =contxt.a }"))
    (error,) = caught.value.errors
    assert (HEAD + TAIL).count("\n") == error.line
    line = TAIL.replace("unit: points", "unit: points, params: { a: =contxt.a }").splitlines()[-1]
    assert error.column == line.index("contxt") + 1


def test_without_a_document_the_place_is_that_in_the_expression():
    (problem,) = problems(condition="1 == contxt.a")
    assert (problem.line, problem.column, problem.caret) == (1, 6, " | 1 == contxt.a\n | .....^")


def test_warnings_refuse_nothing():
    ruleset, warnings = read_and_check((HEAD + TAIL).replace("units: { points: {} }\n", ""))
    assert [(problem.severity, problem.pointer, problem.line) for problem in warnings] == [
        ("warning", "#/rules/0/actions/0/unit", 5)
    ]
    assert ruleset.units == {}


def test_a_rule_is_checked_in_the_ruleset_it_is_to_stand_in():
    action = effect(amount="0.5", unit="coins")
    other = convert_rule({"key": "r", "event_type": "e", "actions": [action], "limits": LIMITS})
    assert [problem.pointer for problem in check_rule(other, Ruleset())] == ["#/actions/0/unit", "#/actions/0/amount"]
    assert check_rule(other, Ruleset(units={"coins": Unit(scale=1)})) == []
