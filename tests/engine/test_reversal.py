"""Taking back: what a later fact undoes of what an earlier one gave, by where each action stands, in any order."""

from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.engine.telling import CREDIT, NOON, REFUND, Told, live, rule

PART = {**REFUND, "fraction": "context.part / original.context.amount"}


def one_to_one(**fields: Any) -> dict[str, Any]:
    """As many points as the purchase cost, taken back by parts."""
    return rule(amount="context.amount", **{"reversal": PART, **fields})


def statuses(told: Told) -> list[str]:
    return [action.status for action in told.given]


# --- by where the action stands ------------------------------------------------------------------


def test_what_was_never_sent_is_cancelled_as_a_whole() -> None:
    told = Told(one_to_one())
    told.bought(amount=100)
    assert told.refunded(part=100) == "u1 -100"
    assert (statuses(told), told.live(), told.reversals) == (["cancelled"], ["0"], [])


def test_a_part_of_what_was_never_sent_waits_for_its_end() -> None:
    told = Told(one_to_one())
    told.bought(amount=100)
    assert told.refunded(part=30) == "u1 -30"
    assert (statuses(told), told.live(), told.reversals) == (["pending"], ["70"], [("blocked", "30")])


def test_a_part_of_what_was_never_sent_is_kept_where_it_would_be_kept_once_completed() -> None:
    """Amounts of commands are frozen, so it will be sent whole: only a refund of the whole comes before that."""
    told = Told(one_to_one(reversal={**PART, "after_completion": "keep"}))
    told.bought(amount=100)
    told.refunded(part=30)
    assert told.details == ["30 points of u1: kept, as its terms say"]
    assert (statuses(told), told.live(), told.reversals) == (["pending"], ["100"], [])
    assert told.refunded(part=70) == "u1 -100"
    assert (statuses(told), told.live(), told.reversals) == (["cancelled"], ["0"], [])


def test_the_whole_after_parts_cancels_what_waited() -> None:
    told = Told(one_to_one())
    told.bought(amount=100)
    told.refunded(part=30)
    assert told.refunded(part=70) == "u1 -70"
    assert (statuses(told), told.live(), told.reversals) == (["cancelled"], ["0"], [("cancelled", "30")])


@pytest.mark.parametrize(
    ("terms", "sent", "reversals", "left"),
    [
        ({}, ("dispatched", None), [("blocked", "100")], "0"),
        ({}, ("pending", None), [("blocked", "100")], "0"),  # a first attempt failed: it may have had effect
        ({}, ("completed", None), [("pending", "100")], "0"),
        ({"after_completion": "review"}, ("completed", None), [("awaiting_approval", "100")], "100"),
        ({"after_completion": "review"}, ("dispatched", None), [("blocked", "100")], "100"),
        ({"after_completion": "keep"}, ("completed", None), [], "100"),
        ({"after_completion": "keep"}, ("dispatched", None), [], "100"),
        ({}, ("failed", "exhausted"), [("awaiting_approval", "100")], "100"),
        ({}, ("failed", "refused"), [], "0"),
        ({}, ("failed", "reported"), [], "0"),
    ],
)
def test_what_was_sent_is_taken_back_as_its_state_and_its_terms_say(
    terms: dict[str, Any], sent: tuple[str, str | None], reversals: list[tuple[str, str]], left: str
) -> None:
    told = Told(one_to_one(reversal={**PART, **terms}))
    told.bought(amount=100)
    told.sent(0, *sent)
    told.refunded(part=100)
    assert (told.reversals, told.live()) == (reversals, [left])


def test_an_undo_names_its_command_and_the_original() -> None:
    told = Told(one_to_one())
    told.bought(amount=100)
    told.sent()
    told.refunded(part=25)
    (original, undo) = told.simulation.actions.values()
    assert (undo.command, undo.amount, undo.reverses, undo.due_at) == ("debit", "25", original.id, told.now)


def test_without_a_declared_undo_a_person_decides() -> None:
    mint = {**CREDIT, "target": "nft", "command": "mint", "unit": "nft", "amount": 1}
    told = Told(rule(actions=[mint], reversal=REFUND))
    told.bought()
    told.sent()
    told.refunded()
    assert (told.reversals, told.live()) == ([("awaiting_approval", "1")], ["1"])


def test_a_retried_refund_takes_nothing_twice_and_never_more_than_the_whole() -> None:
    told = Told(one_to_one())
    told.bought(amount=100)
    told.sent()
    assert [told.refunded(part=part) for part in (60, 60, 60)] == ["u1 -60", "u1 -40", ""]
    assert told.live() == ["0"]


# --- which fact takes back which -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "fact", "expected"),
    [
        ({}, {}, "u1 -10"),
        ({}, {"order": "o2"}, ""),
        ({}, {"order": None}, ""),
        ({}, {"source": "till"}, ""),
        ({"source": "any"}, {"source": "till"}, "u1 -10"),
        ({"event_type": "refunded.*"}, {"event_type": "refunded.late"}, "u1 -10"),
        ({"event_type": "refunded.*"}, {"event_type": "refunded"}, ""),
        ({"same": {"this": "context.of", "original": "context.order"}}, {"of": "o1"}, "u1 -10"),
        ({"same": {"this": "context.of", "original": "context.order"}}, {}, ""),
        ({"same": "actor_user_id"}, {"order": "o9"}, "u1 -10"),
        ({"fraction": "0"}, {}, ""),
        ({"fraction": "context.missing"}, {}, "missing"),
        ({"fraction": "-1 * 1"}, {}, "error"),
        ({"fraction": "7"}, {}, "u1 -10"),
        ({}, {"effects": "none"}, ""),  # history takes nothing back
    ],
)
def test_a_fact_takes_back_what_shares_its_value_and_source(
    terms: dict[str, Any], fact: dict[str, Any], expected: str
) -> None:
    told = Told(rule(reversal={**REFUND, **terms}))
    told.bought("o1")
    assert told.tell(**{"event_type": "refunded", "order": "o1", **fact}) == expected


def test_whole_numbers_are_alike_however_they_are_written() -> None:
    told = Told(rule(reversal=REFUND))
    told.tell(order=7)
    assert told.tell("refunded", order=Decimal("7.0")) == "u1 -10"
    told.tell(order=True)
    assert told.tell("refunded", order=True) == ""  # a truth is no name of an order


def test_a_fact_takes_back_only_what_was_given_on_the_terms_of_their_link() -> None:
    cancelling = rule("other", amount=3, reversal={"event_type": "cancelled", "same": "context.order"})
    counters = {
        "n": {"event_type": "bought", "of": "actor", "kind": "count", "undone_by": "cancelled", "same": "context.order"}
    }
    told = Told(rule(amount=1, reversal=REFUND), cancelling, rule("never", amount=7), counters=counters)
    told.bought("o1")
    assert told.tell("cancelled", order="o1") == "u1 -3"
    assert told.refunded("o1") == "u1 -1"


def test_a_fact_of_the_originals_own_pattern_does_not_take_itself_back() -> None:
    told = Told(rule(event_type="order.*", reversal={"event_type": "order.*", "same": "context.order"}))
    assert told.tell("order.placed", order="o1") == "u1 +10"
    assert told.tell("order.changed", order="o1") == "u1 +10 u1 -10"
    assert told.live() == ["0", "0"]  # the first was there before the second, and takes it back in turn


def test_the_terms_that_an_action_was_given_on_outlive_its_rule() -> None:
    told = Told(one_to_one())
    told.bought(amount=100)
    (action,) = told.given
    assert action.reversal is not None
    assert (action.reversal.fraction, action.reversal.after_completion) == (PART["fraction"], "compensate")


# --- in any order --------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(100,), (40, 60), (33, 33, 34), (90, 90), (10,), (0, 5)])
def test_a_refund_that_came_first_comes_to_the_same(parts: tuple[int, ...]) -> None:
    late, early = Told(one_to_one()), Told(one_to_one())
    late.bought(amount=100)
    for part in parts:
        late.refunded(part=part)
        early.refunded(part=part)
    assert early.bought(amount=100) == "u1 +100"
    assert (early.live(), statuses(early), early.reversals) == (late.live(), statuses(late), late.reversals)


def test_a_refund_before_its_purchase_leaves_limits_and_budgets_as_they_were() -> None:
    told = Told(
        one_to_one(limits=[{"per": "actor", "every": "ever", "amount": 100}], budget={"from": "pot"}),
        budgets={"pot": {"unit": "points", "cap": 100, "refill_on_reversal": True}},
    )
    told.refunded("o1", part=100)
    assert (told.bought("o1", amount=100), told.stored("limit|"), told.stored("budget|")) == ("u1 +100", [], [])
    told.refunded("o2", part=40)
    assert (told.bought("o2", amount=100), told.stored("limit|"), told.stored("budget|")) == ("u1 +100", ["60"], ["60"])


@given(st.lists(st.integers(0, 120), min_size=1, max_size=5), st.integers(1, 100), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_what_is_left_is_the_same_wherever_among_its_refunds_the_purchase_comes(
    parts: list[int], amount: int, chance: Random
) -> None:
    left: set[tuple[str, ...]] = set()
    for place in range(len(parts) + 1):
        told = Told(one_to_one(unit="money", round="half_even"))
        shuffled = chance.sample(parts, len(parts))
        for part in shuffled[:place]:
            told.refunded(part=part)
        told.bought(amount=amount)
        for part in shuffled[place:]:
            told.refunded(part=part)
        left.add(tuple(told.live()))
    assert len(left) == 1


TOKENS = st.decimals("0.000000000000000001", "999999999999999999999", places=18)
MODES = st.sampled_from(["down", "up", "half_even", "half_up"])


@given(
    TOKENS, st.lists(st.integers(1, 97), min_size=1, max_size=7), MODES, st.sampled_from(["token", "money", "points"])
)
@settings(deadline=None, max_examples=100)
def test_parts_that_come_to_the_whole_take_back_the_whole_to_the_last_digit(
    amount: Decimal, weights: list[int], mode: str, unit: str
) -> None:
    fraction = f"context.weight / {sum(weights)}"
    given_rule = rule(
        amount="decimal(context.amount)", unit=unit, round=mode, reversal={**REFUND, "fraction": fraction}
    )
    told = Told(given_rule)
    told.bought(amount=f"{amount:f}")
    assume(told.given)
    whole = Decimal(told.given[0].amount)
    told.sent()
    for weight in weights:
        told.refunded(weight=weight)
    undone = [Fraction(one.amount) for one in told.simulation.actions.values() if one.reverses is not None]
    assert sum(undone) == Fraction(whole)
    assert live(told.given[0]) == 0


def test_thirds_are_taken_back_to_the_last_point() -> None:
    for order in set(permutations(["1 / 3", "1 / 3", "1 / 3"])):
        told = Told(rule(amount=100, reversal={**REFUND, "fraction": order[0]}))
        told.bought()
        told.sent()
        assert [told.refunded() for _ in range(4)] == ["u1 -33", "u1 -33", "u1 -34", ""]


# --- several gifts -------------------------------------------------------------------------------


def test_all_that_a_fact_gave_is_taken_back_from_whoever_got_it() -> None:
    actions = [{**CREDIT, "key": "a"}, {**CREDIT, "key": "b", "recipient": "parties.referrer", "amount": 5}]
    told = Told(rule(actions=actions, reversal={**REFUND, "fraction": "0.5"}))
    told.bought(parties={"referrer": "r1"})
    assert [told.refunded(), told.refunded()] == ["u1 -5 r1 -2", "u1 -5 r1 -3"]


def test_an_original_of_several_purchases_is_told_by_its_value() -> None:
    told = Told(rule(reversal=REFUND))
    told.bought("o1")
    told.bought("o1", at=NOON)
    told.bought("o2")
    assert told.refunded("o1") == "u1 -10 u1 -10"
    assert told.live() == ["0", "0", "10"]
