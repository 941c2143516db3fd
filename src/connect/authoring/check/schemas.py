"""Schemas of events, and expressions held against them: a mistyped field is an error where it stands."""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from connect.authoring.check import tree
from connect.authoring.check.findings import Findings
from connect.authoring.check.typecheck import KindCheck, Kinds
from connect.authoring.positions import child
from connect.engine.expression import Problem, paths
from connect.engine.expression.ast import Call, Comprehension, Ident, Node, Select, children
from connect.engine.expression.paths import Path
from connect.engine.expression.problems import Source
from connect.engine.schema import Schema, fields_problem, schema_problems, type_problem, types_at

_KINDS: Final = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "bool",
    "object": "map",
    "array": "list",
    "null": "null",
}
"""Types of JSON as conditions know them: whole and other numbers compare with each other."""


def check_schemas(findings: Findings) -> None:
    for event_type, schema in findings.ruleset.schemas.items():
        for pointer, message in schema_problems(schema, child("#/schemas", event_type)):
            said, _, hint = message.partition(": ")
            findings.error(pointer, said, hint or "a part of JSON Schema is understood: see the reference of rulesets")


class Against(Struct, frozen=True):
    """The schemas that an expression's fields are held against. `elements`: a name -> the path of its list."""

    text: str
    event: Schema | None
    original: Schema | None
    elements: Mapping[str, Path] = {}

    def of(self, path: Path) -> Schema | None:
        return self.original if path[0] == "original" else self.event if path[0] == "context" else None

    def faults(self, root: Node, *, amount: bool, wanted: str | None = None) -> Iterator[Problem]:
        """`wanted`: the kind of value that the place takes, where it takes one only."""
        known = {name: self._element(path) for name, path in self.elements.items()}
        yield from self._fields(root, known, set())
        kinds = KindCheck(self.text, self._kinds, self._element, self._resolved)
        yield from kinds.faults_of_tests(root, known) if amount else kinds.faults(root, known, wanted)
        for node in tree.numbers(root) if amount else ():
            path = paths.path_of(node)
            schema = self.of(path) if path else None
            problem = type_problem(schema, path) if path and schema is not None else None
            if problem is not None:
                hint = "a number sent as text is read with decimal(...)" if " text" in problem else None
                yield self._problem(tree.offsets(node, self.text)[-1], problem, hint)

    def _kinds(self, path: Path) -> Kinds:
        schema = self.of(path)
        types = types_at(schema, path) if schema is not None else None
        return None if types is None else frozenset(_KINDS[name] for name in types)

    def _problem(self, at: int, message: str, hint: str | None) -> Problem:
        return Source(self.text).problem(at, message, hint=hint)

    def _fields(self, node: Node, known: Mapping[str, Path | None], told: set[str]) -> Iterator[Problem]:
        """`known`: variables of macros and `each` -> the path of one element, None where it may be anything."""
        bare = tree.field(node)
        path = paths.path_of(bare) if isinstance(bare, Ident | Select | Call) else None
        if path is not None:
            problem = self._fault(path, bare, known)
            if problem is not None and problem.message not in told:
                told.add(problem.message)
                yield problem
        elif isinstance(node, Comprehension):
            yield from self._fields(node.over, known, told)
            over = paths.path_of(node.over)
            whole = self._resolved(over, known) if over else None
            inner = {**known, node.variable: self._element(whole), node.variable2: None, node.accumulator: None}
            for below in (node.initial, node.condition, node.step, node.result):
                yield from self._fields(below, inner, told)
        else:
            for below in children(node):
                yield from self._fields(below, known, told)

    def _resolved(self, path: Path, known: Mapping[str, Path | None]) -> Path | None:
        if path[0] not in known:
            return path
        whole = known[str(path[0])]
        return None if whole is None else (*whole, *path[1:])

    def _element(self, path: Path | None) -> Path | None:
        """One element of the list at the path; None where the schema knows no list there."""
        schema = self.of(path) if path else None
        if path is None or schema is None or fields_problem(schema, (*path, 0)) is not None:
            return None
        return (*path, 0)

    def _fault(self, path: Path, node: Node, known: Mapping[str, Path | None]) -> Problem | None:
        whole = self._resolved(path, known)
        schema = self.of(whole) if whole else None
        problem = fields_problem(schema, whole) if whole and schema is not None else None
        if whole is None or schema is None or problem is None:
            return None
        before = len(whole) - len(path)
        step = next(length for length in range(1, len(whole) + 1) if fields_problem(schema, whole[:length]) is not None)
        at = tree.offsets(node, self.text)
        said, _, hint = problem.partition(": ")
        if before:
            element, name = paths.render(whole[: before + 1]), str(path[0])
            said, hint = said.replace(element, name), hint.replace(element, name)
        return self._problem(at[min(max(step - 1 - before, 0), len(at) - 1)], said, hint or None)
