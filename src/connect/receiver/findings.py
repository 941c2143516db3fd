"""Tells in words how a check ended, and chooses the words for answers."""

from typing import Literal

from msgspec import Struct

from connect.lifecycle import Accepted, Completed, Misconfigured, Outcome, Refused

Level = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the report."""

    level: Level
    check: str
    detail: str
    mend: str = ""


def ok(check: str, detail: str) -> Finding:
    return Finding(level="ok", check=check, detail=detail)


def warn(check: str, detail: str, mend: str) -> Finding:
    return Finding(level="warn", check=check, detail=detail, mend=mend)


def fail(check: str, detail: str, mend: str) -> Finding:
    return Finding(level="fail", check=check, detail=detail, mend=mend)


def read_as(outcome: Outcome) -> str:
    """Says what Connect makes of an answer."""
    match outcome:
        case Completed(None):
            return "completed, without a reference"
        case Completed(reference):
            return f"completed, with the reference {reference!r}"
        case Accepted():
            return "accepted"
        case Refused(reason):
            return f"refused for good ({reason})"
        case Misconfigured(reason):
            return f"a fault of address or key ({reason})"
        case _:
            return f"not now ({outcome.reason})"


def is_taken(outcome: Outcome) -> bool:
    return isinstance(outcome, Completed | Accepted)
