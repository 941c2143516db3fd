"""The findings about a ruleset so far, and how one about a value or an expression gets its place."""

from functools import cached_property
from typing import Literal

from msgspec import Struct

from connect.authoring.positions import Place, Positions
from connect.authoring.quoting import cut_by_comma, cut_by_comment
from connect.engine.expression import Problem
from connect.engine.schema import Schema, schema_problems
from connect.model import Ruleset


class RuleProblem(Struct, frozen=True, omit_defaults=True):
    """One finding about a ruleset or a rule.

    `line` and `column` count from 1: in the document where one was read, else within the expression at `pointer`.
    """

    severity: Literal["error", "warning"]
    pointer: str
    message: str
    hint: str | None = None
    line: int | None = None
    column: int | None = None
    caret: str | None = None
    """The line of the expression with a caret under the fault, for a fixed-width font."""


class Findings:
    """Collects what has been found, and holds what the document is measured by.

    `counters_read` collects the names of counters that something reads, also in texts that do not compile.
    """

    def __init__(self, ruleset: Ruleset, positions: Positions | None = None) -> None:
        self.ruleset = ruleset
        self.positions = positions
        self.problems: list[RuleProblem] = []
        self.counters_read: set[str] = set()

    @cached_property
    def schemas(self) -> dict[str, Schema]:
        """Those that fields can be held against."""
        return {name: schema for name, schema in self.ruleset.schemas.items() if not schema_problems(schema)}

    def error(self, pointer: str, message: str, hint: str | None = None) -> None:
        self._add("error", pointer, message, hint)

    def warning(self, pointer: str, message: str, hint: str | None = None) -> None:
        self._add("warning", pointer, message, hint)

    def _add(self, severity: Literal["error", "warning"], pointer: str, message: str, hint: str | None) -> None:
        line, column = self.positions.at(pointer) if self.positions else (None, None)
        self.problems.append(RuleProblem(severity, pointer, message, hint, line, column))

    def in_expression(self, pointer: str, text: str, problem: Problem, *, shift: int = 0, broken: bool = False) -> None:
        """A finding inside the expression at `pointer`. `shift`: characters that stand before it in the document's
        text; `broken`: it does not compile, so YAML may have taken a part of it away."""
        line, column = problem.line, problem.column
        if self.positions is not None:
            line, column = self.positions.within(pointer, line, column + (shift if line == 1 else 0))
        hint = (self._cut(pointer) if broken else None) or problem.hint
        self.problems.append(
            RuleProblem(problem.severity, pointer, problem.message, hint, line, column, problem.caret(text))
        )

    def _cut(self, pointer: str) -> str | None:
        """Returns what YAML took away from the expression, if that is why the expression is wrong."""
        if self.positions is None:
            return None
        place: Place | None = self.positions.values.get(pointer)
        return cut_by_comma(self.positions.text, place) or cut_by_comment(self.positions.text, place)

    def unit(self, pointer: str, unit: str) -> None:
        if unit in self.ruleset.units:
            return
        known = ", ".join(self.ruleset.units) or "none"
        hint = f"declare it under units, such as `{unit}: {{ scale: 0 }}` (declared: {known})"
        self.warning(pointer, f"the unit {unit} is not declared, so its amounts are whole numbers", hint)

    def scale(self, unit: str) -> int:
        declared = self.ruleset.units.get(unit)
        return declared.scale if declared else 0
