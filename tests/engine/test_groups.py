"""Groups, `stop`, holdouts and replays: which of several rules gives."""

from typing import Any

import pytest
from msgspec.structs import replace

from connect.engine.decide import State, decide
from tests.engine.examples import EVENT, NOW
from tests.engine.telling import CREDIT, Told, rule

GAVE, LOST, LIMITED = "gave", "lost_group", "limited"
ONCE = [{"per": "actor", "every": "ever", "uses": 1}]


def group(pick: str, *rules: dict[str, Any], **document: Any) -> Told:
    """Rules of one group, called a, b and so on."""
    members = [{"group": "g", **one, "key": key} for one, key in zip(rules, "abcdef", strict=False)]
    return Told(*members, groups={"g": {"pick": pick, "unit": "points"}}, **document)


@pytest.mark.parametrize(
    ("pick", "rules", "expected"),
    [
        ("first", (rule(amount=1), rule(amount=9)), "u1 +1"),
        ("first", (rule(amount=1), rule(amount=9, priority=1)), "u1 +9"),
        ("highest", (rule(amount=1), rule(amount=9), rule(amount=5)), "u1 +9"),
        ("lowest", (rule(amount=4), rule(amount=9), rule(amount=2)), "u1 +2"),
        ("highest", (rule(amount=9), rule(amount=9)), "u1 +9"),
        ("highest", (rule(amount=9, condition="false"), rule(amount=1)), "u1 +1"),
        ("lowest", (rule(amount=0), rule(amount=1)), "u1 +1"),  # what gives nothing takes no part
        ("highest", (rule(amount=9, enabled=False), rule(amount=1)), "u1 +1"),
    ],
)
def test_one_rule_of_a_group_gives(pick: str, rules: tuple[dict[str, Any], ...], expected: str) -> None:
    assert group(pick, *rules).bought() == expected


@pytest.mark.parametrize(
    ("rules", "winner"),
    [
        ((rule(), rule()), "a"),
        ((rule(), rule(priority=1)), "b"),
    ],
)
@pytest.mark.parametrize("pick", ["first", "highest", "lowest"])
def test_ties_go_by_priority_then_by_key(pick: str, rules: tuple[dict[str, Any], ...], winner: str) -> None:
    told = group(pick, *rules)
    told.bought()
    assert [key for key, outcome in told.outcomes.items() if outcome == GAVE] == [winner]


def test_all_that_a_rule_would_give_is_compared_not_what_limits_leave_of_it() -> None:
    two = [{**CREDIT, "key": "x", "amount": 6}, {**CREDIT, "key": "y", "amount": 6}]
    told = group("highest", rule(amount=10), rule(actions=two, limits=[{"per": "actor", "every": "ever", "amount": 6}]))
    assert told.bought() == "u1 +6"
    assert told.outcomes == {"a": LOST, "b": GAVE}
    assert told.bought() == "u1 +10"


def test_the_next_gives_when_the_pick_is_denied() -> None:
    told = group("highest", rule(amount=9, limits=ONCE), rule(amount=5, limits=ONCE), rule(amount=1))
    assert [told.bought() for _ in range(3)] == ["u1 +9", "u1 +5", "u1 +1"]
    assert told.outcomes == {"a": LIMITED, "b": LIMITED, "c": GAVE}


def test_the_loser_says_what_it_would_have_given() -> None:
    told = group("highest", rule(amount=9), rule(amount=5))
    told.bought()
    assert told.details[1] == "a gave, not 5 points"


def test_a_loser_uses_up_no_limit() -> None:
    told = group("highest", rule(amount="context.amount", limits=ONCE), rule(amount=5, limits=ONCE))
    assert [told.bought(amount=9), told.bought(amount=9)] == ["u1 +9", "u1 +5"]


def test_a_group_is_decided_where_the_first_of_its_rules_that_would_give_stands() -> None:
    pot: dict[str, Any] = {"budgets": {"pot": {"unit": "points", "cap": 10}}}
    shared = {"budget": {"from": "pot"}}
    told = Told(
        rule("lead", amount=1, priority=3, group="g"),
        rule("between", amount=5, priority=2, **shared),
        rule("best", amount=9, priority=1, group="g", **shared),
        groups={"g": {"pick": "highest", "unit": "points"}},
        **pot,
    )
    assert told.bought() == "u1 +9"
    assert told.outcomes == {"lead": LOST, "between": "short_of_budget", "best": GAVE}


# --- stop ----------------------------------------------------------------------------------------


def test_a_stop_acts_when_its_rule_gave() -> None:
    told = Told(rule("a", stop=True, limits=ONCE), rule("b"))
    assert (told.bought(), told.outcomes) == ("u1 +10", {"a": GAVE, "b": "stopped"})
    assert (told.bought(), told.outcomes) == ("u1 +10", {"a": LIMITED, "b": GAVE})


def test_the_stop_of_a_rule_that_won_its_group_from_behind_acts_where_it_stands() -> None:
    told = Told(
        rule("lead", amount=1, priority=3, group="g", stop=True),
        rule("between", priority=2),
        rule("best", amount=9, priority=1, group="g", stop=True),
        rule("last"),
        groups={"g": {"pick": "highest", "unit": "points"}},
    )
    assert told.bought() == "u1 +9 u1 +10"
    assert told.outcomes == {"lead": LOST, "between": GAVE, "best": GAVE, "last": "stopped"}


# --- variants ------------------------------------------------------------------------------------

EXPERIMENT: dict[str, Any] = {
    "variants": {"by": "actor", "seed": "s", "holdout": 50, "arms": {"double": {"weight": 50, "factor": 2}}}
}


def arms_of(told: Told, arm: str) -> dict[str, str]:
    """Returns what each rule comes to for a user of the arm."""
    event = replace(EVENT, event_type="bought", actor_user_id="u1")
    decision = decide(event, told.rulebook, State(now=NOW, arms={"a": arm}))
    return {trace.rule: trace.outcome for trace in decision.trace} | {
        "exposed": ",".join(x.arm for x in decision.exposures)
    }


def test_a_user_who_is_held_out_does_not_enter_the_group() -> None:
    told = group("highest", rule(amount="9 * variant.factor", **EXPERIMENT), rule(amount=5))
    assert arms_of(told, "double") == {"a": GAVE, "b": LOST, "exposed": "double"}
    assert arms_of(told, "holdout") == {"a": "held_out", "b": GAVE, "exposed": "holdout"}


def test_a_user_is_exposed_before_group_and_limits_speak() -> None:
    told = group("highest", rule(amount=1, **EXPERIMENT), rule(amount=5))
    assert arms_of(told, "double") == {"a": LOST, "b": GAVE, "exposed": "double"}
    assert arms_of(group("first", rule(condition="false", **EXPERIMENT)), "double") == {
        "a": "not_matched",
        "exposed": "",
    }


# --- replays -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), {"a": LOST, "b": GAVE, "c": "stopped"}),
        (("a",), {"a": "already_gave", "b": LOST, "c": GAVE}),
        (("b",), {"a": LOST, "b": "already_gave", "c": "stopped"}),
        (("c",), {"a": LOST, "b": GAVE, "c": "stopped"}),
    ],
)
def test_a_replay_counts_what_already_gave_in_its_group_and_for_stop(
    given: tuple[str, ...], expected: dict[str, str]
) -> None:
    told = Told(
        rule("a", amount=1, group="g"), rule("b", amount=9, group="g", stop=True), rule("c"),
        groups={"g": {"pick": "highest", "unit": "points"}},
    )  # fmt: skip
    decision = decide(replace(EVENT, event_type="bought"), told.rulebook, State(now=NOW, given=frozenset(given)))
    assert {trace.rule: trace.outcome for trace in decision.trace} == expected
