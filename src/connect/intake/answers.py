"""Tells a reporter what became of an event, and writes the log line and count that go with it."""

from collections.abc import Sequence
from typing import Literal

import asyncpg
from msgspec import Struct

from connect.errors import ConnectError, DatabaseUnavailable, EventConflict, InvalidEvent, Overloaded
from connect.intake.normalize import NormalEvent
from connect.model import EconomicEvent, RewardAction, Warning_
from connect.store.events.rows import EventRow, StoredEvent
from connect.telemetry import EVENTS, event_type_label, log

RETRY_AFTER_S = 1
NOT_STORABLE = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class Recorded(Struct, frozen=True, kw_only=True):
    """Tells what became of a reported event."""

    result: Literal["created", "duplicate"]
    event: EconomicEvent
    actions: Sequence[RewardAction] = ()
    warnings: Sequence[Warning_] = ()


Answer = Recorded | ConnectError


def tell_created(row: EventRow, warnings: Sequence[Warning_]) -> Recorded:
    _tell(row.event, "created", actions=len(row.actions))
    return Recorded(result="created", event=row.event, actions=[action for action, _ in row.actions], warnings=warnings)


def tell_known(normal: NormalEvent, found: StoredEvent | None, actions: Sequence[RewardAction]) -> Answer:
    if found is None:
        if normal.refusal is not None:
            _tell(normal.event, "refused", reason=normal.refusal.code)
            return normal.refusal
        return Overloaded("another report of this event is in progress; send again", retry_after_s=RETRY_AFTER_S)
    if found.fingerprint == normal.fingerprint:
        _tell(found.event, "duplicate")
        return Recorded(result="duplicate", event=found.event, actions=actions)
    event = found.event
    _tell(event, "conflict")
    return EventConflict(
        f"source {event.source!r} already reported external_id {event.external_id!r} with other content "
        f"(event {event.id}); a correction is a new fact with an external_id of its own",
        extra={"event_id": str(event.id)},
    )


def _tell(event: EconomicEvent, result: str, **more: object) -> None:
    """One wide line an event, and its count. Nothing of its context: that may be personal."""
    EVENTS.labels(event_type_label(event.event_type), result).inc()
    log.info(
        "event",
        result=result,
        id=event.id,
        source=event.source,
        external_id=event.external_id,
        event_type=event.event_type,
        status=event.status,
        ruleset_version=event.ruleset_version,
        **more,
    )


def tell_refused(error: asyncpg.PostgresError) -> ConnectError:
    if isinstance(error, NOT_STORABLE):
        return InvalidEvent(f"the event cannot be stored: {error}")
    log.error("intake.database_refused", error=repr(error))
    return DatabaseUnavailable(f"the database refused: {error}", retry_after_s=RETRY_AFTER_S)
