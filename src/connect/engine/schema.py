"""Schemas of events: what `context` of an event type holds, so that a mistyped field is an error when a rule is saved.

A part of JSON Schema (draft 2020-12, json-schema.org): `type`, `properties`, `required`, `items`,
`additionalProperties`, `enum` and `anyOf`. Keywords that only narrow values (`minimum`, `format` ...) or describe them
are let through unread; those that could bring in fields we would not see (`$ref`, `allOf` ...) are refused.

One thing is stricter than the standard: an object with `properties` is closed unless `additionalProperties` says
otherwise, since the fields it lists are the ones meant. Events are not validated by it: a fact is stored as reported.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, cast

from connect.engine.expression.names import nearest
from connect.engine.expression.paths import Path, render

PROPERTIES_MAX: Final = 256  # of an object; one with more names is a map whose keys are data, such as ids
DEPTH_MAX: Final = 8  # below context; what lies deeper is not described, and so open
NESTING_MAX: Final = 64  # of a schema as written, every keyword a level: a bound for the recursion

_WORDS: Final = {
    "string": "text",
    "number": "a number",
    "integer": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_UNDERSTOOD: Final = frozenset("type properties required items additionalProperties enum anyOf".split())
_OF_FIELDS: Final = frozenset({"properties", "items", "additionalProperties"})
_UNREAD: Final = frozenset(
    "$schema $id $comment title description default examples deprecated readOnly writeOnly const format pattern"
    " minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems uniqueItems"
    " minProperties maxProperties contentEncoding contentMediaType contentSchema".split()
)
_REFUSED: Final = frozenset(
    "$ref $dynamicRef $defs definitions allOf oneOf not if then else dependentSchemas dependentRequired"
    " patternProperties propertyNames prefixItems contains unevaluatedItems unevaluatedProperties".split()
)
_KNOWN_SHOWN_MAX: Final = 8
_NOT_IN_FRAGMENT: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/?-]")

Schema = dict[str, Any]


def fields_problem(schema: Schema, path: Path) -> str | None:
    """Why the path names no field of a context with this schema, in words; None where it does, or may.

    `path` is as an expression reads it, `("context", "items", 0, "price")`; paths that begin elsewhere are no concern
    of the schema. For `original.context` give the schema of the original's type.
    """
    return _walk(schema, path)[1]


def type_problem(schema: Schema, path: Path) -> str | None:
    """Why the path cannot be used as a number; None where it can, or may, and where there is no such field at all."""
    types = types_at(schema, path)
    if types is None or types & {"number", "integer"}:
        return None
    return f"{render(path)} is {_in_words(types)}, not a number"


def types_at(schema: Schema, path: Path) -> set[str] | None:
    """The JSON types of the field at the path; None where it may be anything, and where there is no such field."""
    found, problem = _walk(schema, path)
    return _types(found) if found and problem is None else None


def _walk(schema: Schema, path: Path) -> tuple[list[Schema], str | None]:
    """The alternatives at the end of the path (none: anything may be there), and what is wrong on the way."""
    first = 2 if path[:1] == ("original",) else 1
    if path[first - 1 : first] != ("context",):
        return [], None
    here = _alternatives(schema)
    for depth in range(first, len(path)):
        if not here:
            return [], None
        inner = [_inside(alternative, path[depth]) for alternative in here]
        if all(found is False for found in inner):
            return [], _unknown(here, path, depth)
        here = [alternative for found in inner for alternative in _alternatives(found)]
    return here, None


def _alternatives(schema: Any) -> list[Schema]:
    """The schemas of which a value fits one: those of `anyOf`, each with the type that stands beside it.

    Fields beside `anyOf` are one more alternative; those of its schemas that say nothing of fields then add none.
    """
    if isinstance(schema, bool):
        return [{}] if schema else []
    written = cast("Schema", schema)
    if "anyOf" not in written:
        return [written]
    nested = [found for one in cast("list[Any]", written["anyOf"]) for found in _alternatives(one)]
    beside = {key: value for key, value in written.items() if key != "anyOf"}
    if beside.keys() & _OF_FIELDS:
        return [beside, *(found for found in nested if found.keys() & _OF_FIELDS)]
    outer = {key: value for key, value in beside.items() if key in ("type", "enum")}
    return [{**outer, **found} for found in nested]


def _inside(schema: Schema, step: str | int) -> Schema | bool:
    """The schema of a field or an element; True for one that may be anything, False where there is none."""
    types = _types([schema])
    if types is not None and ("object" if isinstance(step, str) else "array") not in types:
        return False
    if isinstance(step, int):
        return _or_anything(schema.get("items", True))
    properties = cast("dict[str, Any]", schema.get("properties", {}))
    if step in properties:
        return _or_anything(properties[step])
    return _or_anything(schema.get("additionalProperties", "properties" not in schema))


def _or_anything(schema: Any) -> Schema | bool:
    return schema if isinstance(schema, bool) else cast("Schema", schema) or True


def _types(alternatives: list[Schema]) -> set[str] | None:
    """The JSON types that values may have; None when they may have any."""
    types: set[str] = set()
    for schema in alternatives:
        if "type" in schema:
            written = schema["type"]
            types |= {written} if isinstance(written, str) else set(cast("list[str]", written))
        elif "enum" in schema:
            types |= {_type_of(value) for value in cast("list[Any]", schema["enum"])}
        else:
            return None
    return types


def _unknown(here: list[Schema], path: Path, depth: int) -> str:
    step, outer = path[depth], render(path[:depth])
    types = _types(here)
    if types is not None and ("object" if isinstance(step, str) else "array") not in types:
        return f"{outer} is {_in_words(types)}, which has no {render((step,))}"
    fields = [field for schema in here for field in cast("Schema", schema.get("properties", {})).items()]
    known = sorted({name for name, inner in fields if inner is not False})
    close = difflib.get_close_matches(str(step), known, n=1, cutoff=0.6)
    if close:
        return f"there is no {render(path[: depth + 1])}: did you mean {render((*path[:depth], close[0]))}?"
    shown = ", ".join(render((name,)) for name in known[:_KNOWN_SHOWN_MAX]) or "no fields"
    more = f" and {len(known) - _KNOWN_SHOWN_MAX} more" if len(known) > _KNOWN_SHOWN_MAX else ""
    return f"there is no {render(path[: depth + 1])}: {outer} has {shown}{more}"


def _in_words(types: set[str]) -> str:
    return " or ".join(sorted({_WORDS[name] for name in types}))


def schema_problems(schema: object, pointer: str = "#") -> list[tuple[str, str]]:
    """Lists what is wrong with a context's schema, as (where, why). The rest of this file asks for an empty list.

    `pointer` says where the schema stands (RFC 6901, as a URI fragment); the places found are below it.
    """
    if not isinstance(schema, dict):
        return [(pointer, "a schema is an object such as {type: object, properties: {order_id: {type: string}}}")]
    problems = list(_problems(cast("Schema", schema), pointer, 0))
    if not problems and (types := _types(_alternatives(schema))) is not None and "object" not in types:
        problems.append((pointer, f"context is always an object, this says it is {_in_words(types)}"))
    return problems


def _problems(schema: object, pointer: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield pointer, "this is no schema: write an object such as {type: string}, or true for anything"
        return
    if depth > NESTING_MAX:
        yield pointer, f"the schema is nested more than {NESTING_MAX} levels deep"
        return
    for key, value in cast("dict[str, object]", schema).items():
        at = _below(pointer, key)
        if key in _UNDERSTOOD:
            yield from _keyword_problems(key, value, at, depth)
        elif key not in _UNREAD and not key.startswith("x-"):
            yield at, _not_a_keyword(key)


def _not_a_keyword(key: str) -> str:
    if key in _REFUSED:
        return f"{key} is not understood here: write the fields out under properties, items or anyOf"
    hint = nearest(key, _UNDERSTOOD) or "fields stand under properties"
    return f"{key} is no keyword of JSON Schema: {hint}"


def _keyword_problems(key: str, value: object, at: str, depth: int) -> Iterator[tuple[str, str]]:
    match key:
        case "type":
            yield from _type_keyword_problems(value, at)
        case "properties":
            if not isinstance(value, dict):
                yield at, "properties is an object: the name of each field and its schema"
                return
            for name, inner in cast("dict[str, object]", value).items():
                yield from _problems(inner, _below(at, name), depth + 1)
        case "required":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in cast("list[object]", value)):
                yield at, "required is a list of names of fields"
        case "enum":
            if not isinstance(value, list) or not value:
                yield at, "enum is a list of the values there are"
        case "anyOf":
            if not isinstance(value, list) or not value:
                yield at, "anyOf is a list of schemas"
                return
            for place, inner in enumerate(cast("list[object]", value)):
                yield from _problems(inner, f"{at}/{place}", depth + 1)
        case _:
            yield from _problems(value, at, depth + 1)


def _type_keyword_problems(value: object, at: str) -> Iterator[tuple[str, str]]:
    names = cast("list[object]", value) if isinstance(value, list) else [value]
    if not names:
        yield at, "type is empty: leave it out where anything may stand"
    for name in names:
        if name is None:
            yield at, 'the type null is a text: write "null" in quotes'
        elif not isinstance(name, str) or name not in _WORDS:
            hint = nearest(str(name), _WORDS) or "it is one of " + ", ".join(sorted(_WORDS))
            yield at, f"{name!s:.60} is no type of JSON Schema: {hint}"


def _below(pointer: str, key: str) -> str:
    escaped = key.replace("~", "~0").replace("/", "~1").encode(errors="backslashreplace")
    return f"{pointer}/{_NOT_IN_FRAGMENT.sub(lambda found: b'%%%02X' % found[0][0], escaped).decode()}"


def learn_schema(contexts: Iterable[dict[str, Any]]) -> Schema:
    """A schema that all of these contexts fit: a proposal for a person to read, who knows what else there may be.

    The same whatever their order. Fields are sorted; `required` are those that every object had; integers and other
    numbers together are numbers; all elements of a list have one schema. Open, so that nothing is refused unseen: what
    was only ever null or empty, objects with more than `PROPERTIES_MAX` names, and whatever lies below `DEPTH_MAX`.
    Memory grows with the different paths, not with the contexts. Raises TypeError for what is not JSON.
    """
    seen = _Seen()
    for context in contexts:
        seen.take(context, 0)
    return seen.schema() or {"type": "object"}


class _Seen:
    """Collects what was met at one place in all contexts."""

    __slots__ = ("elements", "fields", "met", "objects", "types")

    def __init__(self) -> None:
        self.types: set[str] = set()
        self.met = 0
        self.objects = 0
        self.fields: dict[str, _Seen] | None = {}  # None once there were too many
        self.elements: _Seen | None = None

    def take(self, value: object, depth: int) -> None:
        self.met += 1
        self.types.add(_type_of(value))
        if isinstance(value, dict):
            self.objects += 1
            if depth < DEPTH_MAX:
                self._take_fields(cast("dict[str, object]", value), depth)
        elif isinstance(value, list) and depth < DEPTH_MAX:
            for element in cast("list[object]", value):
                self.elements = self.elements or _Seen()
                self.elements.take(element, depth + 1)

    def _take_fields(self, value: dict[str, object], depth: int) -> None:
        for name, inner in value.items():
            if self.fields is None:
                return
            if name not in self.fields:
                if len(self.fields) == PROPERTIES_MAX:
                    self.fields = None
                    return
                self.fields[name] = _Seen()
            self.fields[name].take(inner, depth + 1)

    def schema(self) -> Schema:
        types = self.types - {"integer"} if "number" in self.types else self.types
        if types <= {"null"}:
            return {}
        schema: Schema = {"type": next(iter(types)) if len(types) == 1 else sorted(types)}
        if self.fields:
            schema["properties"] = {name: self.fields[name].schema() for name in sorted(self.fields)}
            if required := [name for name in sorted(self.fields) if self.fields[name].met == self.objects]:
                schema["required"] = required
        if self.elements is not None and (items := self.elements.schema()):
            schema["items"] = items
        return schema


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, (float, Decimal)):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    raise TypeError(f"a {type(value).__name__} is no value of JSON")
