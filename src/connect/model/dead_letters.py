"""Messages that could not be recorded."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

DeadKind = Literal["event", "result"]
"""The kind of queue a message came from: a bus that brings facts, or a queue that brings a target's results."""


class DeadEvent(Struct, kw_only=True, frozen=True):
    """A message of a bus that was refused, kept until somebody mends and replays it."""

    id: UUID
    bus: str
    """The name in [bus.<name>]; for results that of the target."""
    kind: DeadKind
    body: str
    """As it came or was mended; what is not UTF-8 of it is shown as U+FFFD."""
    attributes: dict[str, str]
    code: str
    """The code of the error: `event_invalid`, `event_conflict` ..."""
    reason: str
    errors: list[dict[str, Any]]
    """Where in the message, and what, as a problem document has them."""
    times: int
    """How often the broker gave it."""
    received_at: datetime
    last_at: datetime
    mended_at: datetime | None = None
    replayed_at: datetime | None = None
    event_id: UUID | None = None
    """The event that it became, or that it contradicts."""
