"""Conditions that no event fulfils, because two comparisons of one field with literals exclude each other.

Only what must hold together is looked at: lines, and what `&&` joins in them. Of ranges and single values on one line
there is always a pair without a common point where all together have none, so pairs are enough.
"""

import json
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from connect.engine.expression import Problem, paths
from connect.engine.expression.ast import Call, Constant, Node
from connect.engine.expression.paths import Path
from connect.engine.expression.problems import Source

_FLIPPED: Final = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_HOLDS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Comparison(Struct, frozen=True):
    """`path sign literal`."""

    path: Path
    sign: str
    literal: Constant
    at: int

    @property
    def kind(self) -> str:
        return "number" if self.literal.kind in ("int", "uint", "double") else self.literal.kind

    @property
    def words(self) -> str:
        return f"{paths.render(self.path)} {self.sign} {json.dumps(self.literal.value, ensure_ascii=False)}"

    def excludes(self, other: "_Comparison") -> bool:
        """Whether no value fulfils both. Values of two kinds are never equal, and never in one order."""
        mine, others = self.literal.value, other.literal.value
        if self.kind != other.kind:
            return True
        if self.sign == "==" or other.sign == "==":
            one, bound = (self, other) if self.sign == "==" else (other, self)
            return not _HOLDS[bound.sign](one.literal.value, bound.literal.value)
        if self.sign[0] == other.sign[0]:
            return False
        low, high = (mine, others) if self.sign[0] == ">" else (others, mine)
        touching = self.sign.endswith("=") and other.sign.endswith("=")
        return not (_HOLDS["<="] if touching else _HOLDS["<"])(low, high)


def never_together(lines: Sequence[tuple[str, Node]]) -> Iterator[tuple[int, Problem]]:
    """For each comparison that an earlier one excludes, the place of its line and a warning. `lines`: text and tree."""
    before: dict[Path, list[_Comparison]] = {}
    for place, (text, root) in enumerate(lines):
        for one in _comparisons(root):
            met = before.setdefault(one.path, [])
            first = next((other for other in met if one.excludes(other)), None)
            met.append(one)
            if first is not None:
                message = f"`{one.words}` never holds together with `{first.words}`, so the condition never holds"
                hint = "correct one of them; where one of the two is enough, join them with || in one line"
                yield place, Source(text).problem(one.at, message, hint=hint, severity="warning")


def _comparisons(node: Node) -> Iterator[_Comparison]:
    match node:
        case Call(function="_&&_", args=(left, right)):
            yield from _comparisons(left)
            yield from _comparisons(right)
        case Call(function=function, args=(left, right)) if (sign := function.strip("_")) in _FLIPPED:
            if isinstance(left, Constant):
                left, right, sign = right, left, _FLIPPED[sign]
            path = paths.path_of(left)
            if path is not None and isinstance(right, Constant) and right.kind != "bytes":
                yield _Comparison(path, sign, right, node.at)
        case _:
            return
