"""Rulesets as text: read, checked and written. Text in, structs or every fault with its place out."""

from connect.authoring.check import RuleProblem, check_rule, check_ruleset
from connect.authoring.convert import convert_rule, convert_ruleset
from connect.authoring.inline_tests import Difference, StoryReport, StoryResult, run_tests
from connect.authoring.positions import Positions
from connect.authoring.read import read_and_check, read_ruleset, review
from connect.authoring.recover import findings_beside
from connect.authoring.write import write_yaml

__all__ = [
    "Difference",
    "Positions",
    "RuleProblem",
    "StoryReport",
    "StoryResult",
    "check_rule",
    "check_ruleset",
    "convert_rule",
    "convert_ruleset",
    "findings_beside",
    "read_and_check",
    "read_ruleset",
    "review",
    "run_tests",
    "write_yaml",
]
