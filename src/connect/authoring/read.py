"""A ruleset's text as structs, with every fault told where it stands."""

from connect.authoring.check import RuleProblem, check_ruleset
from connect.authoring.convert import convert_ruleset, refusal
from connect.authoring.document import read_document
from connect.authoring.positions import Positions
from connect.authoring.recover import findings_beside
from connect.errors import InvalidRuleset, Located
from connect.model import Ruleset


def read_ruleset(text: str | bytes) -> Ruleset:
    """Reads YAML or JSON. Raises `InvalidRuleset` with all faults of form, and what else is wrong beside them."""
    return _read(text)[0]


def read_and_check(text: str | bytes) -> tuple[Ruleset, list[RuleProblem]]:
    """The ruleset and its warnings. Raises `InvalidRuleset` with every error, of form or of what the rules say."""
    ruleset, positions = _read(text)
    problems = check_ruleset(ruleset, positions)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise refusal([_located(problem) for problem in errors])
    return ruleset, problems


def review(text: str | bytes) -> list[RuleProblem]:
    """Every error and warning of the text, each with its place; beside faults of form only errors are told."""
    try:
        ruleset, positions = _read(text)
    except InvalidRuleset as error:
        return [
            RuleProblem(severity="error", pointer=at.pointer, message=at.detail, line=at.line, column=at.column)
            for at in error.errors
        ]
    return check_ruleset(ruleset, positions)


def _read(text: str | bytes) -> tuple[Ruleset, Positions]:
    document = read_document(text)
    refused = list(document.problems)
    try:
        ruleset = convert_ruleset(document.value)
    except InvalidRuleset as error:
        known = {problem.pointer for problem in refused}
        refused += [document.positions.located(fault) for fault in error.errors if fault.pointer not in known]
        refused += [_located(one) for one in findings_beside(document.value, refused, document.positions)]
    else:
        if not refused:
            return ruleset, document.positions
    raise refusal(sorted(refused, key=lambda fault: (fault.line or 0, fault.column or 0)))


def _located(problem: RuleProblem) -> Located:
    detail = f"{problem.message} ({problem.hint})" if problem.hint else problem.message
    return Located(problem.pointer, detail, problem.line, problem.column)
