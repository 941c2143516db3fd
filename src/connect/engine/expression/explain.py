"""Why an evaluation gave no value: `Missing` with the path that was not there, or `Failed` with a sentence.

cel-cpp says only `Key not found in map : "price"` and uses one sentence for a select on null and on a number. The
tree and the values tell the rest: every path is followed through the values, through the elements of the lists that
macros go over too, and the faults on the way are compared with what cel said.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from connect.engine.expression.ast import Call, Comprehension, Constant, Ident, Node, Select, children
from connect.engine.expression.paths import Path, kind_of, render
from connect.engine.expression.problems import Failed, Missing

REASON_MAX: Final = 300  # characters; the library quotes whole values

_KEY: Final = re.compile(r"^NOT_FOUND: Key not found in map : (.*)$", re.DOTALL)
_INDEX: Final = re.compile(r"^\w+: Index error: index=(-?\d+) size=\d+$")
_SELECT: Final = "INVALID_ARGUMENT: Applying SELECT to non-message type"
_INDEX_OF: Final = re.compile(r"Invalid container type: '(\w+)'")
_OVERLOAD: Final = re.compile(r"^\w+: No matching overloads found : ([^(]+?)(?:\((.*)\))?$", re.DOTALL)
_STATUS: Final = re.compile(r"^[A-Z_]+: ")
_TYPE_WORDS: Final = {
    "int64": "a whole number",
    "uint64": "an unsigned number",
    "double": "a decimal number",
    "string": "text",
    "bool": "true or false",
    "null_type": "null",
    "list": "a list",
    "map": "an object",
    "google.protobuf.Timestamp": "a timestamp",
    "google.protobuf.Duration": "a duration",
}
_SENTENCES: Final = {
    "divide by zero": "division by zero",
    "modulus by zero": "division by zero",
    "Iteration budget exceeded [INTERNAL]": "more than 10,000 steps through lists",
}

_FaultKind: TypeAlias = Literal["absent", "beyond", "null", "no_container"]
_FAULTS_MAX: Final = 64  # an explanation, not a second evaluation
_ELEMENTS_LOOKED_AT: Final = 100


class _Fault(msgspec.Struct, frozen=True):
    kind: _FaultKind
    path: Path
    value: Any = None  # what stood where a container was expected


class _Place(msgspec.Struct, frozen=True):
    path: Path
    value: Any


def explain(said: str, root: Node, values: Mapping[str, Any]) -> Missing | Failed:
    """The outcome for an error text of cel. `values` are those of the activation."""
    faults = _Follow(values).faults_of(root)
    if (key := _KEY.match(said)) is not None:
        return Missing(_path_or(faults, "absent", key[1], key[1].strip('"')))
    if (index := _INDEX.match(said)) is not None:
        return Missing(_path_or(faults, "beyond", index[1], f"[{index[1]}]"))
    if said == _SELECT or _INDEX_OF.search(said) is not None:
        for fault in faults:
            if fault.kind == "null":
                return Missing(render(fault.path))
            if fault.kind == "no_container":
                return Failed(f"{render(fault.path[:-1])} is {kind_of(fault.value)}, which has no fields")
        return Failed("a field was read of a value that has no fields")
    return Failed(sentence(said))


def sentence(said: str) -> str:
    """The library's error in words: operators as they are written, types as economists name them."""
    if (overload := _OVERLOAD.match(said)) is not None:
        name = overload[1].strip("_@") if overload[1] != "<jump_condition>" else "?:"
        types = [_TYPE_WORDS.get(kind.strip(), kind.strip()) for kind in (overload[2] or "").split(",")]
        return f"{name} cannot be applied" + (f" to {' and '.join(types)}" if types != [""] else " to these values")
    said = _STATUS.sub("", said)
    return _SENTENCES.get(said, said)[:REASON_MAX]


def _path_or(faults: list[_Fault], kind: _FaultKind, step: str, otherwise: str) -> str:
    """The first fault of the kind whose last step is the one cel names."""
    for fault in faults:
        last = fault.path[-1]
        if fault.kind == kind and step == (f'"{last}"' if isinstance(last, str) else str(last)):
            return render(fault.path)
    return otherwise[:REASON_MAX]


class _Follow:
    """Follows the paths of a tree through the values and notes where they break, in the order of evaluation."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._faults: list[_Fault] = []

    def faults_of(self, root: Node) -> list[_Fault]:
        self._places(root, {})
        return self._faults

    def _places(self, node: Node, bound: dict[str, list[_Place]]) -> list[_Place]:
        """The values the node can have; none when it computes something."""
        match node:
            case Ident():
                if node.name in bound:
                    return bound[node.name]
                return [_Place((node.name,), self._values[node.name])] if node.name in self._values else []
            case Select():
                operands = self._places(node.operand, bound)
                if node.test_only:
                    return [step for place in operands for step in self._step(place, node.field, tested=True)]
                return [step for place in operands for step in self._step(place, node.field)]
            case Call(function="_[_]", args=(operand, Constant(kind="int" | "string", value=key))):
                places = self._places(operand, bound)
                return [step for place in places for step in self._step(place, cast("str | int", key))]
            case Comprehension():
                self._through_loop(node, bound)
            case _:
                for child in children(node):
                    self._places(child, bound)
        return []

    def _through_loop(self, node: Comprehension, bound: dict[str, list[_Place]]) -> None:
        """An element keeps the path of its list, so a field of it is told as `context.items.price`."""
        elements: list[_Place] = []
        for place in self._places(node.over, bound):
            if isinstance(place.value, (list, dict)):
                found = list(cast("list[Any]", place.value))[:_ELEMENTS_LOOKED_AT]
                elements.extend(_Place(place.path, element) for element in found)
        inner = {**bound, node.variable: elements[:_ELEMENTS_LOOKED_AT], node.accumulator: []}
        for child in (node.step, node.result):
            self._places(child, inner)

    def _step(self, place: _Place, key: str | int, *, tested: bool = False) -> list[_Place]:
        path, value = (*place.path, key), place.value
        if isinstance(value, dict):
            entries = cast("dict[Any, Any]", value)
            if key in entries:
                return [_Place(path, entries[key])]
            return [] if tested else self._note(_Fault("absent", path))
        if isinstance(value, list) and type(key) is int:
            items = cast("list[Any]", value)
            if 0 <= key < len(items):
                return [_Place(path, items[key])]
            return self._note(_Fault("beyond", path))
        return self._note(_Fault("null" if value is None else "no_container", path, value))

    def _note(self, fault: _Fault) -> list[_Place]:
        if len(self._faults) < _FAULTS_MAX:
            self._faults.append(fault)
        return []
