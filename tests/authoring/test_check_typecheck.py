"""Types of fields in conditions: what a schema proves wrong is an error where it stands, and nothing else is."""

import itertools
from collections.abc import Mapping
from typing import Final

import pytest

from connect.authoring import RuleProblem, review
from connect.authoring.check.typecheck import OVERLOADS, WORDS, KindCheck, Kinds
from connect.engine.expression import Failed, compile_value, environment, make_activation
from connect.engine.expression.paths import Path
from connect.engine.expression.problems import Source

DOCUMENT: Final = """\
units: { points: { scale: 0 } }
schemas:
  bought:
    type: object
    properties:
      n: { type: integer }
      d: { type: number }
      s: { type: string }
      f: { type: boolean }
      at: { type: string, format: date-time }
      maybe: { type: [ string, "null" ] }
      either: { type: [ string, integer ] }
      both: { anyOf: [ { type: string }, { type: boolean } ] }
      tier: { enum: [ gold, silver ] }
      any: {}
      m: { type: object, additionalProperties: { type: integer } }
      tags: { type: array, items: { type: string } }
      loose: { type: array }
      items: { type: array, items: { type: object, properties: { name: { type: string }, price: { type: number } } } }
rules:
  - key: r
    event_type: bought
    limits: [ { per: recipient, every: day, uses: 1 } ]
    condition: |-
      CONDITION
    actions:
      - { target: points, command: credit, recipient: actor, amount: 'AMOUNT', unit: points, params: { a: 'PARAM' } }
"""


def found(condition: str = "true", amount: str = "5", param: str = "a") -> list[RuleProblem]:
    text = DOCUMENT.replace("CONDITION", condition).replace("AMOUNT", amount).replace("PARAM", param)
    return review(text)


@pytest.mark.parametrize(
    ("condition", "column", "message", "hint"),
    [
        ("context.s == 5", 9, "context.s is text, which is never equal to a number", "double(context.s)"),
        ("5 == context.s", 14, "context.s is text, which is never equal to a number", "double(context.s)"),
        ("context.s != 5", 9, "context.s is text, which is always other than a number", "double(context.s)"),
        ('context.n == "5"', 9, "context.n is a number, which is never equal to text", "without quotes"),
        ("context.n == context.s", 9, "context.n is a number, which is never equal to text", "without quotes"),
        ("context.maybe == 5", 9, "context.maybe is null or text, which is never equal to a number", "double("),
        ("context.tier == 1", 9, "context.tier is text, which is never equal to a number", "double("),
        ("context.either == true", 9, "is a number or text, which is never equal to true or false", "compare it"),
        ('context.n.matches("x")', 9, "context.n is a number, and matches() takes text", "string(context.n)"),
        ('matches(context.n, "x")', 17, "context.n is a number, and matches() takes text", "string(context.n)"),
        ("context.s.contains(context.n)", 28, "context.n is a number, and contains() takes text", "string("),
        ("context.n && true", 9, "context.n is a number, where true or false is needed", "context.n > 0"),
        ("context.f || context.s", 22, "context.s is text, where true or false is needed", 'context.s == "..."'),
        ("!context.s", 10, "context.s is text, where true or false is needed", 'context.s == "..."'),
        ("context.s", 9, "context.s is text, where true or false is needed", 'context.s == "..."'),
        ("context.n > 5 ? context.s : context.n", 15, "this is a number or text, where true", "compare it"),
        ("context.s ? true : false", 9, "context.s is text, where true or false is needed", "compare it"),
        ("context.s > 5", 9, "context.s is text, and `>` cannot take it with a number", "double(context.s)"),
        ("context.s * 2 > 5", 9, "context.s is text, and `*` takes a number", "double(context.s)"),
        ("context.n + context.s == 5", 9, "context.n is a number, and `+` cannot take it with text", "string("),
        ("-context.s < 5", 10, "context.s is text, and `-` takes a number", "double(context.s)"),
        ("size(context.n) > 5", 14, "context.n is a number, and size() takes a list, an obj", "schema"),
        ("context.at < occurred_at", 9, "and `<` cannot take it with a moment", "timestamp(context.at)"),
        (
            "context.at.getHours() > 5",
            9,
            "context.at is text, and getHours() takes a duration or a moment",
            "timestamp(",
        ),
        ('"a" in context.s', 16, "context.s is text, and `in` takes a list or an object", 'context.s.contains("...")'),
        ("context.n in context.tags", 9, "context.n is a number, and is never in what holds text", "string("),
        ("context.s in [1, 2]", 9, "context.s is text, and is never in what holds a number", "double("),
        ("context.items.exists(i, i.name > 5)", 27, "i.name is text, and `>` cannot take it with a number", "double("),
        ("context.items.exists(i, i.name)", 27, "i.name is text, where true or false is needed", "compare it"),
        (
            "context.items.all(i, i.price == context.s)",
            24,
            "i.price is a number, which is never equal to text",
            "quotes",
        ),
        ("context.tags.exists(t, t == 5)", 24, "t is text, which is never equal to a number", "double(t)"),
        ("context.s.exists(c, c == 'a')", 9, "context.s is text, which has no elements", "contains"),
        ("context.n[context.s] == 5", 9, "context.n is a number, and `[ ]` takes", "schema"),
        ("context.m.a == 'x'", 11, "context.m.a is a number, which is never equal to text", "quotes"),
        ("actor_user_id == 5", 1, "actor_user_id is null or text, which is never equal to a number", "double("),
    ],
)
def test_what_the_types_of_a_schema_prove_wrong_is_an_error_at_the_field(
    condition: str, column: int, message: str, hint: str
) -> None:
    (one,) = found(condition)
    assert (one.severity, one.line) == ("error", DOCUMENT[: DOCUMENT.index("CONDITION")].count("\n") + 1)
    assert message in one.message
    assert hint in (one.hint or "")
    assert one.column == column + 6, one.caret


@pytest.mark.parametrize(
    "condition",
    [
        'context.s == "5"', "context.n == 5.0", "context.d == 5", "context.n > context.d", "context.s != null",
        "context.s == null", "context.maybe == null || context.maybe == 'x'", "has(context.s) && context.n > 1",
        "context.either == 5", "context.either == 'x'", "context.either > 5", "context.both || context.f",
        "context.both", "context.both == 'x'", "context.any == 5", "context.any.matches('x')", "context.any && true",
        "context.any", "size(context.s) > 5", "context.tags.size() > 1", "size(context.m) == 1", "context.s in ['a']",
        "context.either in [1, 2]", "context.n in [1, 2.5]", "context.s in [null, 1]", "context.n in context.loose",
        "context.loose.exists(x, x == 5)", "context.loose.exists(x, x == 'a')", "'k' in context.m",
        "context.m.exists(k, k == 'a')", "context.m.exists(k, context.m[k] > 5)", "timestamp(context.at) < occurred_at",
        "timestamp(context.at).getHours('UTC') > 5", "timestamp(context.n) < occurred_at", "double(context.s) == 5.0",
        "string(context.n) == context.s", "int(context.s) == context.n", "dyn(context.s) == 5", "'a' in context.tags",
        "occurred_at - timestamp(context.at) < duration('1h')", "occurred_at + duration(context.s) > occurred_at",
        "context.items.map(i, i.price)[0] == 5", "context.items.filter(i, i.price > 5).size() > 1",
        "context.items[0].name == 'x'", "context.items.exists(i, has(i.price) && i.price > context.n)",
        "(context.f ? context.n : context.s) == 5", "context.f ? context.n > 5 : context.s == 'x'",
        "context.tags + ['a'] == ['a']", "context.tags == []", "[1, 2].exists(x, x == context.n)",
        "type(context.n) == int", "context['s'] == 'x'", "context.f == (context.n > 5)", "actor_user_id != null",
        "parties.referrer == actor_user_id", "context.s < context.at", "context.m == {'a': 1}",
        "context.items.exists_one(i, i.name == context.s)", "context.n % 2 == 0", "counters.x == 5",
    ],
)  # fmt: skip
def test_what_may_hold_for_some_event_is_let_through(condition: str) -> None:
    assert not [one for one in found(condition) if "counter" not in one.message]


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ("context.s == 5 ? 1 : 2", "context.s is text, which is never equal to a number"),
        ("2 * (context.n ? 1 : 2)", "context.n is a number, where true or false is needed"),
        ("context.s == \"x\" ? context.n : 2", ""),
        ("decimal(context.s)", ""),
    ],
)  # fmt: skip
def test_the_tests_inside_amounts_are_held_against_types_too(amount: str, message: str) -> None:
    told = [
        one.message for one in found(amount=amount) if one.severity == "error" and "decimal places" not in one.message
    ]
    assert told == ([message] if message else [])


def test_params_are_held_against_types_and_may_be_of_any() -> None:
    assert [one.message for one in found(param="=context.s")] == []
    assert [one.message for one in found(param="=context.s * 2")] == ["context.s is text, and `*` takes a number"]


def test_what_each_goes_through_has_to_be_a_list() -> None:
    text = DOCUMENT.replace("CONDITION", "true").replace("recipient: actor, amount: 'AMOUNT'", "EACH")
    each = "each: {{ in: context.{}, as: item, recipient: '\"u\"', amount: 1 }}"
    assert review(text.replace("EACH", each.format("tags"))) == []
    (one,) = review(text.replace("EACH", each.format("s")))
    assert one.message == "context.s is text, where a list is needed"


def test_without_a_schema_of_the_type_nothing_is_held_against_types() -> None:
    text = DOCUMENT.replace("  bought:", "  sold:").replace("CONDITION", "context.s == 5 && context.n")
    assert review(text.replace("AMOUNT", "5").replace("PARAM", "a")) == []


SAMPLES: Final = {
    "bool": ["true"],
    "bytes": ['b"a"'],
    "duration": ['duration("1h")'],
    "list": ['["x"]'],
    "map": ['{"x": 1}'],
    "null": ["null"],
    "number": ["2", "1.5"],
    "string": ['"x"', '"2026-01-01T00:00:00Z"', '"UTC"', '"1h"', '"true"', '"5"'],
    "timestamp": ['timestamp("2026-01-01T00:00:00Z")'],
}


def written(function: str, operands: list[str]) -> str:
    """A call as an author writes it."""
    if function == "_||_":
        return f"(dyn(!dyn({operands[0]}) || false) || {operands[1]}) && {operands[0]}"
    if function.startswith("_"):
        return f"{operands[0]} {function.strip('_')} {operands[1]}"
    if function in ("!_", "-_"):
        return f"{function[0]}{operands[0]}"
    if function in ("size", "int", "uint", "double", "string", "bool", "timestamp", "duration"):
        return f"{function}({operands[0]})"
    return f"{operands[0]}.{function}({', '.join(operands[1:])})"


def fits(text: str) -> bool:
    """Whether cel-cpp itself comes to a value."""
    return not isinstance(compile_value(f"dyn({text}) == 0").evaluate(make_activation({})), Failed)


def refuses(text: str, kinds: Mapping[str, str]) -> bool:
    def kinds_of(path: Path) -> Kinds:
        return frozenset({kinds[str(path[1])]})

    check = KindCheck(text, kinds_of, lambda path: None, lambda path, known: path)
    return bool(list(check.faults(environment.parse(Source(text), frozenset()), {}, None)))


@pytest.mark.parametrize("function", sorted(OVERLOADS))
def test_the_table_takes_exactly_what_cel_takes(function: str) -> None:
    for length in {len(taken) for taken, _ in OVERLOADS[function]}:
        text = written(function, ["context.a", "context.b"][:length])
        for kinds in itertools.product(WORDS, repeat=length):
            samples = itertools.product(*(SAMPLES[kind] for kind in kinds))
            runs = any(fits(written(function, [f"dyn({one})" for one in some])) for some in samples)
            refused = refuses(text, dict(zip("ab", kinds, strict=False)))
            assert refused is not runs, (text, kinds)
