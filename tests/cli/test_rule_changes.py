"""Every field of the rule model has words for its change, so that no change goes live unsaid."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import fields

from connect.authoring import convert_ruleset
from connect.authoring.document import read_document
from connect.cli.rules.changes import differences
from connect.model import ExpectedAction, Ruleset
from connect.model.facts import ReportedEvent

FULL = """
version: 1
timezone: Europe/Berlin
units: { points: { scale: 2, worth: 0.01 EUR } }
budgets: { autumn: { unit: points, cap: 1000, refill_on_reversal: true, closes: true } }
safety: { review_above: { points: 100 }, per_day: { points: 1000 } }
counters:
  n: { event_type: x, of: actor, kind: sum, value: context.a, condition: context.a > 0, every: day, within: 6h,
       grace: 1, zone: UTC, undone_by: y,
       same: { this: context.a, original: context.b }, fraction: "0.5", start: publish }
groups: { g: { pick: highest, unit: points } }
schemas: { x: { type: object } }
rules:
  - key: r
    event_type: x
    name: a rule
    description: at length
    enabled: false
    starts_at: 2026-01-01T00:00:00Z
    ends_at: 2027-01-01T00:00:00Z
    priority: 5
    condition: [context.a == 1]
    group: g
    stop: true
    all_or_nothing: true
    limits: [{ per: recipient, every: day, uses: 3 }, { per: rule, within: 6h, amount: 10 }]
    budget: { from: autumn, when_short: clip }
    variants: { by: actor, seed: s, holdout: 10, coverage: 50, namespace: { name: space, from: 10, to: 60 },
                arms: { a: { weight: 90, rate: 2 } } }
    reversal: { event_type: y, same: { this: context.a, original: context.b }, source: any, fraction: "0.5",
                after_completion: keep }
    formerly: old
    actions:
      - { target: points, command: credit, unit: points, recipient: actor, amount: 1, round: down, hold: 2d,
          review: true, params: { reason: cashback }, key: k,
          each: { in: context.items, as: item, recipient: item.id, amount: item.a, share: item.s } }
tests: [{ name: t, given: [{ external_id: e, event_type: x }], expect: { e: [] }, arms: { r: a },
          at: 2026-01-01T00:00:00Z }]
"""
"""Each field has a value that is not its default. It would not pass `check`: some of them exclude each other."""

TOLD_WHOLE = (ExpectedAction, ReportedEvent)
"""Parts of a test, of which the words say which field of the test changed."""
OTHERWISE: dict[str, Any] = {
    "kind": "count", "pick": "lowest", "of": "subject", "by": "subject", "per": "actor", "cap": 7, "same": "context.z",
    "namespace.from": 20, "namespace.to": 70, "variants.arms": {"b": {"weight": 90}},
    "given": [{"external_id": "e", "event_type": "z"}], "expect": {"f": []},
    "actions": [{"target": "nft", "command": "mint", "unit": "nft", "recipient": "actor"}],
}  # fmt: skip
"""The values that required fields get instead; others are removed, or get a longer text."""
CALLED = {
    "limits": "limit", "actions": "action", "rules": "rule", "units": "unit", "budgets": "budget",
    "counters": "counter", "groups": "group", "schemas": "schema", "tests": "test",
}  # fmt: skip
"""The words that call a section that goes as a whole."""
UNCHANGEABLE = {"version"}
Place = tuple[str | int, ...]


def full() -> dict[str, Any]:
    return msgspec.to_builtins(read_document(FULL).value)


def parts(value: Any, place: Place = ()) -> Iterator[tuple[Place, Struct]]:
    """Every struct of a document, with where it stands."""
    if isinstance(value, TOLD_WHOLE):
        return
    if isinstance(value, Struct):
        yield place, value
        for field in fields(value):
            yield from parts(getattr(value, field.name), (*place, field.encode_name))
    elif isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, entry in entries:
            yield from parts(entry, (*place, name))


def struct_types(kind: Any) -> set[type[Struct]]:
    """The structs that a type is made of."""
    inner = {part for argument in getattr(kind, "__args__", ()) for part in struct_types(argument)}
    if not (isinstance(kind, type) and issubclass(kind, Struct)):
        return inner
    return {kind}.union(*(struct_types(field.type) for field in fields(kind)))


def at(document: Any, place: Place) -> Any:
    for name in place:
        document = document[name]
    return document


def is_required(place: Place, name: str) -> bool:
    [part] = [part for where, part in parts(convert_ruleset(full())) if where == place]
    return next(field.required for field in fields(part) if field.encode_name == name)


FIELDS = sorted(
    {
        (place, field.encode_name)
        for place, part in parts(convert_ruleset(full()))
        for field in fields(part)
        if field.encode_name in at(full(), place) and field.encode_name not in UNCHANGEABLE
    },
    key=str,
)


def test_each_field_of_the_model_stands_in_the_document_that_is_changed_here():
    document = full()
    found = list(parts(convert_ruleset(document)))
    kinds = struct_types(Ruleset) - set(TOLD_WHOLE)
    assert kinds == {type(part) for _, part in found}
    for kind in kinds:
        written = {name for place, part in found if type(part) is kind for name in at(document, place)}
        assert written == {field.encode_name for field in fields(kind)}, kind


@pytest.mark.parametrize(("place", "name"), FIELDS, ids=str)
def test_a_change_of_any_field_is_told(place: Place, name: str):
    before, after = full(), full()
    was, holder = at(before, place)[name], at(after, place)
    other = OTHERWISE.get(name, OTHERWISE.get(f"{place[-1] if place else ''}.{name}"))
    if other is not None:
        holder[name] = other
    elif is_required(place, name):
        holder[name] = f"{was}2"
    else:
        del holder[name]
    said = [change.words for change in differences(before, after)]

    assert any(CALLED.get(name, name) in words or str(was) in words for words in said), said


@pytest.mark.parametrize(
    ("fields_", "said"),
    [
        ("", "points.credit 5 points to actor"),
        (", hold: 14d", "points.credit 5 points to actor, held 14d"),
        (", review: true", "points.credit 5 points to actor, each approved by a person"),
        (", hold: 2d, review: true", "points.credit 5 points to actor, held 2d, each approved by a person"),
    ],
)
def test_what_a_new_rule_or_action_holds_back_is_told_with_it(fields_: str, said: str):
    first = "{ key: a, target: t, command: c, unit: u, recipient: actor, amount: 1 }"
    rule = f"{{ key: r, event_type: x, actions: [ {first} ACTION ] }}"
    action = f"{{ target: points, command: credit, unit: points, recipient: actor, amount: 5{fields_} }}"

    def read(rules: str) -> Any:
        return msgspec.to_builtins(read_document(f"version: 1\nrules: [ {rules} ]\n").value)

    one = rule.replace("ACTION", "")
    both = rule.replace("ACTION", f", {action}")
    new = f"{{ key: s, event_type: y, actions: [ {action} ] }}"
    assert [change.words for change in differences(read(one), read(both))] == [f"change rule r: action added: {said}"]
    assert [change.words for change in differences(read(one), read(f"{one}, {new}"))] == [f"add rule s: y gives {said}"]
    off = new.replace("event_type", "enabled: false, event_type")
    added = [change.words for change in differences(read(one), read(f"{one}, {off}"))]
    assert added == [f"add rule s: y gives {said}; it is not enabled"]
