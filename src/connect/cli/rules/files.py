"""Ruleset files: read with their faults shown in place, and laid over what the server has."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from connect.authoring import Positions, RuleProblem, check_ruleset, convert_ruleset, findings_beside
from connect.authoring.document import read_document
from connect.cli.output import Exit, fail, printable, tell
from connect.errors import InvalidRuleset, Located

LINE_SHOWN_MAX = 100
"""The longest line shown whole; of a longer line the part around the fault is shown."""
STDIN = "-"
SUFFIXES = {".yaml", ".yml", ".json"}
FILES_NAMED_MAX = 3
"""The most files named of a folder that was named instead of a file."""

Document = dict[str, Any]


def read_text(file: str) -> str:
    """The text of a file, or of stdin. Ends the command where there is none, and says where one may be."""
    if file == STDIN and sys.stdin.isatty():
        tell("reading the ruleset from stdin: paste it, and end with Ctrl-D on a line of its own")
    try:
        return (sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()).decode("utf-8-sig")
    except FileNotFoundError:
        fail(Exit.USAGE, f"there is no file {file}: `connect rules new {file}` writes one to start from.")
    except IsADirectoryError:
        fail(Exit.USAGE, f"{file} is a directory: name the ruleset's file{_files_in(Path(file))}.")
    except OSError as error:
        fail(Exit.USAGE, f"{file} cannot be read: {error.strerror}.")
    except UnicodeDecodeError as error:
        fail(Exit.USAGE, f"{spoken(file)}: this is not UTF-8 text ({error.reason} at byte {error.start}).")


def _files_in(folder: Path) -> str:
    """Names the files that somebody who named the folder may have meant; empty where nothing looks like one."""
    names = sorted(str(file) for file in folder.glob("*") if file.suffix in SUFFIXES)[:FILES_NAMED_MAX]
    return f", such as {' or '.join(names)}" if names else ""


def spoken(file: str) -> str:
    """The file as sentences call it."""
    return "stdin" if file == STDIN else file


def find_problems(text: str, live: Document | None = None) -> tuple[Document, list[RuleProblem]]:
    """The document as it was written, and every fault and warning in the order of their places.

    With `live` it is judged as it will be beside what the server has, its units for instance; of what only the server
    has, errors are told and warnings are not.
    """
    try:
        document = read_document(text)
        problems = [_of_form(problem) for problem in document.problems]
        value = cast("Document", document.value) if isinstance(document.value, dict) else {}
        try:
            convert_ruleset(document.value)
            if live:
                found = check_ruleset(convert_ruleset(_beside(live, value)), document.positions)
                problems += [_hinted(problem, live, value) for problem in _of_file(found, document.positions)]
            else:
                problems += check_ruleset(convert_ruleset(document.value), document.positions)
        except InvalidRuleset as error:
            known = {problem.pointer for problem in problems}
            faults = [document.positions.located(fault) for fault in error.errors if fault.pointer not in known]
            problems += [_of_form(fault) for fault in faults]
            problems += findings_beside(document.value, [*document.problems, *faults], document.positions)
    except InvalidRuleset as error:
        return {}, [_of_form(fault) for fault in error.errors]
    return value, sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))


def _beside(live: Document, wanted: Document) -> Document:
    """Returns what would be live, with what `wanted` says at the places it has there."""
    merged = merge(live, wanted)
    for name in ("rules", "tests"):
        mine = cast("list[Any]", wanted.get(name) or [])
        keys = {_key(entry) for entry in mine}
        merged[name] = [*mine, *(entry for entry in merged.get(name, []) if _key(entry) not in keys)]
    return merged


def _of_file(problems: list[RuleProblem], positions: Positions) -> list[RuleProblem]:
    told: list[RuleProblem] = []
    for problem in problems:
        if "/".join(problem.pointer.split("/")[:3]) in positions.values:
            told.append(problem)
        elif problem.severity == "error":
            told.append(
                replace(problem, message=f"with this file, on the server ({problem.pointer}): {problem.message}")
            )
    return told


def _hinted(problem: RuleProblem, live: Document, wanted: Document) -> RuleProblem:
    """Adds what to do where a renamed rule still stands on the server, under the key it had before."""
    *_, place, field = ["", *problem.pointer.split("/")]
    mine: list[Document] = wanted.get("rules") or []
    if field != "formerly" or problem.severity != "error" or int(place) >= len(mine):
        return problem
    renamed = mine[int(place)]
    only_live = {_key(rule) for rule in live.get("rules") or ()} - {_key(rule) for rule in mine}
    if renamed["formerly"] not in only_live:
        return problem
    return replace(problem, hint="the server still has that rule, and the file does not: --prune retires it")


def _of_form(fault: Located) -> RuleProblem:
    return RuleProblem("error", fault.pointer, fault.detail, line=fault.line, column=fault.column)


def spell_problem(file: str, text: str, problem: RuleProblem) -> str:
    """`file:line:column: severity: message`, the line with a caret under the fault, and what to do."""
    line, column = problem.line or 1, problem.column or 1
    said = [
        printable(f"{spoken(file)}:{line}:{column}: {problem.severity}: {problem.message}"),
        *_excerpt(text, line, column),
    ]
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


def read_checked(
    file: str, text: str, live: Document | None, *, warnings: bool = True, outcome: str = "nothing was sent"
) -> Document:
    """The document of a text without errors. Warnings are told; errors end the command, with what came of it."""
    document, problems = find_problems(text, live)
    for problem in problems if warnings else [problem for problem in problems if problem.severity == "error"]:
        tell(spell_problem(file, text, problem))
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        fail(Exit.FAILED, f"{spoken(file)} has {errors} error(s): {outcome}.")
    return document


def merge(live: Document, wanted: Document) -> Document:
    """Lays `wanted` over what is live: tables and keyed lists entry by entry, anything else as a whole.

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
    """Returns what names an entry of a list: a rule's key, a test's name."""
    fields: Mapping[str, Any] = cast("Document", entry) if isinstance(entry, dict) else {}
    return fields.get("key", fields.get("name"))
