"""What can still be checked of a document with faults of form, so that an author is told everything at once.

What is wrong in form is taken out, the rest is checked as if it were all. Only findings that the missing parts cannot
have caused are told: errors inside expressions, and of rules that are whole where the sections they rest on are too.
"""

import copy
from collections.abc import Iterable
from typing import Any, Final, cast

from connect.engine.ruleset.check import RuleProblem, check_ruleset
from connect.engine.ruleset.convert import convert_ruleset
from connect.engine.ruleset.positions import Positions
from connect.errors import InvalidRuleset, Located

ROUNDS_MAX: Final = 8
"""What is taken out may leave something else incomplete, which is then taken out."""
_STAND_IN: Final = {"target": "x", "command": "x", "unit": "x", "recipient": "actor", "amount": 1}


def findings_beside(value: object, faults: Iterable[Located], positions: Positions) -> list[RuleProblem]:
    """Errors in the sound part of a document; `faults` are those of form, which are told already."""
    if not isinstance(value, dict):
        return []
    document: Any = copy.deepcopy(cast("dict[str, Any]", value))
    left = [fault.pointer for fault in faults]
    gone: set[str] = set()
    for _ in range(ROUNDS_MAX):
        for pointer in left:
            gone.add(_take_out(document, pointer))
        try:
            ruleset = convert_ruleset(document)
        except InvalidRuleset as error:
            left = [fault.pointer for fault in error.errors]
            continue
        return [one for one in check_ruleset(ruleset, positions) if _is_own(one, gone)]
    return []


def _is_own(problem: RuleProblem, gone: set[str]) -> bool:
    if problem.severity != "error" or any(_within(problem.pointer, pointer) for pointer in gone):
        return False
    if "counter" in problem.message and any(pointer.startswith("#/counters") for pointer in gone):
        return False
    rules_only = all(pointer.startswith("#/rules/") for pointer in gone)
    rule = "/".join(problem.pointer.split("/")[:3])
    return problem.caret is not None or (rules_only and not any(_within(pointer, rule) for pointer in gone))


def _within(pointer: str, outer: str) -> bool:
    return pointer == outer or pointer.startswith(f"{outer}/")


def _take_out(document: Any, pointer: str) -> str:
    """Removes the field at the pointer, or what holds it where it stands in a list; returns what was taken."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    if steps[:1] == ["rules"] and len(steps) == 2:
        place = int(steps[1])
        stand_in = {"key": f"stand-in-{place}", "event_type": "x", "enabled": False, "actions": [_STAND_IN]}
        document["rules"][place] = stand_in
        return pointer
    for depth in range(len(steps), 0, -1):
        holder = document
        for step in steps[: depth - 1]:
            holder = _step(holder, step)
        if isinstance(holder, dict) and steps[depth - 1] in holder:
            del holder[steps[depth - 1]]
            return "#/" + "/".join(pointer.split("/")[1 : depth + 1])
        if isinstance(holder, list) and depth == 2 and steps[0] == "rules":
            return _take_out(document, "/".join(pointer.split("/")[:3]))
    return pointer


def _step(holder: Any, step: str) -> Any:
    if isinstance(holder, dict):
        return cast("dict[str, Any]", holder).get(step)
    if isinstance(holder, list) and step.isdigit() and int(step) < len(cast("list[Any]", holder)):
        return cast("list[Any]", holder)[int(step)]
    return None
