"""Facts: recorded once by (source, external_id), decided once, read and searched by people."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from connect.engine.explain import expanded
from connect.model import EconomicEvent, EventStatus, Outcome, RewardAction, RuleTrace, ZonedTime
from connect.store.order import enter
from connect.store.page import Page, page
from connect.store.pool import Connection, RawJson

TRIES_MAX = 5
"""Tries at deciding before an event is `failed`; each is counted before it begins."""
DECIDE_LEASE_S = 30
"""A worker that claimed an event for deciding and died gives it back after this long."""

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
    """What is stored under an identity, to tell a duplicate from a conflict."""

    event: EconomicEvent
    fingerprint: bytes


ACTION_ROW = """
    id uuid, event_id uuid, rule_key text, rule_version integer, effect_key text, target text, command text,
    recipient_role text, user_id text, amount numeric, unit text, params jsonb, status text, due_at timestamptz,
    hold_until timestamptz, reverses uuid, created_at timestamptz, completed_at timestamptz, occurred_at timestamptz,
    budget text, refills boolean, arm text, reversal jsonb, reversed numeric, frees_claim boolean, body text
"""
ACTION_ROW_COLUMNS = [part.split()[0] for part in ACTION_ROW.split(",")]
_ACTION_LIST = ", ".join(ACTION_ROW_COLUMNS)

RECORD_EVENTS = """
    INSERT INTO event (id, source, external_id, event_type, occurred_at, received_at, actor_user_id,
        primary_subject_user_id, parties, context, extensions, effects, status, ruleset_version, decided_at,
        fingerprint, trace, decide_at, state)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
        $7::text[], $8::text[], $9::jsonb[], $10::jsonb[], $11::jsonb[], $12::text[], $13::text[], $14::integer[],
        $15::timestamptz[], $16::bytea[], $17::json[], $18::timestamptz[], $19::jsonb[])
    ON CONFLICT (source, external_id) DO NOTHING
    RETURNING id
"""
RECORD_WITH_ACTIONS = f"""
WITH recorded AS ({RECORD_EVENTS}), owed AS (
    INSERT INTO reward_action ({_ACTION_LIST})
    SELECT {_ACTION_LIST} FROM jsonb_to_recordset($20::jsonb) AS action ({ACTION_ROW})
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

CLAIM_TO_DECIDE = f"""
UPDATE event SET tries = tries + 1, decide_at = now() + make_interval(secs => {DECIDE_LEASE_S})
WHERE id = ANY(ARRAY(
    SELECT id FROM event WHERE decide_at <= now() AND tries < {TRIES_MAX} AND (tries = 0) = $2
    ORDER BY decide_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING {EVENT_COLUMNS}, fingerprint
"""

FAIL_EXHAUSTED = f"""
UPDATE event SET status = 'failed', decide_at = NULL,
    failure = coalesce(failure, 'deciding it ended its worker each time')
WHERE id = ANY(ARRAY(
    SELECT id FROM event WHERE decide_at <= now() AND tries >= {TRIES_MAX} LIMIT 500 FOR UPDATE SKIP LOCKED))
RETURNING id, source, external_id, failure
"""

GIVE_BACK = """
UPDATE event SET decide_at = now() + make_interval(secs => $2), failure = $3,
    tries = CASE WHEN $4 THEN greatest(tries - 1, 0) ELSE tries END
WHERE id = ANY($1) AND status = 'received'
"""

SAVE_DECISIONS = f"""
WITH decided AS (
    UPDATE event SET status = 'decided', ruleset_version = d.ruleset_version, decided_at = d.decided_at,
        trace = d.trace, state = d.state, decide_at = NULL, failure = NULL
    FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::json[], $7::jsonb[])
        AS d (id, ruleset_version, decided_at, trace, state)
    WHERE event.id = d.id AND (event.status = 'received' OR $6)
    RETURNING event.id
), owed AS (
    INSERT INTO reward_action ({_ACTION_LIST})
    SELECT {_ACTION_LIST} FROM jsonb_to_recordset($5::jsonb) AS action ({ACTION_ROW})
    WHERE event_id IN (SELECT id FROM decided) OR reverses IS NOT NULL
    ON CONFLICT (id) DO NOTHING
)
SELECT id FROM decided
"""

LOCK_FOR_REPLAY = f"SELECT {EVENT_COLUMNS} FROM event WHERE id = ANY($1) ORDER BY id FOR UPDATE"
LOCK_TO_DECIDE = "SELECT id FROM event WHERE id = ANY($1) AND status = 'received' ORDER BY id FOR UPDATE SKIP LOCKED"
EVENT = f"SELECT {EVENT_COLUMNS} FROM event WHERE id = $1"
EVENTS = f"SELECT {EVENT_COLUMNS} FROM event WHERE id = ANY($1)"
CONTEXTS = """
SELECT context FROM event WHERE event_type = $1 AND ($3::text IS NULL OR source = $3)
ORDER BY received_at DESC, id DESC LIMIT $2
"""
TRACE = "SELECT trace, failure, state -> 'counters' AS counters FROM event WHERE id = $1"


def to_event(row: Any) -> EconomicEvent:
    return msgspec.convert({name: row[name] for name in EconomicEvent.__struct_fields__}, EconomicEvent)


def _action_rows(rows: Sequence[tuple[RewardAction, str]]) -> RawJson:
    """All actions as one JSON text in order of id: concurrent writers meet rows in the same order, so none deadlock."""
    values = sorted(rows, key=lambda row: row[0].id)
    encoded = [
        {**{name: getattr(action, name) for name in ACTION_ROW_COLUMNS if name != "body"}, "body": body}
        for action, body in values
    ]
    return RawJson(msgspec.json.encode(encoded).decode())


async def record_impatiently(connection: Connection, rows: Sequence[EventRow]) -> set[UUID]:
    """As `record`, but waits for a lock only a fifth of a second: others wait behind these rows."""
    async with connection.transaction():
        await connection.execute(IMPATIENTLY)
        return await record(connection, rows)


async def record(connection: Connection, rows: Sequence[EventRow], in_order: Collection[str] = ()) -> set[UUID]:
    """Records events of distinct identities with their actions, all or nothing; returns the ids that were new.

    `in_order`: targets that take a user's commands one at a time, in the order of these rows.
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
        *([_action_rows(actions)] if actions else []),
    )
    return {row["id"] for row in recorded}


async def stored_events(
    connection: Connection, identities: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], StoredEvent]:
    """What is stored under each (source, external_id); unknown ones are left out."""
    rows = await connection.fetch(
        STORED, [source for source, _ in identities], [external for _, external in identities]
    )
    return {(row["source"], row["external_id"]): StoredEvent(to_event(row), row["fingerprint"]) for row in rows}


async def known_identities(connection: Connection, identities: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these (source, external_id) are stored."""
    rows = await connection.fetch(KNOWN, [source for source, _ in identities], [external for _, external in identities])
    return {(row["source"], row["external_id"]) for row in rows}


async def claim_to_decide(connection: Connection, count: int, *, fresh: bool) -> list[EconomicEvent]:
    """Takes undecided events in order of receipt and counts the try.

    `fresh` ones were never tried; the others may have ended their worker and are to be taken one at a time.
    """
    rows = await connection.fetch(CLAIM_TO_DECIDE, count, fresh)
    return sorted((to_event(row) for row in rows), key=lambda event: (event.received_at, event.id))


async def fail_exhausted(connection: Connection) -> list[dict[str, Any]]:
    """Ends events whose last try is over: they wait for a person's replay."""
    return [dict(row) for row in await connection.fetch(FAIL_EXHAUSTED)]


async def give_back(
    connection: Connection, event_ids: Sequence[UUID], *, after_s: float, failure: str | None, uncount: bool = False
) -> None:
    """Returns claimed events to the queue. `uncount`: the try was not the event's fault (a lock, a lost database)."""
    await connection.execute(GIVE_BACK, list(event_ids), after_s, failure, uncount)


class DecidedRow(Struct, frozen=True):
    """What deciding a stored event gave."""

    event_id: UUID
    ruleset_version: int
    decided_at: datetime
    trace: str
    state: str | None
    actions: Sequence[tuple[RewardAction, str]]


async def save_decisions(
    connection: Connection, decided: Sequence[DecidedRow], *, again: bool = False, in_order: Collection[str] = ()
) -> set[UUID]:
    """Stores decisions with their actions; returns the ids that this call decided. In a transaction of the caller's.

    Events decided meanwhile by another process are left alone, unless `again` (a replay, which holds their rows).
    """
    rows = await connection.fetch(
        SAVE_DECISIONS,
        [row.event_id for row in decided],
        [row.ruleset_version for row in decided],
        [row.decided_at for row in decided],
        [RawJson(row.trace) for row in decided],
        _action_rows([action for row in decided for action in row.actions]),
        again,
        [None if row.state is None else RawJson(row.state) for row in decided],
    )
    saved = {row["id"] for row in rows}
    owed = [action for row in decided if row.event_id in saved for action, _ in row.actions]
    if placed := [action.id for action in owed if action.target in in_order]:
        await enter(connection, placed, in_order)
    return saved


async def lock_to_decide(connection: Connection, event_ids: Sequence[UUID]) -> set[UUID]:
    """Of these, the events that still wait to be decided and nobody else is deciding; locked."""
    return {row["id"] for row in await connection.fetch(LOCK_TO_DECIDE, list(event_ids))}


async def read_events(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, EconomicEvent]:
    return {row["id"]: to_event(row) for row in await connection.fetch(EVENTS, list(event_ids))}


async def lock_for_replay(connection: Connection, event_ids: Sequence[UUID]) -> list[EconomicEvent]:
    return [to_event(row) for row in await connection.fetch(LOCK_FOR_REPLAY, list(event_ids))]


async def read_event(connection: Connection, event_id: UUID) -> EconomicEvent | None:
    row = await connection.fetchrow(EVENT, event_id)
    return to_event(row) if row else None


class StoredTrace(Struct, frozen=True):
    """The compact trace of the last deciding, the counters it read, and the fault of the last failed try."""

    entries: list[RuleTrace]
    counters: dict[str, Any]
    failure: str | None


async def read_trace(connection: Connection, event_id: UUID) -> StoredTrace:
    row = await connection.fetchrow(TRACE, event_id)
    return StoredTrace(expanded(row["trace"] or ()), row["counters"] or {}, row["failure"])


async def contexts_of_type(
    connection: Connection, event_type: str, limit: int, source: str | None = None
) -> list[dict[str, Any]]:
    """Contexts of the newest events of a type, of one source where it is named."""
    return [row["context"] for row in await connection.fetch(CONTEXTS, event_type, limit, source)]


class EventFilter(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which events: every given field must match; within a field any of its values."""

    event_type: list[str] = []
    actor_user_id: list[str] = []
    source: list[str] = []
    external_id: list[str] = []
    status: list[EventStatus] = []
    event_id: list[UUID] = []
    rule: list[str] = []
    """Events that this rule was asked about."""
    outcome: list[Outcome] = []
    """What the rule made of them; needs `rule`."""
    since: ZonedTime | None = None
    until: ZonedTime | None = None
    """Half-open on `received_at`."""

    @property
    def is_empty(self) -> bool:
        return self == EventFilter()


FILTERS = {
    "event_type": "event_type = ANY(${n}::text[])",
    "actor_user_id": "actor_user_id = ANY(${n}::text[])",
    "source": "source = ANY(${n}::text[])",
    "external_id": "external_id = ANY(${n}::text[])",
    "status": "status = ANY(${n}::text[])",
    "event_id": "id = ANY(${n}::uuid[])",
    "since": "received_at >= ${n}",
    "until": "received_at < ${n}",
}
# A rule's entries are in traces of the types it was ever for; what it took back, in those of facts that take back.
TYPES_OF_RULES = """
SELECT document ->> 'event_type' AS pattern FROM rule_version WHERE key = ANY($1::text[])
UNION SELECT event_type FROM reversal_path WHERE $2
"""
TRACED = """EXISTS (
    SELECT FROM json_array_elements(trace) AS entry WHERE entry ->> 0 = ANY(${rules}::text[])
        AND (${outcomes}::text[] = '{{}}' OR entry ->> 1 = ANY(${outcomes}::text[])))"""


def where(filters: EventFilter) -> tuple[str, list[Any]]:
    """A condition on event with parameters from $1, and their values; rule and outcome are `where_traced`'s."""
    given = {name: value for name in FILTERS if (value := getattr(filters, name)) not in ([], None)}
    clauses = [FILTERS[name].replace("{n}", str(index)) for index, name in enumerate(given, start=1)]
    return " AND ".join(clauses) or "true", list(given.values())


async def where_traced(connection: Connection, filters: EventFilter) -> tuple[str, list[Any]]:
    """As `where`, with what traces say: narrowed to the event types that can say it, which an index finds."""
    condition, values = where(filters)
    if not filters.rule:
        return condition, values
    takes_back = not filters.outcome or "took_back" in filters.outcome
    patterns = [row["pattern"] for row in await connection.fetch(TYPES_OF_RULES, filters.rule, takes_back)]
    values += [filters.rule, filters.outcome]
    traced = TRACED.format(rules=len(values) - 1, outcomes=len(values))
    of_type = ["false"]
    for pattern in sorted(patterns):
        values.append(pattern.removesuffix("*") if pattern.endswith(".*") else pattern)
        place = f"${len(values)}::text"
        of_type.append(f"starts_with(event_type, {place})" if pattern.endswith(".*") else f"event_type = {place}")
    return f"{condition} AND ({' OR '.join(of_type)}) AND {traced}", values


async def list_events(
    connection: Connection, filters: EventFilter, *, limit: int, cursor: str | None
) -> Page[EconomicEvent]:
    condition, values = await where_traced(connection, filters)
    return await page(
        connection,
        "event",
        EVENT_COLUMNS,
        to_event,
        condition,
        values,
        order_by="received_at",
        limit=limit,
        cursor=cursor,
    )


async def matching_events(connection: Connection, filters: EventFilter) -> list[UUID]:
    """Ids of all matching events, oldest first."""
    condition, values = await where_traced(connection, filters)
    rows = await connection.fetch(f"SELECT id FROM event WHERE {condition} ORDER BY received_at, id", *values)
    return [row["id"] for row in rows]
