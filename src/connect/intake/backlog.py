"""Events recorded undecided (queued mode, or a lock held too long): claimed, decided and saved in batches by workers.

Tries are counted before they begin, in a commit of their own, so an event that kills its worker does not loop.
Events that were never tried go in batches; one with a try behind it goes alone, so that a poison event takes no
neighbour along. Five tries take about five seconds, and as long as the worker needs for as many as failed together.
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from connect import failpoint
from connect.engine.index import Rulebook
from connect.errors import Conflict
from connect.intake.deciding import FIRST_TIME, Decided, Replayed, Undo, decide_plain, decide_run, runs
from connect.intake.live import LiveRules
from connect.intake.record import DATABASE_GONE, LOCKED, TRY_AGAIN
from connect.model import EconomicEvent
from connect.store.actions import given_rules
from connect.store.events.backlog import (
    DecidedRow,
    claim_to_decide,
    fail_exhausted,
    give_back,
    lock_for_replay,
    lock_to_decide,
    save_decisions,
)
from connect.store.events.fence import Outdated
from connect.telemetry import log

BATCH = 500
POLL_S = 0.5
AGAIN_AFTER_S = 1.0
"""The seconds after which an event that met a held lock or a fault is tried again."""
PASSING = (*LOCKED, *TRY_AGAIN, *DATABASE_GONE)
"""No event's own fault, so no try; but a statement that took too long may be one's own, and would hold up its batch."""


class Backlog:
    """The `decide` role of a worker."""

    def __init__(self, pool: Any, rules: LiveRules, undo: Undo | None = None, in_order: Collection[str] = ()) -> None:
        self._pool = pool
        self._rules = rules
        self._undo = undo or {}
        self._in_order = in_order

    async def run(self, stop: asyncio.Event) -> None:
        """Ends when `stop` is set and the batch at hand is saved."""
        while not stop.is_set():
            try:
                taken = await self.tick()
            except Exception as error:  # a loop's tick: the lease gives the batch to the next try
                log.warning("decide.tick_failed", error=repr(error))
                taken = 0
            if not taken:  # a pause after each that failed would hold up those behind it
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_S)

    async def tick(self) -> int:
        """Tries one batch of fresh events and one event with tries behind it; returns how many were tried."""
        tried = 0
        for fresh, count in ((True, BATCH), (False, 1)):
            async with self._pool.acquire() as connection:
                events = await claim_to_decide(connection, count, fresh=fresh)
            failpoint.reach("decide.after_claim")
            if events:
                await self._decide(events)
                tried += len(events)
        async with self._pool.acquire() as connection:
            for failed in await fail_exhausted(connection):
                log.error("event.failed", **{name: str(value) for name, value in failed.items()})
        return tried

    async def _decide(self, events: Sequence[EconomicEvent]) -> None:
        rulebook = await self._rules.fresh()
        for run in runs(events, rulebook):
            ids = [event.id for event in run]
            try:
                await self._decide_run(run, rulebook)
            except Outdated:  # the new rules are being compiled: nobody's fault, and soon tried again
                await self._give_back(ids, None, uncount=True, after_s=0)
            except Exception as error:  # one batch's seam: each of its events is tried again alone
                passing = isinstance(error, PASSING) and not isinstance(error, asyncpg.QueryCanceledError)
                if not passing:
                    log.exception("decide.failed", events=len(run))
                await self._give_back(ids, repr(error), uncount=passing)

    async def _decide_run(self, run: Sequence[EconomicEvent], rulebook: Rulebook) -> None:
        """Raises `Outdated` where the rules changed meanwhile and the new ones are not compiled soon."""
        try:
            async with self._pool.acquire() as connection:
                await decide_stored(connection, run, rulebook, self._undo, self._in_order)
        except Outdated:
            await self._rules.catch_up()
            newer = self._rules.rulebook
            for part in runs(run, newer):
                async with self._pool.acquire() as connection:
                    await decide_stored(connection, part, newer, self._undo, self._in_order)

    async def _give_back(
        self, ids: list[UUID], failure: str | None, *, uncount: bool = False, after_s: float = AGAIN_AFTER_S
    ) -> None:
        async with self._pool.acquire() as connection:
            await give_back(connection, ids, after_s=after_s, failure=failure, uncount=uncount)


async def decide_stored(
    connection: Any, events: Sequence[EconomicEvent], rulebook: Rulebook, undo: Undo, in_order: Collection[str] = ()
) -> int:
    """Decides events that wait, in one transaction; returns how many this call decided."""
    async with connection.transaction():
        mine = await lock_to_decide(connection, [event.id for event in events])
        decided = await _decided(connection, [event for event in events if event.id in mine], rulebook, undo, {})
        saved = await _save(connection, decided, in_order)
    failpoint.reach("decide.after_commit")
    return len(saved)


async def replay(
    connection: Any, event_ids: Sequence[UUID], rulebook: Rulebook, undo: Undo | None = None,
    in_order: Collection[str] = (),
) -> int:  # fmt: skip
    """Decides stored events again by the live rules; rules that already gave for an event are left out.

    Returns how many of the ids exist. Mends `failed` events. One transaction: all or nothing. Raises `Conflict` for
    events that were decided, while a counter is built from history: it could count them twice or not at all.
    """
    async with connection.transaction():
        events = await lock_for_replay(connection, event_ids)
        if rulebook.published.building and any(event.status == "decided" for event in events):
            raise Conflict("counters are being built from history: replay decided events once that is done")
        given = await given_rules(connection, event_ids)
        behind = {
            event.id: Replayed(given.get(event.id, frozenset()), counted=event.status == "decided") for event in events
        }
        for run in runs(events, rulebook):
            decided = await _decided(connection, run, rulebook, undo or {}, behind)
            await _save(connection, decided, in_order, again=True)
    return len(events)


async def _decided(
    connection: Any, events: Sequence[EconomicEvent], rulebook: Rulebook, undo: Undo, behind: Mapping[UUID, Replayed]
) -> list[Decided]:
    if all(rulebook.plan(event.event_type).is_plain for event in events):
        now = datetime.now(UTC)
        return [decide_plain(event, rulebook, now, behind.get(event.id, FIRST_TIME)) for event in events]
    return await decide_run(connection, events, rulebook, undo, behind)


async def _save(
    connection: Any, decided: Sequence[Decided], in_order: Collection[str], *, again: bool = False
) -> set[UUID]:
    rows = [
        DecidedRow(one.event.id, one.decision.ruleset_version, one.at, one.trace, one.state, one.actions)
        for one in decided
    ]
    saved = await save_decisions(connection, rows, again=again, in_order=in_order)
    failpoint.reach("decide.before_commit")
    return saved
