"""Counts stored events into counters that are new: history, while the live ones are counted as they are decided.

A counter takes part in deciding from the publish that brought it: events decided by that ruleset version or a later one
are in it. This counts the others, in order of receipt and chunk by chunk; each chunk and how far it came are one
transaction, so a crash costs a chunk of work and counts nothing twice. Rules that read the counter are not live before.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from connect.engine.counters import CompiledCounter, Counted, apply, counted, keys_changed
from connect.engine.decide.counter_reversal import uncounted, undone_early
from connect.engine.expression import make_activation
from connect.engine.index import Rulebook
from connect.engine.links import (
    Link,
    Original,
    event_values,
    key_of_original,
    key_of_reverser,
    matches,
    originals_in,
    reversers_in,
    with_original,
    with_reverser,
)
from connect.engine.state import Memory
from connect.intake.live import LiveRules
from connect.model import EconomicEvent
from connect.store import state
from connect.store.events.rows import read_events
from connect.store.published_context import advance, events_to_count, finish, lock_building
from connect.telemetry import log

CHUNK = 500
POLL_S = 1.0


class Rebuilder:
    """One loop of a worker; any number may run, each chunk is one's."""

    def __init__(self, pool: Any, rules: LiveRules) -> None:
        self._pool = pool
        self._rules = rules

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                worked = await self.tick()
            except Exception as error:  # a loop's tick: the chunk is taken up again
                log.warning("counters.rebuild_failed", error=repr(error))
                worked = False
            if not worked:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_S)

    async def tick(self) -> bool:
        """Counts one chunk; says whether there was anything to do."""
        rulebook = self._rules.rulebook
        if not rulebook.published.building:
            return False
        async with self._pool.acquire() as connection, connection.transaction():
            building = await lock_building(connection)
            if building is None:
                return False
            counters = [
                compiled
                for compiled in rulebook.counters.values()
                if compiled.id in building.values and not compiled.broken
            ]
            events = await events_to_count(connection, building, _patterns(counters), CHUNK)
            if events:
                await _Chunk(connection, rulebook, counters, events).count()
                await advance(connection, building.ids, events[-1], len(events))
            if len(events) < CHUNK:
                await finish(connection, building.ids)
                log.info("counters.rebuilt", counters=sorted(building.ids))
        if len(events) < CHUNK:
            await self._rules.refresh()
        return True


def _patterns(counters: Sequence[CompiledCounter]) -> list[str]:
    """The event types that count, or that undo; patterns may end in `.*`."""
    found = {compiled.counter.event_type for compiled in counters}
    return sorted(found | {one.counter.undone_by for one in counters if one.counter.undone_by is not None})


class _Chunk:
    """Events counted in order within one transaction."""

    def __init__(
        self, connection: Any, rulebook: Rulebook, counters: Sequence[CompiledCounter], events: Sequence[EconomicEvent]
    ) -> None:
        self._connection, self._rulebook, self._counters, self._events = connection, rulebook, counters, events
        self._memory = Memory()
        self._known: dict[UUID, EconomicEvent] = {event.id: event for event in events}

    async def count(self) -> None:
        await self._lock({key for event in self._events for key in self._link_keys(event)})
        await self._load_linked()
        await self._lock(self._counter_keys())
        for event in self._events:
            self._take_out(event)
            self._take_in(event)
        await state.save(self._connection, self._memory.changes(), set())

    async def _lock(self, keys: set[str]) -> None:
        locked = await state.lock(self._connection, keys)
        self._memory.values.update((key, row.stored) for key, row in locked.items())

    def _link_keys(self, event: EconomicEvent) -> set[str]:
        keys = {self._key(counter, event, as_original=which) for counter in self._counters for which in (True, False)}
        return {key for key in keys if key is not None}

    def _key(self, counter: CompiledCounter, event: EconomicEvent, *, as_original: bool) -> str | None:
        if counter.link is None:
            return None
        if as_original:
            takes = matches(counter.counter.event_type, event.event_type)
            return key_of_original(counter.link, event) if takes else None
        return key_of_reverser(counter.link, event) if matches(counter.link.event_type, event.event_type) else None

    async def _load_linked(self) -> None:
        named = {
            UUID(found)
            for stored in self._memory.values.values()
            for found in (*originals_in(stored), *reversers_in(stored))
        }
        if unknown := sorted(named - self._known.keys()):
            self._known.update(await read_events(self._connection, unknown))

    def _counter_keys(self) -> set[str]:
        return {
            key
            for event in self._known.values()
            for counter in self._counters
            for key in keys_changed(counter, self._parts(counter, event))
        }

    def _parts(self, counter: CompiledCounter, event: EconomicEvent) -> tuple[Counted, ...]:
        if not matches(counter.counter.event_type, event.event_type):
            return ()
        return counted(counter, event, make_activation(event_values(event)))

    def _take_out(self, event: EconomicEvent) -> None:
        """As what undoes: the event is noted in its links, and what it wholly undoes is counted no more."""
        for counter in self._counters:
            key = self._key(counter, event, as_original=False)
            if key is None or counter.link is None:
                continue
            link = self._link(key, event, counter)
            for gone in uncounted(event, self._rulebook, {counter.link: link}):
                if gone.counter.id == counter.id:
                    apply(counter, gone.parts, self._memory, sign=-1)
                    self._note(key, gone.original, counter, counts=False)
            self._memory.put(key, with_reverser(self._memory.get(key), str(event.id)))

    def _take_in(self, event: EconomicEvent) -> None:
        for counter in self._counters:
            parts = self._parts(counter, event)
            key = self._key(counter, event, as_original=True)
            if not parts:
                continue
            if key is not None and counter.link is not None:
                earlier = {counter.link: self._reversers(key, event)}
                if counter.id in undone_early(event, self._rulebook, earlier):
                    continue
                self._note(key, event, counter, counts=True)
            apply(counter, parts, self._memory)

    def _note(self, key: str, original: EconomicEvent, counter: CompiledCounter, *, counts: bool) -> None:
        stored = self._memory.get(key)
        others = {name for name in originals_in(stored).get(str(original.id), []) if name != counter.id}
        self._memory.put(key, with_original(stored, str(original.id), others | {counter.id} if counts else others))

    def _link(self, key: str, event: EconomicEvent, counter: CompiledCounter) -> Link:
        """Only what this counter counts is asked of it."""
        originals = tuple(
            Original(self._known[UUID(found)], (), (counter.id,))
            for found, names in originals_in(self._memory.get(key)).items()
            if counter.id in names and UUID(found) in self._known
        )
        return Link(originals, self._reversers(key, event))

    def _reversers(self, key: str, event: EconomicEvent) -> tuple[EconomicEvent, ...]:
        found = (UUID(one) for one in reversers_in(self._memory.get(key)))
        return tuple(self._known[one] for one in found if one != event.id and one in self._known)
