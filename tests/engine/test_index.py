"""Which rules an event meets, in which order, and what is said where there is none."""

from typing import Any

import msgspec
import pytest

from connect.engine.decide import State, decide
from connect.engine.index import NEAREST_REMEMBERED_MAX, PLANS_MAX, Rulebook
from connect.model import Ruleset
from tests.engine.examples import EVENT, NOW, decided, effect, outcomes, rule, rulebook


@pytest.mark.parametrize(
    ("fields", "event_type", "expected"),
    [
        ({"event_type": "purchase.completed"}, "purchase.completed", True),
        ({"event_type": "purchase.completed"}, "purchase.completed.late", False),
        ({"event_type": "purchase.*"}, "purchase.completed", True),
        ({"event_type": "purchase.*"}, "purchase.a.b", True),
        ({"event_type": "purchase.*"}, "purchase", False),
        ({"event_type": "purchase.*"}, "purchases.completed", False),
        ({"event_type": "purchase.a.*"}, "purchase.b.c", False),
    ],
)
def test_a_rule_is_for_its_type_or_its_prefix(fields: dict[str, Any], event_type: str, expected: bool):
    assert bool(decided(rule(**fields), event_type=event_type).actions) is expected


def test_rules_are_decided_by_priority_then_by_key_whatever_their_pattern():
    rules = [rule("b"), rule("a"), rule("z", priority=1), rule("m", event_type="purchase.*"), rule("y", priority=-1)]
    assert [key for key, _ in outcomes(decided(*rules))] == ["z", "a", "b", "m", "y"]


@pytest.mark.parametrize(
    ("event_type", "expected"),
    [
        ("purchse.completed", "purchase.completed"),
        ("purchase_completed", "purchase.completed"),
        ("Purchase.Completed", "purchase.completed"),
        ("ap.opened", "app.opened"),
        ("order.completed", None),
        ("app", None),
        ("something.else", None),
    ],
)
def test_an_event_no_rule_is_for_names_the_nearest_type(event_type: str, expected: str | None):
    book = rulebook(rule(), rule("b", event_type="app.*"))
    (warning,) = decide(msgspec.structs.replace(EVENT, event_type=event_type), book, State(now=NOW)).warnings
    assert (warning.kind, warning.nearest) == ("no_rule_for_type", expected)
    assert event_type in warning.detail


def test_made_up_types_fill_no_memory():
    book = rulebook(rule(), rule("b", event_type="app.*"))
    for number in range(PLANS_MAX + 10):
        assert len(book.of_type(f"app.{number}")) == 1
        book.nearest_type(f"a{number}")
    remembered = [len(memory) for memory in vars(book).values() if isinstance(memory, dict)]
    assert max(remembered) <= max(PLANS_MAX, NEAREST_REMEMBERED_MAX)


def test_each_rule_carries_its_own_version():
    book = Rulebook.compile(9, Ruleset(rules=[rule("a"), rule("draft")]), {"a": 4})
    assert [(found.rule.key, found.version) for found in book.of_type(EVENT.event_type)] == [("a", 4), ("draft", 1)]


def test_the_types_that_rules_are_for_are_known():
    assert rulebook(rule(), rule("b", event_type="app.*")).known_types == {"purchase.completed", "app.*"}


def test_a_disabled_rule_still_makes_its_type_known():
    assert decided(rule(enabled=False)).warnings == ()


def test_a_stored_rule_that_no_longer_compiles_is_an_error_and_stops_no_start():
    broken = [
        rule("a", condition="context.x ==="),
        rule("b", [effect(amount="nonsense(1)")]),
        rule("c", [effect(recipient="everyone")]),
        rule("d", [effect(amount=None)]),
        rule("e", [effect(params={"x": "=("})]),
    ]
    decision = decided(*broken, rule("z"))
    assert [outcome for _, outcome in outcomes(decision)] == ["error"] * 5 + ["gave"]
    assert all(trace.detail for trace in decision.trace[:5])
