"""The tests that a ruleset brings along: whether they speak of rules, events and arms that there are."""

import re
from typing import Final

from connect.authoring.check.findings import Findings
from connect.authoring.positions import child
from connect.engine.amounts import parse_amount
from connect.engine.expression.names import nearest
from connect.engine.variants import HOLDOUT
from connect.model import ExpectedAction, RewardRule, RulesetTest, Variants

_SHOWN: Final = 10
"""Names that are listed where none is near."""


def check_inline_tests(findings: Findings) -> None:
    rules = {rule.key: rule for rule in findings.ruleset.rules}
    first_with: dict[str, int] = {}
    for place, test in enumerate(findings.ruleset.tests):
        pointer = f"#/tests/{place}"
        if (first := first_with.setdefault(test.name, place)) != place:
            hint = "reports name tests by it: say what differs"
            findings.error(f"{pointer}/name", f"test {first + 1} has this name already", hint)
        _expectations(findings, test, rules, pointer)
        _arms(findings, test, rules, pointer)


def _expectations(findings: Findings, test: RulesetTest, rules: dict[str, RewardRule], pointer: str) -> None:
    given = [event.external_id for event in test.given]
    for external_id, expected in test.expect.items():
        inner = child(f"{pointer}/expect", external_id)
        if external_id not in given:
            hint = nearest(external_id, given) or f"write the external_id of an event of `given`: {_list(given)}"
            findings.error(inner, f"no given event has the external_id {external_id}", hint)
        for place, action in enumerate(expected):
            _action(findings, action, rules, f"{inner}/{place}")


def _action(findings: Findings, action: ExpectedAction, rules: dict[str, RewardRule], pointer: str) -> None:
    rule = _rule(findings, action.rule, rules, f"{pointer}/rule")
    try:
        parse_amount(re.sub("^[-+]", "", str(action.amount)))
    except ValueError:
        hint = 'write plain digits, such as 500 or "12.50"; a minus says that the event takes it back'
        findings.error(f"{pointer}/amount", f"{str(action.amount)[:40]!r} is no amount", hint)
    if rule is None:
        return
    for field, expected in (("unit", action.unit), ("target", action.target), ("command", action.command)):
        known = list(dict.fromkeys(str(getattr(effect, field)) for effect in rule.actions))
        if expected is not None and expected not in known and (field != "command" or rule.reversal is None):
            message = f"no action of the rule {rule.key} has the {field} {expected}"
            findings.error(f"{pointer}/{field}", message, nearest(expected, known) or f"it has {_list(known)}")


def _arms(findings: Findings, test: RulesetTest, rules: dict[str, RewardRule], pointer: str) -> None:
    for key, arm in test.arms.items():
        inner = child(f"{pointer}/arms", key)
        rule = _rule(findings, key, rules, inner)
        if rule is None:
            continue
        if rule.variants is None:
            hint = "leave it out, or give the rule `variants`"
            findings.error(inner, f"the rule {key} has no variants, so there is no arm to choose", hint)
        elif arm not in (known := _arms_of(rule.variants)):
            findings.error(inner, f"the rule {key} has no arm {arm}", nearest(arm, known) or f"it has {_list(known)}")


def _arms_of(variants: Variants) -> list[str]:
    return [*variants.arms, *([HOLDOUT] if str(variants.holdout).strip("0.") else [])]


def _rule(findings: Findings, key: str, rules: dict[str, RewardRule], pointer: str) -> RewardRule | None:
    rule = rules.get(key)
    if rule is None:
        hint = nearest(key, rules) or f"write the key of a rule of this document: {_list(list(rules))}"
        findings.error(pointer, f"no rule has the key {key}", hint)
    return rule


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "none"
    return f"{shown}, ..." if len(names) > _SHOWN else shown
