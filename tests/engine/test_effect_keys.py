"""Two actions of a rule with one effect key: told apart by their recipients, and never one lost for the other."""

from typing import Any

import pytest

from connect.authoring import check_rule
from connect.model import Ruleset
from tests.engine.examples import UNITS, decided, effect, outcomes, paid, rule


@pytest.mark.parametrize(
    ("second", "severity"),
    [
        ({"recipient": "parties.referrer"}, "warning"),
        ({"recipient": "parties.referrer", "key": "thanks"}, None),
        ({"recipient": "actor"}, "error"),
    ],
)
def test_one_effect_key_for_two_recipients_is_warned_and_for_one_refused(
    second: dict[str, Any], severity: str | None
) -> None:
    problems = check_rule(rule(actions=[effect(), effect(**second)]), Ruleset(units=UNITS))
    assert [one.severity for one in problems if "is points.credit.points too" in one.message] == [severity][
        : severity is not None
    ]


def test_both_give_while_they_are_for_two_users() -> None:
    two = rule(actions=[effect(), effect(recipient="parties.referrer", amount=7)])
    assert sorted(paid(decided(two))) == [("u1", "5"), ("u3", "7")]


def test_the_rule_is_an_error_when_both_are_for_one_user() -> None:
    two = rule(actions=[effect(), effect(recipient="parties.referrer", amount=7)])
    decision = decided(two, parties={"referrer": "u1"})
    assert (outcomes(decision), decision.actions) == ([("r", "error")], ())
    assert "give them keys" in decision.trace[0].detail
