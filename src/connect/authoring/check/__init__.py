"""Whether a ruleset says what can be run: every error and warning, each with its place and what to do."""

import msgspec

from connect.authoring.check.budgets import check_budgets, check_safety
from connect.authoring.check.counters import check_counters, check_unused_counters, is_zone
from connect.authoring.check.findings import Findings, RuleProblem
from connect.authoring.check.groups import Placed, check_groups, check_names, check_stops
from connect.authoring.check.inline_tests import check_inline_tests
from connect.authoring.check.rules import check_rule_itself
from connect.authoring.check.schemas import check_schemas
from connect.authoring.check.variants import check_seeds
from connect.authoring.positions import Positions
from connect.model import RewardRule, Ruleset

__all__ = ["RuleProblem", "check_rule", "check_ruleset"]


def check_ruleset(ruleset: Ruleset, positions: Positions | None = None) -> list[RuleProblem]:
    """All errors and warnings of the document; `positions` give them lines and columns in it, and its order."""
    findings = Findings(ruleset, positions)
    rules = [(f"#/rules/{place}", rule) for place, rule in enumerate(ruleset.rules)]
    _timezone(findings)
    check_budgets(findings)
    check_safety(findings)
    check_schemas(findings)
    check_counters(findings)
    for pointer, rule in rules:
        check_rule_itself(findings, rule, pointer)
    _together(findings, rules)
    check_unused_counters(findings)
    check_inline_tests(findings)
    if positions is None:
        return findings.problems
    return sorted(findings.problems, key=lambda problem: (problem.line or 0, problem.column or 0))


def check_rule(rule: RewardRule, ruleset: Ruleset) -> list[RuleProblem]:
    """Returns what `check_ruleset` says of the rule once it stands in the ruleset, in place of its namesake.

    Pointers start from the rule (`#/actions/0/amount`).
    """
    others = [other for other in ruleset.rules if other.key != rule.key]
    findings = Findings(msgspec.structs.replace(ruleset, rules=[*others, rule]))
    check_rule_itself(findings, rule, "#")
    if any(other.formerly == rule.key for other in others):
        hint = "choose another key: ids of actions and usage of limits go by it"
        findings.error("#/key", f"{rule.key} is the former key of another rule", hint)
    _together(findings, [*((f"#/rules/{place}", other) for place, other in enumerate(others)), ("#", rule)])
    return [problem for problem in findings.problems if not problem.pointer.startswith(("#/rules/", "#/groups/"))]


def _together(findings: Findings, rules: Placed) -> None:
    """Checks what rules are to each other."""
    check_names(findings, rules)
    check_groups(findings, rules)
    check_stops(findings, rules)
    check_seeds(findings, rules)


def _timezone(findings: Findings) -> None:
    if not is_zone(findings.ruleset.timezone):
        hint = "write a name of the IANA database, such as Europe/Berlin or UTC"
        findings.error("#/timezone", f"no timezone is called {findings.ruleset.timezone}", hint)
