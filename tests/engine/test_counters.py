"""Counters: which events count, in which order and window, and how they are undone."""

from datetime import timedelta
from typing import Any

import pytest

from tests.engine.telling import NOON, REFUND, Told, rule

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
UNDONE: dict[str, Any] = {"undone_by": "refunded", "same": "context.order"}


def counting(*rules: dict[str, Any], **counter: Any) -> Told:
    """One counter `n`, and a rule that gives as many points as it has."""
    made = {"event_type": "bought", "of": "actor", "kind": "count", **counter}
    return Told(*(rules or (rule(amount="counters.n", round="down"),)), timezone="Europe/Berlin", counters={"n": made})


def read(told: Told) -> Any:
    assert told.decision is not None
    return told.decision.read["counters"]["n"]


def test_a_count_has_the_current_event_in_it_and_exactly_one_event_sees_ten() -> None:
    told = counting(rule(condition="counters.n == 10"))
    # in any order of time: events count as they are decided
    seen = [told.bought(at=NOON + DAY * (n * 7 % 15)) for n in range(15)]
    assert seen == ["not_matched"] * 9 + ["u1 +10"] + ["not_matched"] * 5


def test_each_party_has_a_counter_of_its_own() -> None:
    told = counting(of="parties.shop")
    assert [told.bought(parties={"shop": shop}) for shop in ("s1", "s2", "s1")] == ["u1 +1", "u1 +1", "u1 +2"]
    assert told.bought() == "missing"  # nobody to count for


def test_an_event_that_names_several_counts_for_each_and_reads_the_first() -> None:
    told = counting(of="parties.team")
    assert told.bought(parties={"team": ["a", "b"]}) == "u1 +1"
    assert told.bought(parties={"team": ["b"]}) == "u1 +2"
    assert told.bought(parties={"team": ["a", "b", "a"]}) == "u1 +2"
    assert told.bought(parties={"team": ["b"]}) == "u1 +4"


def test_only_events_of_the_type_that_meet_the_condition_count() -> None:
    rules = (rule(amount="counters.n"), rule("seen", event_type="opened", amount="counters.n"))
    told = counting(*rules, condition=["context.amount >= 50"])
    assert told.bought(amount=50) == "u1 +1"
    assert told.bought(amount=49) == "u1 +1"
    assert told.tell("opened") == "u1 +1"
    assert told.bought() == "u1 +1"  # a missing field does not count


@pytest.mark.parametrize(
    ("counter", "moments", "expected"),
    [
        ({"every": "day"}, ["2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z"], [1, 2, 1]),
        ({"every": "week"}, ["2026-10-18T22:00:00Z", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z"], [1, 2, 1]),
        ({"every": "month"}, ["2028-02-29T22:59:59Z", "2028-02-01T00:00:00Z", "2028-02-29T23:00:00Z"], [1, 2, 1]),
        ({"every": "month", "zone": "America/New_York"}, ["2026-11-01T03:59:59Z", "2026-11-01T04:00:00Z"], [1, 1]),
        ({"every": "hour"}, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"], [1, 1]),
        ({"within": "24h"}, [NOON, NOON + DAY - TICK, NOON + DAY, NOON + DAY * 2], [1, 2, 2, 1]),
        (
            {"within": "24h"},
            [NOON + DAY, NOON, NOON + DAY],
            [1, 1, 2],
        ),  # it ends with the event: later ones are outside
        ({"within": "24h"}, ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"], [1, 2]),
        ({}, ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"], [1, 2]),
    ],
)
def test_a_window_is_bounded_by_when_events_happened(
    counter: dict[str, Any], moments: list[Any], expected: list[int]
) -> None:
    told = counting(**counter)
    assert [told.bought(at=moment) for moment in moments] == [f"u1 +{n}" for n in expected]


def test_a_sliding_window_forgets_what_is_far_behind_and_still_has_the_current_event() -> None:
    told = counting(within="1d")
    days = (200, 0, 5, 199, 200)
    assert [told.bought(at=NOON + DAY * day) for day in days] == [f"u1 +{n}" for n in (1, 1, 1, 1, 2)]


def test_a_sum_is_exact() -> None:
    told = counting(kind="sum", value="context.amount * 0.1", **UNDONE)
    for n in range(3):
        told.bought(f"o{n}", amount=1)
    assert read(told) == "0.3"
    told.refunded("o0")
    told.bought("o3", amount=0)
    assert read(told) == "0.2"


def test_a_sum_of_quotients_leaves_nothing_behind_when_all_is_undone() -> None:
    told = counting(kind="sum", value="context.amount / 7", **UNDONE)
    for n in range(9):
        told.bought(f"o{n}", amount=10 ** (n * 3) + n)
    for n in (4, 0, 8, 2, 6, 1, 7, 3, 5):
        told.refunded(f"o{n}")
    assert told.stored("counter|") == []


def test_a_sum_keeps_the_digits_of_tokens() -> None:
    told = counting(kind="sum", value="decimal(context.amount)", **UNDONE)
    told.bought("o1", amount="123456789012345678901234567890")
    told.bought("o2", amount="0.000000000000000001")
    assert read(told) == "123456789012345678901234567890.000000000000000001"
    told.refunded("o1")
    assert told.stored("counter|") == ["0.000000000000000001"]


def test_a_sum_that_is_no_amount_does_not_count() -> None:
    told = counting(kind="sum", value="decimal(context.amount) * decimal(context.amount) * decimal(context.amount)")
    assert told.bought(amount=f"1{'0' * 59}") == "zero"
    assert told.bought(amount="2") == "u1 +8"
    assert told.bought(amount="two") == "u1 +8"


def test_distinct_values_are_told_apart_and_undone_with_the_last_that_held_them() -> None:
    told = counting(kind="distinct", value="context.item", **UNDONE)
    orders = [("o1", "x"), ("o2", "y"), ("o3", "x"), ("o4", None), ("o5", 1)]
    assert [told.bought(order, item=item) for order, item in orders] == ["u1 +1", "u1 +2", "u1 +2", "u1 +2", "u1 +3"]
    told.refunded("o1")
    assert told.bought("o6", item="y") == "u1 +3"  # o3 still holds x
    told.refunded("o3")
    assert told.bought("o7", item="y") == "u1 +2"


# --- streaks -------------------------------------------------------------------------------------


def on(*days: int) -> list[Any]:
    return [NOON + DAY * day for day in days]


@pytest.mark.parametrize(
    ("counter", "moments", "expected"),
    [
        ({}, on(0, 0, 1, 2, 4, 5), [1, 1, 2, 3, 1, 2]),
        ({}, on(0, 2, 1, 2), [1, 1, 3, 3]),  # a late day joins what it belonged to all along
        ({}, on(4, 3, 0, 1, 2), [1, 2, 1, 2, 5]),
        ({"grace": 1}, on(0, 2, 5), [1, 2, 1]),  # one missed day at each gap; two are too many
        ({"grace": 1}, on(0, 2, 4, 6), [1, 2, 3, 4]),
        ({"grace": 2}, on(0, 3, 7), [1, 2, 1]),
        ({}, ["2026-10-24T12:00:00Z", "2026-10-25T22:59:00Z", "2026-10-25T23:00:00Z"], [1, 2, 3]),
        ({}, ["2026-03-28T22:59:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"], [1, 2, 3]),  # a day of 23 hours
        ({}, ["2028-02-28T12:00:00Z", "2028-02-29T12:00:00Z", "2028-03-01T12:00:00Z"], [1, 2, 3]),
        ({}, ["2027-02-28T12:00:00Z", "2027-03-01T12:00:00Z"], [1, 2]),
        ({}, ["9999-12-30T12:00:00Z", "9999-12-31T12:00:00Z", "9999-12-31T23:30:00Z"], [1, 2, 2]),
        ({"every": "week"}, ["2026-10-18T12:00:00Z", "2026-10-25T22:59:00Z", "2026-10-25T23:00:00Z"], [1, 2, 3]),
        ({"every": "week"}, ["2026-12-28T12:00:00Z", "2027-01-03T12:00:00Z", "2027-01-04T12:00:00Z"], [1, 1, 2]),
        ({"every": "month"}, ["2026-12-31T12:00:00Z", "2027-01-31T12:00:00Z", "2027-02-01T12:00:00Z"], [1, 2, 3]),
        (
            {"zone": "America/New_York"},
            ["2026-11-01T03:59:00Z", "2026-11-01T04:00:00Z", "2026-11-02T04:59:00Z", "2026-11-02T05:00:00Z"],
            [1, 2, 2, 3],
        ),
    ],
)
def test_a_streak_is_the_run_of_steps_that_the_events_step_belongs_to(
    counter: dict[str, Any], moments: list[Any], expected: list[int]
) -> None:
    told = counting(kind="streak", **{"every": "day", **counter})
    assert [told.bought(at=moment) for moment in moments] == [f"u1 +{n}" for n in expected]


def test_a_streak_may_go_by_the_users_own_zone() -> None:
    told = counting(kind="streak", every="day", zone="context.timezone")
    moments = ["2026-11-01T03:59:00Z", "2026-11-01T04:00:00Z"]
    assert [told.bought(at=moment, timezone="America/New_York") for moment in moments] == ["u1 +1", "u1 +2"]
    assert told.bought(at=moments[0], timezone="../etc/passwd") == "missing"
    assert told.bought(at=moments[0]) == "missing"


def test_an_undone_day_breaks_a_streak_unless_another_event_holds_it() -> None:
    told = counting(kind="streak", every="day", **UNDONE)
    for order, day in (("o1", 0), ("o2", 1), ("o3", 1), ("o4", 2)):
        told.bought(order, at=NOON + DAY * day)
    assert read(told) == 3
    told.refunded("o2")
    assert told.bought("o5", at=NOON + DAY * 2) == "u1 +3"  # o3 holds day 1
    told.refunded("o3")
    assert told.bought("o6", at=NOON + DAY * 2) == "u1 +1"
    assert told.bought("o7", at=NOON + DAY) == "u1 +3"


def test_another_event_reads_a_streak_while_it_can_still_go_on() -> None:
    told = counting(rule(event_type="opened", amount="counters.n"), kind="streak", every="day", grace=1)
    told.bought(at=NOON)
    told.bought(at=NOON + DAY)
    assert [told.tell("opened", at=NOON + DAY * day) for day in (1, 2, 3, 4)] == ["u1 +2", "u1 +2", "u1 +2", "zero"]


# --- undoing -------------------------------------------------------------------------------------


def test_an_event_is_undone_once_and_when_it_is_wholly_reversed() -> None:
    told = counting(**UNDONE, fraction="context.part / original.context.amount")
    told.bought("o1", amount=100)
    told.bought("o2", amount=100)
    told.refunded("o1", part=60)
    assert told.bought("o3", amount=1) == "u1 +3"
    told.refunded("o1", part=40)
    assert told.bought("o4", amount=1) == "u1 +3"
    told.refunded("o1", part=100)
    assert told.bought("o5", amount=1) == "u1 +4"


def test_thirds_that_come_to_the_whole_undo_it() -> None:
    told = counting(**UNDONE, fraction="1 / 3")
    told.bought("o1")
    for _ in range(3):
        told.refunded("o1")
    assert told.stored("counter|") == []


def test_an_event_that_was_undone_before_it_came_is_not_counted() -> None:
    told = counting(**UNDONE)
    told.refunded("o1")
    assert told.bought("o1") == "zero"
    assert told.bought("o2") == "u1 +1"


def test_only_an_event_of_the_same_source_and_value_undoes() -> None:
    told = counting(**UNDONE)
    told.bought("o1")
    told.refunded("o1", source="till")
    told.refunded("o2")
    told.tell("refunded")
    assert told.bought("o2", source="till") == "u1 +2"


def test_the_rules_of_an_undoing_event_read_the_counter_as_it_leaves_it() -> None:
    told = counting(rule(event_type="refunded", condition="counters.n == 0"), **UNDONE)
    told.bought("o1")
    told.bought("o2")
    assert [told.refunded("o1"), told.refunded("o2")] == ["not_matched", "u1 +10"]


def test_an_event_whose_own_type_undoes_does_not_undo_itself() -> None:
    told = counting(event_type="bought", undone_by="bought", same="context.order")
    assert told.bought("o1") == "u1 +1"
    assert told.bought("o2") == "u1 +2"
    assert told.bought("o1") == "u1 +1"  # takes the first out, and was itself undone by it before it came


def test_history_counts_and_gives_nothing() -> None:
    told = counting()
    assert told.bought("o1", effects="none") == "not_live"
    assert told.bought("o2") == "u1 +2"


# --- cascades ------------------------------------------------------------------------------------


def third(condition: str = "counters.n == 3", **counter: Any) -> Told:
    return counting(rule("nft", condition=condition, limits=[{"per": "actor", "every": "ever", "uses": 1}]), **counter)


def test_what_hung_on_a_purchase_that_is_refunded_is_listed_for_a_person() -> None:
    told = third(**UNDONE)
    assert [told.bought(f"o{n}") for n in range(4)] == ["not_matched", "not_matched", "u1 +10", "not_matched"]
    assert told.refunded("o0") == "u1 -10"
    assert told.reversals == [("awaiting_approval", "10")]
    assert told.live() == ["10"]  # nothing is freed before a person approves
    assert told.details == ["10 points of u1: line 1 no longer holds; awaits approval"]
    assert told.refunded("o1") == ""  # listed once


def test_a_purchase_after_the_reward_takes_nothing_with_it() -> None:
    told = third(**UNDONE)
    for n in range(4):
        told.bought(f"o{n}")
    assert (told.refunded("o3"), told.reversals) == ("", [])


def test_the_rewarded_purchase_itself_is_listed_when_its_rule_has_no_terms() -> None:
    told = third(**UNDONE)
    for n in range(3):
        told.bought(f"o{n}")
    assert (told.refunded("o2"), told.reversals) == ("u1 -10", [("awaiting_approval", "10")])


def test_what_has_terms_of_its_own_is_taken_back_by_these_alone() -> None:
    told = counting(rule(condition="counters.n >= 2", reversal=REFUND), **UNDONE)
    told.bought("o1")
    told.bought("o2")
    assert (told.refunded("o2"), told.reversals, told.live()) == ("u1 -10", [], ["0"])


def test_a_line_that_still_holds_lists_nothing_and_two_refunds_add_up() -> None:
    told = third("counters.n >= 80", kind="sum", value="context.amount", **UNDONE)
    for n, amount in enumerate((40, 10, 50)):
        told.bought(f"o{n}", amount=amount)
    assert told.refunded("o1") == ""  # 90 are left
    assert told.refunded("o0") == "u1 -10"  # 50


def test_what_was_undone_before_a_decision_is_not_held_against_it() -> None:
    told = third("counters.n >= 2", **UNDONE)
    told.bought("o1")
    told.refunded("o1")
    assert [told.bought(f"p{n}") for n in range(3)] == ["not_matched", "u1 +10", "limited"]
    told.bought("o2", user="u2")
    assert told.refunded("o2") == ""
    assert told.refunded("p2") == ""
    assert told.refunded("p0") == "u1 -10"


@pytest.mark.parametrize(("every", "read_then", "expected"), [("month", 1, ""), ("ever", 2, "u1 -10")])
def test_only_the_period_that_the_decision_read_matters(every: str, read_then: int, expected: str) -> None:
    told = counting(rule(event_type="opened", condition=f"counters.n == {read_then}"), every=every, **UNDONE)
    told.bought("o1", at="2026-05-15T12:00:00Z")
    told.bought("o2", at="2026-06-15T12:00:00Z")
    assert told.tell("opened", at="2026-06-20T12:00:00Z") == "u1 +10"
    assert told.refunded("o1") == expected


@pytest.mark.parametrize(("within", "read_then", "expected"), [("2d", 1, ""), ("20d", 2, "u1 -10")])
def test_only_the_sliding_window_that_the_decision_read_matters(within: str, read_then: int, expected: str) -> None:
    told = counting(rule(event_type="opened", condition=f"counters.n == {read_then}"), within=within, **UNDONE)
    told.bought("o1", at=NOON)
    told.bought("o2", at=NOON + DAY * 9)
    assert told.tell("opened", at=NOON + DAY * 10) == "u1 +10"
    assert told.refunded("o1") == expected


def test_a_streak_that_a_refund_breaks_is_listed_and_one_that_grew_is_not() -> None:
    told = third(kind="streak", every="day", **UNDONE)
    for order, day in (("o1", 0), ("o2", 1), ("o3", 2), ("late", -1), ("far", 30)):
        told.bought(order, at=NOON + DAY * day)
    assert told.refunded("far") == ""
    assert told.refunded("late") == ""  # four days, then three again
    assert told.refunded("o2") == "u1 -10"


def test_a_distinct_value_that_another_purchase_holds_is_not_missed() -> None:
    told = third("counters.n == 2", kind="distinct", value="context.item", **UNDONE)
    for order, item in (("o1", "x"), ("o2", "x"), ("o3", "y")):
        told.bought(order, item=item)
    assert told.refunded("o1") == ""
    assert told.refunded("o2") == "u1 -10"


def test_in_a_sliding_window_a_value_is_missed_by_those_alone_who_see_no_other_event_with_it() -> None:
    told = counting(rule(condition="counters.n == 2"), kind="distinct", value="context.item", within="3d", **UNDONE)
    for order, day, item in (("o1", 0, "x"), ("o2", 1, "x"), ("o3", 2, "y"), ("o4", 4, "z")):
        told.bought(order, at=NOON + DAY * day, item=item)
    assert len(told.given) == 2  # o3 saw x and y, o4 saw y and z
    assert told.refunded("o1") == ""
    assert told.refunded("o2") == "u1 -10"
    assert told.reversals == [("awaiting_approval", "10")]


def test_of_earlier_refunds_those_in_the_sliding_window_add_up() -> None:
    told = counting(rule(event_type="opened", condition="counters.n >= 2"), within="3d", **UNDONE)
    for order, day in (("o1", 0), ("o2", 9), ("o3", 10), ("o4", 10)):
        told.bought(order, at=NOON + DAY * day)
    assert told.tell("opened", at=NOON + DAY * 11) == "u1 +10"
    assert [told.refunded(order) for order in ("o1", "o2", "o3")] == ["", "", "u1 -10"]


def test_the_rest_of_what_was_taken_back_in_part_is_listed() -> None:
    told = counting(rule(condition="counters.n == 2", reversal={**REFUND, "fraction": "0.4"}), **UNDONE, fraction="0.5")
    told.bought("o1")
    told.bought("o2")
    assert told.refunded("o2") == "u1 -4"
    assert [told.refunded("o1"), told.refunded("o1")] == ["", "u1 -6"]
    assert told.reversals == [("blocked", "4"), ("awaiting_approval", "6")]


def test_exact_numbers_that_were_recorded_as_text_are_numbers_again() -> None:
    counters = {
        "spent": {"event_type": "bought", "of": "actor", "kind": "sum", "value": "context.amount / 3", "every": "day"},
        "n": {"event_type": "bought", "of": "actor", "kind": "count", **UNDONE},
    }
    told = Told(rule(condition=["counters.spent > 3", "counters.n >= 1"]), counters=counters)
    told.bought("o1", amount=10, at=NOON)
    told.bought("o2", amount=10, at=NOON + DAY)
    assert told.refunded("o1") == "u1 -10"  # its own; o2 read 3.33 of its own day, and one purchase is left
