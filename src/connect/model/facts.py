"""Facts as reporters send them and as Connect keeps them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from connect.model.values import EventType, Name, ZonedTime

EventStatus = Literal["received", "decided", "failed"]
"""received: recorded, a worker will decide it; decided; failed: five tries at deciding failed, a replay mends it."""

Effects = Literal["all", "none"]
"""none: recorded and traced, nothing given (history)."""


class ReportedEvent(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A fact as its reporter sends it. Identity is (`source`, `external_id`), for ever."""

    external_id: Name
    event_type: EventType
    source: Name | None = None
    occurred_at: ZonedTime | None = None
    actor_user_id: Name | None = None
    primary_subject_user_id: Name | None = None
    parties: dict[Name, Name | Annotated[list[Name], Meta(max_length=64)]] | None = None
    context: dict[str, Any] | None = None


class EconomicEvent(Struct, kw_only=True, frozen=True):
    """A recorded fact, immutable but for the outcome of deciding it."""

    id: UUID
    external_id: str
    source: str
    event_type: str
    occurred_at: datetime
    """As reported; the moment of receipt where the reporter left it out."""
    occurred_at_reported: bool | None = None
    """Whether the reporter said when it occurred; None for facts stored before this was kept."""
    received_at: datetime
    actor_user_id: str | None = None
    primary_subject_user_id: str | None = None
    parties: dict[str, str | list[str]] = {}
    context: dict[str, Any] = {}
    extensions: dict[str, Any] = {}
    """CloudEvents extension attributes that Connect does not know: kept, never read."""
    effects: Effects = "all"
    status: EventStatus = "received"
    ruleset_version: int | None = None
    decided_at: datetime | None = None
