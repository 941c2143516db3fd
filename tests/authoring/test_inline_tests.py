"""A ruleset's inline tests: when they are green, what a red one says, and what is skipped or not covered."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect.authoring import StoryReport, StoryResult, convert_ruleset, run_tests
from connect.authoring.inline_tests import unmatched

CREDIT: dict[str, Any] = {"target": "points", "command": "credit", "recipient": "actor", "unit": "points", "amount": 5}
RULE: dict[str, Any] = {"key": "r", "event_type": "bought", "actions": [CREDIT]}
REVERSAL: dict[str, Any] = {"event_type": "returned", "same": "context.order", "fraction": "context.part * 0.01"}


def report(*tests: dict[str, Any], rules: list[dict[str, Any]] | None = None, **document: Any) -> StoryReport:
    whole = {"units": {"points": {}}, "rules": rules or [RULE], "tests": [{"name": "t", **each} for each in tests]}
    return run_tests(convert_ruleset({**whole, **document}))


def told(rules: list[dict[str, Any]], given: list[dict[str, Any]], expect: Any, **test: Any) -> StoryResult:
    return report({"given": given, "expect": expect, **test}, rules=rules).results[0]


def bought(external_id: str = "e1", user: str | None = "u1", **fields: Any) -> dict[str, Any]:
    return {"external_id": external_id, "event_type": "bought", "actor_user_id": user, **fields}


def returned(external_id: str, part: int, **fields: Any) -> dict[str, Any]:
    return {"external_id": external_id, "event_type": "returned", "context": {"order": "o1", "part": part}, **fields}


def words(result: StoryResult) -> list[str]:
    return [difference.words for difference in result.differences]


FIVE = {"rule": "r", "user_id": "u1", "amount": 5}


@pytest.mark.parametrize(
    ("expected", "differences"),
    [
        ([FIVE], []),
        ([{"rule": "r", "amount": 5}], []),
        ([{"rule": "r", "amount": "5.0"}], []),
        ([{**FIVE, "target": "points", "command": "credit", "unit": "points", "status": "pending"}], []),
        ([], ["e1: unexpected points 5 for u1 by r (gave)"]),
        (
            [{**FIVE, "amount": 6}],
            ["e1: missing points 6 for u1 by r (gave)", "e1: unexpected points 5 for u1 by r (gave)"],
        ),
        ([FIVE, FIVE], ["e1: missing points 5 for u1 by r (gave)"]),
        (
            [{**FIVE, "status": "awaiting_approval"}],
            [
                "e1: missing points 5 for u1 by r (status awaiting_approval) (gave)",
                "e1: unexpected points 5 for u1 by r (gave)",
            ],
        ),
        (
            [{"rule": "r", "user_id": "u2", "amount": 5}],
            ["e1: missing points 5 for u2 by r (gave)", "e1: unexpected points 5 for u1 by r (gave)"],
        ),
    ],
)
def test_what_is_expected_is_a_set_of_which_absent_fields_are_not_compared(expected: Any, differences: list[str]):
    result = told([RULE], [bought()], {"e1": expected})
    assert (words(result), result.passed) == (differences, not differences)


def test_events_that_are_not_named_are_not_compared():
    assert told([RULE], [bought(), bought("e2")], {"e2": [FIVE]}).passed


@pytest.mark.parametrize(
    ("rule", "event", "reason"),
    [
        (
            {"condition": ["context.sum >= 10", "context.sum >= 100"]},
            {"context": {"sum": 50}},
            "its condition did not hold: line 2 `context.sum >= 100`, with context.sum = 50",
        ),
        (
            {"condition": "context.sum > 1"},
            {},
            "it reads a field that the event does not have: line 1 `context.sum > 1` (context.sum is missing)",
        ),
        ({"event_type": "sold"}, {}, "it is for sold, the event is bought"),
        ({}, {"actor_user_id": None}, "nobody had the role it gives to (the event has no actor)"),
    ],
)
def test_a_red_test_says_which_line_failed_on_what_value(rule: Any, event: Any, reason: str):
    result = told([{**RULE, **rule}], [bought(**event)], {"e1": [FIVE]})
    assert words(result) == [f"e1: missing points 5 for u1 by r ({reason})"]


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ([bought(context={"order": "o1"}), returned("back", 100)], {"e1": [FIVE], "back": [{**FIVE, "amount": -5}]}),
        (
            [bought(context={"order": "o1"}), returned("some", 40), returned("rest", 60)],
            {"some": [{**FIVE, "amount": -2}], "rest": [{**FIVE, "amount": -3}]},
        ),
        ([returned("early", 100), bought(context={"order": "o1"})], {"early": [], "e1": []}),
        ([returned("early", 40), bought(context={"order": "o1"})], {"early": [], "e1": [FIVE, {**FIVE, "amount": -2}]}),
        ([bought(context={"order": "o1"}), returned("odd", 100, source="elsewhere")], {"odd": []}),
    ],
)
def test_a_minus_is_what_an_event_takes_back_by_cancelling_or_by_an_undo(given: Any, expect: Any):
    assert words(told([{**RULE, "reversal": REVERSAL}], given, expect)) == []


@pytest.mark.parametrize(("command", "passed"), [("credit", True), ("debit", True), ("grant", False)])
def test_a_minus_may_name_what_was_given_or_what_its_target_calls_the_undo(command: str, passed: bool):
    other = {**CREDIT, "command": "grant", "amount": 7}
    rule = {**RULE, "actions": [CREDIT, other], "reversal": REVERSAL}
    expect = {"back": [{"rule": "r", "amount": -5, "command": command}, {"rule": "r", "amount": -7}]}
    result = told([rule], [bought(context={"order": "o1"}), returned("back", 100)], expect)
    assert result.passed is passed


def test_what_is_listed_for_a_person_is_told_apart_by_its_status():
    counters = {
        "n": {"event_type": "bought", "of": "actor", "kind": "count", "undone_by": "returned", "same": "context.order"}
    }
    rule = {**RULE, "condition": "counters.n == 2"}
    given = [bought("e1", context={"order": "o1"}), bought("e2", context={"order": "o2"}), returned("back", 100)]
    for status, passed in (("awaiting_approval", True), ("pending", False)):
        expect = {"e2": [FIVE], "back": [{**FIVE, "amount": -5, "status": status}]}
        found = report({"given": given, "expect": expect}, rules=[rule], counters=counters)
        assert found.results[0].passed is passed


@pytest.mark.parametrize(
    ("rule", "moment", "skipped"),
    [
        ({"enabled": False}, "2026-06-01T00:00:00Z", "disabled"),
        ({"starts_at": "2026-07-01T00:00:00Z"}, "2026-06-30T23:59:59Z", "it starts 2026-07-01T00:00:00+00:00"),
        ({"starts_at": "2026-07-01T00:00:00Z"}, "2026-07-01T00:00:00Z", ""),
        ({"ends_at": "2026-07-01T00:00:00Z"}, "2026-07-01T00:00:00Z", "it ended 2026-07-01T00:00:00+00:00"),
    ],
)
def test_what_a_rule_that_is_not_live_would_give_is_skipped_and_told(rule: Any, moment: str, skipped: str):
    given = [bought(occurred_at=moment, context={"order": "o1"}), returned("back", 100)]
    expect = {"e1": [FIVE], "back": [{**FIVE, "amount": -5}]}
    result = told([{**RULE, "reversal": REVERSAL, **rule}], given, expect)
    assert result.passed
    assert [one.detail for one in result.skipped] == (
        [f"points {amount} for u1 by r: the rule is not live, {skipped}" for amount in ("5", "-5")] if skipped else []
    )


def test_taking_back_after_a_rules_end_is_not_skipped():
    rule = {**RULE, "reversal": REVERSAL, "ends_at": "2026-07-01T00:00:00Z"}
    given = [
        bought(occurred_at="2026-06-30T00:00:00Z", context={"order": "o1"}),
        returned("back", 100, occurred_at="2026-07-02T00:00:00Z"),
    ]
    assert told([rule], given, {"back": [{**FIVE, "amount": -5}]}).passed
    assert not told([rule], given, {"back": [{**FIVE, "amount": -4}]}).passed


def test_events_without_a_moment_follow_each_other_by_a_second_from_the_tests_own():
    moments = lambda result: [one.occurred_at.isoformat() for one in result.events]  # noqa: E731
    given = [bought("a"), bought("b", occurred_at="2020-01-01T00:00:00+01:00"), bought("c")]
    assert moments(told([RULE], given, {})) == [
        "2026-01-01T12:00:00+00:00", "2019-12-31T23:00:00+00:00", "2026-01-01T12:00:01+00:00",
    ]  # fmt: skip
    assert moments(told([RULE], given, {}, at="2030-01-01T00:00:00Z"))[2] == "2030-01-01T00:00:01+00:00"


def test_the_source_is_test_where_none_is_named_and_whole_numbers_are_whole():
    rule = {**RULE, "condition": ['source == "test"', "context.sum == 2", "context.list[0] == 3"]}
    assert told([rule], [bought(context={"sum": 2.0, "list": [3.0]})], {"e1": [FIVE]}).passed


def test_each_test_begins_with_nothing_used_up_and_nothing_counted():
    counters = {"n": {"event_type": "bought", "of": "actor", "kind": "count"}}
    rule = {**RULE, "condition": "counters.n == 1", "limits": [{"per": "rule", "every": "ever", "uses": 1}]}
    test = {"given": [bought(), bought("e2", "u2")], "expect": {"e1": [FIVE], "e2": []}}
    found = report(test, {**test, "name": "again"}, rules=[rule], counters=counters)
    assert [result.passed for result in found.results] == [True, True]


def test_a_pinned_arm_decides_and_one_that_there_is_not_is_told():
    variants = {"by": "actor", "seed": "s", "arms": {"a": {"weight": 50, "n": 1}, "b": {"weight": 50, "n": 2}}}
    rule = {**RULE, "variants": variants, "actions": [{**CREDIT, "amount": "variant.n", "round": "down"}]}
    for arm, amount in (("a", 1), ("b", 2)):
        assert told([rule], [bought()], {"e1": [{"rule": "r", "amount": amount}]}, arms={"r": arm}).passed
    assert words(told([rule], [bought()], {}, arms={"r": "c"})) == ["e1: there is no arm c: it is one of a, b"]


def test_an_event_that_is_told_again_gives_nothing_more_and_other_content_is_a_conflict():
    assert told([RULE], [bought(), bought(context={}, parties={"x": []})], {"e1": [FIVE]}).passed
    result = told([RULE], [bought(), bought(user="u2")], {"e1": [FIVE]})
    assert words(result) == ["e1: it is given again with other content: Connect refuses that as a conflict"]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
def test_a_moment_that_cannot_be_is_a_difference_not_a_fault(moment: str):
    result = told([RULE], [bought(occurred_at=moment)], {"e1": [FIVE]})
    assert words(result) == [
        "e1: it occurs outside of the years 1 to 9999 in UTC",
        "e1: missing points 5 for u1 by r (the event was not decided)",
    ]


def test_the_last_moment_can_be_told_of_twice():
    last = {"occurred_at": "9999-12-31T23:59:59.999999Z"}
    assert told([RULE], [bought("a", **last), bought("b", **last)], {"a": [FIVE], "b": [FIVE]}).passed


def test_rules_that_no_test_makes_give_are_named_unless_they_are_off():
    rules = [RULE, {**RULE, "key": "other", "event_type": "sold"}, {**RULE, "key": "off", "enabled": False}]
    assert report({"given": [bought()], "expect": {}}, rules=rules).uncovered == ("other",)
    assert report(rules=rules).uncovered == ("r", "other")


def test_a_report_can_be_sent_as_json_with_what_each_event_gave():
    found = msgspec.json.decode(msgspec.json.encode(report({"given": [bought()], "expect": {"e1": []}})))
    [event] = found["results"][0]["events"]
    assert (event["event"], event["decision"]["actions"][0]["amount"]) == ("e1", "5")
    assert found["results"][0]["differences"][0]["kind"] == "unexpected"


def test_a_want_that_leaves_things_open_does_not_take_what_only_another_can_use():
    assert unmatched([[0, 1], [0]], 2) == ([], [])


@given(st.lists(st.lists(st.integers(0, 4), unique=True), max_size=5), st.just(5))
def test_as_many_wants_are_met_as_can_be(fits: list[list[int]], count: int):
    missing, unexpected = unmatched(fits, count)

    def most(want: int, used: frozenset[int]) -> int:
        if want == len(fits):
            return 0
        taken = [1 + most(want + 1, used | {gift}) for gift in fits[want] if gift not in used]
        return max([most(want + 1, used), *taken])

    assert len(fits) - len(missing) == most(0, frozenset()) == count - len(unexpected)
    assert not any(times > 1 for times in Counter([*missing]).values())
