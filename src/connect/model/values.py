"""Values that several nouns share: names, amounts, moments, and what they may look like."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

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

UNIT_WORTH = r"^[0-9]+(\.[0-9]+)? [A-Z]{3}\Z"
COUNTER_NAME = r"^[a-z][a-z0-9_]{0,63}\Z"
FIELD_NAME = r"^[a-z][a-z0-9_]{0,31}\Z"


def _pattern(annotated: Any) -> str:
    return get_args(annotated)[1].pattern


IN_WORDS: Final = {
    _pattern(Amount): 'a decimal that is not negative, as text, such as "12.5"',
    _pattern(RuleKey): "a key of letters, digits, `_`, `.` and `-` (at most 128), such as cashback-2",
    _pattern(Symbol): "a name of letters, digits, `_` and `-` that starts with a letter (at most 64)",
    _pattern(EventPattern): "an event type such as purchase.completed, or a prefix such as purchase.*",
    _pattern(EventType): (
        "an event type such as purchase.completed: letters, digits, `_`, `.`, `:` and `-`, at most 128, the first a "
        "letter or digit"
    ),
    _pattern(Duration): "a number and one of s, m, h, d, w, such as 14d",
    _pattern(Party): "actor, subject or parties.<role>",
    _pattern(Per): "recipient, actor, subject, parties.<role> or rule",
    NO_NUL: "a text without the character U+0000",
    UNIT_WORTH: "an amount and a currency, such as 0.01 EUR",
    FIELD_NAME: "a name of small letters, digits and `_` that starts with a letter (at most 32)",
    COUNTER_NAME: "a name of small letters, digits and `_` that starts with a letter (at most 64)",
}
"""The words for what each pattern of the model asks for; a test holds them against all patterns."""
