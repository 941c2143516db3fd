"""Plain values as the model's structs, with every fault told at once.

msgspec stops at the first fault and speaks of regular expressions; an author wants all of them, in words. So the
structs' own types (`msgspec.inspect`) are walked here first, and msgspec converts what passed.
"""

import difflib
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar, cast

import msgspec
from msgspec import inspect

from connect import model
from connect.authoring.document import DEPTH_MAX, INTEGER_MAX, UNSTORABLE, Plain, quotes_json
from connect.authoring.positions import child
from connect.errors import InvalidRuleset, Located
from connect.model import RewardRule, Ruleset

_WRITTEN_OTHERWISE: Final = re.compile(r"[0-9]{1,3}(_?[0-9]{3})*|[0-9]{1,18}(\.0+)?", re.ASCII)
"""A whole number as YAML 1.1 and spreadsheets have it."""
_Read = TypeVar("_Read", Ruleset, RewardRule)


def convert_ruleset(data: object) -> Ruleset:
    """The whole document. Raises `InvalidRuleset` with every fault, located by pointer."""
    return _convert(data, Ruleset)


def convert_rule(data: object) -> RewardRule:
    """One rule as the REST API sends it; raises `InvalidRuleset` with pointers from the rule (`#/actions/0/amount`).

    As in a document, a number with a fraction is text: amounts are exact, and so is what `params` send.
    """
    return _convert(data, RewardRule)


def refusal(faults: list[Located]) -> InvalidRuleset:
    """The error that tells every fault; its own sentence holds the first."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidRuleset(f"{faults[0].pointer}: {faults[0].detail}{more}", errors=faults)


def _convert(data: object, type_: type[_Read]) -> _Read:
    faults: list[Located] = []
    plain = _plain(data, "#", 0, faults)
    faults += _faults(plain, inspect.type_info(type_), "#")
    if not faults:
        try:
            return msgspec.convert(plain, type_)
        except msgspec.ValidationError as error:
            faults.append(Located("#", str(error)))
    raise refusal(faults)


def _plain(data: object, pointer: str, depth: int, faults: list[Located]) -> Plain:
    """Turns a JSON decoder's value into a document reader's: fractions as text, nothing that cannot be stored."""
    match data:
        case str():
            if UNSTORABLE.search(data):
                faults.append(Located(pointer, "the text holds a character that cannot be stored (NUL or half a pair)"))
        case Decimal() | float():
            return float(data) if quotes_json(pointer) else str(data)
        case int():
            if abs(data) > INTEGER_MAX:
                faults.append(Located(pointer, f'the number is beyond +-2^63: quote it, "{data}"'))
        case list() | dict() if depth == DEPTH_MAX:
            faults.append(Located(pointer, f"lists and objects are nested deeper than {DEPTH_MAX}"))
            return None
        case list():
            items = cast("list[object]", data)
            return [_plain(item, child(pointer, place), depth + 1, faults) for place, item in enumerate(items)]
        case dict():
            entries = cast("dict[str, object]", data)
            return {key: _plain(entry, child(pointer, key), depth + 1, faults) for key, entry in entries.items()}
        case _:
            return None
    return data


def _faults(value: Plain, wanted: inspect.Type, pointer: str) -> Iterator[Located]:
    """Every way in which the value is not of the type."""
    match wanted:
        case inspect.StructType() if isinstance(value, dict):
            yield from _faults_of_struct(value, wanted, pointer)
        case inspect.ListType() if isinstance(value, list):
            yield from _faults_of_list(value, wanted, pointer)
        case inspect.DictType() if isinstance(value, dict):
            yield from _faults_of_length(value, wanted, pointer)
            for key, entry in value.items():
                yield from _faults(key, wanted.key_type, child(pointer, key))
                yield from _faults(entry, wanted.value_type, child(pointer, key))
        case inspect.UnionType():
            yield from _faults_of_union(value, wanted, pointer)
        case _:
            detail = _fault_of_scalar(value, wanted)
            if detail:
                yield Located(pointer, detail)


def _faults_of_struct(value: dict[str, Plain], wanted: inspect.StructType, pointer: str) -> Iterator[Located]:
    fields = {field.encode_name: field for field in wanted.fields}
    for key, entry in value.items():
        if key in fields:
            yield from _faults(entry, fields[key].type, child(pointer, key))
        else:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.75)
            meant = f"; did you mean `{near[0]}`?" if near else f" (known here: {', '.join(fields)})"
            yield Located(child(pointer, key), f"this version of Connect does not know `{key}` here{meant}")
    for key, field in fields.items():
        if field.required and key not in value:
            yield Located(pointer, f"`{key}` is required")


def _faults_of_length(
    value: list[Plain] | dict[str, Plain], wanted: inspect.ListType | inspect.DictType, pointer: str
) -> Iterator[Located]:
    if wanted.min_length is not None and len(value) < wanted.min_length:
        yield Located(pointer, f"must hold at least {wanted.min_length}")
    if wanted.max_length is not None and len(value) > wanted.max_length:
        yield Located(pointer, f"holds {len(value)}, {wanted.max_length} is the most")


def _faults_of_list(value: list[Plain], wanted: inspect.ListType, pointer: str) -> Iterator[Located]:
    yield from _faults_of_length(value, wanted, pointer)
    for place, item in enumerate(value):
        yield from _faults(item, wanted.item_type, child(pointer, place))


def _faults_of_union(value: Plain, wanted: inspect.UnionType, pointer: str) -> Iterator[Located]:
    """The faults against the member that has the value's shape, else what all members would be."""
    for member in wanted.types:
        if _same_shape(value, member):
            yield from _faults(value, member, pointer)
            return
    names = " or ".join(_name_of(member) for member in wanted.types if not isinstance(member, inspect.NoneType))
    advice = next(filter(None, (_advice(value, member) for member in wanted.types)), "")
    yield Located(pointer, f"must be {names}, not {_shown(value)}{advice}")


def _same_shape(value: Plain, wanted: inspect.Type) -> bool:
    match value:
        case None:
            return isinstance(wanted, inspect.NoneType)
        case bool():
            return isinstance(wanted, inspect.BoolType)
        case int():
            return isinstance(wanted, inspect.IntType)
        case float():
            return isinstance(wanted, inspect.FloatType)
        case str():
            return isinstance(wanted, inspect.StrType | inspect.LiteralType | inspect.DateTimeType)
        case list():
            return isinstance(wanted, inspect.ListType)
        case dict():
            return isinstance(wanted, inspect.StructType | inspect.DictType)


def _fault_of_scalar(value: Plain, wanted: inspect.Type) -> str | None:
    if isinstance(wanted, inspect.AnyType):
        return None
    if isinstance(wanted, inspect.LiteralType):
        allowed = ", ".join(str(known) for known in wanted.values)
        return (
            None
            if value in wanted.values and not isinstance(value, bool)
            else f"must be one of {allowed}, not {_shown(value)}"
        )
    if not _same_shape(value, wanted):
        return f"must be {_name_of(wanted)}, not {_shown(value)}{_advice(value, wanted)}"
    match wanted, value:
        case inspect.StrType(), str():
            return _fault_of_text(value, wanted)
        case inspect.IntType(), int():
            low, high = wanted.ge, wanted.le
            outside = (low is not None and value < low) or (high is not None and value > high)
            return f"must be a whole number from {low} to {high}, not {value}" if outside else None
        case inspect.DateTimeType(), str():
            return _fault_of_moment(value)
        case _:
            return None


def _fault_of_text(value: str, wanted: inspect.StrType) -> str | None:
    low, high = wanted.min_length or 0, wanted.max_length
    if not low <= len(value) <= (high or len(value)):
        return f"must have {low} to {high} characters, not {len(value)}"
    if wanted.pattern is not None and re.search(wanted.pattern, value) is None:
        return f"must be {model.IN_WORDS.get(wanted.pattern, f'a text like {wanted.pattern}')}, not {_shown(value)}"
    return None


def _fault_of_moment(value: str) -> str | None:
    hint = "such as 2026-09-01T00:00:00+02:00 or 2026-09-01T00:00:00Z"
    try:
        moment = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return f"must be a moment {hint}, not {_shown(value)}"
    return f"needs an offset or Z, {hint}" if moment.tzinfo is None else None


def _name_of(wanted: inspect.Type) -> str:
    match wanted:
        case inspect.StrType():
            return "a text"
        case inspect.IntType():
            return "a whole number"
        case inspect.BoolType():
            return "true or false"
        case inspect.DateTimeType():
            return "a moment"
        case inspect.ListType():
            return "a list"
        case inspect.NoneType():
            return "null"
        case _:
            return "an object"


def _advice(value: Plain, wanted: inspect.Type) -> str:
    if isinstance(wanted, inspect.BoolType) and isinstance(value, str):
        return "; YAML's on, yes and NO are texts here"
    if isinstance(wanted, inspect.StrType) and isinstance(value, dict):
        return "; a text with `: ` in it needs quotes"
    if isinstance(wanted, inspect.StrType) and isinstance(value, bool | int):
        return f'; quote it: "{_shown(value)}"'
    if isinstance(wanted, inspect.IntType) and isinstance(value, str) and _WRITTEN_OTHERWISE.fullmatch(value):
        return f"; write {int(value.replace('_', '').split('.')[0])}, in plain digits without quotes"
    return ""


def _shown(value: Plain) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:79] + "…"
