"""Rows of events: the columns, what is written of a decided event, and reading by id."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from connect.model import EconomicEvent, RewardAction
from connect.store.pool import Connection, RawJson

EVENT_COLUMNS = ", ".join(EconomicEvent.__struct_fields__)


class EventRow(Struct, frozen=True):
    """An event ready to be recorded, with what deciding it gave (`decision` null: a worker will decide)."""

    event: EconomicEvent
    fingerprint: bytes
    context: str
    """The event's context as JSON text, encoded once."""
    trace: str | None = None
    state: str | None = None
    """The state values the decision read, as JSON text."""
    actions: Sequence[tuple[RewardAction, str]] = ()
    """Each action with the body of its command."""


class StoredEvent(Struct, frozen=True):
    """Holds what is stored under an identity, to tell a duplicate from a conflict."""

    event: EconomicEvent
    fingerprint: bytes


ACTION_ROW = """
    id uuid, event_id uuid, rule_key text, rule_version integer, effect_key text, target text, command text,
    recipient_role text, user_id text, amount numeric, unit text, params jsonb, status text, due_at timestamptz,
    hold_until timestamptz, reverses uuid, created_at timestamptz, completed_at timestamptz, occurred_at timestamptz,
    budget text, refills boolean, arm text, reversal jsonb, reversed numeric, frees_claim boolean, body text
"""

ACTION_ROW_COLUMNS = [part.split()[0] for part in ACTION_ROW.split(",")]

ACTION_LIST = ", ".join(ACTION_ROW_COLUMNS)

EVENT = f"SELECT {EVENT_COLUMNS} FROM event WHERE id = $1"

EVENTS = f"SELECT {EVENT_COLUMNS} FROM event WHERE id = ANY($1)"


def to_event(row: Any) -> EconomicEvent:
    return msgspec.convert({name: row[name] for name in EconomicEvent.__struct_fields__}, EconomicEvent)


def action_rows(rows: Sequence[tuple[RewardAction, str]]) -> RawJson:
    """All actions as one JSON text in order of id: concurrent writers meet rows in the same order, so none deadlock."""
    values = sorted(rows, key=lambda row: row[0].id)
    encoded = [
        {**{name: getattr(action, name) for name in ACTION_ROW_COLUMNS if name != "body"}, "body": body}
        for action, body in values
    ]
    return RawJson(msgspec.json.encode(encoded).decode())


async def read_events(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, EconomicEvent]:
    return {row["id"]: to_event(row) for row in await connection.fetch(EVENTS, list(event_ids))}


async def read_event(connection: Connection, event_id: UUID) -> EconomicEvent | None:
    row = await connection.fetchrow(EVENT, event_id)
    return to_event(row) if row else None
