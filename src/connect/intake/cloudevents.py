"""CloudEvents 1.0 (https://github.com/cloudevents/spec): structured, batched and binary forms -> reported facts.

`id` -> external_id, `source`, `type` -> event_type, `time` -> occurred_at, `data` -> the remaining fields. Other
attributes are kept as extensions and never refused for being unknown.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from connect.errors import InvalidEvent, Located
from connect.intake.foreign import Foreign
from connect.intake.normalize import convert_reported, decode_any
from connect.jsonvalue import is_object
from connect.model import ReportedEvent

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"

MAPPED = {"id": "external_id", "source": "source", "type": "event_type", "time": "occurred_at"}
DATA_FIELDS = {"actor_user_id", "primary_subject_user_id", "parties", "context"}
EXTENSIONS_MAX = 64
EXTENSION_LENGTH_MAX = 4096
"""Characters of one attribute: enough for a tracestate, too little to smuggle a body past its limit."""


Sources = Mapping[str, Foreign]
"""Sources whose data is not ours but mapped."""
NO_SOURCES: Final[Sources] = {}


def from_structured(document: Any, sources: Sources = NO_SOURCES) -> tuple[ReportedEvent, dict[str, Any]]:
    """The fact and the extension attributes. Raises `InvalidEvent`."""
    if not is_object(document):
        raise _wrong("#", "a CloudEvent is a JSON object")
    attributes = {name: value for name, value in document.items() if name not in {"data", "data_base64"}}
    if document.get("data_base64") is not None:
        raise _wrong("#/data_base64", "binary data is not taken; send JSON in `data`")
    return _assemble(attributes, document.get("data"), sources)


def from_binary(
    headers: Iterable[tuple[str, str]], body: bytes, sources: Sources = NO_SOURCES
) -> tuple[ReportedEvent, dict[str, Any]]:
    """`headers` in lower case; attributes come percent-encoded in `ce-*`. Raises `InvalidEvent`, `NotJson`."""
    attributes = {name[3:]: unquote(value) for name, value in headers if name.startswith("ce-")}
    return _assemble(attributes, decode_any(body) if body.strip() else None, sources)


def is_binary(headers: Mapping[str, str]) -> bool:
    return "ce-specversion" in headers or "ce-id" in headers


def _assemble(attributes: dict[str, Any], data: Any, sources: Sources) -> tuple[ReportedEvent, dict[str, Any]]:
    if attributes.get("specversion") != "1.0":
        raise _wrong("#/specversion", f'must be "1.0", not {attributes.get("specversion")!r}')
    content_type = attributes.get("datacontenttype") or "application/json"
    if not isinstance(content_type, str) or "json" not in content_type.lower():
        raise _wrong("#/datacontenttype", "only JSON data is taken")
    for name in ("id", "source", "type"):
        if name not in attributes:
            raise _wrong(f"#/{name}", "a CloudEvent needs id, source and type")
    data = {} if data is None else data
    if not is_object(data):
        raise _wrong("#/data", "must be an object with actor_user_id, primary_subject_user_id, parties and context")
    foreign = sources.get(str(attributes["source"]))
    if foreign is not None:
        data = foreign.read(data)
    elif unknown := data.keys() - DATA_FIELDS:
        raise _wrong(f"#/data/{sorted(unknown)[0]}", f"is not one of {', '.join(sorted(DATA_FIELDS))}")
    reported = convert_reported({**{MAPPED[name]: attributes[name] for name in MAPPED if name in attributes}, **data})
    return reported, _extensions(attributes)


def _extensions(attributes: dict[str, Any]) -> dict[str, Any]:
    extensions = {name: value for name, value in attributes.items() if name not in MAPPED and name != "specversion"}
    if len(extensions) > EXTENSIONS_MAX:
        raise _wrong("#", f"more than {EXTENSIONS_MAX} extension attributes")
    for name, value in extensions.items():
        if (
            not isinstance(value, str | int | bool | None)
            or len(str(value)) > EXTENSION_LENGTH_MAX
            or "\0" in f"{name}{value}"
        ):
            raise _wrong(
                f"#/{name}", f"an attribute is a text, integer or boolean of at most {EXTENSION_LENGTH_MAX} characters"
            )
    return extensions


def _wrong(pointer: str, sentence: str) -> InvalidEvent:
    return InvalidEvent(f"{sentence} (at {pointer})", errors=[Located(pointer, sentence)])
