"""Conditions and values held against the types of a schema: what can never hold, or fails at every event.

cel-cpp knows fields of events as dynamic, so its checker lets `context.text == 5` pass. Here each part of an expression
has the kinds of values it may come to, `None` where that may be any; a fault is told only where no kind it may have
would do. So a field of several types, or one that may be null, is let through if one of them fits, and `dyn(field)`
switches the check off. What CEL takes is written as a table, which a test holds against cel-cpp itself.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from connect.authoring.check import tree
from connect.engine.expression import Problem, paths
from connect.engine.expression.ast import Call, Comprehension, Constant, ListOf, MapOf, Node, Select
from connect.engine.expression.paths import Path
from connect.engine.expression.problems import Source

Kinds: TypeAlias = frozenset[str] | None
"""The kinds (of `WORDS`) that a value may have; None for any."""
Known: TypeAlias = Mapping[str, Path | None]
"""Variables of macros and `each` -> the path of one element, None where it may be anything."""

WORDS: Final = {
    "bool": "true or false",
    "bytes": "bytes",
    "duration": "a duration",
    "list": "a list",
    "map": "an object",
    "null": "null",
    "number": "a number",
    "string": "text",
    "timestamp": "a moment",
}
_FIXED: Final[dict[str, Kinds]] = {
    "actor_user_id": frozenset({"string", "null"}),
    "primary_subject_user_id": frozenset({"string", "null"}),
    "event_type": frozenset({"string"}),
    "source": frozenset({"string"}),
    "external_id": frozenset({"string"}),
    "occurred_at": frozenset({"timestamp"}),
    **dict.fromkeys(("context", "parties", "counters", "variant", "original"), frozenset({"map"})),
}

Overload: TypeAlias = tuple[tuple[str, ...], str]
"""Kinds of the operands, a method's target first, and that of the result."""


def _all(function: str, kinds: str, result: str, *more: str) -> dict[str, list[Overload]]:
    return {function: [((kind, *more), result) for kind in kinds.split()]}


_ORDERED: Final = "number string bool timestamp duration bytes".split()
_SUMS: Final[list[Overload]] = [
    (("number", "number"), "number"),
    (("timestamp", "duration"), "timestamp"),
    (("duration", "duration"), "duration"),
]
OVERLOADS: Final[dict[str, list[Overload]]] = {
    **{order: [((kind, kind), "bool") for kind in _ORDERED] for order in ("_<_", "_<=_", "_>_", "_>=_")},
    **{joint: [(("bool", "bool"), "bool")] for joint in ("_&&_", "_||_")},
    **{function: [(("number", "number"), "number")] for function in ("_*_", "_/_", "_%_")},
    "_+_": [
        *_SUMS,
        (("duration", "timestamp"), "timestamp"),
        *(((kind, kind), kind) for kind in ("string", "list", "bytes")),
    ],
    "_-_": [*_SUMS, (("timestamp", "timestamp"), "duration")],
    **_all("!_", "bool", "bool"),
    **_all("-_", "number", "number"),
    **_all("size", "string list map bytes", "number"),
    **_all("int", "number string bool timestamp", "number"),
    **_all("uint", "number string", "number"),
    **_all("double", "number string", "number"),
    **_all("string", "number string bool timestamp duration bytes", "string"),
    **_all("bool", "string bool", "bool"),
    **_all("timestamp", "number string timestamp", "timestamp"),
    **_all("duration", "string duration", "duration"),
    **{method: [(("string", "string"), "bool")] for method in ("contains", "endsWith", "matches", "startsWith")},
    **{
        method: [(("timestamp",), "number"), (("timestamp", "string"), "number")]
        for method in "getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear getMonth".split()
    },
    **{
        method: [(("timestamp",), "number"), (("duration",), "number"), (("timestamp", "string"), "number")]
        for method in "getHours getMilliseconds getMinutes getSeconds".split()
    },
}
_TRUTH: Final = frozenset({"_&&_", "_||_", "!_", "_?_:_"})


class KindCheck(Struct, frozen=True):
    """One expression's walk. `field_kinds`: those of the field at a path, by the schema of its event."""

    text: str
    field_kinds: Callable[[Path], Kinds]
    element: Callable[[Path | None], Path | None]
    """The path of one element of the list at a path."""
    resolved: Callable[[Path, Known], Path | None]

    def faults(self, root: Node, known: Known, wanted: str | None) -> Iterator[Problem]:
        """`wanted`: what the whole has to be."""
        found: list[Problem] = []
        kinds = self._kinds(root, known, found)
        if not found and wanted is not None and kinds is not None and wanted not in kinds:
            found.append(self._problem(root, kinds, f", where {WORDS[wanted]} is needed", frozenset({wanted})))
        yield from found

    def faults_of_tests(self, root: Node, known: Known) -> Iterator[Problem]:
        """Finds the faults in an amount's tests: the rest of an amount is no CEL."""
        match root:
            case Call(function="_?_:_", args=(test, chosen, otherwise)):
                yield from self.faults(test, known, "bool")
                yield from self.faults_of_tests(chosen, known)
                yield from self.faults_of_tests(otherwise, known)
            case Call(function=function, args=operands) if function != "_[_]":
                for operand in operands:
                    yield from self.faults_of_tests(operand, known)
            case _:
                return

    def _kinds(self, node: Node, known: Known, found: list[Problem]) -> Kinds:
        """Returns the node's possible kinds; adds faults below it to `found`, after which the node may be anything."""
        path = paths.path_of(node)
        if path is not None:
            return self._of_path(path, known)
        match node:
            case Constant(kind=kind):
                return frozenset({"number" if kind in ("int", "uint", "double") else kind})
            case Select(test_only=True):
                return frozenset({"bool"})
            case Select(operand=operand):
                self._kinds(operand, known, found)
                return None
            case ListOf(elements=elements):
                for element in elements:
                    self._kinds(element, known, found)
                return frozenset({"list"})
            case MapOf(entries=entries):
                for _, value in entries:
                    self._kinds(value, known, found)
                return frozenset({"map"})
            case Comprehension():
                return self._of_loop(node, known, found)
            case Call():
                return self._of_call(node, known, found)
            case _:
                return None

    def _of_path(self, path: Path, known: Known) -> Kinds:
        whole = self.resolved(path, known)
        if whole is None:
            return None
        return _FIXED.get(str(whole[0])) if len(whole) == 1 else self.field_kinds(whole)

    def _of_loop(self, node: Comprehension, known: Known, found: list[Problem]) -> Kinds:
        over = self._kinds(node.over, known, found)
        if over is not None and not over & {"list", "map"}:
            found.append(self._problem(node.over, over, ", which has no elements", frozenset({"list"})))
        path = paths.path_of(node.over)
        whole = self.resolved(path, known) if path and over is not None and "map" not in over else None
        inner = {**known, node.variable: self.element(whole), node.variable2: None, node.accumulator: None}
        for below in (node.initial, node.condition, node.step, node.result):
            self._kinds(below, inner, found)
        return None  # cel-cpp knows it, and has looked at what is done with it

    def _of_call(self, node: Call, known: Known, found: list[Problem]) -> Kinds:
        operands = node.args if node.target is None else (node.target, *node.args)
        kinds = [self._kinds(operand, known, found) for operand in operands]
        match node.function:
            case "_==_" | "_!=_":
                self._equality(node, operands, kinds, found)
                return frozenset({"bool"})
            case "@in":
                self._membership(operands, kinds, known, found)
                return frozenset({"bool"})
            case "_?_:_":
                self._operand(node, operands[0], kinds[0], frozenset({"bool"}), found)
                return None if kinds[1] is None or kinds[2] is None else kinds[1] | kinds[2]
            case "_[_]":
                self._operand(node, operands[0], kinds[0], frozenset({"list", "map"}), found)
                return None
            case function if function in OVERLOADS:
                return self._overloaded(node, operands, kinds, found)
            case _:
                return None

    def _overloaded(self, node: Call, operands: tuple[Node, ...], kinds: list[Kinds], found: list[Problem]) -> Kinds:
        ways = [way for way in OVERLOADS[node.function] if len(way[0]) == len(operands)]
        fits = [result for taken, result in ways if _takes(taken, kinds)]
        if fits or not ways:
            return frozenset(fits) or None
        alone = [
            self._operand(node, operand, one, frozenset(taken[place] for taken, _ in ways), found)
            for place, (operand, one) in enumerate(zip(operands, kinds, strict=True))
        ]
        if all(alone):
            self._pair(operands, kinds, f", and {_shown(node.function)} cannot take it with ", found)
        return None

    def _operand(self, node: Call, operand: Node, kinds: Kinds, taken: frozenset[str], found: list[Problem]) -> bool:
        """Whether the operand, whatever the others are, can be taken."""
        if kinds is None or kinds & taken:
            return True
        what = _in_words(taken)
        said = f", where {what} is needed" if node.function in _TRUTH else f", and {_shown(node.function)} takes {what}"
        found.append(self._problem(operand, kinds, said, taken))
        return False

    def _equality(self, node: Call, operands: tuple[Node, ...], kinds: list[Kinds], found: list[Problem]) -> None:
        """Two that share no kind. Null is what an author asks for to be sure, so a literal null is let through."""
        left, right = kinds
        if left is not None and right is not None and not left & right and frozenset({"null"}) not in (left, right):
            never = "never" if node.function == "_==_" else "always"
            what = "equal to" if never == "never" else "other than"
            self._pair(operands, kinds, f", which is {never} {what} ", found)

    def _membership(self, operands: tuple[Node, ...], kinds: list[Kinds], known: Known, found: list[Problem]) -> None:
        (member, whole), (left, right) = operands, kinds
        if right is not None and not right & {"list", "map"}:
            found.append(self._problem(whole, right, ", and `in` takes a list or an object", frozenset({"list"})))
            return
        inside = self._elements(whole, right, known)
        if left is None or not inside or left & inside or "null" in inside or "null" in left:
            return
        found.append(self._problem(member, left, f", and is never in what holds {_in_words(inside)}", inside))

    def _elements(self, node: Node, kinds: Kinds, known: Known) -> Kinds:
        """Returns the kinds that a list holds, at a path or written out; None where they are unknown."""
        if isinstance(node, ListOf):
            every = [self._kinds(element, known, []) for element in node.elements]
            return None if None in every else frozenset(kind for one in every if one is not None for kind in one)
        path = paths.path_of(node)
        element = self.element(self.resolved(path, known)) if path and kinds and "map" not in kinds else None
        return self.field_kinds(element) if element else None

    def _pair(self, operands: tuple[Node, ...], kinds: list[Kinds], between: str, found: list[Problem]) -> None:
        """Told of the field, where one of the two is one."""
        (one, other), (kind, against) = operands, kinds
        if paths.path_of(one) is None and paths.path_of(other) is not None:
            one, kind, against = other, against, kind
        if kind is not None and against is not None:
            found.append(self._problem(one, kind, between + _in_words(against), against))

    def _problem(self, node: Node, kinds: frozenset[str], said: str, wanted: frozenset[str]) -> Problem:
        path = paths.path_of(node)
        subject = paths.render(path) if path else "this"
        at = tree.offsets(node, self.text)[-1] if path else node.at
        message = f"{subject} is {_in_words(kinds)}{said}"
        return Source(self.text).problem(at, message, hint=_hint(subject if path else "...", kinds, wanted))


def _takes(taken: tuple[str, ...], kinds: list[Kinds]) -> bool:
    return all(one is None or kind in one for kind, one in zip(taken, kinds, strict=True))


def _in_words(kinds: frozenset[str]) -> str:
    words = sorted(WORDS[kind] for kind in kinds)
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _shown(function: str) -> str:
    if function == "_[_]":
        return "`[ ]`"
    return f"`{function.strip('_')}`" if function.startswith("_") or function.endswith("_") else f"{function}()"


def _hint(subject: str, kinds: frozenset[str], wanted: frozenset[str]) -> str:
    """Says what to do, by what the subject is and what it should be."""
    if "string" in kinds and "timestamp" in wanted:
        return f"a moment sent as text is read with timestamp({subject})"
    if "string" in kinds and "number" in wanted:
        return f"a number sent as text is read with double({subject}); a text to compare it with stands in quotes"
    if "string" in kinds and "list" in wanted:
        return f'whether a text holds another is written {subject}.contains("...")'
    if "number" in kinds and "string" in wanted and wanted <= {"string", "null"}:
        return f"string({subject}) makes it text; a number to compare it with stands without quotes"
    if "bool" in wanted and kinds & {"string", "number"}:
        return f"compare it, such as {subject} " + ("> 0" if "number" in kinds else '== "..."')
    return "correct it; if the field does hold that, correct the schema of the event's type"
