"""Limits and budgets: who is measured, in which period, and what does not fit."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from connect.engine.periods import FIRST, LAST
from tests.engine.telling import CREDIT, NOON, REFUND, Told, rule

TICK = timedelta(microseconds=1)


def limited(*limits: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return rule(limits=list(limits), **fields)


@pytest.mark.parametrize(
    ("every", "first", "second", "expected"),
    [
        ("hour", "2026-06-15T12:00:00Z", "2026-06-15T12:59:59.999999Z", "limited"),
        ("hour", "2026-06-15T12:00:00Z", "2026-06-15T13:00:00Z", "u1 +10"),
        ("hour", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "u1 +10"),  # 02:30 in Berlin, twice
        ("day", "2026-06-14T22:00:00Z", "2026-06-15T21:59:59.999999Z", "limited"),
        ("day", "2026-06-15T21:59:59.999999Z", "2026-06-15T22:00:00Z", "u1 +10"),
        ("day", "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "limited"),  # a day of 25 hours
        ("week", "2026-10-18T22:00:00Z", "2026-10-25T22:59:59Z", "limited"),  # a week of 169
        ("week", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z", "u1 +10"),
        ("week", "2026-12-28T12:00:00Z", "2027-01-03T12:00:00Z", "limited"),
        ("month", "2028-02-01T12:00:00Z", "2028-02-29T22:59:59Z", "limited"),
        ("month", "2028-02-29T22:59:59Z", "2028-02-29T23:00:00Z", "u1 +10"),
        ("month", "2026-12-31T22:59:59Z", "2026-12-31T23:00:00Z", "u1 +10"),
        ("ever", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "limited"),
        ("week", "9999-12-27T12:00:00Z", "9999-12-31T23:59:59.999999Z", "limited"),
        ("week", "9999-12-26T12:00:00Z", "9999-12-31T23:59:59.999999Z", "u1 +10"),
        ("month", "0001-01-01T00:00:00Z", "0001-01-31T12:00:00Z", "limited"),
    ],
)
def test_a_limit_holds_within_the_period_of_its_zone(every: str, first: str, second: str, expected: str) -> None:
    told = Told(limited({"per": "actor", "every": every, "uses": 1}), timezone="Europe/Berlin")
    assert told.bought(at=first) == "u1 +10"
    assert told.bought(at=second) == expected


def test_a_late_event_is_measured_in_the_period_it_happened_in() -> None:
    told = Told(limited({"per": "actor", "every": "day", "uses": 1}))
    assert told.bought(at=NOON) == "u1 +10"
    assert told.bought(at=NOON - timedelta(days=1)) == "u1 +10"
    assert told.bought(at=NOON - timedelta(days=1, hours=2)) == "limited"


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        (timedelta(0), "limited"),
        (timedelta(hours=6) - TICK, "limited"),
        (timedelta(hours=6), "u1 +10"),
        (-timedelta(hours=6) + TICK, "limited"),
        (-timedelta(hours=6), "u1 +10"),
    ],
)
def test_a_sliding_window_holds_exactly_its_length_in_both_directions(apart: timedelta, expected: str) -> None:
    told = Told(limited({"per": "actor", "within": "6h", "uses": 1}))
    told.bought(at=NOON)
    assert told.bought(at=NOON + apart) == expected


def test_a_sliding_limit_holds_in_every_window_that_contains_the_event_later_ones_included() -> None:
    told = Told(limited({"per": "actor", "within": "6h", "uses": 2}))
    assert told.bought(at=NOON) == "u1 +10"
    assert told.bought(at=NOON + timedelta(hours=5)) == "u1 +10"
    assert told.bought(at=NOON + timedelta(hours=3)) == "limited"  # the third from 12:00 to 18:00
    assert told.bought(at=NOON - timedelta(hours=2)) == "u1 +10"  # [10:00, 16:00) has two, [12:00, 18:00) two
    assert told.bought(at=NOON - timedelta(hours=1)) == "limited"
    assert told.bought(at=NOON + timedelta(hours=8)) == "u1 +10"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({"per": "actor", "within": "6h", "uses": 1}, "a window of 6h would have more than 1 uses per actor"),
        ({"per": "actor", "within": "90m", "amount": 15}, "a window of 90m would have more than 15 points per actor"),
        ({"per": "recipient", "within": "48h", "uses": 1}, "a window of 2d would have more than 1 uses per recipient"),
        ({"per": "rule", "within": "2w", "uses": 1}, "a window of 2w would have more than 1 uses in all"),
        ({"per": "actor", "within": "45s", "uses": 1}, "a window of 45s would have more than 1 uses per actor"),
    ],
)
def test_a_denial_by_a_sliding_window_says_its_length_once_and_as_it_is_written(limit: dict[str, Any], expected: str):
    told = Told(limited(limit))
    told.bought()
    assert told.bought() == "limited"
    assert told.details == [f"10 points for u1 (actor): {expected}"]


@pytest.mark.parametrize("moment", [FIRST, LAST])
def test_a_sliding_window_may_end_where_time_does(moment: datetime) -> None:
    told = Told(limited({"per": "actor", "within": "9999w", "uses": 1}))
    assert told.bought(at=moment) == "u1 +10"
    assert told.bought(at=moment) == "limited"


TWO: dict[str, Any] = {"parties": {"team": ["u2", "u3"], "referrer": "r1"}}


@pytest.mark.parametrize(
    ("per", "recipient", "told_then", "expected"),
    [
        ("recipient", "actor", {}, "limited"),
        ("recipient", "actor", {"user": "u9"}, "u9 +10"),
        ("actor", "actor", {"user": "u9"}, "u9 +10"),
        ("rule", "actor", {"user": "u9"}, "limited"),
        ("actor", "parties.team", {}, "limited"),  # all that the rule gives because of u1
        ("actor", "parties.team", {"user": "u9"}, "u2 +10 u3 +10"),
        ("parties.referrer", "actor", {}, "limited"),
        ("parties.referrer", "actor", {"parties": {"referrer": "r2"}}, "u1 +10"),
        ("parties.referrer", "actor", {"parties": {}}, "u1 +10"),  # nobody is named: nobody's limit
        ("parties.team", "parties.team", {"parties": {"team": ["u3", "u4"]}}, "u4 +10"),
        ("parties.team", "actor", {"parties": {"team": ["u3", "u4"]}}, "limited"),
        ("subject", "actor", {"subject": "s1"}, "u1 +10"),
    ],
)
def test_a_limit_measures_whom_it_names(per: str, recipient: str, told_then: dict[str, Any], expected: str) -> None:
    told = Told(limited({"per": per, "every": "ever", "uses": 1}, recipient=recipient))
    told.bought(**TWO)
    assert told.bought(**{**TWO, **told_then}) == expected


def test_a_limit_on_a_role_that_the_rule_gives_to_denies_that_role_alone() -> None:
    actions = [{**CREDIT, "key": "a"}, {**CREDIT, "key": "b", "recipient": "parties.referrer", "amount": 5}]
    told = Told(rule(actions=actions, limits=[{"per": "parties.referrer", "every": "month", "uses": 1}]))
    assert told.bought(parties={"referrer": "r1"}) == "u1 +10 r1 +5"
    assert told.bought(parties={"referrer": "r1"}) == "u1 +10"
    assert told.outcomes == {"r": "gave"}
    assert told.details == ["5 points for r1 (parties.referrer): 1 of 1 uses per parties.referrer a month are used"]


def test_one_event_is_one_use_however_many_gifts_it_has() -> None:
    actions = [{**CREDIT, "key": key} for key in ("a", "b", "c")]
    told = Told(rule(actions=actions, limits=[{"per": "actor", "every": "ever", "uses": 2}]))
    assert told.bought() == told.bought() == "u1 +10 u1 +10 u1 +10"
    assert told.bought() == "limited"


def test_what_does_not_fit_an_amount_is_denied_and_a_smaller_one_may_still_fit() -> None:
    actions = [
        {**CREDIT, "key": "a", "amount": 8},
        {**CREDIT, "key": "b", "amount": 5},
        {**CREDIT, "key": "c", "amount": 2},
    ]
    told = Told(rule(actions=actions, limits=[{"per": "actor", "every": "ever", "amount": 10}]))
    assert told.bought() == "u1 +8 u1 +2"
    assert told.details == ["5 points for u1 (actor): 8 of 10 points per actor ever are used"]
    assert told.bought() == "limited"


def test_all_or_nothing_gives_nothing_where_one_side_is_denied_and_uses_up_nothing() -> None:
    actions = [{**CREDIT, "key": "a"}, {**CREDIT, "key": "b", "recipient": "parties.referrer"}]
    limits = [{"per": "parties.referrer", "every": "ever", "uses": 1}, {"per": "actor", "every": "ever", "uses": 1}]
    told = Told(rule(actions=actions, limits=limits, all_or_nothing=True))
    assert told.bought(user="u1", parties={"referrer": "r1"}) == "u1 +10 r1 +10"
    assert told.bought(user="u2", parties={"referrer": "r1"}) == "limited"
    assert told.bought(user="u2", parties={"referrer": "r2"}) == "u2 +10 r2 +10"


def test_two_limits_on_one_measure_use_it_up_once() -> None:
    two = ({"per": "actor", "every": "day", "amount": 20}, {"per": "actor", "every": "day", "amount": 25})
    told = Told(limited(*two))
    assert told.bought() == told.bought() == "u1 +10"
    assert (told.bought(), told.stored("limit|")) == ("limited", ["20"])


def test_limits_and_budgets_are_exact_beyond_twenty_eight_digits() -> None:
    most, least = f"1{'0' * 30}", f"0.{'0' * 17}1"
    budget: dict[str, Any] = {"budgets": {"pot": {"unit": "token", "cap": f"{most}.{'0' * 17}1"}}}
    given = rule(unit="token", amount="decimal(context.amount)", budget={"from": "pot", "when_short": "clip"})
    told = Told({**given, "limits": [{"per": "actor", "every": "ever", "amount": f"1{'0' * 40}"}]}, **budget)
    assert told.bought(amount=most) == f"u1 +{most}"
    assert told.bought(amount="5") == f"u1 +{least}"  # what is left, to the last digit
    assert told.bought(amount=least) == "short_of_budget"
    assert told.stored("limit|") == told.stored("budget|") == [f"{most}.{'0' * 17}1"]


# --- budgets -------------------------------------------------------------------------------------


def from_pot(when_short: str = "deny", **fields: Any) -> dict[str, Any]:
    return rule(amount="context.amount", budget={"from": "pot", "when_short": when_short}, **fields)


def pot(**fields: Any) -> dict[str, Any]:
    return {"budgets": {"pot": {"unit": "points", "cap": 10, **fields}}}


@pytest.mark.parametrize(
    ("budget", "when_short", "amounts", "expected"),
    [
        ({}, "deny", (8, 5, 2, 1), ["u1 +8", "short_of_budget", "u1 +2", "short_of_budget"]),
        ({}, "clip", (8, 5, 2), ["u1 +8", "u1 +2", "short_of_budget"]),
        ({"closes": True}, "deny", (8, 5, 2), ["u1 +8", "short_of_budget", "short_of_budget"]),
        ({"closes": True}, "deny", (8, 2, 1), ["u1 +8", "u1 +2", "short_of_budget"]),
        ({"closes": True}, "clip", (8, 5, 2), ["u1 +8", "u1 +2", "short_of_budget"]),
        ({"cap": "0.5"}, "clip", (8, 0), ["short_of_budget", "zero"]),
        ({"cap": "9.5"}, "clip", (8, 8), ["u1 +8", "u1 +1"]),  # cut down to the unit's scale
    ],
)
def test_what_does_not_fit_a_budget_is_denied_or_clipped(
    budget: dict[str, Any], when_short: str, amounts: tuple[int, ...], expected: list[str]
) -> None:
    told = Told(from_pot(when_short), **pot(**budget))
    assert [told.bought(amount=amount) for amount in amounts] == expected


def test_rules_share_a_budget_in_deciding_order() -> None:
    told = Told(from_pot(key="late"), from_pot(key="early", priority=1), **pot())
    assert told.bought(amount=7) == "u1 +7"
    assert told.outcomes == {"early": "gave", "late": "short_of_budget"}


@pytest.mark.parametrize(("refills", "expected"), [(True, "u1 +10"), (False, "short_of_budget")])
def test_a_budget_is_refilled_by_a_reversal_where_it_says_so(refills: bool, expected: str) -> None:
    told = Told(from_pot(reversal=REFUND), **pot(refill_on_reversal=refills))
    told.bought(amount=10)
    assert told.refunded() == "u1 -10"
    assert told.bought("o2", amount=10) == expected


def test_a_closed_budget_stays_closed_when_something_comes_back() -> None:
    told = Told(from_pot(reversal=REFUND), **pot(refill_on_reversal=True, closes=True))
    assert [told.bought(amount=10), told.bought("o2", amount=1)] == ["u1 +10", "short_of_budget"]
    assert [told.refunded(), told.bought("o3", amount=1)] == ["u1 -10", "short_of_budget"]
    assert told.stored("budget|") == []


def test_all_or_nothing_takes_a_clip_for_a_denial_and_spends_nothing() -> None:
    told = Told(from_pot("clip", all_or_nothing=True), **pot())
    assert [told.bought(amount=11), told.stored("budget|")] == ["short_of_budget", []]
    assert told.bought(amount=10) == "u1 +10"


# --- what comes back -----------------------------------------------------------------------------


def test_a_reversal_frees_the_period_of_the_original_not_its_own() -> None:
    told = Told(limited({"per": "actor", "every": "day", "uses": 1}, reversal=REFUND))
    tomorrow = NOON + timedelta(days=1)
    assert [told.bought("o1"), told.bought("o2", at=tomorrow)] == ["u1 +10", "u1 +10"]
    assert told.refunded("o1", at=tomorrow) == "u1 -10"
    assert [told.bought("o3", at=tomorrow), told.bought("o4")] == ["limited", "u1 +10"]


def test_a_part_taken_back_frees_its_amount_and_no_use() -> None:
    limits = [{"per": "actor", "every": "ever", "uses": 2}, {"per": "actor", "every": "ever", "amount": 20}]
    told = Told(limited(*limits, reversal={**REFUND, "fraction": "0.4"}))
    assert [told.bought("o1"), told.refunded("o1"), told.bought("o2"), told.bought("o3")] == [
        "u1 +10", "u1 -4", "u1 +10", "limited"
    ]  # fmt: skip
    assert told.stored("limit|") == ["16", "2"]


def test_a_purchase_refunded_before_it_came_leaves_nothing_in_a_sliding_limit() -> None:
    told = Told(limited({"per": "actor", "within": "6h", "uses": 1}, reversal=REFUND))
    told.refunded("o1")
    assert told.bought("o1") == "u1 +10"
    assert [action.status for action in told.given] == ["cancelled"]
    assert told.bought("o2") == "u1 +10"


def test_a_failed_action_keeps_its_claim() -> None:
    told = Told(limited({"per": "actor", "every": "ever", "uses": 1}, reversal=REFUND))
    told.bought("o1")
    told.sent(status="failed", failure="refused")
    assert told.bought("o2") == "limited"
    told.refunded("o1")
    assert told.bought("o3") == "u1 +10"


@pytest.mark.parametrize(
    ("fields", "statuses"),
    [
        ({"review_above": {"points": 9}}, ["awaiting_approval", "awaiting_approval", "awaiting_approval"]),
        ({"review_above": {"points": 10}}, ["pending", "pending", "pending"]),
        ({"per_day": {"points": 20}}, ["pending", "pending", "awaiting_approval"]),
    ],
)
def test_what_is_beyond_a_rail_awaits_approval(fields: dict[str, Any], statuses: list[str]) -> None:
    told = Told(rule(), safety=fields)
    alerts: list[str] = []
    for _ in range(3):
        told.bought()
        assert told.decision is not None
        alerts += told.decision.alerts
    assert [action.status for action in told.given] == statuses
    assert len(alerts) == ("per_day" in fields)


def test_the_rail_of_a_day_counts_what_awaits_approval_too() -> None:
    reviewed = {**CREDIT, "key": "a", "review": True}
    told = Told(rule(actions=[reviewed, {**CREDIT, "key": "b"}]), safety={"per_day": {"points": 19}})
    told.bought()
    assert [action.status for action in told.given] == ["awaiting_approval", "awaiting_approval"]
