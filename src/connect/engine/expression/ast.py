"""The syntax tree of an expression, read from the bytes cel-cpp serialises.

No Python package ships the message classes, so the few that are needed are declared here with the public wire numbers
of `cel/expr/syntax.proto` and `cel/expr/checked.proto`, in a pool of their own: an application that loads the
real ones is not disturbed. The nodes are plain structs, which compare by value and fit `match`.
"""

from typing import Any, Final, Literal, TypeAlias

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

ConstantKind: TypeAlias = Literal["null", "bool", "int", "uint", "double", "string", "bytes"]


class Constant(msgspec.Struct, frozen=True):
    """A literal. A sign that stands directly before a number belongs to the literal."""

    at: int  # offset in the text, in code points, as in every node; a call of an operator stands at its operator
    kind: ConstantKind
    value: bool | int | float | str | bytes | None


class Ident(msgspec.Struct, frozen=True):
    at: int
    name: str


class Select(msgspec.Struct, frozen=True):
    """`operand.field`; with `test_only` it is `has(operand.field)`."""

    at: int
    operand: "Node"
    field: str
    test_only: bool


class Call(msgspec.Struct, frozen=True):
    """A function or an operator (`_+_`, `_?_:_`, `_[_]` ...). `type` is that of the result, "" when it is no scalar."""

    at: int
    function: str
    target: "Node | None"
    args: "tuple[Node, ...]"
    type: str = ""


class ListOf(msgspec.Struct, frozen=True):
    at: int
    elements: "tuple[Node, ...]"


class MapOf(msgspec.Struct, frozen=True):
    """`{key: value}`, or a message when `message_name` is not empty."""

    at: int
    message_name: str
    entries: "tuple[tuple[Node | None, Node], ...]"


class Comprehension(msgspec.Struct, frozen=True):
    """The node that `all`, `exists`, `exists_one`, `map` and `filter` expand to."""

    at: int
    variable: str
    variable2: str
    over: "Node"
    accumulator: str
    initial: "Node"
    condition: "Node"
    step: "Node"
    result: "Node"


Node: TypeAlias = Constant | Ident | Select | Call | ListOf | MapOf | Comprehension


class TooDeepError(Exception):
    """The tree is deeper than protobuf reads (100 messages); macros nest four messages each."""


# message -> fields as (name, number, type); "*" marks a repeated one. Maps are declared as their wire form, entries.
_MESSAGES: Final[dict[str, list[tuple[str, int, str]]]] = {
    "Any": [("type_url", 1, "string"), ("value", 2, "bytes")],
    "ParsedExpr": [("expr", 2, "Expr"), ("source_info", 3, "SourceInfo")],
    "CheckedExpr": [("type_map", 3, "*TypeEntry"), ("expr", 4, "Expr"), ("source_info", 5, "SourceInfo")],
    "TypeEntry": [("key", 1, "int64"), ("value", 2, "Type")],
    "Type": [("primitive", 3, "int32")],
    "SourceInfo": [("positions", 4, "*Position")],
    "Position": [("key", 1, "int64"), ("value", 2, "int32")],
    "Expr": [
        ("id", 2, "int64"),
        ("const_expr", 3, "Constant"),
        ("ident_expr", 4, "Ident"),
        ("select_expr", 5, "Select"),
        ("call_expr", 6, "Call"),
        ("list_expr", 7, "CreateList"),
        ("struct_expr", 8, "CreateStruct"),
        ("comprehension_expr", 9, "Comprehension"),
    ],
    "Constant": [
        ("null", 1, "int32"),
        ("bool", 2, "bool"),
        ("int", 3, "int64"),
        ("uint", 4, "uint64"),
        ("double", 5, "double"),
        ("string", 6, "string"),
        ("bytes", 7, "bytes"),
    ],
    "Ident": [("name", 1, "string")],
    "Select": [("operand", 1, "Expr"), ("field", 2, "string"), ("test_only", 3, "bool")],
    "Call": [("target", 1, "Expr"), ("function", 2, "string"), ("args", 3, "*Expr")],
    "CreateList": [("elements", 1, "*Expr")],
    "CreateStruct": [("message_name", 1, "string"), ("entries", 2, "*Entry")],
    "Entry": [("field_key", 2, "string"), ("map_key", 3, "Expr"), ("value", 4, "Expr")],
    "Comprehension": [
        ("iter_var", 1, "string"),
        ("iter_range", 2, "Expr"),
        ("accu_var", 3, "string"),
        ("accu_init", 4, "Expr"),
        ("loop_condition", 5, "Expr"),
        ("loop_step", 6, "Expr"),
        ("result", 7, "Expr"),
        ("iter_var2", 8, "string"),
    ],
}
_PACKAGE: Final = "connect.cel"
_PRIMITIVES: Final = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_KINDS: Final[tuple[ConstantKind, ...]] = ("bool", "int", "uint", "double", "string", "bytes")


def _declare() -> dict[str, Any]:
    """proto2, because there every scalar has presence: the literal 0 differs from no literal."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="connect/cel.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = field_type.LABEL_REPEATED if kind.startswith("*") else field_type.LABEL_OPTIONAL
            if (kind := kind.removeprefix("*")) in _MESSAGES:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES: Final = _declare()


def read(serialized: bytes) -> Node:
    """The tree in the bytes of `Expression.serialize()`, an `Any` with a CheckedExpr or a ParsedExpr.

    Raises TooDeepError. Recursion is bounded: protobuf refuses more than 100 nested messages before we descend.
    """
    try:
        wrapped = _CLASSES["Any"].FromString(serialized)
        holder = _CLASSES[wrapped.type_url.rsplit(".", 1)[-1]].FromString(wrapped.value)
    except DecodeError as error:
        raise TooDeepError from error
    return _Reader(holder).node(holder.expr)


class _Reader:
    def __init__(self, holder: Any) -> None:
        self._positions: dict[int, int] = {entry.key: entry.value for entry in holder.source_info.positions}
        self._types: dict[int, str] = {
            entry.key: _PRIMITIVES.get(entry.value.primitive, "") for entry in getattr(holder, "type_map", ())
        }

    def node(self, expr: Any) -> Node:
        at = self._positions.get(expr.id, 0)
        if expr.HasField("const_expr"):
            return _constant(at, expr.const_expr)
        if expr.HasField("ident_expr"):
            return Ident(at, expr.ident_expr.name)
        if expr.HasField("select_expr"):
            select = expr.select_expr
            return Select(at, self.node(select.operand), select.field, select.test_only)
        if expr.HasField("call_expr"):
            call = expr.call_expr
            target = self.node(call.target) if call.HasField("target") else None
            return Call(at, call.function, target, self._nodes(call.args), self._types.get(expr.id, ""))
        if expr.HasField("list_expr"):
            return ListOf(at, self._nodes(expr.list_expr.elements))
        if expr.HasField("struct_expr"):
            return self._map(at, expr.struct_expr)
        return self._comprehension(at, expr.comprehension_expr)

    def _nodes(self, exprs: Any) -> tuple[Node, ...]:
        return tuple(self.node(expr) for expr in exprs)

    def _map(self, at: int, struct: Any) -> MapOf:
        entries = tuple(
            (self.node(entry.map_key) if entry.HasField("map_key") else None, self.node(entry.value))
            for entry in struct.entries
        )
        return MapOf(at, struct.message_name, entries)

    def _comprehension(self, at: int, loop: Any) -> Comprehension:
        return Comprehension(
            at,
            variable=loop.iter_var,
            variable2=loop.iter_var2,
            over=self.node(loop.iter_range),
            accumulator=loop.accu_var,
            initial=self.node(loop.accu_init),
            condition=self.node(loop.loop_condition),
            step=self.node(loop.loop_step),
            result=self.node(loop.result),
        )


def _constant(at: int, constant: Any) -> Constant:
    for kind in _KINDS:
        if constant.HasField(kind):
            return Constant(at, kind, getattr(constant, kind))
    return Constant(at, "null", None)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below, in the order of evaluation."""
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.args if node.target is None else (node.target, *node.args)
        case ListOf():
            return node.elements
        case MapOf():
            return tuple(child for entry in node.entries for child in entry if child is not None)
        case Comprehension():
            return (node.over, node.initial, node.condition, node.step, node.result)
        case _:
            return ()
