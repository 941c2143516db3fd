"""Values that several nouns share: names, amounts, moments, and what they may look like."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

Amount = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,59})(\.[0-9]{1,18})?\Z")]
"""A non-negative decimal as text: at most 60 digits before and 18 after the point."""

Name = Annotated[str, Meta(min_length=1, max_length=255)]
EventType = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")]
ZonedTime = Annotated[datetime, Meta(tz=True)]
NO_NUL = r"^[^\x00]*\Z"
"""PostgreSQL's text holds every character but this one."""

Rounding = Literal["down", "up", "half_even", "half_up"]
RuleKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")]
Symbol = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}\Z")]
"""The name of a target, a command or a unit."""
EventPattern = Annotated[
    str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.:-]{0,127}|[A-Za-z0-9][A-Za-z0-9_.:-]{0,125}\.\*)\Z")
]
"""An event type, or a prefix of types: `purchase.*`."""
Duration = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}[smhdw]\Z")]
"""A length of time: 30s, 15m, 6h, 14d, 2w."""


Cap = str | int
"""A decimal that may be written 500 or "500"; `check` says where it is neither."""
Party = Annotated[str, Meta(pattern=r"^(actor|subject|parties\.[A-Za-z0-9_][A-Za-z0-9_-]{0,254})\Z")]
"""Somebody an event names: `actor`, `subject` or `parties.<role>`."""
Per = Annotated[str, Meta(pattern=r"^(recipient|rule|actor|subject|parties\.[A-Za-z0-9_][A-Za-z0-9_-]{0,254})\Z")]
"""Whose measure a limit keeps: each recipient's, a party's, or the rule's as a whole."""
Every = Literal["hour", "day", "week", "month", "ever"]
"""A period of the calendar in the ruleset's zone; a week begins on Monday."""
