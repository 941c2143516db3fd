"""Expressions: compiled, and held against what may be read in the place where they stand."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Struct

from connect.authoring.check import tree
from connect.authoring.check.findings import Findings
from connect.authoring.check.schemas import Against
from connect.authoring.check.unsatisfiable import never_together
from connect.engine.expression import (
    Amount,
    Condition,
    ExpressionError,
    Failed,
    Problem,
    Value,
    compile_condition,
    environment,
    make_activation,
    names,
    paths,
)
from connect.engine.expression.ast import Call, Constant, Node
from connect.engine.expression.paths import Path
from connect.engine.expression.problems import Source

Refused: TypeAlias = Mapping[str, tuple[str, str | None]]
_Compiled = TypeVar("_Compiled", Condition, Amount, Value)

NO_NAMES: Final[frozenset[str]] = frozenset()
STATE_NAMES: Final = frozenset({"counters", "variant", "original"})
"""Names that not every expression may read, because not every place has values for them."""
ORIGINAL_FIELDS: Final = names.EVENT_NAMES - STATE_NAMES
_NUMBER_LIKE: Final = re.compile(r"[-+]?[0-9][0-9_.,:' ]*( ?(%|[A-Za-z]+))?")
"""A text that people write for a number and that is no expression: 1_000, 1.000,50, 12:30, 5 %, 5 points."""
_COUNTER_TEXT: Final = re.compile(r"\bcounters\s*\.\s*([A-Za-z_]\w*)")
_INEXACT_KINDS: Final = frozenset({"sum", "distinct", "streak"})
"""Counters that can pass a number without ever being it."""


class Reader(Struct, frozen=True):
    """Holds what the expressions of one place may read."""

    event_type: str
    """The type of the event that is read; a prefix has no schema."""
    refused: Refused = {}
    """Names of values that the place does not have -> message and hint."""
    arms: Mapping[str, frozenset[str]] | None = None
    """The fields of each arm, where `variant` is known."""
    original_type: str | None = None


class Expression(Struct, frozen=True):
    """One expression of the document. `shift`: characters before it in the text at `pointer`."""

    pointer: str
    text: str
    scope: frozenset[str] = NO_NAMES
    shift: int = 0
    elements: Mapping[str, Path] = {}
    """The name that `each` binds -> the path of the list it goes through, where that is a field."""
    wanted: str | None = None
    """The kind that the value must have, in the words of `check.kinds`: a condition `bool`."""

    def tree(self) -> Node:
        return environment.parse(Source(self.text), self.scope)


def compile_at(
    findings: Findings,
    expression: Expression,
    compile_: Callable[[str, frozenset[str]], _Compiled],
    reader: Reader,
) -> _Compiled | None:
    """The compiled expression; None, and its problems told, where it is no expression at all."""
    pointer, text, shift = expression.pointer, expression.text, expression.shift
    try:
        compiled = compile_(text, expression.scope)
    except ExpressionError as error:
        findings.counters_read.update(_COUNTER_TEXT.findall(text))
        advice = "a number is written in plain digits, such as 1000 or 12.50" if _NUMBER_LIKE.fullmatch(text) else None
        for problem in error.problems:
            problem = msgspec.structs.replace(problem, hint=problem.hint or advice)
            findings.in_expression(pointer, text, problem, shift=shift, broken=True)
        return None
    misread = _misread(findings, expression, compiled.reads, reader)
    unknown = _unknown_fields(findings, expression, reader, amount=isinstance(compiled, Amount))
    for problem in (*compiled.warnings, *misread, *unknown):
        findings.in_expression(pointer, text, problem, shift=shift)
    return compiled


def check_lines(findings: Findings, condition: str | list[str], pointer: str, reader: Reader) -> None:
    """The lines of a rule's or a counter's `condition`."""
    lines = [condition] if isinstance(condition, str) else condition
    pointers = [pointer] if isinstance(condition, str) else [f"{pointer}/{place}" for place in range(len(lines))]
    read: list[tuple[str, Condition]] = []
    for inner, line in zip(pointers, lines, strict=True):
        compiled = compile_at(findings, Expression(inner, line, wanted="bool"), compile_condition, reader)
        if compiled is None:
            continue
        read.append((inner, compiled))
        if compiled.reads:
            continue
        outcome = compiled.evaluate(make_activation({}))
        if outcome is False:
            hint = "to switch the rule off write `enabled: false`; otherwise correct the condition"
            findings.warning(inner, "the condition is always false, so it never holds", hint)
        elif outcome is not True:
            why = outcome.reason if isinstance(outcome, Failed) else f"there is no {outcome.field}"
            findings.error(
                inner, f"the condition never has a result: {why}", "it reads no field of the event: correct it"
            )
    for place, problem in never_together([(line.text, line.root) for _, line in read]):
        findings.in_expression(read[place][0], read[place][1].text, problem)


def field_path(text: str) -> Path | None:
    """The path a text names, None where it computes something or is no expression."""
    try:
        tree = environment.parse(Source(text), NO_NAMES)
    except ExpressionError:
        return None
    path = paths.path_of(tree)
    return path if path is not None and paths.parse(text.strip()) == path else None


def _misread(findings: Findings, expression: Expression, reads: tuple[str, ...], reader: Reader) -> Iterator[Problem]:
    """Each path that has no value in this place, under the part of it that is wrong."""
    places: dict[Path, tuple[int, ...]] | None = None
    for path in map(paths.parse, reads):
        fault = _fault_of(findings, path, reader) if str(path[0]) not in expression.scope else None
        if fault is None:
            continue
        places = places if places is not None else tree.places(expression.tree(), expression.text)
        step, message, hint = fault
        at = places.get(path, ())
        yield Source(expression.text).problem(at[step] if step < len(at) else 0, message, hint=hint)
    if any(_kind_read(findings, paths.parse(read)) in _INEXACT_KINDS for read in reads):
        yield from _compared_exactly(findings, expression)


_Fault: TypeAlias = tuple[int, str, str | None]
"""The step of the path at fault, a message and a hint."""


def _fault_of(findings: Findings, path: Path, reader: Reader) -> _Fault | None:
    root = str(path[0])
    if root in reader.refused:
        if root == "counters" and len(path) > 1:
            findings.counters_read.add(str(path[1]))
        return 0, *reader.refused[root]
    match root:
        case "counters":
            return _fault_of_counter(findings, path)
        case "variant":
            return _fault_of_variant(path, reader.arms or {})
        case "original":
            return _fault_of_original(path)
        case _:
            return None


def _fault_of_counter(findings: Findings, path: Path) -> _Fault | None:
    declared = findings.ruleset.counters
    if len(path) == 1:
        return 0, "counters are read by their names", "write counters.<name>, such as counters.purchases"
    name = str(path[1])
    findings.counters_read.add(name)
    if name in declared:
        return None
    known = f"declare it under counters (declared: {', '.join(declared) or 'none'})"
    return 1, f"no counter is called {name}", names.nearest(name, declared) or known


def _fault_of_variant(path: Path, arms: Mapping[str, frozenset[str]]) -> _Fault | None:
    if len(path) == 1:
        return 0, "the arm's values are read by their names", "write variant.<name>, such as variant.rate"
    name = str(path[1])
    lacking = [arm for arm, fields in arms.items() if name not in fields]
    if name == "name" or not lacking:
        return None
    known = sorted({name for fields in arms.values() for name in fields})
    if len(lacking) == len(arms):
        hint = names.nearest(name, known) or f"give every arm `{name}` (they have: {', '.join(known) or 'none'})"
        return 1, f"no arm has a value {name}", hint
    several = "arms" if len(lacking) > 1 else "arm"
    hint = f"give every arm `{name}`: a user in that arm would get nothing"
    return 1, f"the {several} {', '.join(lacking)} of this rule's variants has no {name}", hint


def _fault_of_original(path: Path) -> _Fault | None:
    known = ", ".join(sorted(ORIGINAL_FIELDS))
    if len(path) == 1:
        return 0, "the original event is read by its fields", "write original.context.<field>"
    name = str(path[1])
    if name not in ORIGINAL_FIELDS:
        hint = (
            names.nearest(name, ORIGINAL_FIELDS) or f"its fields are read as original.context.{name} (it has: {known})"
        )
        return 1, f"the original event has no {name}", hint
    return None


def _unknown_fields(findings: Findings, expression: Expression, reader: Reader, *, amount: bool) -> Iterator[Problem]:
    """Fields that the schema of the event's, or the original's, type does not have, or of types that do not do."""
    event, original = (findings.schemas.get(name or "") for name in (reader.event_type, reader.original_type))
    if event is not None or original is not None:
        against = Against(expression.text, event, original, expression.elements)
        yield from against.faults(expression.tree(), amount=amount, wanted=expression.wanted)


def _kind_read(findings: Findings, path: Path) -> str | None:
    counter = findings.ruleset.counters.get(str(path[1])) if path[0] == "counters" and len(path) == 2 else None
    return counter.kind if counter else None


def _compared_exactly(findings: Findings, expression: Expression) -> Iterator[Problem]:
    for node, bound in tree.nodes(expression.tree()):
        if not isinstance(node, Call) or node.function != "_==_":
            continue
        for side, other in (node.args, node.args[::-1]):
            path = paths.path_of(side, bound)
            kind = _kind_read(findings, path) if path else None
            if kind in _INEXACT_KINDS and isinstance(other, Constant) and other.kind in ("int", "uint", "double"):
                name = paths.render(cast("Path", path))
                message = f"{name} is a {kind}, which can pass {other.value} without ever being it"
                hint = f"write {name} >= {other.value}, with a limit of one use where it should give once"
                yield Source(expression.text).problem(node.at, message, hint=hint, severity="warning")
