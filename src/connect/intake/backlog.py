"""Events recorded undecided (queued mode, or a lock held too long): claimed, decided and saved in batches by workers.

Tries are counted before they begin, in a commit of their own, so an event that kills its worker does not loop.
Events that were never tried go in batches; one with a try behind it goes alone, so that a poison event takes no
neighbour along.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from connect import failpoint
from connect.engine.command import encode_command
from connect.engine.decide import State, decide
from connect.engine.index import Rulebook
from connect.intake.live import LiveRules
from connect.intake.record import DATABASE_GONE, LOCKED, TRY_AGAIN
from connect.model import Decision, EconomicEvent, RewardAction
from connect.store.actions import given_rules
from connect.store.events import claim_to_decide, fail_exhausted, give_back, lock_for_replay, save_decisions
from connect.telemetry import DECIDE_SECONDS, log

BATCH = 500
POLL_S = 0.5
AGAIN_AFTER_S = 1.0
"""What met a held lock or a fault is tried again after this."""


class Backlog:
    """The `decide` role of a worker."""

    def __init__(self, pool: Any, rules: LiveRules) -> None:
        self._pool = pool
        self._rules = rules

    async def run(self, stop: asyncio.Event) -> None:
        """Ends when `stop` is set and the batch at hand is saved."""
        while not stop.is_set():
            try:
                decided = await self.tick()
            except Exception as error:  # a loop's tick: the lease gives the batch to the next try
                log.warning("decide.tick_failed", error=repr(error))
                decided = 0
            if not decided:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_S)

    async def tick(self) -> int:
        """Decides one batch of fresh events and one event with tries behind it; returns how many were decided."""
        done = 0
        for fresh, count in ((True, BATCH), (False, 1)):
            async with self._pool.acquire() as connection:
                events = await claim_to_decide(connection, count, fresh=fresh)
            failpoint.reach("decide.after_claim")
            if events:
                done += await self._decide(events)
        async with self._pool.acquire() as connection:
            for failed in await fail_exhausted(connection):
                log.error("event.failed", **{name: str(value) for name, value in failed.items()})
        return done

    async def _decide(self, events: Sequence[EconomicEvent]) -> int:
        ids = [event.id for event in events]
        try:
            decisions = decide_all(events, self._rules.rulebook, {})
            async with self._pool.acquire() as connection:
                saved = await save(connection, events, decisions)
        except (*LOCKED, *TRY_AGAIN, *DATABASE_GONE) as error:
            await self._give_back(ids, repr(error), uncount=True)
            return 0
        except Exception as error:  # one batch's seam: each of its events is tried again alone
            log.exception("decide.failed", events=len(events))
            await self._give_back(ids, repr(error))
            return 0
        return len(saved)

    async def _give_back(self, ids: list[UUID], failure: str, *, uncount: bool = False) -> None:
        async with self._pool.acquire() as connection:
            await give_back(connection, ids, after_s=AGAIN_AFTER_S, failure=failure, uncount=uncount)


def decide_all(
    events: Sequence[EconomicEvent], rulebook: Rulebook, given: dict[UUID, frozenset[str]]
) -> list[Decision]:
    """Decides events one after the other in the order given, all by one rulebook."""
    now = datetime.now(UTC)
    decisions: list[Decision] = []
    for event in events:
        with DECIDE_SECONDS.time():
            decisions.append(decide(event, rulebook, State(now=now, given=given.get(event.id, frozenset()))))
    return decisions


async def save(
    connection: Any, events: Sequence[EconomicEvent], decisions: Sequence[Decision], *, again: bool = False
) -> set[UUID]:
    now = datetime.now(UTC)
    decided = [(d.event_id, d.ruleset_version, now, msgspec.json.encode(d.trace).decode()) for d in decisions]
    by_id = {event.id: event for event in events}
    actions: list[tuple[RewardAction, str]] = [
        (action, encode_command(by_id[decision.event_id], action))
        for decision in decisions
        for action in decision.actions
    ]
    failpoint.reach("decide.before_commit")
    saved = await save_decisions(connection, decided, actions, again=again)
    failpoint.reach("decide.after_commit")
    return saved


async def replay(connection: Any, event_ids: Sequence[UUID], rulebook: Rulebook) -> int:
    """Decides stored events again by the live rules; rules that already gave for an event are left out.

    Returns how many of the ids exist. Mends `failed` events. One transaction: all or nothing.
    """
    async with connection.transaction():
        events = await lock_for_replay(connection, event_ids)
        given = await given_rules(connection, event_ids)
        await save(connection, events, decide_all(events, rulebook, given), again=True)
    return len(events)
