"""The commonest conditions without the library: a field beside a literal, has(), size(), and these joined.

One costs a fraction of a microsecond, the library's evaluation six and what makes the event ready for it thirty. Only
what is certain is decided here: on a missing field, a value of another type or a number beyond 64 bits the answer is
None, and the library decides, with all that CEL says of such cases.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from connect.engine.expression.ast import Call, Constant, ListOf, Node, Select
from connect.engine.expression.paths import path_of

Values: TypeAlias = Mapping[str, Any]
Quick: TypeAlias = Callable[[Values], bool | None]

_INT64_MAX: Final = 2**63 - 1
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "_==_": operator.eq, "_!=_": operator.ne, "_<_": operator.lt, "_<=_": operator.le, "_>_": operator.gt,
    "_>=_": operator.ge,
}  # fmt: skip
_ABSENT: Final = object()


def quick(root: Node) -> Quick | None:
    """None where the condition is not such a one."""
    match root:
        case Select(test_only=True, operand=operand, field=field):
            return _has(operand, field)
        case Call(function="_&&_" | "_||_", args=(left, right)):
            return _joined(quick(left), quick(right), ends=root.function == "_||_")
        case Call(function="@in", target=None, args=(left, ListOf(elements=elements))):
            return _among(left, elements)
        case Call(function=function, target=None, args=(left, Constant() as right)) if function in _ORDERS:
            return _compared(left, function, right)
        case _:
            return None


def _reader(node: Node) -> Callable[[Values], Any] | None:
    """Gives the value at a path of names, `_ABSENT` where there is none or something on the way is no object."""
    path = path_of(node)
    if path is None or not all(isinstance(step, str) for step in path):
        return None
    steps = cast("tuple[str, ...]", path)

    def read(values: Values) -> Any:
        here: Any = values
        for step in steps:
            if type(here) is not dict:
                return _ABSENT
            here = cast("dict[str, Any]", here).get(step, _ABSENT)
        return here

    return read


def _has(node: Node, field: str) -> Quick | None:
    read = _reader(node)
    if read is None:
        return None

    def test(values: Values) -> bool | None:
        found = read(values)
        return field in cast("dict[str, Any]", found) if type(found) is dict else None

    return test


def _compared(left: Node, function: str, right: Constant) -> Quick | None:
    """A text equal to a text or not, a whole number beside a whole number, or the size of a list or an object."""
    order, literal = _ORDERS[function], right.value
    match left:
        case Call(function="size", target=None, args=(sized,)) if right.kind == "int":
            read = _reader(sized)
            return None if read is None else _of_size(read, order, literal)
        case _:
            read = _reader(left)
    if read is None:
        return None
    if right.kind == "int":

        def of_number(values: Values) -> bool | None:
            found = read(values)
            return order(found, literal) if type(found) is int and abs(found) <= _INT64_MAX else None

        return of_number
    if right.kind == "string" and function in ("_==_", "_!=_"):

        def of_text(values: Values) -> bool | None:
            found = read(values)
            return order(found, literal) if type(found) is str else None

        return of_text
    return None


def _of_size(read: Callable[[Values], Any], order: Callable[[Any, Any], bool], literal: Any) -> Quick:
    def test(values: Values) -> bool | None:
        found = read(values)
        sized = type(found) is list or type(found) is dict
        return order(len(cast("list[Any]", found)), literal) if sized else None

    return test


def _among(left: Node, elements: tuple[Node, ...]) -> Quick | None:
    """A text among texts."""
    read = _reader(left)
    texts = frozenset(one.value for one in elements if isinstance(one, Constant) and one.kind == "string")
    if read is None or not elements or not all(isinstance(one, Constant) and one.kind == "string" for one in elements):
        return None

    def test(values: Values) -> bool | None:
        found = read(values)
        return found in texts if type(found) is str else None

    return test


def _joined(left: Quick | None, right: Quick | None, *, ends: bool) -> Quick | None:
    """`ends` is the answer of the left side that needs no right one: false of `&&`, true of `||`."""
    if left is None:
        return None

    def test(values: Values) -> bool | None:
        found = left(values)
        if found is None or found is ends:
            return found
        return None if right is None else right(values)

    return test
