"""Events earn actions: tables of rules and events with what comes of them, and laws that hold for all."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect.authoring import convert_rule
from connect.engine.compile import PARAMS_BYTES_MAX
from connect.engine.decide import State, claims, decide, link_keys, weigh
from connect.engine.decide.grant import ACTIONS_MAX
from connect.engine.decide.payouts import EACH_MAX
from connect.model import RewardAction
from tests.engine.examples import CASHBACK, EVENT, NOW, OCCURRED, decided, each, effect, outcomes, paid, rule, rulebook


def test_the_purchase_of_the_contract_earns_two_percent_in_points():
    decision = decide(EVENT, rulebook(convert_rule(CASHBACK), versions={"cashback-2": 3}), State(now=NOW))
    assert decision.actions == (
        RewardAction(
            id=UUID("c5fb676a-4ac6-535b-9e1c-a64b216c26e1"),
            event_id=EVENT.id,
            rule_key="cashback-2",
            rule_version=3,
            effect_key="points.credit.points",
            target="points",
            command="credit",
            recipient_role="actor",
            user_id="u1",
            amount="259",
            unit="points",
            params={"reason": "cashback", "order": "o-1001"},
            status="pending",
            due_at=OCCURRED + timedelta(days=14),
            hold_until=OCCURRED + timedelta(days=14),
            created_at=NOW,
            occurred_at=OCCURRED,
        ),
    )
    assert decision.ruleset_version == 7
    assert [(trace.outcome, trace.values) for trace in decision.trace] == [("gave", {"context.amount_minor": 12990})]
    assert decision.warnings == ()


WINDOW: dict[str, Any] = {"starts_at": "2026-11-22T10:00:00Z", "ends_at": "2026-11-22T11:00:00Z"}
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("fields", "occurred_at", "expected"),
    [
        (WINDOW, OCCURRED - TICK, ("not_live", "starts 2026-11-22T10:00:00Z")),
        (WINDOW, OCCURRED, ("gave", "")),
        (WINDOW, OCCURRED + timedelta(hours=1) - TICK, ("gave", "")),
        (WINDOW, OCCURRED + timedelta(hours=1), ("not_live", "ended 2026-11-22T11:00:00Z")),
        ({"starts_at": "2026-11-22T11:00:00+01:00"}, OCCURRED, ("gave", "")),
        ({"enabled": False}, OCCURRED, ("not_live", "disabled")),
    ],
)
def test_a_rule_lives_from_its_start_until_just_before_its_end(
    fields: dict[str, Any], occurred_at: datetime, expected: tuple[str, str]
):
    (trace,) = decided(rule(**fields), occurred_at=occurred_at).trace
    assert (trace.outcome, trace.detail) == expected


def test_the_window_is_judged_by_when_it_happened_not_by_now():
    late = decide(EVENT, rulebook(rule(**WINDOW)), State(now=NOW + timedelta(days=30)))
    assert paid(late) == [("u1", "5")]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ([], ("gave", None, {}, "")),
        ("context.amount_minor > 1", ("gave", None, {}, "")),
        ("context.amount_minor > 99999", ("not_matched", 1, {"context.amount_minor": 12990}, "")),
        (["true", 'context.currency == "USD"'], ("not_matched", 2, {"context.currency": "EUR"}, "")),
        (["true", "context.shop.size > 1"], ("missing", 2, {}, "context.shop is missing")),
        ("parties.seller == actor_user_id", ("missing", 1, {"actor_user_id": "u1"}, "parties.seller is missing")),
        ("has(context.shop) && context.shop.size > 1", ("not_matched", 1, {}, "")),
    ],
)
def test_each_line_of_a_condition_is_traced(condition: str | list[str], expected: tuple[object, ...]):
    (trace,) = decided(rule(condition=condition)).trace
    assert (trace.outcome, trace.line, trace.values, trace.detail) == expected


def test_a_line_that_fails_is_an_error_of_its_rule_alone():
    broken, fine = rule("a", condition=["true", "1 / (context.amount_minor - 12990) > 0"]), rule("b")
    decision = decided(broken, fine)
    assert outcomes(decision) == [("a", "error"), ("b", "gave")]
    assert decision.trace[0].line == 2
    assert decision.trace[0].detail


def test_a_missing_field_is_told_to_the_reporter():
    (warning,) = decided(rule(condition="context.amont > 1")).warnings
    assert (warning.kind, warning.rule, warning.line, warning.field) == ("field_missing", "r", 1, "context.amont")


@pytest.mark.parametrize(
    "actions",
    [
        [effect(), effect(key="b", amount="context.shop * 2")],
        [effect(), effect(key="b", params={"a": [{"b": "=context.shop"}]})],
        [effect(), {**each(amount=1), "key": "b"}],
        [effect(), {**each(recipient="item.sku", amount="item.price"), "key": "b"}],
        [effect(), {**each(recipient="item.sku", amount=1, **{"in": "context.things"}), "key": "b"}],
    ],
    ids=["amount", "params", "each.recipient", "each.amount", "each.in"],
)
def test_a_field_missing_in_an_action_makes_the_whole_rule_missing(actions: list[dict[str, Any]]):
    decision = decided(rule("a", actions), rule("b"))
    assert outcomes(decision) == [("a", "missing"), ("b", "gave")]
    assert [(warning.rule, warning.line) for warning in decision.warnings] == [("a", None)]


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("actor", [("u1", "5")]),
        ("subject", [("u2", "5")]),
        ("parties.referrer", [("u3", "5")]),
        ("parties.upline", [("u4", "10"), ("u5", "5")]),
        ("parties.nobody", []),
    ],
)
def test_recipients_are_found_by_their_role(recipient: str, expected: list[tuple[str, str]]):
    assert paid(decided(rule(actions=[effect(recipient=recipient)]))) == expected


@pytest.mark.parametrize(
    ("all_or_nothing", "expected"),
    [(False, ([("u1", "5")], "gave")), (True, ([], "no_recipient"))],
)
def test_an_absent_role_skips_its_action_or_all(all_or_nothing: bool, expected: tuple[list[tuple[str, str]], str]):
    actions = [effect(key="a"), effect(key="b", recipient="parties.nobody")]
    decision = decided(rule(actions=actions, all_or_nothing=all_or_nothing))
    assert (paid(decision), decision.trace[0].outcome) == expected


def test_a_rule_whose_recipients_are_all_absent_says_so():
    (trace,) = decided(rule(actions=[effect(recipient="subject")]), primary_subject_user_id=None).trace
    assert (trace.outcome, trace.detail) == ("no_recipient", "the event has no subject")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"amount": "context.amount_minor * 0.02", "round": "down"}, "259"),
        ({"amount": "context.amount_minor * 0.02", "round": "up"}, "260"),
        ({"amount": "context.amount_minor * 0.02", "unit": "money"}, "259.8"),
        ({"amount": "12345 * 15 / 1000", "round": "half_even", "unit": "money"}, "185.18"),
        ({"amount": "2.5", "round": "half_even"}, "2"),
        ({"amount": "2.5", "round": "half_up"}, "3"),
        ({"amount": "0.000000000000000001", "unit": "token"}, "0.000000000000000001"),
        ({"amount": 0}, "zero"),
        ({"amount": "0.4", "round": "down"}, "zero"),
        ({"amount": "context.amount_minor - 20000"}, "error"),
        ({"amount": "2.5"}, "error"),
        ({"amount": "context.amount_minor / (context.amount_minor - 12990)", "round": "down"}, "error"),
        ({"amount": "context.currency * 2"}, "error"),
    ],
)
def test_amounts_are_exact_and_rounded_to_the_scale_of_their_unit(fields: dict[str, Any], expected: str):
    decision = decided(rule(actions=[effect(**fields)]), rule("s"))
    given = [action.amount for action in decision.actions if action.rule_key == "r"]
    assert (given or [decision.trace[0].outcome]) == [expected]
    assert decision.trace[1].outcome == "gave"


SELLERS = [{"seller": "s1", "price": 150}, {"seller": "s2", "price": 99}, {"seller": "s1", "price": 175}]


def test_each_gives_one_action_a_recipient_with_the_sum_of_rounded_parts():
    actions = [{**each(amount="item.price * 0.01"), "round": "down", "params": {"n": "=rank"}}]
    decision = decided(rule(actions=actions), context={"items": SELLERS})
    assert paid(decision) == [("s1", "2")]
    assert decision.actions[0].params == {"n": 0}
    assert decision.actions[0].recipient_role == "each"


def test_a_sum_keeps_every_digit_and_ends_where_amounts_end():
    actions = [{**each(amount="decimal(item.amount)"), "unit": "token"}]
    most, little, more = f"{'9' * 60}.{'9' * 17}1", f"0.{'0' * 17}2", f"0.{'0' * 17}9"
    fits = decided(rule(actions=actions), context={"items": [{"seller": "s", "amount": a} for a in (most, little)]})
    assert paid(fits) == [("s", f"{'9' * 60}.{'9' * 17}3")]
    over = decided(rule(actions=actions), context={"items": [{"seller": "s", "amount": a} for a in (most, more)]})
    assert over.trace[0].outcome == "error"


def test_each_may_use_the_amount_of_its_action():
    actions = [
        effect(recipient=None, amount="10 - rank", each={"in": "parties.upline", "as": "who", "recipient": "who"})
    ]
    assert paid(decided(rule(actions=actions))) == [("u4", "18"), ("u5", "9")]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], "no_recipient"),
        ([{"seller": None, "price": 5}], "no_recipient"),
        ([{"seller": 7, "price": 5}], "error"),
        ([{"seller": "", "price": 5}], "error"),
        ([{"seller": "a\nb", "price": 5}], "error"),
        ([{"seller": "a" * 256, "price": 5}], "error"),
        ([{"seller": "a" * 255, "price": 5}], "gave"),
        ([{"seller": "ü b", "price": 5}, {"seller": None, "price": 5}], "gave"),
        ([{"seller": "a", "price": 5}, {"seller": "b", "price": -5}], "error"),
        ("no list", "error"),
        ([{"seller": str(n), "price": 1} for n in range(EACH_MAX)], "gave"),
        ([{"seller": "s", "price": 1} for _ in range(EACH_MAX + 1)], "error"),
    ],
    ids=range(12),
)
def test_what_each_finds_is_checked(items: object, expected: str):
    decision = decided(rule(actions=[each(amount="item.price")]), context={"items": items})
    assert decision.trace[0].outcome == expected


def test_an_event_has_at_most_a_thousand_actions_and_the_rule_over_it_is_an_error():
    everyone = [{"seller": f"s{n}", "price": 1} for n in range(ACTIONS_MAX)]
    many = rule("many", [each(amount=1)], priority=1)
    decision = decided(rule("one-more"), many, context={"items": everyone})
    assert outcomes(decision) == [("many", "gave"), ("one-more", "error")]
    assert len(decision.actions) == ACTIONS_MAX


@pytest.mark.parametrize(
    ("fields", "late", "expected"),
    [
        ({}, timedelta(0), ("pending", NOW, None)),
        ({"hold": "2h"}, timedelta(0), ("pending", OCCURRED + timedelta(hours=2), OCCURRED + timedelta(hours=2))),
        ({"hold": "30s"}, timedelta(days=1), ("pending", NOW, OCCURRED - timedelta(days=1) + timedelta(seconds=30))),
        ({"review": True}, timedelta(0), ("awaiting_approval", None, None)),
        ({"review": True, "hold": "1w"}, timedelta(0), ("awaiting_approval", None, OCCURRED + timedelta(days=7))),
    ],
)
def test_a_held_or_reviewed_action_waits(fields: dict[str, Any], late: timedelta, expected: tuple[object, ...]):
    (action,) = decided(rule(actions=[effect(**fields)]), occurred_at=OCCURRED - late).actions
    assert (action.status, action.due_at, action.hold_until) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"a": "text", "n": 1, "b": True, "z": None}, {"a": "text", "n": 1, "b": True, "z": None}),
        ({"a": "=context.order_id"}, {"a": "o-1001"}),
        ({"a": "==x", "b": "a=b"}, {"a": "=x", "b": "a=b"}),
        ({"a": [{"b": ["=context.amount_minor + 1"]}]}, {"a": [{"b": [12991]}]}),
        ({"a": "=context.items"}, {"a": [{"sku": "b1", "category": "books"}]}),
        ({"a": "=occurred_at"}, {"a": "2026-11-22T10:00:00Z"}),
        ({"a": "=actor_user_id == 'u1' ? 'first' : 'other'"}, {"a": "first"}),
    ],
)
def test_params_hold_texts_and_expressions(params: dict[str, Any], expected: dict[str, Any]):
    assert decided(rule(actions=[effect(params=params)])).actions[0].params == expected


def test_params_that_grow_too_large_are_an_error():
    actions = [effect(params={"a": "=context.note"})]
    (trace,) = decided(rule(actions=actions), context={"note": "x" * PARAMS_BYTES_MAX}).trace
    assert (trace.outcome, "bytes" in trace.detail) == ("error", True)


def test_the_trace_clips_long_values():
    (trace,) = decided(rule(condition="context.note == 'x'"), context={"note": "y" * 1000}).trace
    assert trace.values == {"context.note": '"' + "y" * 198 + "…"}


def test_a_replay_leaves_out_what_already_gave():
    decision = decided(rule("a"), rule("b"), rule("c", enabled=False), given=frozenset({"a", "c"}))
    assert outcomes(decision) == [("a", "already_gave"), ("b", "gave"), ("c", "already_gave")]


def test_history_is_traced_and_gives_nothing():
    decision = decided(rule("a"), rule("b", condition="context.amount_minor > 99999"), effects="none")
    assert outcomes(decision) == [("a", "not_live"), ("b", "not_matched")]
    assert decision.actions == ()


def test_a_rule_without_limit_budget_counter_or_reversal_touches_no_state():
    book = rulebook(rule())
    claimed = claims(weigh(EVENT, book, State(now=NOW)))
    assert (link_keys(EVENT, book).all, claimed.slots, claimed.keys) == (set(), (), ())
    assert book.plan(EVENT.event_type).is_plain


KEYS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


@given(KEYS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_rules_in_the_document_changes_nothing(keys: list[str], chance: Any):
    rules = [
        rule(key, priority=ord(key) % 3, event_type="purchase.*" if key in "aceg" else EVENT.event_type) for key in keys
    ]
    shuffled = chance.sample(rules, len(rules))
    assert decided(*rules) == decided(*shuffled)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**6)), max_size=12))
@settings(deadline=None)
def test_what_the_parts_sum_to_is_what_is_paid(parts: list[tuple[str, int]]):
    items = [{"seller": seller, "price": price} for seller, price in parts]
    actions = [{**each(amount="item.price * 0.007"), "unit": "token"}]
    decision = decided(rule(actions=actions), context={"items": items})
    expected: dict[str, Decimal] = {}
    for seller, price in parts:
        expected[seller] = expected.get(seller, Decimal(0)) + Decimal(price) * Decimal("0.007")
    assert {user: Decimal(amount) for user, amount in paid(decision)} == {u: a for u, a in expected.items() if a}
    assert len({action.id for action in decision.actions}) == len(decision.actions)


TWINS = [rulebook(convert_rule(CASHBACK), rule()) for _ in range(2)]


@given(
    st.dictionaries(
        st.sampled_from(["amount_minor", "currency", "tags", "order_id"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=3),
    )
)
@settings(deadline=None)
def test_deciding_never_raises_and_twice_is_the_same(context: dict[str, Any]):
    event = msgspec.structs.replace(EVENT, context=context)
    first, second = (decide(event, book, State(now=NOW)) for book in TWINS)
    assert first == second == decide(event, TWINS[0], State(now=NOW))
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


@given(st.lists(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)), min_size=3, max_size=6, unique=True))  # noqa: DTZ001
@settings(deadline=None)
def test_windows_that_meet_give_exactly_once_at_every_moment(moments: list[datetime]):
    bounds = [moment.replace(tzinfo=UTC) for moment in sorted(moments)]
    rules = [rule(f"r{n}", starts_at=a.isoformat(), ends_at=b.isoformat()) for n, (a, b) in enumerate(pairwise(bounds))]
    for bound in bounds[:-1]:
        assert len(decided(*rules, occurred_at=bound).actions) == 1
    assert decided(*rules, occurred_at=bounds[-1]).actions == ()
