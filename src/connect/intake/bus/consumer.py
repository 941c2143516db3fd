"""The consumer: takes batches from a bus, has them dealt with, and acknowledges them after their COMMIT.

While one batch is written the next is fetched. A message that cannot be dealt with goes to `dead_event` with its reason
and is acknowledged, and its neighbours go on. Where the database does not answer, the batch in hand is tried again and
nothing more is fetched; where the broker does not, the connection is made anew. A crash at any moment costs messages
that the broker gives again, and a fact that comes again is recorded already.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from random import random
from typing import Any

from connect import failpoint
from connect.brokers import BrokerUnavailable
from connect.errors import ConnectError
from connect.intake.bus.port import Bus, Message
from connect.model import DeadKind
from connect.store.dead_letters import Dead, keep_dead
from connect.telemetry import BUS_LAG, BUS_MESSAGES, log

BATCH = 500
"""Messages in one fetch, and in one commit; throughput is flat beyond."""
WAIT_S = 1.0
"""One fetch waits this long for a first message: a stop is noticed within it."""
KEEP_S = 5.0
"""Between two words to the broker that this process is still at work on what it holds."""
LAG_S = 5.0
PAUSE_MAX_S = 10.0
"""Between two tries at a broker or database that is away; the first comes at once."""

Take = Callable[[Sequence[Message]], Awaitable[list[ConnectError | None]]]
"""Deals with messages: for each None, or why it is refused for good. Raises `Unready` to be asked again later.

Whatever it raises, nothing of what it did needs undoing: the same messages come again.
"""


class Unready(Exception):
    """Not now: the database is away, or too much is waiting already."""


class Consumer:
    """One loop a bus and process. `name` is the bus's in the settings; `reopen` makes an unconnected adapter."""

    def __init__(
        self,
        pool: Any,
        name: str,
        reopen: Callable[[], Bus],
        take: Take,
        *,
        kind: DeadKind = "event",
        batch: int = BATCH,
    ) -> None:
        self._pool, self._name, self._reopen, self._take = pool, name, reopen, take
        self._kind: DeadKind = kind
        self._batch = batch
        self._label = name if kind == "event" else f"results:{name}"
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then what is in hand is finished and acknowledged, and the rest left to others."""
        self._stop = stop
        failures = 0
        while not stop.is_set():
            bus = self._reopen()
            try:
                await bus.open()
                log.info("bus.opened", bus=self._label)
                failures = 0
                await self._consume(bus)
            except BrokerUnavailable as error:
                failures += 1
                log.warning("bus.unavailable", bus=self._label, error=str(error), failures=failures)
            except Exception as error:  # a loop's tick: opened anew, whatever it was
                failures += 1
                log.exception("bus.failed", bus=self._label, error=repr(error), failures=failures)
            finally:
                await bus.close()
            if not stop.is_set():
                await self._pause(failures)

    async def _consume(self, bus: Bus) -> None:
        """Fetches and deals with batches side by side, two in hand at the most. Raises what the bus raises."""
        fetched: asyncio.Queue[list[Message] | None] = asyncio.Queue(maxsize=1)
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._measure(bus)), group.create_task(self._fetch(bus, fetched))]
                await group.create_task(self._deal_with(bus, fetched))
                for task in beside:  # a fetch too: stopped while the database is away, nobody takes what it holds out
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _fetch(self, bus: Bus, fetched: "asyncio.Queue[list[Message] | None]") -> None:
        while not self._stop.is_set():
            if messages := await bus.batch(self._batch, WAIT_S):
                await fetched.put(messages)
        await fetched.put(None)

    async def _deal_with(self, bus: Bus, fetched: "asyncio.Queue[list[Message] | None]") -> None:
        while (messages := await fetched.get()) is not None:
            keeper = asyncio.create_task(self._keep(bus, messages))
            try:
                refused = await self._until_taken(messages)
            finally:
                keeper.cancel()
            if refused is None:
                return  # stopped while the database was away: the broker has them still
            failpoint.reach("bus.before_ack")
            await bus.ack(messages)
            failpoint.reach("bus.after_ack")
            BUS_MESSAGES.labels(self._label, "dead").inc(refused)
            BUS_MESSAGES.labels(self._label, "taken").inc(len(messages) - refused)

    async def _until_taken(self, messages: Sequence[Message]) -> int | None:
        """Deals with them, again and again while the database is away; how many were refused, None where stopped."""
        failures = 0
        while True:
            try:
                errors = await self._take(messages)
                dead = [
                    Dead(bus=self._name, kind=self._kind, body=message.body, attributes=message.attributes, error=error)
                    for message, error in zip(messages, errors, strict=True)
                    if error is not None
                ]
                if dead:
                    await self._bury(dead)
                return len(dead)
            except Exception as error:  # a batch's seam: nothing of it is lost, it is dealt with again
                failures += 1
                log.warning(
                    "bus.not_taken", bus=self._label, messages=len(messages), error=repr(error), failures=failures
                )
            if self._stop.is_set():
                return None
            await self._pause(failures)

    async def _bury(self, dead: Sequence[Dead]) -> None:
        async with self._pool.acquire() as connection:
            await keep_dead(connection, dead)
        for one in dead:
            log.warning("bus.dead", bus=self._label, code=one.error.code, reason=one.error.detail)

    async def _keep(self, bus: Bus, messages: Sequence[Message]) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            with contextlib.suppress(BrokerUnavailable):  # told to whoever fetches or acknowledges next
                await bus.keep(messages)

    async def _measure(self, bus: Bus) -> None:
        while True:
            with contextlib.suppress(BrokerUnavailable):
                BUS_LAG.labels(self._label).set(await bus.lag())
            await asyncio.sleep(LAG_S)

    async def _pause(self, failures: int) -> None:
        delay_s = min(PAUSE_MAX_S, 0.1 * 2.0 ** min(failures, 10)) * (0.5 + random() / 2)  # noqa: S311  spreads load
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay_s)
