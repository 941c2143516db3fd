"""Faults of form do not hide what else is wrong: an author is told everything at once."""

import pytest

from connect.engine.ruleset import review

DOCUMENT = """\
version: 1
colour: red
units: { points: { scale: 0 } }
rules:
  - key: one
    event_type: purchase.completed
    limitz: []
    condition: context.a > (
    actions: [ { target: points, command: credit, recipient: actor, amount: context.b +, unit: points } ]
  - key: two
    event_type: purchase.completed
    actions: [ { target: points, command: credit, recipient: nobody, amount: 5, unit: points } ]
  - event_type: purchase.completed
    actions: []
  - key: four
    event_type: purchase.completed
    condition: contxt.x
    actions: [ { target: points, command: credit, recipient: actor, amount: 5, unit: points } ]
"""


def test_faults_of_form_and_of_expressions_are_told_together_each_at_its_place() -> None:
    told = {(one.pointer, one.line) for one in review(DOCUMENT) if one.severity == "error"}
    assert {("#/colour", 2), ("#/rules/0/limitz", 7), ("#/rules/0/condition", 8), ("#/rules/0/actions/0/amount", 9),
            ("#/rules/3/condition", 17)} <= told  # fmt: skip
    assert any(pointer.startswith("#/rules/2") for pointer, _ in told)


def test_whole_rules_are_checked_wholly_when_only_other_rules_have_faults() -> None:
    text = DOCUMENT.replace("colour: red\n", "")
    told = [one for one in review(text) if one.pointer == "#/rules/1/actions/0/recipient"]
    assert len(told) == 1


@pytest.mark.parametrize("value", ["- a", "5", "rules: 5", "rules: [ 5 ]", "units: { points: 5 }", "tests: [ 5 ]"])
def test_what_is_hardly_a_document_gets_its_faults_and_nothing_made_up(value: str) -> None:
    problems = review(value)
    assert problems
    assert not [one for one in problems if "stand-in" in one.message]
