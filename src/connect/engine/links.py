"""Links: the value that a fact and a later one that takes it back both hold, such as an order's id.

Both kinds of fact lock the link's row before they are decided, so that a refund and its purchase come out the same
whichever is first. The row remembers the facts of both kinds: a refund that came early is found by its purchase.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from connect.engine.expression import paths
from connect.engine.state import StateValue
from connect.engine.state_keys import link_key
from connect.model import EconomicEvent, RewardAction, SamePath

_json = msgspec.json.Encoder(order="deterministic", decimal_format="number")


class LinkPath(Struct, frozen=True):
    """Where facts of a pattern of types, and those they take back, hold the value they share."""

    event_type: str
    """The type of the fact that takes back; a type or a prefix."""
    event: str
    original: str
    source: str
    """same: only facts of one source are linked; any."""


class Original(Struct, frozen=True):
    """A fact that can be taken back, and all it gave. `counters` are the ids of those that still count it."""

    event: EconomicEvent
    actions: tuple[RewardAction, ...] = ()
    counters: tuple[str, ...] = ()


class Link(Struct, frozen=True):
    """One link as loaded: what stands to be taken back, and the facts that take back, in the order of deciding."""

    originals: tuple[Original, ...] = ()
    reversers: tuple[EconomicEvent, ...] = ()


def link_path(event_type: str, same: str | SamePath, source: str = "same") -> LinkPath:
    if isinstance(same, str):
        return LinkPath(event_type, same, same, source)
    return LinkPath(event_type, same.event, same.original, source)


def matches(pattern: str, event_type: str) -> bool:
    """Whether a type is the pattern, or below it where the pattern is a prefix (`purchase.*`)."""
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern


def key_of_original(path: LinkPath, event: EconomicEvent) -> str | None:
    """None where the event does not hold the value: it can then not be linked."""
    return _key(path, path.original, event)


def key_of_reverser(path: LinkPath, event: EconomicEvent) -> str | None:
    return _key(path, path.event, event)


def _key(path: LinkPath, where: str, event: EconomicEvent) -> str | None:
    found = _value(where, event)
    if found is None:
        return None
    source = event.source if path.source == "same" else None
    parts = [path.event_type, path.event, path.original, path.source, source, found]
    return link_key(sha256(_json.encode(parts)).hexdigest()[:40])


def _value(where: str, event: EconomicEvent) -> Any:
    """The value at the path; whole numbers are alike however they are written; None where there is none."""
    steps = _steps(where)
    found: Any = getattr(event, str(steps[0]), None)
    if len(steps) > 1:
        found = paths.resolve({"root": found}, ("root", *steps[1:]))
    if isinstance(found, Decimal):
        return int(found) if found == found.to_integral_value() else str(found.normalize())
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


@lru_cache(maxsize=1024)
def _steps(where: str) -> tuple[str | int, ...]:
    return paths.parse(where)


def event_values(event: EconomicEvent) -> dict[str, Any]:
    """The event as expressions know it (3-rules, "Names in expressions")."""
    return {
        "context": event.context,
        "actor_user_id": event.actor_user_id,
        "primary_subject_user_id": event.primary_subject_user_id,
        "parties": event.parties,
        "event_type": event.event_type,
        "source": event.source,
        "external_id": event.external_id,
        "occurred_at": event.occurred_at,
    }


# --- the stored row ------------------------------------------------------------------------------


def originals_in(stored: StateValue) -> Mapping[str, list[str]]:
    """Event id -> ids of the counters that count it."""
    return (stored.detail or {}).get("originals", {})


def reversers_in(stored: StateValue) -> list[str]:
    return (stored.detail or {}).get("reversers", [])


def with_original(stored: StateValue, event_id: str, counters: Iterable[str]) -> StateValue:
    originals = {**originals_in(stored), event_id: sorted(counters)}
    return StateValue(stored.value, {**(stored.detail or {}), "originals": originals})


def with_reverser(stored: StateValue, event_id: str) -> StateValue:
    known = reversers_in(stored)
    return (
        stored
        if event_id in known
        else StateValue(stored.value, {**(stored.detail or {}), "reversers": [*known, event_id]})
    )
