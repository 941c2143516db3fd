"""cel-cpp behind one door: parsing, checking and running. Nothing else in Connect knows the library.

Surprises of cel-expr-python 0.1.3 that this file answers (each has a test):
- Reading a null result with `value()` or `plain_value()` takes a reference of None that was never given; before
  Python 3.12 the process dies of it after some thousand times. Results are told apart by `repr` and `type()` first.
- Errors are values of type ERROR whose value is a text; only spent iterations (10,000, not adjustable) raise.
- `map` and `filter` copy their list at every step, so their lists are bounded here (`ELEMENTS_MAX`).
- An environment knows its variables' types only once it has compiled something: before, a moment is refused.
- It takes only exact dicts and lists, no Decimal, and reads a naive datetime in the machine's own zone.
"""

import datetime
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, cast

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] - cel.pyi stands in a namespace

from connect.engine.expression import ast, paths
from connect.engine.expression.ast import Node
from connect.engine.expression.problems import (
    DEPTH_HINT,
    TOO_DEEP,
    ExpressionError,
    Failed,
    Missing,
    Source,
    problems_of_library,
)

TEXT_MAX: Final = 4_096  # characters; the longest condition seen in the field has 600
ELEMENTS_MAX: Final = 1_000  # of a list that map() or filter() go through: 20 ms
_INT64_MAX: Final = 2**63 - 1
_NO_NAMES: Final[frozenset[str]] = frozenset()

_OBJECT: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_VARIABLES: Final[dict[str, cel.Type]] = {
    "context": _OBJECT,
    "actor_user_id": cel.Type.DYN,  # text or null
    "primary_subject_user_id": cel.Type.DYN,
    "parties": _OBJECT,
    "event_type": cel.Type.STRING,
    "source": cel.Type.STRING,
    "external_id": cel.Type.STRING,
    "occurred_at": cel.Type.TIMESTAMP,
    "counters": _OBJECT,
    "variant": _OBJECT,
    "original": _OBJECT,
}
_DEFAULTS: Final[dict[str, Any]] = {
    "context": {},
    "actor_user_id": None,
    "primary_subject_user_id": None,
    "parties": {},
    "event_type": "",
    "source": "",
    "external_id": "",
    "counters": {},
    "variant": {},
    "original": {},
}


@lru_cache(maxsize=256)  # one for every set of names bound by `each`; a ruleset has a handful
def environment(extra: frozenset[str]) -> cel.Env:
    """The variables and their types; names bound by `each` are dynamic."""
    made = cel.NewEnv(variables={**_VARIABLES, **dict.fromkeys(extra, cel.Type.DYN)})
    made.compile("true")
    return made


def parse(source: Source, extra: frozenset[str]) -> Node:
    """The tree of a text, unchecked. Raises ExpressionError for what is too long, too deep or not CEL's grammar."""
    text = source.text
    if len(text) > TEXT_MAX:
        raise ExpressionError(source.problem(0, f"the expression has {len(text):,} characters, at most {TEXT_MAX:,}"))
    if not text.strip():
        raise ExpressionError(source.problem(0, "the expression is empty"))
    if "\0" in text or not _is_unicode(text):
        message = "the expression holds a character that is no text (NUL or half a pair)"
        raise ExpressionError(source.problem(0, message))
    return _tree(compiled(source, extra, check=False), source)


def check(source: Source, extra: frozenset[str]) -> tuple[cel.Expression, Node]:
    """The program and its tree with types. Raises ExpressionError for types that do not fit."""
    program = compiled(source, extra, check=True)
    return program, _tree(program, source)


def compiled(source: Source, extra: frozenset[str], *, check: bool) -> cel.Expression:
    try:
        return environment(extra).compile(source.text, disable_check=not check)
    except RuntimeError as error:
        raise ExpressionError(*problems_of_library(str(error))) from None


def _tree(program: cel.Expression, source: Source) -> Node:
    try:
        return ast.read(program.serialize())
    except ast.TooDeepError:
        raise ExpressionError(source.problem(0, TOO_DEEP, hint=DEPTH_HINT)) from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_AS_IS: Final = frozenset({str, int, bool, float})


class Activation:
    """The values of one event, shared by all of its rules and dropped with it (cel's own copy grows with use).

    `values` are the plain values, numbers as they came: amounts read them. `cel` is made at first use: many events
    meet only rules that need none.
    """

    __slots__ = ("_base", "_cel", "_plain", "longest", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values: Mapping[str, Any] = values
        self._base: tuple[Activation, Mapping[str, Any]] | None = None
        self._plain: dict[str, Any] | None = None
        self._cel: cel.Activation | None = None
        self.longest = 0  # elements of the longest list or object, known once `plain` was read

    @property
    def plain(self) -> dict[str, Any]:
        """The values as cel and JSON take them: exact dicts and lists, no Decimal."""
        if self._plain is None and self._base is not None:
            base, names = self._base
            plain = base.plain
            self.longest = base.longest
            self._plain = {**plain, **{name: self._simplified(value) for name, value in names.items()}}
        elif self._plain is None:
            self._plain = {name: self._simplified(value) for name, value in self.values.items()}
        return self._plain

    @property
    def cel(self) -> cel.Activation:
        if self._cel is None:
            self._cel = environment(_NO_NAMES).Activation(self.plain)
        return self._cel

    def bind(self, names: Mapping[str, Any]) -> "Activation":
        """Binds further names to the event, for one round of `each`; only these names are made plain again."""
        bound = Activation({**self.values, **names})
        bound._base = (self, names)
        return bound

    def values_read(self, reads: Iterable[str]) -> dict[str, Any]:
        """The values at the paths, for the trace; what is absent is left out."""
        found = ((path, paths.resolve(self.values, paths.parse(path))) for path in reads)
        return {path: value for path, value in found if not isinstance(value, (Missing, Failed))}

    def _simplified(self, value: Any) -> Any:
        if type(value) in _AS_IS or value is None:
            return value
        if type(value) is dict:  # what events hold; the checks below are for what others hand in, and dear
            plain = cast("dict[str, Any]", value)
            self.longest = max(self.longest, len(plain))
            return {key: self._simplified(entry) for key, entry in plain.items()}
        if isinstance(value, Mapping):
            entries = cast("Mapping[str, Any]", value)
            self.longest = max(self.longest, len(entries))
            return {key: self._simplified(entry) for key, entry in entries.items()}
        if isinstance(value, (list, tuple)):
            items = cast("list[Any]", value)
            self.longest = max(self.longest, len(items))
            return [self._simplified(item) for item in items]
        return _number(value) if isinstance(value, Decimal) else value


def _number(value: Decimal) -> int | float:
    """As intake reads numbers: integral within +-2^63 is an int. Others have 15 digits, which a float holds."""
    if value.is_nan():
        return math.nan
    if -_INT64_MAX <= value <= _INT64_MAX and value == value.to_integral_value():
        return int(value)
    return float(value)


def make_activation(event_values: Mapping[str, Any]) -> Activation:
    """The activation of one event. Absent ids become null, absent parties, counters and context empty.

    Raises ValueError for an `occurred_at` without a zone.
    """
    moment = event_values.get("occurred_at")
    if isinstance(moment, datetime.datetime) and moment.tzinfo is None:
        raise ValueError(f"occurred_at {moment.isoformat()} has no zone")
    return Activation({**_DEFAULTS, **event_values})
