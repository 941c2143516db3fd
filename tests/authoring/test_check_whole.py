"""A whole document: all of its faults at once, the example of the documentation, and a rule beside others."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import inspect

from connect.authoring import check_rule, convert_rule, read_and_check, review
from connect.errors import InvalidRuleset
from connect.model import IN_WORDS, BudgetUse, Group, ReportedEvent, Ruleset, Target, Unit

EVERYTHING_WRONG = """\
timezone: Berlin
units: { points: { scale: 0 }, nft: {} }
budgets:
  autumn: { unit: nft, cap: 1_000 }
  spare: { unit: points, cap: 10 }
safety: { per_day: { coins: many } }
counters:
  visits: { event_type: app.opened, of: actor, kind: streak, every: ever }
  spent: { event_type: purchase.completed, of: actor, kind: sum }
  unread: { event_type: app.opened, of: actor, kind: count, condition: counters.visits > 1 }
groups: { cash: { pick: highest } }
schemas:
  purchase.completed: { type: object, properties: { amount: { type: number }, order: { type: string } } }
rules:
  - key: first
    event_type: purchase.completed
    condition:
      - context.amont > 5
      - counters.visit >= 3
      - contxt.a == 1
    group: cash
    limits:
      - { per: actor, every: day, uses: 9 }
      - { per: actor, every: month, uses: 3 }
      - { per: actor }
    budget: { from: autumn }
    actions:
      - { target: points, command: credit, recipient: everyone, amount: variant.rate * 2.5, unit: points }
    reversal: { event_type: purchase.refunded, same: order, fraction: 2 }
  - key: first
    formerly: first
    event_type: purchase.completed
    group: cahs
    variants: { by: actor, seed: s, arms: { a: { weight: 60 } } }
    actions:
      - { target: points, command: credit, recipient: actor, amount: 1, unit: points }
tests:
  - name: nothing fits
    given: [ { external_id: e1, event_type: purchase.completed } ]
    expect: { e2: [ { rule: frist, amount: five } ] }
"""

EXPECTED = """\
#/timezone 1:11 no timezone is called Berlin
#/budgets/autumn/cap 4:29 '1_000' is no amount
#/budgets/spare 5:3 no rule draws on the budget spare
#/safety/per_day/coins 6:29 the unit coins is not declared
#/safety/per_day/coins 6:29 'many' is no amount
#/counters/visits/every 8:69 a streak needs its step
#/counters/spent 9:3 needs `value`
#/counters/spent 9:3 no rule reads the counter spent
#/counters/unread 10:3 no rule reads the counter unread
#/counters/unread/condition 10:72 a counter cannot read counters
#/groups/cash 11:11 `pick: highest` compares amounts
#/groups/cash 11:11 only the rule first is in the group cash
#/rules/0/condition/0 18:17 there is no context.amont
#/rules/0/condition/1 19:18 no counter is called visit
#/rules/0/condition/2 20:9 unknown name contxt
#/rules/0/limits/0 23:9 the day limit of 9 uses per actor can never bind
#/rules/0/limits/2 25:9 either `every` or `within`
#/rules/0/limits/2 25:9 `uses` or `amount`
#/rules/0/budget/from 26:21 the budget autumn is in nft
#/rules/0/actions/0/recipient 28:55 is no recipient
#/rules/0/actions/0/amount 28:73 more than the 0 decimal places
#/rules/0/actions/0/amount 28:73 this rule has no variants
#/rules/0/reversal/same 29:54 order holds no value that ties two events together
#/rules/0/reversal/fraction 29:71 the fraction is 2
#/rules/1 30:5 the rule is unbounded
#/rules/1/key 30:10 rule 1 has the key first already
#/rules/1/formerly 31:15 first is the rule's key now
#/rules/1/group 33:12 no group is called cahs
#/rules/1/variants/arms 34:37 must sum to 100
#/tests/0/expect/e2 40:15 no given event has the external_id e2
#/tests/0/expect/e2/0/rule 40:29 no rule has the key frist
#/tests/0/expect/e2/0/amount 40:44 'five' is no amount
""".splitlines()


def test_everything_wrong_is_told_at_once_each_with_its_place_and_what_to_do():
    found = review(EVERYTHING_WRONG)
    shown = [f"{problem.pointer} {problem.line}:{problem.column}" for problem in found]
    assert sorted(shown) == sorted(" ".join(line.split(" ", 2)[:2]) for line in EXPECTED)
    assert [problem.line for problem in found] == sorted(problem.line or 0 for problem in found)
    for line in EXPECTED:
        place, says = " ".join(line.split(" ", 2)[:2]), line.split(" ", 2)[2]
        assert any(says in problem.message for problem, at in zip(found, shown, strict=True) if at == place), line
    assert [
        problem for problem in found if problem.hint is None and "is no recipient: write" not in problem.message
    ] == []


def test_a_document_with_errors_is_refused_with_all_of_them():
    with pytest.raises(InvalidRuleset) as caught:
        read_and_check(EVERYTHING_WRONG)
    errors = [problem for problem in review(EVERYTHING_WRONG) if problem.severity == "error"]
    assert [(error.pointer, error.line, error.column) for error in caught.value.errors] == [
        (error.pointer, error.line, error.column) for error in errors
    ]


CREDIT = {"target": "points", "command": "credit", "recipient": "actor", "amount": 5, "unit": "points"}
ONCE = [{"per": "actor", "every": "day", "uses": 1}]


def made(key: str = "r", **fields: Any):
    return convert_rule({"key": key, "event_type": "e", "actions": [CREDIT], "limits": ONCE, **fields})


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({"formerly": "other"}, "#/formerly", "the key of another rule"),
        ({"formerly": "old"}, "#/formerly", "was formerly old already"),
        ({"key": "old"}, "#/key", "the former key of another rule"),
        ({"group": "g"}, "#/group", "no group is called g"),
        ({"group": "nfts"}, "#/actions/0/unit", "compares nft"),
        ({"budget": {"from": "b"}}, "#/budget/from", "no budget is called b"),
        ({"priority": -1}, "#", "never asked: the rule stopping comes first"),
        (
            {"variants": {"by": "actor", "seed": "s", "arms": {"b": {"weight": 100}}}},
            "#/variants/seed",
            "the rule other divides",
        ),
    ],
)
def test_a_rule_is_told_what_it_is_to_the_rules_it_stands_beside(fields: dict[str, Any], pointer: str, says: str):
    arms = {"by": "actor", "seed": "s", "arms": {"a": {"weight": 100}}}
    others = [
        made("other", variants=arms),
        made("renamed", formerly="old", priority=2),
        made("r", group="nonesuch"),
        made("stopping", stop=True, limits=[], priority=0),
    ]
    units = {"points": Unit(), "nft": Unit()}
    ruleset = Ruleset(units=units, rules=others, groups={"nfts": Group(pick="highest", unit="nft")})
    (problem,) = check_rule(made(**{"priority": 1, **fields}), ruleset)
    assert (problem.pointer, says in problem.message) == (pointer, True)


def test_the_decimals_of_a_tests_events_are_numbers_and_those_of_a_rule_are_text():
    text = """\
units: { points: {} }
rules:
  - key: r
    event_type: e
    limits: [ { per: actor, every: day, uses: 1 } ]
    actions: [ { target: t, command: c, recipient: actor, amount: 2.5, round: up, unit: points, params: { a: 2.5 } } ]
tests:
  - name: 1.5
    given: [ { external_id: 1.5, event_type: e, context: { a: 2.5, b: [ 1e3, '2.5', 1.2.3, 1_0.5, 007.5 ] } } ]
    expect: { 1.5: [ { rule: r, amount: 2.5 } ] }
"""
    ruleset, _ = read_and_check(text)
    (action,), (test,) = ruleset.rules[0].actions, ruleset.tests
    assert (action.amount, action.params) == ("2.5", {"a": "2.5"})
    assert test.given[0].context == {"a": 2.5, "b": [1000.0, "2.5", "1.2.3", "1_0.5", "007.5"]}
    assert (test.name, test.given[0].external_id, test.expect["1.5"][0].amount) == ("1.5", "1.5", "2.5")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("uses: 5", "uses: 1_000"), 'not "1_000"; write 1000, in plain digits'),
        (("uses: 5", "uses: 010"), "write 10, in plain digits"),
        (("uses: 5", 'uses: "5"'), "write 5, in plain digits without quotes"),
        (("uses: 5", "uses: 5.0"), "write 5, in plain digits"),
        (("amount: 7", "amount: 1_000"), "plain digits, such as 1000"),
        (("amount: 7", "amount: 12:30"), "plain digits, such as 1000"),
        (("amount: 7", "amount: 5 points"), "plain digits, such as 1000"),
        (("amount: 7", "amount: NO"), "unknown name NO"),
        (("every: day", "every: daily"), "must be one of day, ever, hour, month, week"),
        (("per: actor", "per: user"), "must be recipient, actor, subject, parties.<role> or rule"),
        (("uses: 5", "amount: [ 5 ]"), "must be a text or a whole number, not a list"),
        (("limits: [ ", "limits: [ 5, "), "must be an object, not 5"),
        (("when_short: clip", "when_short: refuse"), "must be one of "),
        (("from: b", "form: b"), "did you mean `from`?"),
        (("same: context.a", "same: { this: context.a }"), "`original` is required"),
        (("same: context.a", "same: { thi: context.a, original: context.b }"), "did you mean `this`?"),
        (("counters: { c:", "counters: { My-Counter:"), "a name of small letters"),
        (("of: actor", "of: everyone"), "must be actor, subject or parties.<role>"),
        (("kind: count", "kind: max"), "must be one of "),
        (("worth: 0.01 EUR", "worth: 1 cent"), "an amount and a currency, such as 0.01 EUR"),
        (("arms: { a: { weight: 100 } }", "arms: {}"), "must hold at least 1"),
        (("arms: { a: { weight: 100 } }", "arms: { 1: { weight: 100 } }"), "a name of letters"),
        (("external_id: e1", "external_id: 1"), 'quote it: "1"'),
        (("event_type: purchase", "event_type: purchase.*"), "must be an event type such as purchase.completed"),
        (("given: [ {", "given: [ { user: u1,"), "does not know `user`"),
        (("rate: 1", "rate: !x"), "a leading ! starts a tag"),
        (("fraction: 1", "fraction: min(1, context.a)"), "quote it: 'min(1, context.a)'"),
    ],
)
def test_what_is_written_another_way_is_told_how_it_is_written(change: tuple[str, str], says: str):
    text = """\
units: { points: { worth: 0.01 EUR } }
budgets: { b: { unit: points, cap: 500 } }
counters: { c: { event_type: e, of: actor, kind: count, undone_by: f, same: context.o, fraction: 1 } }
rules:
  - key: r
    event_type: e
    condition: counters.c > 1
    limits: [ { per: actor, every: day, uses: 5 } ]
    budget: { from: b, when_short: clip }
    variants: { by: actor, seed: s, arms: { a: { weight: 100 } } }
    actions: [ { target: p, command: c, recipient: actor, amount: 7, unit: points, params: { rate: 1 } } ]
    reversal: { event_type: f, same: context.a }
tests:
  - name: t
    given: [ { external_id: e1, event_type: purchase } ]
    expect: {}
"""
    assert review(text) == []
    assert change[0] in text
    found = review(text.replace(*change, 1))
    assert any(says in f"{problem.message} {problem.hint}" for problem in found), found
    line = text[: text.index(change[0])].count("\n") + 1
    assert {problem.line for problem in found} == {line}


def patterns(wanted: inspect.Type, seen: set[type]) -> Iterator[str]:
    match wanted:
        case inspect.StructType() if wanted.cls not in seen:
            seen.add(wanted.cls)
            for field in wanted.fields:
                yield from patterns(field.type, seen)
        case inspect.DictType():
            yield from patterns(wanted.key_type, seen)
            yield from patterns(wanted.value_type, seen)
        case inspect.ListType():
            yield from patterns(wanted.item_type, seen)
        case inspect.UnionType():
            for member in wanted.types:
                yield from patterns(member, seen)
        case inspect.StrType(pattern=str(pattern)):
            yield pattern
        case _:
            pass


def test_every_pattern_of_the_model_has_words():
    found = {one for noun in (Ruleset, ReportedEvent, Target) for one in patterns(inspect.type_info(noun), set())}
    assert len(found) >= 9
    assert found <= set(IN_WORDS)
    assert all(re.compile(pattern) for pattern in found)
    assert BudgetUse.__struct_encode_fields__[0] == "from"
