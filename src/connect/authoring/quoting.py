"""Expressions that YAML takes apart, told with the form that keeps them whole.

An unquoted expression is YAML text first. Five things in it mean something to YAML: a comma or a bracket inside
`{ }` and `[ ]`, ` #`, `: `, a leading `!`, and a leading quote. YAML's own complaint about the rest helps nobody, nor
does it name the tab that it stumbles over.
"""

import re
from typing import Final

import yaml

from connect.authoring.positions import Place
from connect.errors import Located

_BLOCK_VALUE: Final = re.compile(r"\s*(?:-\s+)*(?:[A-Za-z_][\w-]*:\s+)?")
_FLOW_VALUE: Final = re.compile(r"[{,\[]\s*(?:[A-Za-z_][\w-]*:\s+)?")
_TOKEN: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|.")
_CLOSES: Final = {"(": ")", "[": "]", "{": "}"}
_LEADING: Final = {
    "!": "a leading ! starts a tag in YAML",
    '"': "a text that starts with a quote ends at the next one",
    "'": "a text that starts with a quote ends at the next one",
    **{sign: f"a leading {sign} means something else in YAML" for sign in "&*%@`|>?"},
}


def quoted(expression: str) -> str:
    """The expression as a YAML text that stays whole, in the quotes that need the least escaping."""
    if "'" in expression and '"' not in expression and "\\" not in expression:
        return f'"{expression}"'
    return "'" + expression.replace("'", "''") + "'"


def whole_expression(text: str, start: int, *, flow: bool) -> str:
    """The expression its author meant at `start`: up to the line's end, a comment, or what closes around it."""
    line = text[start:].split("\n", 1)[0]
    open_brackets: list[str] = []
    for found in _TOKEN.finditer(line):
        sign = found[0]
        if sign in _CLOSES:
            open_brackets.append(_CLOSES[sign])
        elif open_brackets:
            if sign == open_brackets[-1]:
                open_brackets.pop()
        elif (flow and sign in ",]}") or (sign == "#" and line[: found.start()].endswith(" ")):
            return line[: found.start()].rstrip()
    return line.rstrip()


def cut_by_comma(text: str, place: Place | None) -> str | None:
    """A sentence if the text at `place` ends at a comma that belongs to it, because a bracket or a quote is open."""
    if place is None or place.style or not place.flow or not text[place.end :].lstrip().startswith(","):
        return None
    whole = whole_expression(text, place.start, flow=True)
    if len(whole) <= place.end - place.start:
        return None
    return f"inside {{ }} and [ ] the text ends at the comma; quote it: {quoted(whole)}"


def cut_by_comment(text: str, place: Place | None) -> str | None:
    """A sentence if the text at `place` ends at a ` #` that belongs to it, because a bracket or a quote is open."""
    if place is None or place.style or re.match(r"[ \t]+#", text[place.end :]) is None:
        return None
    whole = whole_expression(text, place.start, flow=place.flow)
    if len(whole) <= place.end - place.start:
        return None
    return f"the text ends at the #, which starts a comment; quote it: {quoted(whole)}"


def explain_tag(text: str, start: int) -> str:
    """Explains a tag at `start`: nearly always a `!` of an expression."""
    line_start = text.rfind("\n", 0, start) + 1
    flow = bool(re.search(r"[{\[]", text[line_start:start]))
    return f"{_LEADING['!']}; if it is an expression, quote it: {quoted(whole_expression(text, start, flow=flow))}"


def explain_syntax(error: yaml.MarkedYAMLError, text: str) -> Located:
    """YAML's complaint, or ours where the line holds an expression that needs quotes."""
    if (tab := error.problem_mark) is not None and text[tab.index : tab.index + 1] == "\t":
        detail = "a tab stands here, and YAML is indented by spaces alone: write spaces in its place"
        return Located("#", detail, tab.line + 1, tab.column + 1)
    marks = [mark for mark in (error.problem_mark, error.context_mark) if mark is not None]
    for mark in marks:
        for start, flow in _values_before(text, mark.index):
            whole = whole_expression(text, start, flow=flow)
            cause = _cause(whole, flow=flow)
            if cause is not None:
                line_start = text.rfind("\n", 0, start) + 1
                detail = f"{cause}; if this is one text, quote it: {quoted(whole)}"
                return Located("#", detail, text.count("\n", 0, start) + 1, start - line_start + 1)
    said = ", ".join(part for part in (error.context, error.problem) if part)
    line, column = (marks[0].line + 1, marks[0].column + 1) if marks else (1, 1)
    return Located("#", f"this is no valid YAML: {said}", line, column)


def _values_before(text: str, at: int) -> list[tuple[int, bool]]:
    """Where the values of the line of `at` start, up to there, the nearest first; whether each is inside brackets."""
    line_start = text.rfind("\n", 0, at) + 1
    line = text[line_start:].split("\n", 1)[0]
    first = _BLOCK_VALUE.match(line)
    block = first.end() if first else 0
    if not line[block:].startswith(("{", "[")):
        return [(line_start + block, False)]
    starts = [line_start + found.end() for found in _FLOW_VALUE.finditer(line, block)]
    return [(start, True) for start in reversed(starts) if start <= at]


def _cause(value: str, *, flow: bool) -> str | None:
    """Returns the part of an unquoted text that YAML takes for its own, or None if the text is whole."""
    if not value or _is_quoted(value):
        return None
    if value[0] in _LEADING:
        return _LEADING[value[0]]
    if value[0] in "{[":
        return None
    if re.search(r":(\s|$)", value):
        return "': ' separates a key from its value in YAML"
    if flow and re.search(r"[\[\]{},?:\"']", value):
        return "inside { } and [ ] brackets, commas, colons and quotes are YAML's own"
    return None


def _is_quoted(value: str) -> bool:
    """Whether YAML itself wants the quotes: they hold the whole text, a key before its colon, or are never closed."""
    if value[0] not in "\"'":
        return False
    first = _TOKEN.match(value)
    rest = value[first.end() :].lstrip() if first else ""
    return len(rest) == len(value) - 1 or not rest or rest.startswith(":")
