"""What rules remember, worked out again from what is stored: for who wants proof that limits and counters are exact.

Everything is read in one snapshot, so rows that change meanwhile are no difference. Nothing is locked.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from connect.engine.counters import CompiledCounter, counted, item_key, total_key
from connect.engine.expression import make_activation
from connect.engine.index import Rulebook
from connect.engine.limits import Meter, Slot
from connect.engine.links import event_values, key_of_original, matches
from connect.engine.periods import FIRST, Calendar, Period, period
from connect.errors import NotFound
from connect.model import EconomicEvent, Ruleset
from connect.store import state
from connect.store.events import EVENT_COLUMNS, to_event
from connect.store.pool import Connection
from connect.store.rules import live_version, read_version
from connect.store.standing import read_standing

DEFINITION_PARTS = 7
"""Of a limit's key: `limit`, rule, measure, per, about, span, zone; then the period and the subject."""
EVENTS_MAX = 2_000
"""Of one user, to recount a counter: who has more is left out."""

# Rows from before their limit was followed by all are worked out anew when they are next used: they prove nothing.
LIMITS = """
SELECT state.key, state.value FROM unnest($1::text[], $2::timestamptz[]) AS live (definition, since)
JOIN state ON state.key >= live.definition || '|' AND state.key < live.definition || '}'
WHERE state.computed_at >= live.since ORDER BY random() LIMIT $3
"""
COUNTERS = """
SELECT key, value FROM unnest($1::text[]) AS live (id)
JOIN state ON key >= 'counter|' || id || '|' AND key < 'counter|' || id || '}' ORDER BY random() LIMIT $2
"""
EVENTS = f"""
SELECT {EVENT_COLUMNS} FROM event WHERE actor_user_id = $1 AND status = 'decided' ORDER BY received_at LIMIT $2
"""
LINKS = "SELECT key, detail -> 'originals' AS originals FROM state WHERE key = ANY($1::text[])"


class Difference(Struct, frozen=True):
    """A row that does not hold what the stored facts come to."""

    key: str
    held: Decimal
    due: Decimal

    def __str__(self) -> str:
        return f"{self.key} holds {self.held}, due is {self.due}"


async def wrong_limits(connection: Connection, sample: int) -> list[Difference]:
    """Of up to `sample` rows of live limits with calendar periods those that are not the sum of the live actions."""
    rulebook = await _rulebook(connection)
    meters = {
        meter.definition: meter
        for compiled in rulebook.rules.values()
        for meter in compiled.meters
        if meter.every is not None
    }
    since = rulebook.standing.meters_since
    followed = [since[name] + state.PUBLISH_LAG for name in meters if name in since]
    rows = await connection.fetch(LIMITS, [name for name in meters if name in since], followed, sample)
    found = {row["key"]: Decimal(row["value"]) for row in rows}
    slots = [slot for key in found if (slot := _slot(key, meters)) is not None]
    due = await state.used(connection, slots)
    return [
        Difference(slot.key, found[slot.key], due[slot.key].value)
        for slot in slots
        if found[slot.key] != due[slot.key].value
    ]


async def wrong_counters(connection: Connection, sample: int) -> list[Difference]:
    """The same for rows of live counters of an actor's events; sliding windows and streaks keep more than a number."""
    rulebook = await _rulebook(connection)
    counters = {
        counter.id: counter
        for counter in rulebook.counters.values()
        if counter.id not in rulebook.standing.building and not counter.broken and _is_number(counter)
    }
    rows = await connection.fetch(COUNTERS, sorted(counters), sample)
    by_user: dict[str, list[tuple[CompiledCounter, str, Decimal]]] = defaultdict(list)
    for row in rows:
        _, identity, _, _, user = row["key"].split("|", 4)
        by_user[user].append((counters[identity], row["key"], Decimal(row["value"])))
    found: list[Difference] = []
    for user, held in by_user.items():
        events = [to_event(row) for row in await connection.fetch(EVENTS, user, EVENTS_MAX + 1)]
        if len(events) > EVENTS_MAX:
            continue
        for counter in {counter.id: counter for counter, _, _ in held}.values():
            due = await _recounted(connection, counter, events)
            mine = [(key, value) for other, key, value in held if other.id == counter.id]
            found += [
                Difference(key, value, due.get(key, Decimal(0))) for key, value in mine if value != due.get(key, 0)
            ]
    return found


async def _rulebook(connection: Connection) -> Rulebook:
    """Of the live version; an empty one where there is none to be found."""
    try:
        live = await read_version(connection, await live_version(connection))
    except NotFound:
        return Rulebook.compile(0, Ruleset(), {})
    return Rulebook.compile(live.version, live.document, live.rule_versions, await read_standing(connection))


def _slot(key: str, meters: Mapping[str, Meter]) -> Slot | None:
    """The slot behind a row's key: definition, period and subject. None where the period cannot be read."""
    *definition, label, subject = key.split("|", DEFINITION_PARTS + 1)
    meter = meters["|".join(definition)]
    if meter.every is None:
        return None
    found = _period(label, meter.every, meter.zone)
    return None if found is None else Slot(key, meter, subject, found)


def _period(label: str, every: Calendar, zone: ZoneInfo) -> Period | None:
    """The period that is labelled so."""
    try:
        match every:
            case "ever":
                moment = FIRST
            case "hour":
                moment = datetime.fromisoformat(f"{label[:13]}:00{label[13:]}")
            case "month":
                moment = datetime.fromisoformat(f"{label}-01T12:00").replace(tzinfo=zone)
            case _:
                moment = datetime.fromisoformat(f"{label}T12:00").replace(tzinfo=zone)
    except ValueError:
        return None
    found = period(moment, every, zone)
    return found if found.label == label else None


def _is_number(counter: CompiledCounter) -> bool:
    written = counter.counter
    return written.of == "actor" and written.kind != "streak" and counter.within is None and written.start == "history"


async def _recounted(
    connection: Connection, counter: CompiledCounter, events: Sequence[EconomicEvent]
) -> dict[str, Decimal]:
    """What a user's events come to, by the key of each row; without those that were wholly taken back."""
    taken = [event for event in events if matches(counter.counter.event_type, event.event_type)]
    links = {event.id: None if counter.link is None else key_of_original(counter.link, event) for event in taken}
    rows = await connection.fetch(LINKS, [key for key in links.values() if key is not None])
    originals: dict[str, Any] = {row["key"]: row["originals"] or {} for row in rows}
    sums: dict[str, Decimal] = defaultdict(Decimal)
    items: dict[str, set[str]] = defaultdict(set)
    for event in taken:
        key = links[event.id]
        if key is not None and counter.id not in originals.get(key, {}).get(str(event.id), ()):
            continue
        for one in counted(counter, event, make_activation(event_values(event))):
            total = total_key(counter, one.label, one.subject)
            if counter.items:
                sums[item_key(counter, one)] += 1
                items[total].add(one.item)
            else:
                sums[total] += one.value
    return {**sums, **{key: Decimal(len(found)) for key, found in items.items()}}
