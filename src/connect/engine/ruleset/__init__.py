"""Rulesets as text: read, checked and written. Text in, structs or every fault with its place out."""

from connect.engine.ruleset.check import RuleProblem, check_rule, check_ruleset
from connect.engine.ruleset.convert import convert_rule, convert_ruleset
from connect.engine.ruleset.positions import Positions
from connect.engine.ruleset.read import read_and_check, read_ruleset, review
from connect.engine.ruleset.salvage import findings_beside
from connect.engine.ruleset.story import Difference, StoryReport, StoryResult, run_tests
from connect.engine.ruleset.write import write_yaml

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
