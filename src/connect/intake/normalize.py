"""Turns what reporters send into one normal form of a fact, and its fingerprint.

Content that means the same has the same fingerprint, however it is spelled and whichever channel it came by
(JSON, CloudEvent, bus): the source is filled in, null and empty optional fields are left out, times are UTC, an omitted
`occurred_at` stays omitted, an integral number is an integer. Any bytes end in a `NormalEvent` or a `ConnectError`.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from connect.errors import ConnectError, EventAhead, EventTooOld, InvalidEvent, Located, NotJson, SourceMismatch
from connect.jsonvalue import JsonObject, is_array, is_object
from connect.model import EconomicEvent, Effects, ReportedEvent
from connect.validation import child, in_a_sentence, mismatches, pointed

DEFAULT_SOURCE = "default"
DEPTH_MAX = 32
"""Nesting of `context`: deeper input overflows stacks further down."""
HALF_PAIR = "a text holds half of a surrogate pair (\\ud800 to \\udfff, alone): write the whole character"
INTEGER_MAX = 2**63
SIGNIFICANT_DIGITS_MAX = 15
"""A decimal of at most 15 significant digits survives a double and back; longer ones would change silently."""
EXPONENT_MAX = 300

HALF_PAIRS = re.compile(r"[\ud800-\udfff]")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_decode_reported = msgspec.json.Decoder(ReportedEvent, float_hook=Decimal).decode
_decode_any = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class Terms(Struct, frozen=True, kw_only=True):
    """On what terms facts are taken from one reporter."""

    bound_source: str | None = None
    """Another one in the event is refused."""
    default_source: str = DEFAULT_SOURCE
    effects: Effects = "all"
    age_max_days: int = 90
    ahead_max_s: int = 600


class NormalEvent(Struct, frozen=True):
    """A fact in normal form, not yet recorded."""

    event: EconomicEvent
    fingerprint: bytes
    context: str
    """The context as JSON text, encoded once for the fingerprint, the column and the answer."""
    refusal: ConnectError | None = None
    """Why it would be refused were it new; one that is already recorded is still answered as a duplicate."""


def decode_any(body: bytes) -> Any:
    """Any JSON, its numbers exact (`Decimal` for what has a point or exponent). Raises `NotJson`, `InvalidEvent`."""
    return _guarded(_decode_any, body)


def decode_reported(body: bytes) -> ReportedEvent:
    """One fact from JSON bytes. Raises `InvalidEvent`, and `NotJson` also when a fault of the fact comes before."""
    try:
        return _guarded(_decode_reported, body)
    except InvalidEvent as first:
        try:
            document = decode_any(body)
        except InvalidEvent:
            raise first from None
        raise invalid_event(mismatches(document, ReportedEvent) or first.errors) from first


def given_id(item: Any) -> str | None:
    """The `external_id` that a refused item of a batch gives itself, by which its reporter knows it again."""
    with contextlib.suppress(NotJson, InvalidEvent):
        document = decode_any(item) if isinstance(item, bytes) else item
        claimed = document.get("external_id", document.get("id")) if is_object(document) else None
        return claimed if isinstance(claimed, str) else None
    return None


def convert_reported(document: Any) -> ReportedEvent:
    """One fact from decoded JSON. Raises `InvalidEvent`."""
    try:
        return _guarded(_convert_reported, document)
    except InvalidEvent as first:
        raise invalid_event(mismatches(document, ReportedEvent) or first.errors) from first


def _convert_reported(document: Any) -> ReportedEvent:
    return msgspec.convert(document, ReportedEvent)


def _guarded(decode: Any, value: Any) -> Any:
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        raise invalid_event([pointed(error)]) from error
    except msgspec.DecodeError as error:
        raise _not_json(value, error) from error
    except UnicodeDecodeError as error:
        raise NotJson(f"the body is not UTF-8: byte {error.start} is wrong") from error
    except RecursionError as error:
        raise InvalidEvent(
            f"the body nests deeper than {DEPTH_MAX} levels", errors=[Located("#", f"deeper than {DEPTH_MAX} levels")]
        ) from error


def invalid_event(found: Sequence[Located]) -> InvalidEvent:
    return InvalidEvent(in_a_sentence(found), errors=found)


def _not_json(body: bytes | str, error: msgspec.DecodeError) -> NotJson:
    """Half of a surrogate pair is JSON to some writers, and no UTF-8 can carry it: msgspec calls it truncated."""
    with contextlib.suppress(ValueError, RecursionError):
        for pointer in _half_pairs(json.loads(body), "#"):
            return NotJson(f"{HALF_PAIR} (at {pointer})", errors=[Located(pointer, HALF_PAIR)])
    return NotJson(f"the body is not JSON: {error}")


def _half_pairs(value: Any, pointer: str) -> Iterator[str]:
    """Where they are: what a decoder gave them through."""
    if isinstance(value, str) and HALF_PAIRS.search(value):
        yield pointer
    items = value.items() if is_object(value) else enumerate(value) if is_array(value) else ()
    for key, item in items:
        yield from _half_pairs(key, pointer)
        yield from _half_pairs(item, child(pointer, key))


def normalize(
    reported: ReportedEvent, terms: Terms, now: datetime, *, extensions: Mapping[str, Any] | None = None
) -> NormalEvent:
    """`now`: the moment of receipt. Raises `InvalidEvent`, `SourceMismatch`."""
    source = _source(reported, terms)
    for name in ("external_id", "actor_user_id", "primary_subject_user_id"):
        _plain(getattr(reported, name), f"#/{name}")
    parties = {role: ids for role, ids in (reported.parties or {}).items() if ids}
    for role, ids in parties.items():
        _plain(role, f"#/parties/{role}")
        for user_id in [ids] if isinstance(ids, str) else ids:
            _plain(user_id, f"#/parties/{role}")
    context = _walk(reported.context or {}, "#/context", 1)
    try:
        occurred_at = reported.occurred_at and reported.occurred_at.astimezone(UTC)
    except OverflowError:
        _refuse("#/occurred_at", "the moment lies outside the years 1 to 9999 in UTC")
    content: JsonObject = {
        "external_id": reported.external_id,
        "source": source,
        "event_type": reported.event_type,
        "occurred_at": occurred_at,
        "actor_user_id": reported.actor_user_id,
        "primary_subject_user_id": reported.primary_subject_user_id,
        "parties": parties,
    }
    encoded = _to_json(context, "#/context")
    fingerprint = hashlib.sha256(
        _to_json({name: value for name, value in content.items() if value}) + b"\n" + encoded
    ).digest()
    with_moment: JsonObject = {**content, "occurred_at": occurred_at or now}
    event = EconomicEvent(
        id=event_id(source, reported.external_id, occurred_at),
        occurred_at_reported=occurred_at is not None,
        received_at=now,
        context=context,
        extensions=dict(extensions or {}),
        effects=terms.effects,
        **with_moment,
    )
    return NormalEvent(event, fingerprint, encoded.decode(), _refusal(occurred_at, terms, now))


def event_id(source: str, external_id: str, occurred_at: datetime | None) -> UUID:
    """A UUIDv8 (RFC 9562, section 5.8) made of what was reported alone (docs/decisions/0020-bytes-of-the-fact.md).

    The first 48 bits are the milliseconds of the reported `occurred_at`, so that ids order by time as a version 7's do;
    the rest is the SHA-256 of the identity. Where no moment was reported all is hash. So a fact that is sent again
    after a restore from a backup gets the id it had, and the commands it leads to have the bytes they had.
    """
    return _identified(source, external_id, occurred_at, version=8)


def event_id_of_version_7(source: str, external_id: str, moment: datetime) -> UUID:
    """The id that facts got until 0.1.0: its time is that of receipt where none was reported."""
    return _identified(source, external_id, moment, version=7)


def _identified(source: str, external_id: str, moment: datetime | None, *, version: int) -> UUID:
    digest = hashlib.sha256(f"{len(source)}:{source}{external_id}".encode()).digest()
    if moment is None:
        value = int.from_bytes(digest[:16], "big")
    else:
        milliseconds = max(0, (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
        value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(digest[:10], "big")
    value = value & ~(0xF << 76) | version << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def _source(reported: ReportedEvent, terms: Terms) -> str:
    source = reported.source or terms.bound_source or terms.default_source
    _plain(source, "#/source")
    if terms.bound_source is not None and source != terms.bound_source:
        raise SourceMismatch(
            f"only source {terms.bound_source!r} is reported here, the event says {source!r}",
            errors=[Located("#/source", f"must be {terms.bound_source!r} or left out")],
        )
    return source


def _refusal(occurred_at: datetime | None, terms: Terms, now: datetime) -> ConnectError | None:
    if occurred_at is None:
        return None
    if (occurred_at - now).total_seconds() > terms.ahead_max_s:
        sentence = f"occurred_at lies more than {terms.ahead_max_s} s ahead of this server's clock ({now.isoformat()})"
        return EventAhead(sentence, errors=[Located("#/occurred_at", sentence)])
    if (
        terms.effects == "all"
        and terms.age_max_days
        and (now - occurred_at).total_seconds() > terms.age_max_days * 86_400
    ):
        sentence = f"occurred_at is more than {terms.age_max_days} days ago; report history with ?effects=none"
        return EventTooOld(sentence, errors=[Located("#/occurred_at", sentence)])
    return None


def _plain(text: str | None, pointer: str) -> None:
    if text is not None and CONTROL_CHARACTERS.search(text):
        _refuse(pointer, "control characters are not allowed here")


def _walk(value: Any, pointer: str, depth: int) -> Any:
    """The value with its numbers in normal form, or `InvalidEvent` naming the place."""
    match value:
        case str():
            if "\0" in value:
                _refuse(pointer, "the character U+0000 cannot be stored")
            return value
        case bool() | None:
            return value
        case int():
            if not -INTEGER_MAX <= value < INTEGER_MAX:
                _refuse(pointer, "an integer must lie within +-2^63; send it as a string")
            return value
        case Decimal():
            return _number(value, pointer)
        case dict():
            _bound(depth, pointer)
            mapping = cast("JsonObject", value)
            for key in mapping:
                if "\0" in key:
                    _refuse(pointer, "the character U+0000 cannot be stored (in a key)")
            return {key: _walk(item, child(pointer, key), depth + 1) for key, item in mapping.items()}
        case list():
            _bound(depth, pointer)
            items = cast("list[Any]", value)
            return [_walk(item, child(pointer, index), depth + 1) for index, item in enumerate(items)]
        case _:
            return _refuse(pointer, f"a {type(value).__name__} is not JSON")


def _number(value: Decimal, pointer: str) -> int | float:
    """An integral value is an integer however it is spelled; any other may have 15 significant digits.

    The exponent is looked at before any conversion: `int(Decimal("1e1000000"))` runs for tens of seconds.
    """
    if not value:
        return 0
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or value.adjusted() > EXPONENT_MAX or value.adjusted() < -EXPONENT_MAX:
        _refuse(pointer, "the number is out of range; send it as a string")
    significant = "".join(map(str, digits)).rstrip("0")
    if exponent + (len(digits) - len(significant)) >= 0:
        if value.adjusted() > 19 or not -INTEGER_MAX <= int(value) < INTEGER_MAX:
            _refuse(pointer, "an integer must lie within +-2^63; send it as a string")
        return int(value)
    if len(significant) > SIGNIFICANT_DIGITS_MAX:
        _refuse(pointer, f"a number may have {SIGNIFICANT_DIGITS_MAX} significant digits; send it as a string")
    return float(value)


def _bound(depth: int, pointer: str) -> None:
    if depth > DEPTH_MAX:
        _refuse(pointer, f"deeper than {DEPTH_MAX} levels")


def _refuse(pointer: str, sentence: str) -> NoReturn:
    raise InvalidEvent(f"{sentence} (at {pointer})", errors=[Located(pointer, sentence)])


def _to_json(value: Any, pointer: str = "#") -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        found = [Located(at, HALF_PAIR) for at in _half_pairs(value, pointer)]
        raise invalid_event(found or [Located(pointer, HALF_PAIR)]) from error
