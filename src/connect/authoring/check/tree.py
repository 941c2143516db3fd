"""Trees of expressions, as far as a finding needs them: what they read, and where each part of it stands."""

from collections.abc import Iterator

from connect.engine.expression import paths
from connect.engine.expression.ast import Call, Comprehension, Ident, Node, Select, children
from connect.engine.expression.paths import Path


def nodes(node: Node, bound: frozenset[str] = frozenset()) -> Iterator[tuple[Node, frozenset[str]]]:
    """Every node of the tree, with the variables of the macros around it."""
    yield node, bound
    if isinstance(node, Comprehension):
        yield from nodes(node.over, bound)
        bound = bound | {node.variable, node.variable2, node.accumulator}
        for inner in (node.initial, node.condition, node.step, node.result):
            yield from nodes(inner, bound)
    else:
        for inner in children(node):
            yield from nodes(inner, bound)


def field(node: Node) -> Node:
    """The node itself; of `has(context.a)` the field that is asked for."""
    return Select(node.at, node.operand, node.field, test_only=False) if isinstance(node, Select) else node


def places(root: Node, text: str) -> dict[Path, tuple[int, ...]]:
    """Each path the expression reads, with the offset of each of its steps where it is read first."""
    found: dict[Path, tuple[int, ...]] = {}
    parts: set[int] = set()
    for node, bound in nodes(root):
        path = None if id(node) in parts else paths.path_of(field(node), bound)
        if path is not None:
            found.setdefault(path, offsets(node, text))
            parts.update(id(part) for part, _ in nodes(node))
    return found


def offsets(node: Node, text: str) -> tuple[int, ...]:
    """Where each step of a path starts."""
    return tuple(start for start, _ in _spans(field(node), text))


def _spans(node: Node, text: str) -> list[tuple[int, int]]:
    match node:
        case Ident():
            return [(node.at, node.at + len(node.name))]
        case Select():
            before = _spans(node.operand, text)
            at = max(text.find(node.field, before[-1][1]), before[-1][0])
            return [*before, (at, at + len(node.field))]
        case Call(function="_[_]", args=(operand, index)):
            return [*_spans(operand, text), (index.at, max(text.find("]", index.at), index.at) + 1)]
        case _:
            return [(node.at, node.at)]


def numbers(node: Node) -> Iterator[Node]:
    """The fields that an amount takes as numbers, not those of its tests nor texts it reads numbers from."""
    match node:
        case Call(function="_?_:_", args=(_, chosen, otherwise)):
            yield from numbers(chosen)
            yield from numbers(otherwise)
        case Call(function="decimal" | "scaled"):
            return
        case Call(function=function) if function != "_[_]":
            for inner in node.args:
                yield from numbers(inner)
        case _:
            yield node
