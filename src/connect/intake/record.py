"""Record once: group commit without a timer, deciding inline where that is asked for and possible.

A flusher takes whatever queued up while the commit before ran. A group is one statement; if it fails, its events are
tried one by one, so that a poison row fails alone. A 2xx is answered only from what was resolved here after a commit.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID

import asyncpg
from msgspec import Struct, field

from connect import failpoint
from connect.engine.index import Rulebook
from connect.errors import DatabaseUnavailable, Overloaded
from connect.intake.answers import RETRY_AFTER_S, Answer, tell_created, tell_known, tell_refused
from connect.intake.deciding import Decided, Undo, decide_plain, decide_run, runs
from connect.intake.live import LiveRules
from connect.intake.normalize import NormalEvent
from connect.model import RewardAction, Warning_
from connect.store.actions import actions_of_events
from connect.store.events.fence import Outdated
from connect.store.events.record import known_identities, record, record_impatiently, stored_events
from connect.store.events.rows import EventRow, StoredEvent
from connect.store.pool import lend
from connect.telemetry import GROUP_COMMIT_SIZE, log

GROUP_MAX = 500
"""Events in one commit; throughput is flat beyond."""
GROUP_CHARACTERS_MAX = 8 * 1024 * 1024
"""The most characters of context in one commit: 500 of the largest events would be a statement of 128 MiB."""
QUEUE_CHARACTERS_MAX = 64 * 1024 * 1024
"""The most characters of context that wait in one process: large events fill memory long before `queue_max`."""
LOCKED_MAX = 3
"""Events tried one by one that may each wait for a lock in vain; the rest of their group is told to come back."""
UNDECIDED_FOR_S = 3.0
"""After a lock was held too long, events are recorded undecided for this long before deciding inline is tried again."""
RETRIES_MAX = 3
"""The most retries of a group that met a deadlock or a serialisation failure."""

Processing = Literal["inline", "queued"]

DATABASE_GONE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    TimeoutError,
)
TRY_AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
LOCKED = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""lock_timeout and statement_timeout."""


Identity = tuple[str, str]
Rows = dict[Identity, EventRow]
Warned = dict[Identity, Sequence[Warning_]]


class _Waiting(Struct):
    normal: NormalEvent
    processing: Processing
    answer: "asyncio.Future[Answer]"

    @property
    def identity(self) -> Identity:
        return self.normal.event.source, self.normal.event.external_id


class Recorder:
    """The one way in: every channel submits here."""

    def __init__(
        self, pool: Any, rules: LiveRules, *, queue_max: int = 5000, undo: Undo | None = None,
        in_order: Collection[str] = (),
    ) -> None:  # fmt: skip
        """`in_order`: targets that take a user's commands one at a time."""
        self._pool = pool
        self._rules = rules
        self._undo = undo or {}
        self._in_order = frozenset(in_order)
        self.queue_max = queue_max
        self._waiting: list[_Waiting] = []
        self._characters = 0
        self._arrived = asyncio.Event()
        self._undecided_until = 0.0
        self._closing = False

    async def submit(self, events: Iterable[NormalEvent], processing: Processing) -> list[Answer]:
        """Answers in the order given, each after its commit. Raises `Overloaded` when the queue is full."""
        loop = asyncio.get_running_loop()
        batch = [_Waiting(normal, processing, loop.create_future()) for normal in events]
        characters = sum(len(waiting.normal.context) for waiting in batch)
        too_many = len(self._waiting) + len(batch) > self.queue_max
        if self._closing or too_many or self._characters + characters > QUEUE_CHARACTERS_MAX:
            raise Overloaded("too many events are waiting to be recorded; send again", retry_after_s=RETRY_AFTER_S)
        self._waiting += batch
        self._characters += characters
        self._arrived.set()
        return [await waiting.answer for waiting in batch]

    async def run(self) -> None:
        """The flusher. Ends after `close()`, when all that was taken is answered."""
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._flush(self._take_group())

    def _take_group(self) -> list[_Waiting]:
        """The oldest waiting events, as many as one commit takes."""
        count = characters = 0
        for waiting in self._waiting[:GROUP_MAX]:
            characters += len(waiting.normal.context)
            if count and characters > GROUP_CHARACTERS_MAX:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        self._characters -= sum(len(waiting.normal.context) for waiting in group)
        return group

    def close(self) -> None:
        self._closing = True
        self._arrived.set()

    async def _flush(self, group: list[_Waiting]) -> None:
        """A later event of an identity in the group is answered by what the first one came to."""
        firsts: dict[Identity, _Waiting] = {}
        again = [waiting for waiting in group if firsts.setdefault(waiting.identity, waiting) is not waiting]
        GROUP_COMMIT_SIZE.observe(len(firsts))
        try:
            await self._record_group(list(firsts.values()))
        except Exception as error:  # a group's seam: its callers are told, the flusher lives on
            log.exception("intake.flush_failed", events=len(firsts))
            refusal = DatabaseUnavailable(f"the event could not be recorded: {error}", retry_after_s=RETRY_AFTER_S)
            for waiting in firsts.values():
                _resolve(waiting, refusal)
        left = await self._answer_repeats(again) if again else []
        self._waiting[:0] = left
        self._characters += sum(len(waiting.normal.context) for waiting in left)

    async def _answer_repeats(self, repeats: list[_Waiting]) -> list[_Waiting]:
        """Answers all whose first is stored, or that are refused; returns the others, which may be first now."""
        try:
            async with lend(self._pool) as connection:
                stored, known = await _stored(connection, {waiting.identity for waiting in repeats})
        except Exception as error:  # a group's seam: they take their turn as events of their own
            log.warning("intake.repeats_unanswered", events=len(repeats), error=repr(error))
            return repeats
        left: list[_Waiting] = []
        for waiting in repeats:
            found = stored.get(waiting.identity)
            if found is None and waiting.normal.refusal is None:
                left.append(waiting)
            else:
                _resolve(waiting, tell_known(waiting.normal, found, known.get(found.event.id, []) if found else []))
        return left

    async def _record_group(self, group: list[_Waiting]) -> None:
        try:
            await self._record(group)
        except DATABASE_GONE as error:
            log.warning("intake.database_unavailable", error=repr(error), events=len(group))
            refusal = DatabaseUnavailable("the database does not answer; send again", retry_after_s=RETRY_AFTER_S)
            for waiting in group:
                _resolve(waiting, refusal)
        except LOCKED:
            await self._record_one_by_one(group)
        except asyncpg.PostgresError as error:
            if len(group) > 1:
                await self._record_one_by_one(group)
            else:
                _resolve(group[0], tell_refused(error))

    async def _record_one_by_one(self, group: list[_Waiting]) -> None:
        locked = 0
        for waiting in group:
            try:
                if locked >= LOCKED_MAX:
                    raise asyncpg.LockNotAvailableError("not tried: others of the group waited in vain")
                await self._record([waiting])
            except LOCKED:
                locked += 1
                _resolve(waiting, Overloaded("the row is locked; send again", retry_after_s=RETRY_AFTER_S))
            except asyncpg.PostgresError as error:
                _resolve(waiting, tell_refused(error))

    async def _record(self, group: list[_Waiting]) -> None:
        """Records a group, and answers each of it by what is then stored."""
        async with lend(self._pool) as connection:
            written = await self._write(connection, group)
            failpoint.reach("intake.after_commit")
            created = {identity: row for identity, row in written.rows.items() if row.event.id in written.fresh}
            stored, known = await _stored(connection, {one.identity for one in group} - created.keys())
        for waiting in group:
            if row := created.get(waiting.identity):
                _resolve(waiting, tell_created(row, written.warnings.get(waiting.identity, ())))
            else:
                found = stored.get(waiting.identity)
                _resolve(waiting, tell_known(waiting.normal, found, known.get(found.event.id, []) if found else []))

    async def _write(self, connection: Any, group: list[_Waiting]) -> "_Written":
        """The group's rows and which of them were new; undecided when a lock is, or was lately, held too long."""
        written = _Written()
        waiting = [one for one in group if one.normal.refusal is None]
        undecided = time.monotonic() < self._undecided_until
        try:
            if not undecided:
                await self._write_decided(connection, waiting, written)
        except Outdated:
            log.info("intake.rules_compiling", events=len(waiting) - len(written.rows))
        except LOCKED as error:
            undecided = True
            self._undecided_until = time.monotonic() + UNDECIDED_FOR_S
            left = len(waiting) - len(written.rows)
            log.warning("intake.lock_held", events=left, undecided_for_s=UNDECIDED_FOR_S, error=repr(error))
        rest = {one.identity: _undecided_row(one.normal) for one in waiting if one.identity not in written.rows}
        write = record_impatiently if undecided else record
        written.take(rest, await _with_retries(write, connection, rest))
        return written

    async def _write_decided(self, connection: Any, waiting: list[_Waiting], written: "_Written") -> None:
        """Decides and records what is to be decided now; what cannot be decided is left for a worker.

        Raises `Outdated` where the rules changed meanwhile and the new ones are not compiled soon.
        """
        try:
            await self._write_by(await self._rules.fresh(), connection, waiting, written)
        except Outdated:
            await self._rules.catch_up()
            await self._write_by(self._rules.rulebook, connection, waiting, written)

    async def _write_by(
        self, rulebook: Rulebook, connection: Any, waiting: list[_Waiting], written: "_Written"
    ) -> None:
        inline = [one for one in waiting if one.processing == "inline" and one.identity not in written.rows]
        if all(rulebook.plan(one.normal.event.event_type).is_plain for one in inline):
            rows = {one.identity: row for one in inline if (row := self._decided_plain(one, rulebook, written))}
            written.take(rows, await _with_retries(partial(record, in_order=self._in_order), connection, rows))
            return
        by_id = {one.normal.event.id: one for one in inline}
        for run in runs([one.normal.event for one in inline], rulebook):
            await self._write_run(connection, [by_id[event.id] for event in run], rulebook, written)

    def _decided_plain(self, one: _Waiting, rulebook: Rulebook, written: "_Written") -> EventRow | None:
        try:
            decided = decide_plain(one.normal.event, rulebook, datetime.now(UTC))
        except Exception:  # one message's seam: a worker tries it alone, and its neighbours go on
            _tell_undecidable(one)
            return None
        written.warnings[one.identity] = decided.decision.warnings
        return decided_row(one.normal, decided)

    async def _write_run(self, connection: Any, run: list[_Waiting], rulebook: Rulebook, written: "_Written") -> None:
        """One transaction: locks what the events touch, decides them, writes it all. Tried one by one when it fails."""
        try:
            rows, warnings = await self._transact(connection, run, rulebook)
        except (*LOCKED, *DATABASE_GONE, Outdated):
            raise
        except Exception:
            if len(run) == 1:
                _tell_undecidable(run[0])
                return
            for one in run:
                await self._write_run(connection, [one], rulebook, written)
            return
        written.warnings.update(warnings)
        written.take(rows, {row.event.id for row in rows.values()})

    async def _transact(self, connection: Any, run: list[_Waiting], rulebook: Rulebook) -> tuple[Rows, Warned]:
        """The rows of those that are new. A report of one of them elsewhere at once makes it begin again."""
        for left in reversed(range(RETRIES_MAX)):
            try:
                async with connection.transaction():
                    known = await known_identities(connection, [one.identity for one in run])
                    fresh = [one for one in run if one.identity not in known]
                    if not fresh:
                        return {}, {}
                    decided = await decide_run(connection, [one.normal.event for one in fresh], rulebook, self._undo)
                    rows = {
                        one.identity: decided_row(one.normal, found) for one, found in zip(fresh, decided, strict=True)
                    }
                    if len(await record(connection, list(rows.values()), self._in_order)) < len(rows):
                        raise _Raced
                    failpoint.reach("intake.before_commit")
                return rows, {one.identity: found.decision.warnings for one, found in zip(fresh, decided, strict=True)}
            except (*TRY_AGAIN, _Raced):
                if not left:
                    raise
        raise AssertionError


async def _stored(
    connection: Any, identities: set[Identity]
) -> tuple[dict[Identity, StoredEvent], dict[UUID, list[RewardAction]]]:
    """Returns what is stored under the identities, and the actions it gave, by event id."""
    stored = await stored_events(connection, sorted(identities)) if identities else {}
    return stored, await actions_of_events(connection, [found.event.id for found in stored.values()]) if stored else {}


class _Raced(Exception):
    """Another process recorded one of the events between looking and writing."""


class _Written(Struct):
    """Tells what became of a group: the rows tried, the ids that were new, and warnings."""

    rows: Rows = field(default_factory=dict[Identity, EventRow])
    fresh: set[UUID] = field(default_factory=set[UUID])
    warnings: Warned = field(default_factory=dict[Identity, Sequence[Warning_]])

    def take(self, rows: Rows, fresh: set[UUID]) -> None:
        self.rows.update(rows)
        self.fresh |= fresh


def _undecided_row(normal: NormalEvent) -> EventRow:
    return EventRow(normal.event, normal.fingerprint, normal.context)


def decided_row(normal: NormalEvent, decided: Decided) -> EventRow:
    return EventRow(decided.event, normal.fingerprint, normal.context, decided.trace, decided.state, decided.actions)


def _tell_undecidable(one: _Waiting) -> None:
    event = one.normal.event
    log.exception("intake.undecidable", source=event.source, external_id=event.external_id)


async def _with_retries(
    write: Callable[[Any, Sequence[EventRow]], Awaitable[set[UUID]]], connection: Any, rows: Rows
) -> set[UUID]:
    if not rows:
        return set()
    failpoint.reach("intake.before_commit")  # one statement, which commits itself: there is no moment between
    for left in reversed(range(RETRIES_MAX)):
        try:
            return await write(connection, list(rows.values()))
        except TRY_AGAIN:
            if not left:
                raise
    raise AssertionError


def _resolve(waiting: _Waiting, answer: Answer) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(answer)
