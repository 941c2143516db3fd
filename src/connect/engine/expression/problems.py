"""Names what can be wrong with an expression, and what can come out instead of a value.

`Problem` is told to the author at save; `Missing` and `Failed` are results of one evaluation.
The results are values, not exceptions: both are expected every day, and the rule's trace stores them.
"""

import re
from typing import Final, Literal

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One finding in the text of an expression. `line` and `column` count from 1 within that text."""

    message: str
    line: int
    column: int
    severity: Literal["error", "warning"] = "error"
    hint: str | None = None

    def caret(self, text: str) -> str:
        """The line at fault with a caret under the column, in the way of cel-go (` | ` and dots)."""
        lines = text.split("\n")
        source = lines[self.line - 1] if self.line <= len(lines) else ""
        return f" | {source}\n | {'.' * (self.column - 1)}^"


class ExpressionError(Exception):
    """The text cannot be used. `problems` holds at least one of severity "error"."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(_sentence(problem) for problem in problems))
        self.problems: tuple[Problem, ...] = problems


class Missing(msgspec.Struct, frozen=True):
    """The final value is "no such key", an index out of range or a select on null.

    `field` is the path that was not there (`context.items.price` inside a comprehension over `context.items`).
    """

    field: str


class Failed(msgspec.Struct, frozen=True):
    """Any other error of an evaluation: division by zero, overflow, a type that does not fit, too many steps."""

    reason: str


class Source:
    """The text of an expression, to turn an offset in code points into a line and a column."""

    def __init__(self, text: str) -> None:
        self.text = text

    def problem(
        self, at: int, message: str, *, hint: str | None = None, severity: Literal["error", "warning"] = "error"
    ) -> Problem:
        before = self.text[:at]
        line = before.count("\n") + 1
        return Problem(message, line, at - (before.rfind("\n") + 1) + 1, severity, hint)


def _sentence(problem: Problem) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{problem.line}:{problem.column}: {problem.message}{hint}"


_LIBRARY_ERROR: Final = re.compile(
    r"ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?=\n \| |\nERROR: | \[[A-Z_]+\]$|$)", re.DOTALL
)
_TOO_DEEP: Final = re.compile(r"recursion (?:limit|depth)")
_EXPECTING: Final = re.compile(r"\s+expecting .*", re.DOTALL)
_AT_TOKEN: Final = re.compile(r"(?:extraneous input|mismatched input|no viable alternative at input|at:) '+([^']*)'")
_LINE_MAX: Final = 4_096  # as many as a text has characters

TOO_DEEP: Final = "the expression is nested too deeply (at most 32 levels)"
DEPTH_HINT: Final = 'split it: a condition may be a list of lines; a long chain of == and || is `x in ["a", "b"]`'

_SYNTAX_HINTS: Final = {
    "=": "compare with ==",
    "and": "write && for and",
    "AND": "write && for and",
    "or": "write || for or",
    "OR": "write || for or",
    "not": "write ! for not",
    "is": "compare with ==",
    "&": "write && for and",
    "|": "write || for or",
    "<>": "write != for not equal",
    "%": "a percentage is a decimal: 2 % of x is x * 0.02",
}


def problems_of_library(message: str) -> tuple[Problem, ...]:
    """The findings inside an exception's text of cel-cpp, which packs several into one string.

    Positions it does not know arrive as -1 or 2^32 - 1 and repeat what another line says. Of errors of syntax only the
    first is told: the others follow from it.
    """
    if _TOO_DEEP.search(message):
        return (Problem(TOO_DEEP, 1, 1, hint=DEPTH_HINT),)
    found: dict[tuple[int, int], Problem] = {}
    for line, column, said in _LIBRARY_ERROR.findall(message):
        place = (int(line), max(int(column), 1))
        if 0 < place[0] <= _LINE_MAX:
            found.setdefault(place, Problem(_plain(said), *place, hint=_syntax_hint(said)))
            if said.startswith("Syntax error"):
                break
    return tuple(found.values()) or (Problem(message.splitlines()[0][:300] if message else "cannot be parsed", 1, 1),)


def _plain(said: str) -> str:
    """The library's sentence without the list of forty expected tokens and the empty container."""
    said = _EXPECTING.sub("", said.strip()).replace(" (in container '')", "")
    if said.startswith("Syntax error: mismatched input '<EOF>'"):
        return "the expression ends too early"
    if said.startswith("Syntax error") and (token := _AT_TOKEN.search(said)) is not None:
        return f"unexpected {token[1].strip() or 'quote'}"
    return said


def _syntax_hint(said: str) -> str | None:
    if "'_==_'" in said or "'_!=_'" in said:
        return "the two sides can never be equal: their types differ"
    if not said.startswith("Syntax error") or (token := _AT_TOKEN.search(said)) is None:
        return None
    return _SYNTAX_HINTS.get(token[1].strip())
