"""One message of a bus -> a fact in normal form: the event's JSON, or a CloudEvent in structured or binary form."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from connect.errors import BodyTooLarge
from connect.intake import cloudevents
from connect.intake.bus.port import Message
from connect.intake.foreign import Foreign
from connect.intake.normalize import NormalEvent, Terms, convert_reported, decode_any, decode_reported, normalize
from connect.jsonvalue import is_object

MESSAGE_BYTES_MAX = 256 * 1024
"""As over HTTP: a fact is a fact, whichever way it comes."""


def read_message(message: Message, terms: Terms, sources: Mapping[str, Foreign], now: datetime) -> NormalEvent:
    """`now`: the moment of receipt. Raises `NotJson`, `InvalidEvent`, `SourceMismatch`, `BodyTooLarge`."""
    if len(message.body) > MESSAGE_BYTES_MAX:
        raise BodyTooLarge(f"a message takes at most {MESSAGE_BYTES_MAX} bytes, this one has {len(message.body)}")
    reported, extensions = _reported(message, sources)
    return normalize(reported, terms, now, extensions=extensions)


def _reported(message: Message, sources: Mapping[str, Foreign]) -> tuple[Any, dict[str, Any]]:
    if cloudevents.is_binary(message.attributes):
        return cloudevents.from_binary(message.attributes.items(), message.body, sources)
    if b'"specversion"' not in message.body:
        return decode_reported(message.body), {}
    document = decode_any(message.body)
    if is_object(document) and "specversion" in document:
        return cloudevents.from_structured(document, sources)
    return convert_reported(document), {}
