"""Works out again, from what is stored, what rules remember: for proof that limits and counters are exact.

Everything is read in one snapshot, so rows that change meanwhile are no difference. Nothing is locked.
"""

from collections import Counter as Multiset
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from connect.engine.counters import (
    KEPT_PAST_WINDOW,
    CompiledCounter,
    apply,
    counted,
    generation_id,
    total_key,
)
from connect.engine.expression import make_activation
from connect.engine.index import Rulebook
from connect.engine.limits import Meter, Slot
from connect.engine.links import event_values, key_of_original, matches
from connect.engine.periods import FIRST, Calendar, Period, period
from connect.engine.state import Memory, StateValue
from connect.errors import NotFound
from connect.model import EconomicEvent, Ruleset
from connect.store import state
from connect.store.events.rows import EVENT_COLUMNS, to_event
from connect.store.pool import Connection
from connect.store.published_context import read_counters, read_published_context
from connect.store.rules import live_version, read_version

DEFINITION_PARTS = 7
"""The number of parts in a limit's key: `limit`, rule, measure, per, about, span, zone. Period and subject follow."""
EVENTS_MAX = 2_000
"""The most events of one party, to recount a counter: a party with more is left out."""
EVENTS_READ_MAX = 20_000
"""The most events of all parties: once so many are read, no further party is recounted. Some seconds' work."""
SHOWN_MAX = 200
"""Characters of what a window or a streak holds."""
UNDONE = "undone"
"""In a key's fourth part: notes of what was taken out, which are no counter's value."""
MICROSECOND = timedelta(microseconds=1)

# Rows from before their limit was followed by all are worked out anew when they are next used: they prove nothing.
LIMITS = """
SELECT state.key, state.value FROM unnest($1::text[], $2::timestamptz[]) AS live (definition, since)
JOIN {state} AS state ON state.key >= live.definition || '|' AND state.key < live.definition || '}}'
WHERE state.computed_at >= live.since ORDER BY random() LIMIT $3
"""
COUNTERS = """
SELECT key, value, detail FROM unnest($1::text[]) AS live (id)
JOIN {state} AS state ON key >= 'counter|' || id || '|' AND key < 'counter|' || id || '}}' ORDER BY random() LIMIT $2
"""
EVENTS = f"""
SELECT {EVENT_COLUMNS}, state -> 'again' IS NOT NULL AS again FROM event
WHERE {{mine}} AND status = 'decided' ORDER BY received_at LIMIT $2
"""
MINE = {"actor": "actor_user_id = $1", "subject": "primary_subject_user_id = $1"}
OF_PARTY = """parties <> '{}' AND (parties @> jsonb_build_object($3::text, $1::text)
    OR parties @> jsonb_build_object($3::text, jsonb_build_array($1::text)))"""
LINKS = "SELECT key, detail -> 'originals' AS originals FROM state WHERE key = ANY($1::text[])"


class Difference(Struct, frozen=True):
    """A row that does not hold what the stored facts come to."""

    key: str
    held: Decimal | str
    due: Decimal | str

    def __str__(self) -> str:
        return f"{self.key} holds {self.held}, due is {self.due}"


async def wrong_limits(connection: Connection, sample: int, table: str) -> list[Difference]:
    """Finds, in up to `sample` rows of live limits with calendar periods, those that are not the live actions' sum.

    `table`: where rows are taken from, as SQL; a part of `state` where it is large.
    """
    rulebook = await _rulebook(connection)
    meters = {
        meter.definition: meter
        for compiled in rulebook.rules.values()
        for meter in compiled.meters
        if meter.every is not None
    }
    since = rulebook.published.meters_since
    followed = [since[name] + state.PUBLISH_LAG for name in meters if name in since]
    rows = await connection.fetch(
        LIMITS.format(state=table), [name for name in meters if name in since], followed, sample
    )
    found = {row["key"]: Decimal(row["value"]) for row in rows}
    slots = [slot for key in found if (slot := _slot(key, meters)) is not None]
    due = await state.used(connection, slots)
    return [
        Difference(slot.key, found[slot.key], due[slot.key].value)
        for slot in slots
        if found[slot.key] != due[slot.key].value
    ]


class _Row(Struct, frozen=True):
    """The value that a counter holds under one key."""

    counter: CompiledCounter
    key: str
    stored: StateValue


class _Past(Struct, frozen=True):
    event: EconomicEvent
    again: bool
    """Decided a second time: by which ruleset version the first time is not known any more."""


class _Due(Struct, frozen=True):
    """The values that a party's events come to in one counter, by the key of each row."""

    memory: Memory
    entries: Mapping[str, Multiset[tuple[int, str, str]]]
    """The entries of sliding windows, forgotten ones included."""
    newest: Mapping[str, int]
    """The latest moment that a sliding window ever saw, in microseconds."""


async def wrong_counters(connection: Connection, sample: int, table: str) -> list[Difference]:
    """Finds wrong rows of live counters: the engine's own code counts the party's stored events again."""
    rulebook = await _rulebook(connection)
    counters = {
        counter.id: counter
        for counter in rulebook.counters.values()
        if counter.id not in rulebook.published.building and not counter.broken
    }
    since = {generation_id(row.id, row.generation): row.since_version for row in await read_counters(connection)}
    by_party: dict[tuple[str, str], list[_Row]] = defaultdict(list)
    for row in await connection.fetch(COUNTERS.format(state=table), sorted(counters), sample):
        _, identity, _, item, subject = row["key"].split("|", 4)
        if item != UNDONE:
            held = _Row(counters[identity], row["key"], StateValue(Decimal(row["value"]), row["detail"]))
            by_party[held.counter.counter.of, subject].append(held)
    found: list[Difference] = []
    read = 0
    for (party, subject), rows in by_party.items():
        if read >= EVENTS_READ_MAX:
            break
        events = await _events_of(connection, party, subject)
        read += len(events)
        if len(events) > EVENTS_MAX:
            continue
        for counter in {row.counter.id: row.counter for row in rows}.values():
            due = await _due(connection, counter, events, since.get(counter.id, 0))
            mine = (row for row in rows if due is not None and row.counter.id == counter.id)
            found += [wrong for row in mine if due is not None and (wrong := _difference(row, due)) is not None]
    return found


async def _rulebook(connection: Connection) -> Rulebook:
    """Returns the rulebook of the live version; an empty one where there is none to be found."""
    try:
        live = await read_version(connection, await live_version(connection))
    except NotFound:
        return Rulebook.compile(0, Ruleset(), {})
    return Rulebook.compile(live.version, live.document, live.rule_versions, await read_published_context(connection))


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


async def _events_of(connection: Connection, party: str, subject: str) -> list[_Past]:
    role = party.removeprefix("parties.")
    arguments = (subject, EVENTS_MAX + 1) if party in MINE else (subject, EVENTS_MAX + 1, role)
    rows = await connection.fetch(EVENTS.format(mine=MINE.get(party, OF_PARTY)), *arguments)
    return [_Past(to_event(row), row["again"]) for row in rows]


async def _due(
    connection: Connection, counter: CompiledCounter, events: Sequence[_Past], since_version: int
) -> _Due | None:
    """None where a counter that began at its publish cannot be recounted, as one of its events was replayed since."""
    taken = [past for past in events if matches(counter.counter.event_type, past.event.event_type)]
    if counter.counter.start == "publish":
        taken = [past for past in taken if (past.event.ruleset_version or 0) >= since_version]
        if any(past.again for past in taken):
            return None
    gone = await _taken_back(connection, counter, [past.event for past in taken])
    memory, newest = Memory(), dict[str, int]()
    entries: dict[str, Multiset[tuple[int, str, str]]] = defaultdict(Multiset)
    for event in (past.event for past in taken):
        parts = counted(counter, event, make_activation(event_values(event)))
        for one in parts if counter.within is not None else ():
            key = total_key(counter, one.label, one.subject)
            newest[key] = max(one.at, newest.get(key, one.at))
            entries[key][one.at, str(one.value), one.item] += event.id not in gone
        if counter.within is None and event.id not in gone:
            apply(counter, parts, memory)
    return _Due(memory, entries, newest)


async def _taken_back(connection: Connection, counter: CompiledCounter, events: Sequence[EconomicEvent]) -> set[Any]:
    """Ids of the events that were wholly taken back: their links say who counts them still."""
    if counter.link is None:
        return set()
    links = {event.id: key for event in events if (key := key_of_original(counter.link, event)) is not None}
    rows = await connection.fetch(LINKS, sorted(set(links.values())))
    originals: dict[str, Any] = {row["key"]: row["originals"] or {} for row in rows}
    return {one for one, key in links.items() if counter.id not in originals.get(key, {}).get(str(one), ())}


def _difference(row: _Row, due: _Due) -> Difference | None:
    if row.counter.within is not None:
        return _window_difference(row, due)
    should = due.memory.get(row.key)
    if row.counter.counter.kind != "streak":
        return None if row.stored.value == should.value else Difference(row.key, row.stored.value, should.value)
    held, wanted = (_steps(value) for value in (row.stored, should))
    return None if held == wanted else Difference(row.key, _shown(held), _shown(wanted))


def _window_difference(row: _Row, due: _Due) -> Difference | None:
    """Compares windows. An entry older than a window looks at may be there or be gone: the order of receipt decides."""
    held = Multiset((at, value, item) for at, value, item in (row.stored.detail or {}).get("entries", ()))
    wanted = +due.entries.get(row.key, Multiset())
    oldest = due.newest.get(row.key, 0) - ((row.counter.within or timedelta()) + KEPT_PAST_WINDOW) // MICROSECOND
    kept = Multiset({entry: count for entry, count in wanted.items() if entry[0] >= oldest})
    if held <= wanted and kept <= held:
        return None
    return Difference(row.key, _shown(sorted(held.elements())), _shown(sorted(wanted.elements())))


def _steps(value: StateValue) -> dict[str, Any]:
    """The runs of a streak, and how often a step was taken again."""
    detail = value.detail or {}
    return {"runs": [list(run) for run in detail.get("runs", ())], "more": detail.get("more", {})}


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
