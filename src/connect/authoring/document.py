"""A ruleset's text, YAML or JSON, as plain values with the place of each.

YAML as economists mean it: `true`, `false`, `null` and whole numbers in decimal digits are read as such (YAML 1.2's
core, without octal, hexadecimal and floats); everything else is text: `on`, `NO`, `010`, `1_000`, `12:30`, `0.02`,
`2026-09-01`, `0xfee`. Only where a document quotes JSON, in the context of a test's event and in a schema, is `0.02`
the number that a reporter would send. A key that stands twice is refused, and so are tags, anchors and aliases,
which rules do not need. JSON is YAML's flow style, and read by the same code.
"""

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final, TypeAlias, cast

import yaml
from msgspec import Struct
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from connect.authoring.positions import Place, Positions, child
from connect.authoring.quoting import cut_by_comma, explain_syntax, explain_tag
from connect.errors import InvalidRuleset, Located

TEXT_BYTES_MAX: Final = 1_048_576
"""The most bytes a document may have: some 4,000 rules; it is read and checked within a request."""
DEPTH_MAX: Final = 32
"""The most levels of lists and objects inside each other, as in an event's context."""
INTEGER_MAX: Final = 2**63 - 1

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

_LOADER: Final[Any] = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # libyaml where PyYAML was built with it: 16x faster
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_FRACTION: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+([eE][-+]?[0-9]{1,3})?|[eE][-+]?[0-9]{1,3})", re.ASCII)
_JSON: Final = re.compile(r"#/(tests/[0-9]+/given/[0-9]+/context|schemas/[^/]+)/")
"""Where a document quotes JSON, whose numbers may have fractions."""
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_PAIRED_ESCAPES: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)


def quotes_json(pointer: str) -> bool:
    """Whether a number with a fraction stands there as one, and not as text."""
    return pointer.startswith(("#/tests/", "#/schemas/")) and _JSON.match(pointer) is not None


class Document(Struct, frozen=True):
    value: Plain
    positions: Positions
    problems: tuple[Located, ...]
    """The problems that the reader refused and went on after: a key twice, a tag, an alias."""


def read_document(text: str | bytes) -> Document:
    """Reads YAML or JSON. Raises `InvalidRuleset` where nothing can be read: too large, too deep, no YAML."""
    decoded = _decoded(text)
    builder = _Builder(decoded)
    try:
        value = builder.document()
    except yaml.MarkedYAMLError as error:
        raise InvalidRuleset("the document is no valid YAML", errors=[explain_syntax(error, decoded)]) from None
    except yaml.YAMLError as error:
        raise _refusal(f"the document is no valid YAML: {' '.join(str(error).split())}") from None
    return Document(value, builder.positions, tuple(builder.problems))


def _decoded(text: str | bytes) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode(errors="replace"))
    if size > TEXT_BYTES_MAX:
        raise _refusal(f"the document has {size:,} bytes, {TEXT_BYTES_MAX:,} is the most")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        decoded.encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise _refusal(f"the document is not UTF-8: {error.reason} at {error.start}") from None
    decoded = decoded.removeprefix("\ufeff")
    if not decoded.lstrip().startswith("{"):
        return decoded
    # JSON: what its grammar allows and YAML's does not. A tab is no part of a JSON text, so a space can stand for it.
    return _PAIRED_ESCAPES.sub(_joined, decoded.replace("\t", " "))


def _joined(found: re.Match[str]) -> str:
    high, low = int(found[2], 16), int(found[3], 16)
    return f"{found[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


def _refusal(sentence: str) -> InvalidRuleset:
    return InvalidRuleset(sentence, errors=[Located("#", sentence, 1, 1)])


class _Builder:
    """Turns the events of a parser into plain values, with what libyaml's own composer does not refuse refused."""

    def __init__(self, text: str) -> None:
        self.positions = Positions(text)
        self.problems: list[Located] = []
        self._events: Iterator[Event] = iter(yaml.parse(text, Loader=_LOADER))

    def document(self) -> Plain:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), StreamEndEvent):
            raise _refusal("the document is empty")
        value = self._node(next(self._events), "#", 0, flow=False)
        while isinstance(event := next(self._events), DocumentEndEvent):
            pass
        if not isinstance(event, StreamEndEvent):
            self._refuse(event, "#", "a second document starts here: a ruleset is one document")
        return value

    def _node(self, event: Event, pointer: str, depth: int, *, flow: bool) -> Plain:
        if depth > DEPTH_MAX:
            raise InvalidRuleset(
                "the document is nested too deeply",
                errors=[_located(event, pointer, f"lists and objects are nested deeper than {DEPTH_MAX}")],
            )
        if isinstance(event, AliasEvent):
            self._refuse(event, pointer, f"*{event.anchor} is an alias, which rules do not have: write the value out")
            return None
        if isinstance(event, NodeEvent) and event.anchor is not None:
            self._refuse(event, pointer, f"&{event.anchor} is an anchor, which rules do not have: leave it out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(event, pointer, explain_tag(self.positions.text, _place(event).start))
        if isinstance(event, SequenceStartEvent):
            return self._list(event, pointer, depth)
        if isinstance(event, MappingStartEvent):
            return self._object(event, pointer, depth)
        return self._scalar(cast("ScalarEvent", event), pointer, flow=flow)

    def _list(self, start: SequenceStartEvent, pointer: str, depth: int) -> list[Plain]:
        self.positions.values[pointer] = _place(start, "{")
        items: list[Plain] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, child(pointer, len(items)), depth + 1, flow=bool(start.flow_style)))
        return items

    def _object(self, start: MappingStartEvent, pointer: str, depth: int) -> dict[str, Plain]:
        self.positions.values[pointer] = _place(start, "{")
        entries: dict[str, Plain] = {}
        before = ""
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise InvalidRuleset("a key is no text", errors=[_located(event, pointer, "a key must be a text")])
            key = str(event.value)
            inner = child(pointer, key)
            value_event = next(self._events)
            if _is_nothing(value_event) and (
                cut := cut_by_comma(self.positions.text, self.positions.values.get(before))
            ):
                self._refuse_at(self.positions.values[before], before, cut)
                continue
            if key in entries:
                first = self.positions.keys[inner].line
                self._refuse(event, inner, f"{key!r} stands twice, first in line {first}")
                inner = child(pointer, f"{key} (again)")
            elif UNSTORABLE.search(key):
                self._refuse(event, inner, "the key holds a character that cannot be stored (NUL or half a pair)")
            self.positions.keys.setdefault(inner, _place(event))
            value = self._node(value_event, inner, depth + 1, flow=bool(start.flow_style))
            entries.setdefault(key, value)
            before = inner
        return entries

    def _scalar(self, event: ScalarEvent, pointer: str, *, flow: bool) -> str | int | float | bool | None:
        text = str(event.value)
        style = str(event.style or "")
        self.positions.values[pointer] = _place(event, style, flow=flow)
        if UNSTORABLE.search(text):
            self._refuse(event, pointer, "the text holds a character that cannot be stored (NUL or half a pair)")
        if style:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text) is None:
            fraction = _FRACTION.fullmatch(text) is not None and quotes_json(pointer)
            return float(text) if fraction and isfinite(float(text)) else text
        if len(text) > 20 or abs(int(text)) > INTEGER_MAX:
            self._refuse(event, pointer, f'the number is beyond +-2^63: quote it, "{text[:80]}"')
            return text
        return int(text)

    def _refuse(self, event: Event, pointer: str, detail: str) -> None:
        self.problems.append(_located(event, pointer, detail))

    def _refuse_at(self, place: Place, pointer: str, detail: str) -> None:
        self.problems.append(Located(pointer, detail, place.line, place.column))


def _is_nothing(event: Event) -> bool:
    """A value that is not written at all: what a comma leaves of the second half of an expression."""
    place = _place(event)
    return isinstance(event, ScalarEvent) and not event.style and place.start == place.end


def _place(event: Event, style: str = "", *, flow: bool = False) -> Place:
    start, end = cast("yaml.Mark", event.start_mark), cast("yaml.Mark", event.end_mark)
    return Place(start.line + 1, start.column + 1, start.index, end.index, style, flow)


def _located(event: Event, pointer: str, detail: str) -> Located:
    place = _place(event)
    return Located(pointer, detail, place.line, place.column)
