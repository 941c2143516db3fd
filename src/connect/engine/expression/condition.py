"""Conditions and values: standard CEL, checked when they are saved and run by cel-cpp."""

import datetime
import math
from typing import Any, Final, cast

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] - cel.pyi stands in a namespace

from connect.engine.expression import cost, environment, names, paths
from connect.engine.expression.ast import Call, Comprehension, Constant, ListOf, Node, children
from connect.engine.expression.environment import ELEMENTS_MAX, Activation
from connect.engine.expression.explain import explain, sentence
from connect.engine.expression.fast_path import quick
from connect.engine.expression.problems import ExpressionError, Failed, Missing, Problem, Source
from connect.engine.periods import utc_text

_BOOL: Final = cel.Type.BOOL
_ERROR: Final = cel.Type.ERROR
_NULL: Final = cel.Type.NULL

# A literal handed to these is tried out when it is saved: the expression with the literal as `p` must not be an error.
_TRIALS: Final[dict[str, str]] = {
    "matches": '"".matches(p)',
    "timestamp": "timestamp(p)",
    "duration": "duration(p)",
    **{
        method: f'timestamp("2026-01-01T00:00:00Z").{method}(p)'
        for method in sorted(names.METHODS)
        if method.startswith("get")
    },
}
_TRIAL_ENVIRONMENT: Final = cel.NewEnv(variables={"p": cel.Type.STRING})


class Program:
    """The base of conditions, values and the tests inside amounts: a checked text and the facts about it."""

    __slots__ = ("_builds_lists", "_expression", "_root", "cost", "reads", "text", "type", "warnings")

    def __init__(self, source: Source, allowed: frozenset[str], extra: frozenset[str]) -> None:
        self.text: str = source.text
        untyped = environment.parse(source, extra)
        if problems := names.unknown_names(untyped, source, allowed | extra):
            raise ExpressionError(*problems)
        self._expression, self._root = environment.check(source, extra)
        if problems := _wrong_literals(self._root, source):
            raise ExpressionError(*problems)
        self.type: str = self._expression.return_type().name()
        self.reads: tuple[str, ...] = tuple(map(paths.render, paths.paths_read(self._root, allowed | extra)))
        self.cost: int = within_cost(cost.estimate(self._root), source)
        self.warnings: tuple[Problem, ...] = _warnings(self._root, source)
        self._builds_lists = _builds_lists(self._root)

    @property
    def root(self) -> Node:
        return self._root

    def run(self, activation: Activation) -> cel.Value | Failed:
        """One evaluation. The value may be of type ERROR: see `settled`."""
        prepared = activation.cel
        if self._builds_lists and activation.longest > ELEMENTS_MAX:
            return Failed(f"map() and filter() take {ELEMENTS_MAX:,} elements, the event has {activation.longest:,}")
        try:
            return self._expression.eval(prepared)
        except RuntimeError as error:
            return Failed(sentence(str(error)))

    def settled(self, result: cel.Value, activation: Activation) -> cel.Value | Missing | Failed:
        """The value itself, or what its error means."""
        if result.type() == _ERROR:
            return explain(str(result.value()), self._root, activation.plain)
        return result


class Condition:
    """A line of a rule that must hold. Made by `compile_condition`."""

    __slots__ = ("_program", "_quick", "cost", "reads", "text", "warnings")

    def __init__(self, program: Program) -> None:
        self._program = program
        self._quick = quick(program.root)
        self.text = program.text
        self.reads = program.reads
        self.cost = program.cost
        self.warnings = program.warnings

    @property
    def root(self) -> Node:
        """The checked tree, for the index over rules and for SQL."""
        return self._program.root

    def evaluate(self, activation: Activation) -> bool | Missing | Failed:
        """Whether the condition holds for the event. A result that is not true or false is Failed."""
        if self._quick is not None and (found := self._quick(activation.values)) is not None:
            return found
        result = self._program.run(activation)
        if isinstance(result, Failed):
            return result
        shown = repr(result)  # 1 us faster than asking for the type; a text would be shown in quotes
        if shown == "true":
            return True
        if shown == "false":
            return False
        outcome = self._program.settled(result, activation)
        if isinstance(outcome, (Missing, Failed)):
            return outcome
        return Failed(f"the condition gave {outcome.type().name().lower()}, not true or false")


class Value:
    """An expression in `params` or `each.in`. Made by `compile_value`."""

    __slots__ = ("_path", "_program", "cost", "reads", "text", "warnings")

    def __init__(self, program: Program) -> None:
        self._program = program
        self._path = paths.path_of(program.root)
        self.text = program.text
        self.reads = program.reads
        self.cost = program.cost
        self.warnings = program.warnings

    def evaluate(self, activation: Activation) -> Any | Missing | Failed:
        """The value as JSON has it: dict, list, str, int, float, bool or None; moments as RFC 3339 in UTC.

        A bare field is taken from the event without cel.
        """
        if self._path is not None:
            found = paths.resolve(activation.plain, self._path)
            return utc_text(found) if isinstance(found, datetime.datetime) else found
        result = self._program.run(activation)
        outcome = result if isinstance(result, Failed) else self._program.settled(result, activation)
        if isinstance(outcome, (Missing, Failed)):
            return outcome
        try:
            return _to_json(outcome)
        except _NotJsonError as error:
            return Failed(str(error))


def compile_condition(text: str, extra: frozenset[str] = frozenset()) -> Condition:
    """Parses and checks a condition. `extra` are the names `each` binds.

    Raises ExpressionError with every problem found, also for a type known not to be bool and for a cost over COST_MAX.
    """
    return Condition(bool_program(Source(text), names.EVENT_NAMES, extra))


def bool_program(source: Source, allowed: frozenset[str], extra: frozenset[str]) -> Program:
    program = Program(source, allowed, extra)
    if program.type not in ("BOOL", "DYN"):
        message = f"a condition must be true or false, this is {program.type.lower()}"
        raise ExpressionError(source.problem(_start(source), message))
    return program


def compile_value(text: str, extra: frozenset[str] = frozenset()) -> Value:
    """Parses and checks an expression of any type JSON has. Raises ExpressionError as `compile_condition` does."""
    source = Source(text)
    program = Program(source, names.KNOWN_NAMES, extra)
    if program.type in ("BYTES", "TYPE"):
        message = f"a value must be one JSON can hold, this is {program.type.lower()}"
        raise ExpressionError(source.problem(_start(source), message))
    return Value(program)


def within_cost(steps: int, source: Source) -> int:
    """The estimate itself, or ExpressionError with the reason."""
    if steps <= cost.COST_MAX:
        return steps
    message = (
        f"too costly: about {steps:,} steps when every list has {cost.ELEMENTS_PRESUMED} elements, "
        f"at most {cost.COST_MAX:,}"
    )
    raise ExpressionError(source.problem(_start(source), message, hint="loops inside loops multiply; use one less"))


def _start(source: Source) -> int:
    return len(source.text) - len(source.text.lstrip())


def _builds_lists(root: Node) -> bool:
    if isinstance(root, Comprehension) and isinstance(root.initial, ListOf):
        return True
    return any(_builds_lists(child) for child in children(root))


def _wrong_literals(root: Node, source: Source) -> tuple[Problem, ...]:
    """Regular expressions, moments, durations and zones that can never work, found by trying them."""
    problems: list[Problem] = []
    pending = [root]
    while pending:
        node = pending.pop()
        pending.extend(reversed(children(node)))
        if not isinstance(node, Call) or node.function not in _TRIALS or not node.args:
            continue
        literal = node.args[-1]
        if isinstance(literal, Constant) and isinstance(literal.value, str):
            trial = _TRIAL_ENVIRONMENT.compile(_TRIALS[node.function]).eval(data={"p": literal.value})
            if trial.type() == _ERROR:
                problems.append(source.problem(literal.at, sentence(str(trial.value()))))
    return tuple(problems)


def _warnings(root: Node, source: Source) -> tuple[Problem, ...]:
    """Warns of what CEL allows and authors seldom mean: whole division, and arithmetic that fails on whole fields."""
    problems: list[Problem] = []
    pending = [root]
    while pending:
        node = pending.pop()
        pending.extend(reversed(children(node)))
        if not isinstance(node, Call) or node.function not in ("_+_", "_-_", "_*_", "_/_"):
            continue
        if node.function == "_/_" and node.type == "int":
            hint = "amounts divide exactly; here write double(...) on both sides for a decimal result"
            message = "divides whole numbers: 5 / 2 is 2 here"
            problems.append(source.problem(node.at, message, hint=hint, severity="warning"))
        elif node.type == "double" and any(_is_unsure(arg) for arg in node.args):
            hint = "write double(field) to be sure; amounts mix them freely"
            message = "fails when the field is a whole number: CEL does not mix whole and decimal numbers"
            problems.append(source.problem(node.at, message, hint=hint, severity="warning"))
    return tuple(problems)


def _is_unsure(node: Node) -> bool:
    """Whether the type is known only when it runs."""
    return paths.path_of(node) is not None


class _NotJsonError(Exception):
    pass


def _to_json(value: cel.Value) -> Any:
    """Through `value()` level by level and never through `plain_value()`, which frees None too often."""
    kind = value.type()
    if kind == _NULL:
        return None
    found: Any = value.value()
    if kind == _ERROR:
        raise _NotJsonError(sentence(str(found)))
    if isinstance(found, list):
        return [_to_json(item) for item in cast("list[cel.Value]", found)]
    if isinstance(found, dict):
        return {_key_text(key): _to_json(item) for key, item in cast("dict[Any, cel.Value]", found).items()}
    if isinstance(found, datetime.datetime):
        return utc_text(found)
    if isinstance(found, datetime.timedelta):
        return _duration_text(found)
    if isinstance(found, float) and not math.isfinite(found):
        raise _NotJsonError(f"the value holds {found}, which JSON cannot")
    if isinstance(found, (bool, int, float, str)):
        return found
    raise _NotJsonError(f"the value holds {kind.name().lower()}, which JSON cannot")


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    return str(key).lower() if isinstance(key, bool) else str(key)


def _duration_text(duration: datetime.timedelta) -> str:
    """Seconds with an `s`, as JSON has durations in protobuf: `5400s`, `0.5s`."""
    micros = duration // datetime.timedelta(microseconds=1)
    whole, fraction = divmod(abs(micros), 1_000_000)
    digits = f".{fraction:06d}".rstrip("0") if fraction else ""
    return f"{'-' if micros < 0 else ''}{whole}{digits}s"
