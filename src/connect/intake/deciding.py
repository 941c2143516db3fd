"""Decides events inside a transaction: locks and loads what they touch, and writes what deciding changes.

The engine says which keys, three times over: links, then counters, then the limits and budgets that the rules would use
(`engine.decide`); then the actions that it may take back are locked. All transactions, also those of people, lock in
that order and each kind sorted, so they wait for each other and never in a circle. An event that takes something back
is decided in a transaction of its own, after what it takes back is stored.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from connect.engine.command import encode_command
from connect.engine.decide import (
    Cascade,
    LinkKeys,
    Reading,
    State,
    Uncounted,
    Weighed,
    claims,
    counter_keys,
    link_keys,
    readers,
    settle,
    uncounted,
    undone_early,
    weigh,
)
from connect.engine.explain import compact
from connect.engine.index import Rulebook
from connect.engine.limits import Slot
from connect.engine.links import Link, Original, originals_in, reversers_in
from connect.engine.state import Memory
from connect.engine.state_keys import parse_budget_key
from connect.model import Decision, EconomicEvent, RewardAction
from connect.store import state as rows
from connect.store.actions import actions_of_events, lock_actions, lock_actions_of_events, read_cascades, take_back
from connect.store.events.rows import read_events
from connect.telemetry import DECIDE_SECONDS, SAFETY_ALERTS, log

Undo = Mapping[str, Mapping[str, str]]
"""Target -> command -> the command that takes it back."""

RUN_MAX = 250
"""Events decided under one set of locks: others wait for a hot row no longer than these take (0.1 s, not loaded)."""

MOMENT = timedelta(microseconds=1)
"""Between two decisions of a run, so that `decided_at` orders them: each takes longer than this, so none is ahead."""

_encode = msgspec.json.Encoder(order="deterministic", decimal_format="number").encode


class Replayed(Struct, frozen=True):
    """The past of a stored event that is decided again."""

    given: frozenset[str] = frozenset()
    counted: bool = False


FIRST_TIME = Replayed()


class Decided(Struct, frozen=True):
    """One decided event, ready to be written."""

    event: EconomicEvent
    decision: Decision
    at: datetime
    actions: Sequence[tuple[RewardAction, str]]
    """Each with the body of its command."""

    @property
    def trace(self) -> str:
        return compact(self.decision.trace)

    @property
    def state(self) -> str | None:
        return _encode(self.decision.read).decode() if self.decision.read else None


def runs(events: Sequence[EconomicEvent], rulebook: Rulebook) -> Iterator[list[EconomicEvent]]:
    """The events in order, in lists to be decided in one transaction each."""
    run: list[EconomicEvent] = []
    for event in events:
        if rulebook.plan(event.event_type).reverses and link_keys(event, rulebook).reverses:
            if run:
                yield run
            yield [event]
            run = []
        else:
            run.append(event)
            if len(run) == RUN_MAX:
                yield run
                run = []
    if run:
        yield run


def decide_plain(event: EconomicEvent, rulebook: Rulebook, now: datetime, replayed: Replayed = FIRST_TIME) -> Decided:
    """Decides an event that touches no state, without asking the store anything."""
    begun = time.perf_counter()
    decision = settle(weigh(event, rulebook, State(now=now, given=replayed.given, counted=replayed.counted)))
    decided = _decided(event, decision, now, {event.id: event})
    DECIDE_SECONDS.observe(time.perf_counter() - begun)
    return decided


async def decide_run(
    connection: Any, events: Sequence[EconomicEvent], rulebook: Rulebook, undo: Undo,
    replayed: Mapping[UUID, Replayed] | None = None,
) -> list[Decided]:  # fmt: skip
    """Decides one run and writes all it changes but the events and their new actions, which are the caller's to write.

    Inside a transaction of the caller's. Raises what the database raises; then nothing of it stands.
    """
    loading = _Loading(connection, rulebook, undo, replayed or {})
    states = await loading.states(events)
    begun = time.perf_counter()
    weighed = [weigh(event, rulebook, state) for event, state in zip(events, states, strict=True)]
    weighing_s = time.perf_counter() - begun
    await loading.load_claims(weighed)
    weighed = [await loading.stand(one) if one.state.reverses else one for one in weighed]
    now = await rows.database_now(connection)
    begun = time.perf_counter()
    moments = [now + place * MOMENT for place in range(len(weighed))]
    decisions = [
        settle(replace(one, state=replace(one.state, now=at))) for one, at in zip(weighed, moments, strict=True)
    ]
    decided = [
        _decided(event, decision, at, loading.known)
        for event, decision, at in zip(events, decisions, moments, strict=True)
    ]
    DECIDE_SECONDS.observe((weighing_s + time.perf_counter() - begun) / len(events))
    await loading.write(decided)
    return decided


async def dry_run(connection: Any, event: EconomicEvent, rulebook: Rulebook, undo: Undo) -> Decision:
    """Returns what the event would give now, by the limits, budgets and counters as they are. Nothing of it stays."""
    if rulebook.plan(event.event_type).is_plain:
        return decide_plain(event, rulebook, event.received_at).decision
    trying = connection.transaction()
    await trying.start()
    try:
        [decided] = await decide_run(connection, [event], rulebook, undo)
    finally:
        await trying.rollback()
    return decided.decision


def _decided(event: EconomicEvent, decision: Decision, now: datetime, known: Mapping[UUID, EconomicEvent]) -> Decided:
    done = replace(event, status="decided", ruleset_version=decision.ruleset_version, decided_at=now)
    actions = [(action, encode_command(known[action.event_id], action)) for action in decision.actions]
    for alert in decision.alerts:
        SAFETY_ALERTS.inc()
        log.error("safety.rail_passed", alert=alert, event_id=event.id)
    return Decided(done, decision, now, actions)


class _Loading:
    """One run's state: what was locked, what was worked out, and the events that came along with it."""

    def __init__(self, connection: Any, rulebook: Rulebook, undo: Undo, replayed: Mapping[UUID, Replayed]) -> None:
        self._connection, self._rulebook, self._undo, self._replayed = connection, rulebook, undo, replayed
        self._memory = Memory()
        self._computed: set[str] = set()
        self.known: dict[UUID, EconomicEvent] = {}
        """Every event at hand, by id: the run's own, and those it is linked with."""

    async def states(self, events: Sequence[EconomicEvent]) -> list[State]:
        """Locks links and counters; one state an event, all with the same memory."""
        self.known = {event.id: event for event in events}
        keys = [link_keys(event, self._rulebook) for event in events]
        await self._lock({key for found in keys for key in found.all})
        await self._load_linked(keys)
        states = [await self._state(event, found) for event, found in zip(events, keys, strict=True)]
        found = [uncounted(event, self._rulebook, state.reverses) for event, state in zip(events, states, strict=True)]
        readings = [Reading(event) for event in events]
        touched = zip(events, readings, found, strict=True)
        await self._lock(
            {key for event, reading, gone in touched for key in counter_keys(event, self._rulebook, reading, gone)}
        )
        return [replace(state, reading=reading) for state, reading in zip(states, readings, strict=True)]

    async def _lock(self, keys: Iterable[str]) -> None:
        wanted = {key for key in keys if key not in self._memory.values}
        locked = await rows.lock(self._connection, wanted)
        self._memory.values.update((key, row.stored) for key, row in locked.items())

    async def _load_linked(self, keys: Sequence[LinkKeys]) -> None:
        """The events that the links name."""
        ids = {
            UUID(found)
            for one in keys
            for key in one.all
            for found in (*originals_in(self._memory.get(key)), *reversers_in(self._memory.get(key)))
        } - self.known.keys()
        if ids:
            self.known.update(await read_events(self._connection, sorted(ids)))

    async def _state(self, event: EconomicEvent, keys: LinkKeys) -> State:
        now, replayed = event.received_at, self._replayed.get(event.id, FIRST_TIME)
        reverses = {path: await self._link(key, event) for path, key in keys.reverses.items()}
        reversers = {path: self._reversers(key, event) for path, key in keys.original.items()}
        reversers = {path: found for path, found in reversers.items() if found}
        return State(
            now=now, today=now, memory=self._memory, given=replayed.given, counted=replayed.counted, links=keys,
            reverses=reverses, reversers=reversers, undo=self._undo,
            undone=undone_early(event, self._rulebook, reversers) if reversers else frozenset(),
        )  # fmt: skip

    async def _link(self, key: str, event: EconomicEvent) -> Link:
        """Returns the facts that the event takes back. Their actions tell the claims; `stand` settles how they are."""
        stored = self._memory.get(key)
        counters = {UUID(found): names for found, names in originals_in(stored).items() if UUID(found) in self.known}
        counters.pop(event.id, None)
        actions = await actions_of_events(self._connection, sorted(counters)) if counters else {}
        originals = [
            Original(self.known[found], tuple(actions[found]), tuple(names)) for found, names in counters.items()
        ]
        return Link(tuple(originals), self._reversers(key, event))

    def _reversers(self, key: str, event: EconomicEvent) -> tuple[EconomicEvent, ...]:
        found = (UUID(one) for one in reversers_in(self._memory.get(key)))
        return tuple(self.known[one] for one in found if one != event.id and one in self.known)

    # --- claims ---

    async def load_claims(self, weighed: Sequence[Weighed]) -> None:
        """Locks limits, budgets and rails; works out those that are new."""
        slots: dict[str, Slot] = {}
        reaches: dict[str, rows.Reach] = {}
        keys: set[str] = set()
        for one in weighed:
            wanted = claims(one)
            keys.update(wanted.keys)
            for slot in wanted.slots:
                slots[slot.key] = slot
                if slot.period is None:
                    _reach(reaches, slot, one.event.occurred_at)
        locked = await rows.lock(self._connection, keys | slots.keys())
        self._memory.values.update((key, row.stored) for key, row in locked.items())
        stale = [slot for key, slot in slots.items() if slot.period is not None and self._is_stale(slot, locked[key])]
        await self._work_out(stale, {key for key, row in locked.items() if row.computed_at is None})
        if reaches:
            self._memory.windows.update(await rows.window_entries(self._connection, list(reaches.values())))

    def _is_stale(self, slot: Slot, row: rows.LockedRow) -> bool:
        """Whether the row may have missed what was given: it is new, or from before its limit was followed by all."""
        since = self._rulebook.published.meters_since.get(slot.meter.definition)
        return row.computed_at is None or since is None or row.computed_at < since + rows.PUBLISH_LAG

    async def _work_out(self, stale: Sequence[Slot], fresh: set[str]) -> None:
        if stale:
            found = await rows.used(self._connection, stale)
            self._memory.values.update(found)
            self._computed.update(found)
        budgets = {key: found for key in fresh if (found := parse_budget_key(key))}
        if budgets:
            found = await rows.spent(self._connection, budgets)
            self._memory.values.update(found)
            self._computed.update(found)

    # --- actions that stood before ---

    async def stand(self, weighed: Weighed) -> Weighed:
        """Locks the actions that the event takes back, and those that hung on it: actions come after all state."""
        links = weighed.state.reverses
        originals = [original for link in links.values() for original in link.originals]
        cascades = await self._cascades(weighed.gone)
        if cascades:  # both kinds in one order
            ids = {one.action.id for one in cascades} | {one.id for each in originals for one in each.actions}
            await lock_actions(self._connection, sorted(ids))
            cascades = await self._cascades(weighed.gone)
        events = sorted({original.event.id for original in originals})
        actions = await lock_actions_of_events(self._connection, events) if events else {}
        standing = {
            path: replace(
                link, originals=tuple(replace(one, actions=tuple(actions[one.event.id])) for one in link.originals)
            )
            for path, link in links.items()
        }
        return replace(weighed, state=replace(weighed.state, reverses=standing, cascades=cascades))

    async def _cascades(self, gone: Sequence[Uncounted]) -> tuple[Cascade, ...]:
        reading = readers(self._rulebook, gone)
        users = sorted({part.subject for one in gone for part in one.parts})
        if not reading or not users:
            return ()
        found = await read_cascades(self._connection, sorted(reading), users)
        events = await read_events(self._connection, [action.event_id for action, _, _ in found])
        return tuple(
            Cascade(action, events[action.event_id], counters, is_reversed) for action, counters, is_reversed in found
        )

    async def write(self, decided: Sequence[Decided]) -> None:
        """Writes what decisions change of state and of actions that stood before, and who met which variant."""
        changed = {key: self._memory.values[key] for key in self._memory.changed | self._computed}
        await rows.save(self._connection, changed, self._computed)
        await take_back(self._connection, [taken for one in decided for taken in one.decision.taken_back])
        await rows.expose(
            self._connection,
            [
                (exposure, one.event.id, one.decision.ruleset_version, one.at)
                for one in decided
                for exposure in one.decision.exposures
            ],
        )


def _reach(reaches: dict[str, rows.Reach], slot: Slot, moment: datetime) -> None:
    found = reaches.setdefault(slot.key, rows.Reach(slot, moment, moment))
    found.first, found.last = min(found.first, moment), max(found.last, moment)
