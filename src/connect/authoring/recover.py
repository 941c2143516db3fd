"""Checks the sound rest of a document with faults of form, so that an author is told everything at once.

What is wrong in form is taken out, the rest is checked as if it were all. Only errors that the missing parts cannot
have caused are told: `_rests_on` knows what each kind of error rests on. A test breaks every value of sound documents
and finds nothing made up.
"""

import copy
import difflib
import re
from collections.abc import Iterable
from typing import Any, Final, cast

from connect.authoring.check import RuleProblem, check_ruleset
from connect.authoring.convert import convert_ruleset
from connect.authoring.positions import Positions
from connect.errors import InvalidRuleset, Located
from connect.model import Effect, RewardRule, Ruleset

ROUNDS_MAX: Final = 8
"""The most rounds: taking a part out may leave another incomplete, which the next round takes out."""
_GIVES: Final = re.compile("/(actions|limits|budget|budgets|per_day|review_above)/")
"""Where it counts how much is given, to how many decimal places."""
_FIELDS: Final = (*Ruleset.__struct_fields__, *RewardRule.__struct_fields__, *Effect.__struct_fields__, "scale")
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
            gone.add(_meant(_take_out(document, pointer)))
        try:
            ruleset = convert_ruleset(document)
        except InvalidRuleset as error:
            left = [fault.pointer for fault in error.errors]
            continue
        return [one for one in check_ruleset(ruleset, positions) if _is_own(one, gone)]
    return []


def _meant(pointer: str) -> str:
    """With the last step as its author meant it: what was taken out as unknown may be what is missing, misspelt."""
    outer, _, step = pointer.rpartition("/")
    near = () if step in _FIELDS else difflib.get_close_matches(step, _FIELDS, n=1, cutoff=0.7)
    return f"{outer}/{near[0]}" if near else pointer


def _is_own(problem: RuleProblem, gone: set[str]) -> bool:
    return problem.severity == "error" and not any(_rests_on(problem, pointer) for pointer in gone)


def _rests_on(problem: RuleProblem, gone: str) -> bool:
    """Whether the error may have come about because what stood at `gone` was taken out."""
    pointer, message = problem.pointer, problem.message
    if _within(pointer, gone):
        return True
    section = gone.split("/")[1]
    match section:
        case "counters" if "counter" in message:
            return True
        case "units":
            scale = gone.endswith("/scale") or gone.count("/") < 3
            return scale and problem.caret is None and _GIVES.search(pointer) is not None
        case "budgets":
            return pointer.endswith("/budget/from") or _of_one_entry(problem, gone)
        case "groups":
            return pointer.endswith("/group") or "the group " in message or _of_one_entry(problem, gone)
        case "rules":
            return pointer.startswith("#/tests/") or _rests_on_part(problem, gone)
        case _:
            return _of_one_entry(problem, gone)


def _of_one_entry(problem: RuleProblem, gone: str) -> bool:
    """Says whether both concern one counter, budget, test ...; errors inside expressions stand on their own."""
    return problem.caret is None and _within(gone, "/".join(problem.pointer.split("/")[:3]))


def _rests_on_part(problem: RuleProblem, gone: str) -> bool:
    """An error of a rule, and a part of it or of another that was taken out."""
    pointer, steps = problem.pointer, gone.split("/")
    if "variants" in steps[3:4] and pointer.endswith("/variants/seed"):
        return True  # a seed divides users alike in all of its rules
    rule, part = "/".join(steps[:3]), "/".join(steps[3:4])
    if not _within(pointer, rule):
        return False
    if problem.caret is not None:
        return ("variant" in problem.message and part == "variants") or (
            "each" in steps[5:6] and _within(pointer, "/".join(steps[:5]))
        )
    return part == pointer.split("/")[3] or (part == "actions" and _GIVES.search(pointer) is not None)


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
