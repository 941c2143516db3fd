"""The dispatcher: claims due actions by lanes, sends them, settles what came of it.

Nothing is sent inside a transaction. What a crash leaves behind at each step: before the claim's commit nothing; after
it a lease that ends by itself; after the sending an effect whose key is asked about again; before the settling the
same. So a target sees each command at least once, always under one key and with one body.
"""

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from random import random
from typing import Any

import asyncpg
from msgspec import Struct

from connect.dispatch.breaker import Gates, Sent
from connect.dispatch.lane import Lane
from connect.dispatch.targets import open_transport
from connect.failpoint import reach
from connect.lifecycle import (
    REASON_CHARACTERS_MAX,
    RETRY_AFTER_CAP_S,
    Answer,
    Misconfigured,
    Refused,
    Retriable,
    outcome_name,
    settle,
    storable,
)
from connect.model import ClaimedCommand, DispatchAttempt, Settlement, Target
from connect.store import claims
from connect.store.targets import leave_probes
from connect.telemetry import ACTIONS, ATTEMPT_SECONDS, ATTEMPTS, log

POLL_S = 0.5
"""How late a due action is noticed when no hint arrives."""
HOUSEKEEPING_S = 15.0
"""Between two rounds of giving up, which reads what is due and was ever sent: late by this much after days."""
DRAIN_S = 20.0
"""How long a stopping dispatcher waits for answers; what is cut off is claimed again when its lease ends."""
SETTLE_BATCH = 500
UNSETTLED_MAX = 2000
"""Answers kept in memory while the database is away; at this many nothing more is claimed."""
ACQUIRE_TIMEOUT_S = 5.0
OUTAGE_PAUSE_MAX_S = 5.0

ROW_FAULTS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError, OverflowError)
"""Errors that the row itself causes, so that trying it again cannot help."""


class Settled(Struct, frozen=True):
    """An answered attempt, waiting to be written."""

    settlement: Settlement
    attempt: DispatchAttempt
    sent: Sent

    @property
    def target(self) -> str:
        return self.sent.target


class Dispatcher:
    """One a process. Raises `SettingsError` at once on a target whose address or secret cannot work."""

    def __init__(
        self,
        pool: "asyncpg.Pool[Any]",
        targets: Mapping[str, Target],
        *,
        poll_s: float = POLL_S,
        housekeeping_s: float = HOUSEKEEPING_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._pool = pool
        self._targets = dict(targets)
        self._lanes = {name: Lane(target, open_transport(target), time.monotonic()) for name, target in targets.items()}
        self._gates = Gates(self._targets)
        self._poll_s, self._housekeeping_s, self._drain_s = poll_s, housekeeping_s, drain_s
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._answered: deque[Settled] = deque()
        self._to_settle = asyncio.Event()
        self._draining = False
        self._unknown: list[str] = []

    def notify(self) -> None:
        """A hint that something may be due now; without it the next poll finds it."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains: no new claims, answers in flight awaited and settled. Once only."""
        stopped = asyncio.create_task(self._wake_on(stop))
        house = asyncio.create_task(self._keep_house())
        settler = asyncio.create_task(self._settle_answers())
        failures = 0
        try:
            while not stop.is_set():
                try:
                    await self._claim()
                    failures = 0
                except Exception as error:  # a loop's tick: whatever it was, the next may work
                    failures += 1
                    log.warning("claim_failed", error=_words(error), failures=failures)
                await self._until_woken(_outage_pause_s(failures) if failures else self._next_poll_s())
            house.cancel()
            await self._drain(settler)
        finally:
            for task in (stopped, house, settler, *self._sending):
                task.cancel()
            await asyncio.gather(stopped, house, settler, *self._sending, return_exceptions=True)
            await asyncio.gather(*(lane.transport.close() for lane in self._lanes.values()))

    async def _claim(self) -> None:
        now = time.monotonic()
        free = {name: slots for name, lane in self._lanes.items() if (slots := lane.slots(now)) > 0}
        if not free or len(self._answered) >= UNSETTLED_MAX:
            return
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            wanted = await self._wanted(connection, free)
            at = time.monotonic()
            commands = await claims.claim(connection, wanted) if wanted else []
            idle = {name for name, lane in wanted.items() if lane.probes} - {command.target for command in commands}
            if idle:
                await leave_probes(connection, idle)
        reach("claim.after")
        for name, claim in wanted.items():
            lane = self._lanes[name]
            for sending in lane.took([command for command in commands if command.target == name], claim.slots):
                task = asyncio.create_task(self._send(lane, sending, at, is_probe=claim.probes))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _wanted(self, connection: Any, free: Mapping[str, int]) -> dict[str, claims.LaneClaim]:
        """Returns what to claim: all free slots of a healthy lane, one command of one that this process is to probe."""
        now = time.monotonic()
        if self._gates.is_stale(now):
            await self._gates.refresh(connection, now)
        through = {name: slots for name, slots in free.items() if self._gates.lets_through(name)}
        probes = await self._gates.probes(connection, through)
        return {
            name: claims.LaneClaim(
                slots=1 if name in probes else slots, target=self._targets[name], probes=name in probes
            )
            for name, slots in through.items()
            if name in probes or not self._gates.is_half_open(name)
        }

    async def _send(
        self, lane: Lane, claimed: Sequence[ClaimedCommand], claimed_at: float, *, is_probe: bool = False
    ) -> None:
        """Sends outside any transaction; `claimed_at` is the monotonic time just before the claim of these."""
        started = time.monotonic()
        try:
            commands = [command for command in claimed if _still_ours(command, _since(command, claimed_at, started))]
            answers = await self._answers(lane, commands) if commands else []
        finally:
            lane.freed()
            if lane.more:
                self._wake.set()
        ended = time.monotonic()
        for command, answer in zip(commands, answers, strict=True):
            outcome = answer.outcome
            if isinstance(outcome, Retriable) and outcome.holds_lane and outcome.retry_after_s:
                lane.hold(ended + min(outcome.retry_after_s, RETRY_AFTER_CAP_S))
            now = _since(command, claimed_at, ended)
            settlement = settle(command, lane.target, outcome, now, random())  # noqa: S311  spreads load, hides nothing
            attempt = _attempt(command, answer, _since(command, claimed_at, started), ended - started)
            sent = Sent(target=command.target, outcome=outcome, started_at=attempt.started_at, is_probe=is_probe)
            self._answered.append(Settled(settlement, attempt, sent))
        self._to_settle.set()

    async def _answers(self, lane: Lane, commands: Sequence[ClaimedCommand]) -> list[Answer]:
        try:
            reach("send.before")
            answers = await lane.transport.send(commands)
            reach("send.after")
        except Exception as error:  # a sending: its fault stays its own, and its commands are asked again
            first = commands[0]
            log.error("sending_failed", action_id=str(first.id), target=first.target, n=first.n, **_trace())
            return [Answer(outcome=Retriable(f"internal: {_words(error)}"))] * len(commands)
        return answers

    async def _settle_answers(self) -> None:
        """Group commit without a timer: each round writes whatever was answered while the last was written."""
        failures = 0
        while not (self._draining and not self._answered):
            await self._to_settle.wait()
            self._to_settle.clear()
            while self._answered:
                batch = [self._answered.popleft() for _ in range(min(SETTLE_BATCH, len(self._answered)))]
                try:
                    await self._settle(batch)
                    failures = 0
                except Exception as error:  # a loop's tick: answers are kept until the database takes them
                    failures += 1
                    self._answered.extendleft(reversed(batch))
                    log.warning("settle_failed", error=_words(error), failures=failures, unsettled=len(self._answered))
                    await asyncio.sleep(_outage_pause_s(failures))

    async def _settle(self, batch: list[Settled]) -> None:
        """Raises when the database does not answer; then all of `batch` is to be settled again, which is safe."""
        reach("settle.before")
        try:
            applied = await self._write(batch)
        except ROW_FAULTS as error:
            if len(batch) == 1:
                # Its lease will end, the command is asked again, and give_up ends it at last.
                log.error("settle_refused", action_id=str(batch[0].settlement.id), error=_words(error))
                return
            for settled in batch:
                await self._settle([settled])
            return
        reach("settle.after")
        for settled in batch:
            _tell(settled, applied=settled.settlement.id in applied)

    async def _write(self, batch: list[Settled]) -> set[Any]:
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            applied = await claims.settle(connection, [(settled.settlement, settled.attempt) for settled in batch])
            try:
                await self._gates.tell(connection, [settled.sent for settled in batch])
            except Exception as error:  # what is settled is settled: the next answers tell it again
                log.warning("breaker_not_told", error=_words(error))
        return applied

    async def _keep_house(self) -> None:
        while True:
            try:
                await self._give_up()
                await self._release()
                await self._tell_unknown()
            except Exception as error:  # a loop's tick
                log.warning("housekeeping_failed", error=_words(error))
            await asyncio.sleep(self._housekeeping_s)

    async def _give_up(self) -> None:
        ended = None
        while ended is None or len(ended) == claims.GIVE_UP_BATCH:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                ended = await claims.give_up(connection, self._targets)
            for action_id, target in ended:
                ACTIONS.labels(target, "failed").inc()
                log.warning("given_up", action_id=str(action_id), target=target)

    async def _release(self) -> None:
        """Releases what waits for an end: a process may die between settling an end and telling it."""
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            await claims.release_ended(connection)

    async def _tell_unknown(self) -> None:
        """Told when they change: for a target that no setting names nothing is claimed and nothing discarded."""
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            unknown = await claims.unknown_targets(connection, self._targets)
        if unknown != self._unknown and unknown:
            log.warning("unknown_targets", targets=unknown, hint="add [targets.<name>] or cancel these actions")
        self._unknown = unknown

    async def _drain(self, settler: asyncio.Task[None]) -> None:
        deadline = time.monotonic() + self._drain_s
        if self._sending:
            await asyncio.wait(set(self._sending), timeout=self._drain_s)
        cut_off = len(self._sending)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._draining = True
        self._to_settle.set()
        await asyncio.wait({settler}, timeout=max(deadline - time.monotonic(), ACQUIRE_TIMEOUT_S))
        log.info("dispatcher_stopped", cut_off=cut_off, unsettled=len(self._answered))

    def _next_poll_s(self) -> float:
        now = time.monotonic()
        waits_s = (wait_s for lane in self._lanes.values() if (wait_s := lane.next_slot_s(now)) is not None)
        return min(self._poll_s, *waits_s, self._poll_s)

    async def _until_woken(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        self._wake.clear()

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()


def _still_ours(command: ClaimedCommand, now: datetime) -> bool:
    """Whether its lease still runs; where this process stood still since the claim, it is another's to send by now."""
    if now < command.lease_until:
        return True
    log.warning("lease_lost_before_sending", action_id=str(command.id), target=command.target, n=command.n)
    return False


def _since(command: ClaimedCommand, claimed_at: float, now: float) -> datetime:
    """The database's time, told by this machine's monotonic clock, so that skew between machines does not matter."""
    return command.claimed_at + timedelta(seconds=now - claimed_at)


def _attempt(command: ClaimedCommand, answer: Answer, started_at: datetime, duration_s: float) -> DispatchAttempt:
    reason = answer.outcome.reason if isinstance(answer.outcome, Refused | Misconfigured | Retriable) else None
    return DispatchAttempt(
        n=command.n,
        started_at=started_at,
        duration_ms=round(duration_s * 1000, 3),
        outcome=outcome_name(answer.outcome),
        status_code=answer.status_code,
        error=storable(reason, REASON_CHARACTERS_MAX) if reason else None,
        excerpt=answer.excerpt,
    )


def _tell(settled: Settled, *, applied: bool) -> None:
    """One wide line an attempt, and its metrics."""
    attempt, settlement = settled.attempt, settled.settlement
    ATTEMPTS.labels(settled.target, attempt.outcome).inc()
    ATTEMPT_SECONDS.labels(settled.target).observe(attempt.duration_ms / 1000)
    if applied and settlement.status in ("completed", "failed"):
        ACTIONS.labels(settled.target, settlement.status).inc()
    tell = log.warning if attempt.outcome in ("misconfigured", "refused") else log.info
    tell(
        "target_misconfigured" if attempt.outcome == "misconfigured" else "attempt",
        action_id=str(settlement.id), target=settled.target, n=attempt.n, outcome=attempt.outcome,
        status_code=attempt.status_code, duration_ms=attempt.duration_ms, error=attempt.error,
        status=settlement.status if applied else None, due_at=settlement.due_at, lease_lost=not applied,
    )  # fmt: skip


def _outage_pause_s(failures: int) -> float:
    return min(OUTAGE_PAUSE_MAX_S, 0.1 * 2.0 ** min(failures, 10)) * (0.5 + random() / 2)  # noqa: S311


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _trace() -> dict[str, str]:
    """Where it happened, without the values of variables, which hold secrets and bodies."""
    return {"traceback": traceback.format_exc()}
