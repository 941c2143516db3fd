"""Ruleset files: read with their faults shown in place, laid over the server's, compared with it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from connect.cli.output import Exit, fail, printable, tell
from connect.engine.ruleset import RuleProblem, check_ruleset, convert_ruleset
from connect.engine.ruleset.document import read_document
from connect.errors import InvalidRuleset, Located
from connect.model import Ruleset

LINE_SHOWN_MAX = 100
"""Of a longer line the part around the fault is shown."""

Document = dict[str, Any]


def read_text(file: str) -> str:
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        fail(Exit.USAGE, f"{file}: {error.strerror}.")
    except UnicodeDecodeError as error:
        fail(Exit.USAGE, f"{file}: this is not UTF-8 text ({error.reason} at byte {error.start}).")


def find_problems(text: str, live: Document | None = None) -> tuple[Document, list[RuleProblem]]:
    """The document as it was written, and every fault and warning in the order of their places.

    With `live` the rules are judged as they will be beside what it says, its units for instance.
    """
    try:
        document = read_document(text)
        problems = [_of_form(problem) for problem in document.problems]
        value = cast("Document", document.value) if isinstance(document.value, dict) else {}
        try:
            convert_ruleset(document.value)
            whole = {**merge(live, value), "rules": value.get("rules", [])} if live else document.value
            problems += check_ruleset(convert_ruleset(whole), document.positions)
        except InvalidRuleset as error:
            known = {problem.pointer for problem in problems}
            faults = [document.positions.located(fault) for fault in error.errors if fault.pointer not in known]
            problems += [_of_form(fault) for fault in faults]
    except InvalidRuleset as error:
        return {}, [_of_form(fault) for fault in error.errors]
    return value, sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))


def _of_form(fault: Located) -> RuleProblem:
    return RuleProblem("error", fault.pointer, fault.detail, line=fault.line, column=fault.column)


def spell_problem(file: str, text: str, problem: RuleProblem) -> str:
    """`file:line:column: severity: message`, the line with a caret under the fault, and what to do."""
    line, column = problem.line or 1, problem.column or 1
    said = [printable(f"{file}:{line}:{column}: {problem.severity}: {problem.message}"), *_excerpt(text, line, column)]
    if problem.hint:
        said.append(f"    hint: {printable(problem.hint)}")
    return "\n".join(said)


def _excerpt(text: str, line: int, column: int) -> list[str]:
    rows = text.splitlines()
    if not 0 < line <= len(rows):
        return []
    start = max(0, column - 1 - LINE_SHOWN_MAX // 2) if len(rows[line - 1]) > LINE_SHOWN_MAX else 0
    shown = rows[line - 1][start : start + LINE_SHOWN_MAX].replace("\t", " ")
    return [f"    {printable(shown)}", f"    {' ' * (column - 1 - start)}^"]


def read_checked(file: str, text: str, live: Document | None) -> Document:
    """The document of a text without errors. Warnings are told; errors end the command."""
    document, problems = find_problems(text, live)
    for problem in problems:
        tell(spell_problem(file, text, problem))
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        fail(Exit.FAILED, f"{file} has {errors} error(s): nothing was sent.")
    return document


def merge(live: Document, wanted: Document) -> Document:
    """What `wanted` says over what is live: tables and keyed lists entry by entry, anything else as a whole.

    New entries of a list come after those it had.
    """
    return {**live, **{name: _over(live.get(name), value) for name, value in wanted.items()}}


def _over(live: Any, wanted: Any) -> Any:
    if isinstance(live, dict) and isinstance(wanted, dict):
        return {**cast("Document", live), **cast("Document", wanted)}
    before, after = _keyed(live), _keyed(wanted)
    return list((before | after).values()) if before is not None and after is not None else wanted


def _keyed(value: Any) -> dict[str, Any] | None:
    """The entries of a list by what names them; None where something has no name."""
    if not isinstance(value, list):
        return None
    entries = cast("list[Any]", value)
    keyed = {key: entry for entry in entries if (key := _key(entry)) is not None}
    return keyed if len(keyed) == len(entries) else None


def _key(entry: Any) -> str | None:
    """What names an entry of a list: a rule's key, a test's name."""
    fields: Mapping[str, Any] = cast("Document", entry) if isinstance(entry, dict) else {}
    return fields.get("key", fields.get("name"))


def differences(live: Document, wanted: Document) -> list[str]:
    """What applying would change, in words; empty where both mean the same, however they are written."""
    before, after = convert_ruleset(live), convert_ruleset(wanted)
    changes = _entries("rule", _rules(before), _rules(after)) + _entries("unit", dict(before.units), dict(after.units))
    for name in Ruleset.__struct_fields__:
        if name not in {"rules", "units", "version"} and getattr(before, name) != getattr(after, name):
            changes.append(f"change {name} {_text(getattr(before, name))} to {_text(getattr(after, name))}")
    if not changes and before != after:
        changes.append("change the order of the rules")
    return changes


def _rules(ruleset: Ruleset) -> dict[str, Any]:
    return {rule.key: rule for rule in ruleset.rules}


def _entries(noun: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    changes = [f"add {noun} {key}" for key in after if key not in before]
    for key in after:
        if key in before and after[key] != before[key]:
            fields = [
                name for name in after[key].__struct_fields__ if getattr(after[key], name) != getattr(before[key], name)
            ]
            changes.append(f"change {noun} {key}: {', '.join(fields)}")
    return changes + [f"retire {noun} {key}" for key in before if key not in after]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= LINE_SHOWN_MAX else f"{text[:LINE_SHOWN_MAX]}..."
