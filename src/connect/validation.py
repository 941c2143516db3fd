"""Where a value does not fit a type: every place, in words.

msgspec stops at the first fault, hides the keys of a mapping (`$.targets[...]`) and speaks of regular expressions and
"enum values". It decides what fits; only what it refused is walked here, part by part.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from connect.errors import Located
from connect.jsonvalue import is_array, is_object
from connect.model.values import IN_WORDS

MISMATCHES_MAX = 50
NAMED_MAX = 5
"""In one sentence."""
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
NO_MOMENT = "Invalid RFC3339 encoded datetime"

Convert = Callable[[Any, Any], object]
"""Value and type; raises `msgspec.ValidationError`. May be lenient where the reader was."""


def mismatches(value: object, kind: Any, convert: Convert = msgspec.convert) -> list[Located]:
    """Empty when it fits."""
    return list(islice(_mismatches(value, kind, "#", convert), MISMATCHES_MAX))


def in_a_sentence(found: Sequence[Located]) -> str:
    """`external_id: is required; parties.referrer: ...`"""
    named = [f"{place(one.pointer)}{one.detail}" for one in found[:NAMED_MAX]]
    return "; ".join([*named, *([f"and {len(found) - NAMED_MAX} more"] if len(found) > NAMED_MAX else [])])


def place(pointer: str) -> str:
    """A pointer as people write it, with a colon; nothing for the whole."""
    return f"{pointer[2:].replace('/', '.')}: " if pointer != "#" else ""


def pointed(error: msgspec.ValidationError) -> Located:
    """msgspec's "Expected ... - at `$.a[0].b`" as a sentence and an RFC 6901 pointer."""
    sentence, _, path = str(error).partition(" - at `$")
    pointer = "#" + re.sub(r"\.|\[", "/", path.rstrip("`").replace("[...]", ".*")).replace("]", "")
    unknown = UNKNOWN_FIELD.fullmatch(sentence)
    return Located(child(pointer, unknown[1]) if unknown else pointer, sentence)


def child(pointer: str, key: str | int) -> str:
    return f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"


def _mismatches(value: object, kind: Any, at: str, convert: Convert) -> Iterator[Located]:
    try:
        convert(value, kind)
    except msgspec.ValidationError as error:
        inner = list(_inside(value, _bare(kind), at, convert))
        yield from inner or [_said(error, value, kind, at)]


def _inside(value: object, kind: Any, at: str, convert: Convert) -> Iterator[Located]:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        alike = [part for part in parts if _shape(part) == _shape_of(value)]
        if len(alike) == 1:
            yield from _mismatches(value, alike[0], at, convert)
    elif isinstance(kind, type) and issubclass(kind, Struct) and is_object(value):
        yield from _inside_struct(value, kind, at, convert)
    elif origin is dict and is_object(value):
        for key, item in value.items():
            yield from _mismatches(key, parts[0], child(at, key), convert)
            yield from _mismatches(item, parts[1], child(at, key), convert)
    elif origin in (list, tuple) and is_array(value):
        for index, item in enumerate(value):
            yield from _mismatches(item, parts[0], child(at, index), convert)


def _inside_struct(value: dict[str, Any], kind: type[Struct], at: str, convert: Convert) -> Iterator[Located]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, field in fields.items():
        if name in value:
            yield from _mismatches(value[name], field.type, child(at, name), convert)
        elif field.required:
            yield Located(child(at, name), "is required")
    if kind.__struct_config__.forbid_unknown_fields:
        known = ", ".join(sorted(fields))
        for name in value.keys() - fields.keys():
            yield Located(child(at, name), f"is not known here (known: {known})")


def _said(error: msgspec.ValidationError, value: object, kind: Any, at: str) -> Located:
    found = pointed(error)
    metas = [meta for meta in get_args(kind)[1:] if isinstance(meta, Meta)] if get_origin(kind) is Annotated else []
    words = next((IN_WORDS[meta.pattern] for meta in metas if meta.pattern in IN_WORDS), None)
    detail = found.detail
    if get_origin(_bare(kind)) is Literal:
        detail = f"must be one of {', '.join(map(str, get_args(_bare(kind))))}, not {_shown(value)}"
    elif words and "matching regex" in detail:
        detail = f"must be {words}, not {_shown(value)}"
    elif detail == NO_MOMENT:
        detail = f"must be a moment with its offset or Z, such as 2026-11-22T10:00:00Z, not {_shown(value)}"
    return Located(at + found.pointer[1:], detail)


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _shape(kind: Any) -> str:
    kind = _bare(kind)
    origin = get_origin(kind) or kind
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Struct)):
        return "object"
    if origin in (list, tuple):
        return "array"
    return "null" if origin is NoneType else "scalar"


def _shape_of(value: object) -> str:
    return "object" if is_object(value) else "array" if is_array(value) else "null" if value is None else "scalar"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
