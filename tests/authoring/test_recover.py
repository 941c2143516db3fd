"""Faults of form do not hide what else is wrong: an author is told everything at once."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from connect.authoring import RuleProblem, convert_ruleset, review
from connect.authoring.document import read_document
from connect.authoring.positions import Positions
from connect.authoring.recover import findings_beside
from connect.errors import InvalidRuleset

DOCUMENT = """\
version: 1
colour: red
units: { points: { scale: 0 } }
rules:
  - key: one
    event_type: purchase.completed
    limitz: []
    condition: context.a > (
    actions: [ { target: points, command: credit, recipient: actor, amount: context.b +, unit: points } ]
  - key: two
    event_type: purchase.completed
    actions: [ { target: points, command: credit, recipient: nobody, amount: 5, unit: points } ]
  - event_type: purchase.completed
    actions: []
  - key: four
    event_type: purchase.completed
    condition: contxt.x
    actions: [ { target: points, command: credit, recipient: actor, amount: 5, unit: points } ]
"""


def test_faults_of_form_and_of_expressions_are_told_together_each_at_its_place() -> None:
    told = {(one.pointer, one.line) for one in review(DOCUMENT) if one.severity == "error"}
    assert {("#/colour", 2), ("#/rules/0/limitz", 7), ("#/rules/0/condition", 8), ("#/rules/0/actions/0/amount", 9),
            ("#/rules/3/condition", 17)} <= told  # fmt: skip
    assert any(pointer.startswith("#/rules/2") for pointer, _ in told)


def test_whole_rules_are_checked_wholly_when_only_other_rules_have_faults() -> None:
    text = DOCUMENT.replace("colour: red\n", "")
    told = [one for one in review(text) if one.pointer == "#/rules/1/actions/0/recipient"]
    assert len(told) == 1


@pytest.mark.parametrize("value", ["- a", "5", "rules: 5", "rules: [ 5 ]", "units: { points: 5 }", "tests: [ 5 ]"])
def test_what_is_hardly_a_document_gets_its_faults_and_nothing_made_up(value: str) -> None:
    problems = review(value)
    assert problems
    assert not [one for one in problems if "stand-in" in one.message]


SECTIONS = """\
timezone: Berlin
units: { points: { scale: 0 } }
budgets: { b: { unit: points, cap: 10 } }
groups: { g: { pick: biggest } }
rules:
  - key: one
    event_type: purchase.completed
    actions: [ { target: points, command: credit, recipient: nobody, amount: 5, unit: points } ]
  - key: two
    event_type: purchase.completed
    group: g
    budget: { from: c }
    actions: [ { target: points, command: credit, recipient: actor, amount: context.a * 0.5, unit: points } ]
tests:
  - name: a test
    given: [ { external_id: e1, event_type: purchase.completed } ]
    expect: { e1: [ { rule: tow, amount: 5 } ] }
"""
BESIDE = {"#/timezone", "#/rules/0/actions/0/recipient", "#/rules/1/budget/from", "#/rules/1/actions/0/amount",
          "#/tests/0/expect/e1/0/rule"}  # fmt: skip


@pytest.mark.parametrize(
    ("right", "wrong", "at", "hidden"),
    [
        ("pick: biggest", "pick: biggest", "#/groups/g/pick", set[str]()),
        ("pick: biggest", "pick: first }, 5: { pick: first", "#/groups/5", set[str]()),
        ("timezone: Berlin", "timezone: Berlin\ncolour: red", "#/colour", set[str]()),
        ("cap: 10", "cap: [ 10 ]", "#/budgets/b/cap", {"#/rules/1/budget/from"}),
        ("scale: 0", "scale: many", "#/units/points/scale", {"#/rules/1/actions/0/amount", "#/rules/1/budget/from",
                                                             "#/rules/0/actions/0/recipient"}),
        ("scale: 0", "scale: 0, worth: much", "#/units/points/worth", set[str]()),
        ("key: one\n", "key: one\n    limitz: []\n", "#/rules/0/limitz", {"#/tests/0/expect/e1/0/rule"}),
        ("budgets: {", "counters: { c: 5 }\nbudgets: {", "#/counters/c", set[str]()),
    ],
)  # fmt: skip
def test_a_malformed_section_hides_only_what_rests_on_it(right: str, wrong: str, at: str, hidden: set[str]) -> None:
    text = SECTIONS.replace(right, wrong)
    told = {one.pointer for one in review(text) if one.severity == "error"}
    assert at in told
    assert told >= BESIDE - hidden, BESIDE - told


WHOLE = """\
version: 1
timezone: Europe/Berlin
units: { points: { scale: 2, worth: 0.01 EUR }, nft: { scale: 0 } }
budgets: { b: { unit: points, cap: 99.25, refill_on_reversal: true } }
safety: { review_above: { points: 50.25 }, per_day: { points: 200 } }
counters:
  c: { event_type: bought, of: actor, kind: sum, value: context.n, undone_by: refunded, same: context.o }
  days: { event_type: bought, of: actor, kind: streak, every: day, grace: 1, zone: context.zone }
groups: { g: { pick: highest, unit: points } }
schemas:
  bought:
    type: object
    properties: { n: { type: number }, o: { type: string }, zone: { type: string }, items: { type: array } }
    additionalProperties: true
rules:
  - key: one
    formerly: was-one
    event_type: bought
    starts_at: 2026-09-01T00:00:00Z
    ends_at: 2026-10-01T00:00:00Z
    condition: [ context.n > 1, counters.c > 5, counters.days > 1 ]
    group: g
    budget: { from: b, when_short: clip }
    limits: [ { per: recipient, every: day, uses: 1, amount: 60.25 }, { per: recipient, within: 6h, uses: 1 } ]
    variants: { by: actor, seed: s, holdout: 10, arms: { a: { weight: 45, rate: 2 }, z: { weight: 45, rate: 3 } } }
    actions:
      - { target: points, command: credit, recipient: actor, amount: context.n * variant.rate, round: up, unit: points,
          hold: 1d, params: { order: =context.o } }
      - { key: k, target: points, command: credit, recipient: actor, amount: 1.25, unit: points }
    reversal: { event_type: refunded, same: { this: context.o, original: context.o }, fraction: context.n / 100 }
  - key: two
    event_type: bought
    group: g
    limits: [ { per: rule, every: ever, uses: 1 } ]
    variants: { by: actor, seed: s, holdout: 10, arms: { a: { weight: 45, rate: 2 }, z: { weight: 45, rate: 3 } } }
    actions:
      - { target: points, command: credit, unit: points, round: down, params: { who: =item.who },
          each: { in: context.items, as: item, recipient: item.who, amount: item.price * 0.125 } }
  - key: three
    event_type: bought
    limits: [ { per: rule, every: ever, uses: 1 } ]
    actions:
      - { target: points, command: credit, unit: points, round: down, amount: 100.25,
          each: { in: context.items, as: item, recipient: item.who, share: item.points } }
tests:
  - name: a test
    at: 2026-09-02T00:00:00Z
    given: [ { external_id: e1, event_type: bought, actor_user_id: u, context: { n: 5 } } ]
    arms: { one: a }
    expect: { e1: [ { rule: one, amount: 10, unit: points, target: points, command: credit } ] }
"""


def places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where each value of a document stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, one in inner:
        yield (*at, step)
        yield from places(one, (*at, step))


def changed(document: Any, at: tuple[str | int, ...], *, misspelt: bool) -> Any:
    """A copy with a list in lists instead of the value, or the value under another name."""
    broken = copy.deepcopy(document)
    holder = broken
    for step in at[:-1]:
        holder = holder[step]
    if misspelt:
        holder[f"{at[-1]}-?"] = holder.pop(at[-1])
    else:
        holder[at[-1]] = [[]]
    return broken


def made_up(document: Any, positions: Positions) -> list[RuleProblem]:
    """Returns what is told beside the faults of form of a document that was sound."""
    try:
        convert_ruleset(document)
    except InvalidRuleset as error:
        return findings_beside(document, error.errors, positions)
    return []


def test_whatever_is_malformed_in_a_sound_document_nothing_is_made_up_beside_it() -> None:
    document = read_document(WHOLE)
    assert not [one for one in review(WHOLE) if one.severity == "error"]
    for at in places(document.value):
        for misspelt in (False, True) if isinstance(at[-1], str) else (False,):
            broken = changed(document.value, at, misspelt=misspelt)
            assert made_up(broken, document.positions) == [], (at, misspelt)
