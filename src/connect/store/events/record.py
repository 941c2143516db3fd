"""Recording: each fact once by (source, external_id), with the actions it gave."""

from collections.abc import Collection, Sequence
from uuid import UUID

from connect.store.events.fence import FENCE, refuse_outdated
from connect.store.events.rows import (
    ACTION_LIST,
    ACTION_ROW,
    EVENT_COLUMNS,
    EventRow,
    StoredEvent,
    action_rows,
    to_event,
)
from connect.store.order import enter
from connect.store.pool import Connection, RawJson

_EVENT_LIST = """id, source, external_id, event_type, occurred_at, received_at, actor_user_id,
        primary_subject_user_id, parties, context, extensions, effects, status, ruleset_version, decided_at,
        fingerprint, trace, decide_at, state, occurred_at_reported"""

RECORD_EVENTS = f"""
    INSERT INTO event ({_EVENT_LIST})
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
        $7::text[], $8::text[], $9::jsonb[], $10::jsonb[], $11::jsonb[], $12::text[], $13::text[], $14::integer[],
        $15::timestamptz[], $16::bytea[], $17::json[], $18::timestamptz[], $19::jsonb[], $20::boolean[])
        AS reported ({_EVENT_LIST})
    WHERE {FENCE.format(version="ruleset_version")}
    ON CONFLICT (source, external_id) DO NOTHING
    RETURNING id
"""

RECORD_WITH_ACTIONS = f"""
WITH recorded AS ({RECORD_EVENTS}), owed AS (
    INSERT INTO reward_action ({ACTION_LIST})
    SELECT {ACTION_LIST} FROM jsonb_to_recordset($21::jsonb) AS action ({ACTION_ROW})
    WHERE event_id IN (SELECT id FROM recorded) OR reverses IS NOT NULL
    ON CONFLICT (id) DO NOTHING
)
SELECT id FROM recorded
"""

IMPATIENTLY = "SET LOCAL lock_timeout = '200ms'"

STORED = f"""
SELECT {EVENT_COLUMNS}, fingerprint FROM event
WHERE (source, external_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""

KNOWN = """
SELECT source, external_id FROM event WHERE (source, external_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""


async def record_impatiently(connection: Connection, rows: Sequence[EventRow]) -> set[UUID]:
    """As `record`, but waits for a lock only a fifth of a second: others wait behind these rows."""
    async with connection.transaction():
        await connection.execute(IMPATIENTLY)
        return await record(connection, rows)


async def record(connection: Connection, rows: Sequence[EventRow], in_order: Collection[str] = ()) -> set[UUID]:
    """Records events of distinct identities with their actions, all or nothing; returns the ids that were new.

    `in_order`: targets that take a user's commands one at a time, in the order of these rows. Raises `Outdated` where
    rules that are no longer live decided them: of decided rows nothing is written then.
    """
    placed = [action.id for row in rows for action, _ in row.actions if action.target in in_order]
    if not placed:
        return await _record(connection, rows)
    async with connection.transaction():
        recorded = await _record(connection, rows)
        await enter(connection, placed, in_order)
    return recorded


async def _record(connection: Connection, rows: Sequence[EventRow]) -> set[UUID]:
    ordered = sorted(rows, key=lambda row: (row.event.source, row.event.external_id))
    events = [row.event for row in ordered]
    actions = [action for row in ordered for action in row.actions]
    recorded = await connection.fetch(
        RECORD_WITH_ACTIONS
        if actions
        else RECORD_EVENTS,  # without actions their table is not touched, however it is locked
        [event.id for event in events],
        [event.source for event in events],
        [event.external_id for event in events],
        [event.event_type for event in events],
        [event.occurred_at for event in events],
        [event.received_at for event in events],
        [event.actor_user_id for event in events],
        [event.primary_subject_user_id for event in events],
        [event.parties for event in events],
        [RawJson(row.context) for row in ordered],
        [event.extensions for event in events],
        [event.effects for event in events],
        [event.status for event in events],
        [event.ruleset_version for event in events],
        [event.decided_at for event in events],
        [row.fingerprint for row in ordered],
        [None if row.trace is None else RawJson(row.trace) for row in ordered],
        [event.received_at if event.status == "received" else None for event in events],
        [None if row.state is None else RawJson(row.state) for row in ordered],
        [event.occurred_at_reported for event in events],
        *([action_rows(actions)] if actions else []),
    )
    new = {row["id"] for row in recorded}
    decided = {event.id: event.ruleset_version for event in events if event.ruleset_version is not None}
    if new.isdisjoint(decided):  # one snapshot judged all rows: where a decided one was written, its rules were live
        await refuse_outdated(connection, list(decided.values()))
    return new


async def stored_events(
    connection: Connection, identities: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], StoredEvent]:
    """Returns what is stored under each (source, external_id); unknown ones are left out."""
    rows = await connection.fetch(
        STORED, [source for source, _ in identities], [external for _, external in identities]
    )
    return {(row["source"], row["external_id"]): StoredEvent(to_event(row), row["fingerprint"]) for row in rows}


async def known_identities(connection: Connection, identities: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these (source, external_id) are stored."""
    rows = await connection.fetch(KNOWN, [source for source, _ in identities], [external for _, external in identities])
    return {(row["source"], row["external_id"]) for row in rows}
