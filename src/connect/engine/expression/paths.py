"""Field paths: how an expression names a place in the event's values, as text and as a way through them."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

from connect.engine.expression.ast import Call, Comprehension, Constant, Ident, Node, Select, children
from connect.engine.expression.problems import Failed, Missing

Path: TypeAlias = tuple[str | int, ...]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP: Final = re.compile(r'(?:^|\.)([A-Za-z_][A-Za-z0-9_]*)|\[(-?\d+)\]|\["((?:[^"\\]|\\.)*)"\]')


def render(path: Path) -> str:
    """`context.items[0].price`; a key that is not a name is quoted: `context["first order"]`."""
    shown = ""
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        elif _NAME.fullmatch(step):
            shown += f".{step}" if shown else step
        else:
            escaped = step.replace("\\", "\\\\").replace('"', '\\"')
            shown += f'["{escaped}"]'
    return shown


@lru_cache(maxsize=4096)  # a few hundred distinct reads in a large ruleset; parsed for every trace otherwise
def parse(text: str) -> Path:
    """The inverse of `render`."""
    return tuple(
        int(found[2]) if found[2] is not None else _unescaped(found[3]) if found[3] is not None else found[1]
        for found in _STEP.finditer(text)
    )


def _unescaped(key: str) -> str:
    return re.sub(r"\\(.)", r"\1", key, flags=re.DOTALL)


def resolve(values: Mapping[str, Any], path: Path) -> Any | Missing | Failed:
    """The value at the path, as CEL's select and index would find it."""
    here: Any = values
    for depth, step in enumerate(path):
        if type(step) is str and (type(here) is dict or isinstance(here, Mapping)):
            found = cast("Mapping[str, Any]", here)
            if step not in found:
                return Missing(render(path[: depth + 1]))
            here = found[step]
        elif type(step) is int and isinstance(here, (list, tuple)):
            items = cast("Sequence[Any]", here)
            if not 0 <= step < len(items):
                return Missing(render(path[: depth + 1]))
            here = items[step]
        elif here is None:
            return Missing(render(path[: depth + 1]))
        else:
            return Failed(not_a_container(path, depth, here))
    return here


def not_a_container(path: Path, depth: int, here: Any) -> str:
    """Why the step at `depth` cannot be taken from the value before it."""
    step = render(path[depth : depth + 1])
    return f"{render(path[:depth])} is {kind_of(here)}, which has no {step}"


def kind_of(value: Any) -> str:
    """The word an economist knows for the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}"


def path_of(node: Node, bound: frozenset[str] = frozenset()) -> Path | None:
    """The path a node names, or None when it computes something. `bound` holds the variables of macros around it."""
    match node:
        case Ident() if node.name not in bound:
            return (node.name,)
        case Select(test_only=False) if (path := path_of(node.operand, bound)) is not None:
            return (*path, node.field)
        case Call(function="_[_]", args=(operand, Constant(kind="int" | "string", value=key))):
            path = path_of(operand, bound)
            return None if path is None else (*path, cast("str | int", key))
        case _:
            return None


def paths_read(root: Node, names: frozenset[str]) -> tuple[Path, ...]:
    """Every path below one of `names` that the tree reads or tests with has(), in the order of reading, each once.

    Inside `all`, `exists`, `map` ... only the list gone through is told: `context.items`.
    """
    found: dict[Path, None] = {}

    def walk(node: Node, bound: frozenset[str]) -> None:
        if isinstance(node, Select) and node.test_only:
            node = Select(node.at, node.operand, node.field, test_only=False)
        path = path_of(node, bound)
        if path is not None:
            if path[0] in names:
                found[path] = None
        elif isinstance(node, Comprehension):
            walk(node.over, bound)
            inner = bound | {node.variable, node.variable2, node.accumulator}
            for child in (node.initial, node.condition, node.step, node.result):
                walk(child, inner)
        else:
            for child in children(node):
                walk(child, bound)

    walk(root, frozenset())
    return tuple(found)
