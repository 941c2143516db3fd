"""The names and functions an expression may use, and the check that it uses no others.

cel-cpp finds unknown names too, but points at the dot behind a name and knows no near misses, so ours runs first.
"""

import difflib
from collections.abc import Iterable
from typing import Final

from connect.engine.expression.ast import Call, Comprehension, Ident, MapOf, Node, children
from connect.engine.expression.problems import Problem, Source

EVENT_NAMES: Final = frozenset(
    {
        "context",
        "actor_user_id",
        "primary_subject_user_id",
        "parties",
        "event_type",
        "source",
        "external_id",
        "occurred_at",
        "counters",
        "variant",
    }
)
REVERSAL_NAMES: Final = frozenset({"original"})
KNOWN_NAMES: Final = EVENT_NAMES | REVERSAL_NAMES

_TYPE_NAMES: Final = frozenset(
    {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint", "google"}
)
MACROS: Final = {
    "has": "has(context.field)",
    "all": "list.all(item, test)",
    "exists": "list.exists(item, test)",
    "exists_one": "list.exists_one(item, test)",
    "map": "list.map(item, value)",
    "filter": "list.filter(item, test)",
}
_GLOBAL_FUNCTIONS: Final = frozenset(
    {"bool", "bytes", "double", "duration", "dyn", "int", "matches", "size", "string", "timestamp", "type", "uint"}
)
METHODS: Final = frozenset(
    {
        "contains",
        "endsWith",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "matches",
        "size",
        "startsWith",
    }
)
_OPERATORS: Final = frozenset(
    "_&&_ _||_ !_ _==_ _!=_ _<_ _<=_ _>_ _>=_ @in _+_ _-_ _*_ _/_ _%_ _?_:_ _[_] -_ @not_strictly_false".split()
)
AMOUNT_FUNCTIONS: Final = frozenset({"decimal", "max", "min", "scaled"})

_FUNCTION_HINTS: Final = {
    "now": "a rule knows no clock; occurred_at is the moment of the event",
    "len": "did you mean size?",
    "round": "rounding is set beside the amount: round: down | up | half_even | half_up",
    "any": "did you mean exists?",
    "lower": "regular expressions ignore case with (?i): context.x.matches('(?i)abc')",
    "lowerAscii": "regular expressions ignore case with (?i): context.x.matches('(?i)abc')",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """`did you mean context?`, or None when nothing is near."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None


def unknown_names(
    root: Node, source: Source, names: frozenset[str], functions: frozenset[str] = frozenset()
) -> tuple[Problem, ...]:
    """One problem for every name and function of the tree that is neither in `names` (`functions`) nor CEL's own.

    The arguments of an unknown function are not looked at: in `context.items.exits(i, i.x)` only `exits` is wrong.
    """
    problems: list[Problem] = []

    def walk(node: Node, bound: frozenset[str]) -> None:
        if isinstance(node, Ident) and node.name not in names | bound | _TYPE_NAMES:
            problems.append(_unknown_name(node, source, names | bound))
        elif isinstance(node, MapOf) and node.message_name:
            problems.append(source.problem(node.at, f"{node.message_name}{{...}} makes a message; rules have none"))
        elif isinstance(node, Call) and (problem := _wrong_function(node, source, functions)) is not None:
            problems.append(problem)
            if node.target is not None:
                walk(node.target, bound)
        elif isinstance(node, Comprehension):
            walk(node.over, bound)
            inner = bound | {node.variable, node.variable2, node.accumulator}
            for child in (node.initial, node.condition, node.step, node.result):
                walk(child, inner)
        else:
            for child in children(node):
                walk(child, bound)

    walk(root, frozenset())
    return tuple(problems)


def _unknown_name(node: Ident, source: Source, known: frozenset[str]) -> Problem:
    hint = nearest(node.name, known)
    if node.name in REVERSAL_NAMES:
        hint = "the original event is known only in a reversal's fraction"
    elif hint is None:
        hint = f"fields of the event are read as context.{node.name}; texts stand in quotes"
    return source.problem(node.at, f"unknown name {node.name}", hint=hint)


def _wrong_function(node: Call, source: Source, functions: frozenset[str]) -> Problem | None:
    name = node.function
    known = (_GLOBAL_FUNCTIONS | functions) if node.target is None else METHODS
    if name in known or name in _OPERATORS:
        return None
    at = max(source.text.rfind(name, 0, node.at), 0)  # the tree keeps the place of the bracket, not of the name
    if name in MACROS:
        return source.problem(at, f"{name} is written {MACROS[name]}")
    if name in METHODS:
        return source.problem(at, f"{name} is written context.field.{name}(...)")
    if name in _GLOBAL_FUNCTIONS | functions:
        return source.problem(at, f"{name} is written {name}(...), without a dot before it")
    if name in AMOUNT_FUNCTIONS:
        return source.problem(at, f"{name} works in amounts only", hint="this is a condition or a value, in plain CEL")
    hint = _FUNCTION_HINTS.get(name) or nearest(name, known | MACROS.keys())
    return source.problem(at, f"unknown function {name}", hint=hint)
