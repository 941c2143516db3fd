"""Reads for a backtest: one snapshot of the stored history, its events in the order they were decided.

`decided_at` is from the database's clock while the locks were held, so whatever waited for a lock is later. Nothing
here writes, and none of it is for the hot path: some statements read whole tables.
"""

import contextlib
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from connect.engine.state import StateValue
from connect.model import EconomicEvent, RewardAction
from connect.store.actions import ACTION_COLUMNS, to_action
from connect.store.events.rows import EVENT_COLUMNS, to_event
from connect.store.pool import CONNECT_TIMEOUT_S, Connection, set_codecs

CHUNK = 1_000
"""Rows fetched at once."""
SORT_MEMORY = "64MB"

_PATTERNS = """
($3::text[] IS NULL OR event_type = ANY($3)
    OR EXISTS (SELECT FROM unnest($4::text[]) AS prefix WHERE starts_with(event_type, prefix)))
"""
DECIDED = f"""
SELECT id, external_id, source, event_type, occurred_at, received_at, actor_user_id, primary_subject_user_id, parties,
    context, effects, ruleset_version, decided_at, state -> 'originals' AS originals
FROM event WHERE status = 'decided' AND decided_at >= $1 AND decided_at < $2 AND {_PATTERNS}
ORDER BY decided_at, received_at, id
"""
COUNT = "SELECT count(*) FROM event WHERE status = 'decided' AND decided_at >= $1"
FIRST_OCCURRED = """
SELECT min(occurred_at) FROM event WHERE status = 'decided' AND decided_at >= $1 AND effects = 'all'
"""
DAYS_AGO = "SELECT now() - make_interval(secs => $1)"
GIVEN = """
SELECT action.id, action.rule_key, action.unit, action.user_id, action.amount, action.reversed,
    action.status = 'cancelled' AS cancelled, action.occurred_at, action.budget, action.refills
FROM reward_action AS action JOIN event ON event.id = action.event_id
WHERE action.reverses IS NULL AND event.status = 'decided' AND event.decided_at >= $1 ORDER BY event.decided_at
"""
GIVEN_BEFORE = f"""
SELECT {", ".join(f"action.{name}" for name in RewardAction.__struct_fields__)},
    event.actor_user_id, event.primary_subject_user_id, event.parties
FROM unnest($2::text[], $3::timestamptz[]) AS wanted (rule_key, since)
JOIN reward_action AS action ON action.rule_key = wanted.rule_key AND action.occurred_at >= wanted.since
JOIN event ON event.id = action.event_id
WHERE action.reverses IS NULL AND event.status = 'decided' AND event.decided_at < $1 ORDER BY action.event_id
"""
# Of actions that later events took something back of ($3), the state at the window's start is known otherwise ($4, $5).
SPENT_BEFORE = """
SELECT action.budget, action.unit, sum(CASE WHEN NOT action.refills THEN action.amount
    WHEN coalesce(known.cancelled, action.status = 'cancelled' AND action.completed_at < $1) THEN 0
    ELSE action.amount - coalesce(known.reversed, action.reversed) END) AS amount
FROM reward_action AS action JOIN event ON event.id = action.event_id
LEFT JOIN unnest($3::uuid[], $4::numeric[], $5::boolean[]) AS known (id, reversed, cancelled) ON known.id = action.id
WHERE action.reverses IS NULL AND action.budget = ANY($2) AND event.status = 'decided' AND event.decided_at < $1
GROUP BY action.budget, action.unit
"""
CLOSED_NOW = "SELECT detail -> 'closed' = 'true' FROM state WHERE key = $1"
CLOSED_FIRST = """
SELECT state #> ARRAY['usage', $2, '1', 'closed'] = 'true' FROM event
WHERE status = 'decided' AND decided_at >= $1 AND state -> 'usage' ? $2 ORDER BY decided_at LIMIT 1
"""
# Stored traces hold [rule, outcome, ..., words]; a gift that was only cut to what was left says so in words too.
FIRST_SHORT = """
SELECT occurred_at FROM event
WHERE status = 'decided' AND decided_at >= $1 AND strpos(trace::text, 'the budget ' || $2 || ' ') > 0
    AND EXISTS (SELECT FROM json_array_elements(trace) AS entry
        WHERE entry ->> 1 IN ('gave', 'short_of_budget') AND strpos(entry::text, 'the budget ' || $2 || ' ') > 0)
ORDER BY decided_at, received_at, id LIMIT 1
"""
CANCELLED_BY_PEOPLE = """
SELECT id, event_id, completed_at FROM reward_action
WHERE reverses IS NULL AND status = 'cancelled' AND reversed < amount AND completed_at >= $1 ORDER BY completed_at, id
"""
UNDOS = """
SELECT undo.id, undo.frees_claim, undo.status = 'cancelled' AS cancelled, undo.completed_at,
    coalesce((SELECT min(at) FROM audit WHERE subject = 'action/' || undo.id AND verb = 'approve'), undo.dispatched_at,
        undo.due_at) AS approved_at
FROM reward_action AS undo WHERE undo.reverses IS NOT NULL AND undo.created_at >= $1
"""
ACTIONS_BEFORE = f"""
SELECT {", ".join(f"action.{name}" for name in RewardAction.__struct_fields__)}
FROM reward_action AS action JOIN event ON event.id = action.event_id
WHERE (action.id = ANY($2) OR action.event_id = ANY($3)) AND action.reverses IS NULL AND event.decided_at < $1
ORDER BY action.created_at, action.id
"""
RANDOM_DECIDED = "SELECT id FROM event WHERE status = 'decided' ORDER BY random() LIMIT $1"
RECORDED = f"""
SELECT {EVENT_COLUMNS}, state, ARRAY(
    SELECT entry ->> 0 FROM json_array_elements(trace) AS entry WHERE entry ->> 1 = 'already_gave') AS already_gave
FROM event WHERE id = ANY($1) ORDER BY id
"""
# What takes back an action of the event that came late is the other event's, and made in this decision too.
OF_DECISION = f"""
SELECT {ACTION_COLUMNS}, body FROM reward_action
WHERE created_at = $2 AND (event_id = $1 OR reverses = ANY($3)
    OR reverses IN (SELECT id FROM reward_action WHERE event_id = $1 AND reverses IS NULL))
"""
ACTIONS = f"SELECT {ACTION_COLUMNS} FROM reward_action WHERE id = ANY($1) ORDER BY id"
LINKS = "SELECT key, detail FROM state WHERE key = ANY($1)"


class Past(Struct, frozen=True):
    """A stored event that was decided, with how what it takes back stood then."""

    event: EconomicEvent
    decided_at: datetime
    ruleset_version: int
    originals: Mapping[str, Sequence[Any]]
    """Action id -> [status, attempts, failure, reversed]."""


class Given(Struct, frozen=True):
    """An action as it stands now."""

    id: UUID
    rule_key: str
    unit: str
    user_id: str
    amount: Decimal
    reversed: Decimal
    cancelled: bool
    occurred_at: datetime
    budget: str | None
    refills: bool


class Recorded(Struct, frozen=True):
    """A decided event, and what its decision read."""

    event: EconomicEvent
    decided_at: datetime
    ruleset_version: int
    read: Mapping[str, Any]
    already_gave: frozenset[str]


class Undo(Struct, frozen=True):
    """A reversal as it stands now, and when a person approved it, if one did."""

    frees_claim: bool
    cancelled: bool
    completed_at: datetime | None
    approved_at: datetime | None


class Then(Struct, frozen=True):
    """How an action stood at the beginning of the window."""

    status: str
    attempts: int
    failure: str | None
    reversed: str


@contextlib.asynccontextmanager
async def snapshot(url: str) -> AsyncGenerator[Connection]:
    """A connection whose every statement sees the same moment, and that cannot write. Raises as asyncpg does."""
    connection: Connection = await asyncpg.connect(
        url, timeout=CONNECT_TIMEOUT_S, server_settings={"jit": "off", "timezone": "UTC", "work_mem": SORT_MEMORY}
    )
    try:
        await set_codecs(connection)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def moment_ago(connection: Connection, seconds: float) -> datetime:
    """By the database's clock, as decisions are."""
    return await connection.fetchval(DAYS_AGO, seconds)


async def count_decided(connection: Connection, since: datetime) -> int:
    return await connection.fetchval(COUNT, since)


async def first_occurred(connection: Connection, since: datetime) -> datetime | None:
    """When the earliest of the events occurred that were decided since then and could give."""
    return await connection.fetchval(FIRST_OCCURRED, since)


async def decided_between(
    connection: Connection, since: datetime, until: datetime, patterns: Collection[str] | None = None
) -> AsyncGenerator[list[Past]]:
    """The events decided in [since, until), a chunk at a time; of the types that `patterns` name, or all."""
    exact = None if patterns is None else [one for one in patterns if not one.endswith(".*")]
    prefixes = [one[:-1] for one in patterns or () if one.endswith(".*")]
    cursor = await connection.cursor(DECIDED, since, until, exact, prefixes)
    while rows := await cursor.fetch(CHUNK):
        yield [_past(row) for row in rows]


def _past(row: Any) -> Past:
    """Made without validation (`to_event` has it): a row is what Connect wrote, and there are many."""
    (
        event_id, external_id, source, event_type, occurred_at, received_at, actor, subject, parties, context, effects,
        version, decided_at, originals,
    ) = row  # fmt: skip
    event = EconomicEvent(
        id=event_id, external_id=external_id, source=source, event_type=event_type, occurred_at=occurred_at,
        received_at=received_at, actor_user_id=actor, primary_subject_user_id=subject, parties=parties,
        context=context, effects=effects,
    )  # fmt: skip
    return Past(event, decided_at, version, originals or {})


async def given_since(connection: Connection, since: datetime) -> AsyncGenerator[list[Given]]:
    """Yields what events decided since then gave, in their order, a chunk at a time."""
    cursor = await connection.cursor(GIVEN, since)
    while rows := await cursor.fetch(CHUNK):
        yield [
            Given(
                row["id"], row["rule_key"], row["unit"], row["user_id"], Decimal(row["amount"]),
                Decimal(row["reversed"]), row["cancelled"], row["occurred_at"], row["budget"], row["refills"],
            )
            for row in rows
        ]  # fmt: skip


async def given_before(
    connection: Connection, until: datetime, since: Mapping[str, datetime]
) -> AsyncGenerator[list[tuple[EconomicEvent, RewardAction]]]:
    """Yields what rules gave in events decided before `until` that occurred since the rule's moment, event by event.

    Of the events only who took part is filled in.
    """
    cursor = await connection.cursor(GIVEN_BEFORE, until, list(since), list(since.values()))
    while rows := await cursor.fetch(CHUNK):
        found: list[tuple[EconomicEvent, RewardAction]] = []
        for row in rows:
            columns = dict(row)
            who = {name: columns.pop(name) for name in ("actor_user_id", "primary_subject_user_id", "parties")}
            action = to_action(columns)
            event = EconomicEvent(
                id=action.event_id, external_id="", source="", event_type="", occurred_at=action.occurred_at,
                received_at=action.occurred_at, **who,
            )  # fmt: skip
            found.append((event, action))
        yield found


async def spent_before(
    connection: Connection, until: datetime, budgets: Sequence[str], then: Mapping[UUID, Then]
) -> dict[tuple[str, str], Decimal]:
    """Returns what events decided before `until` took from these budgets: (budget, unit) -> amount."""
    known = list(then.items())
    rows = await connection.fetch(
        SPENT_BEFORE, until, list(budgets), [found for found, _ in known], [one.reversed for _, one in known],
        [one.status == "cancelled" for _, one in known],
    )  # fmt: skip
    return {(row["budget"], row["unit"]): Decimal(row["amount"]) for row in rows}


async def was_closed(connection: Connection, at: datetime, key: str) -> bool:
    """Whether a budget that closes was closed then: as the next decision read it, or as it still is."""
    first = await connection.fetchrow(CLOSED_FIRST, at, key)
    return bool(first[0]) if first is not None else bool(await connection.fetchval(CLOSED_NOW, key))


async def first_short(connection: Connection, since: datetime, budget: str) -> datetime | None:
    """When the first event occurred, of those decided since, for which the budget did not suffice."""
    return await connection.fetchval(FIRST_SHORT, since, budget)


async def cancelled_by_people(connection: Connection, since: datetime) -> list[tuple[datetime, UUID, UUID]]:
    """Returns what a person cancelled or rejected since then, in order: (moment, action id, event id)."""
    rows = await connection.fetch(CANCELLED_BY_PEOPLE, since)
    return [(row["completed_at"], row["id"], row["event_id"]) for row in rows]


async def undos_since(connection: Connection, since: datetime) -> dict[UUID, Undo]:
    return {
        row["id"]: Undo(row["frees_claim"], row["cancelled"], row["completed_at"], row["approved_at"])
        for row in await connection.fetch(UNDOS, since)
    }


async def actions_before(
    connection: Connection, until: datetime, ids: Sequence[UUID], event_ids: Sequence[UUID]
) -> list[RewardAction]:
    """Returns the actions of these ids and events that events decided before `until` gave, as they stand now."""
    return [to_action(row) for row in await connection.fetch(ACTIONS_BEFORE, until, list(ids), list(event_ids))]


async def random_decided(connection: Connection, count: int) -> list[UUID]:
    return [row["id"] for row in await connection.fetch(RANDOM_DECIDED, count)]


async def recorded_decisions(connection: Connection, event_ids: Sequence[UUID]) -> list[Recorded]:
    """The events as they were before they were decided, with what their last decision read."""
    found: list[Recorded] = []
    for row in await connection.fetch(RECORDED, list(event_ids)):
        event = to_event(row)
        plain = replace(event, status="received", ruleset_version=None, decided_at=None)
        gave = frozenset(row["already_gave"])
        found.append(Recorded(plain, row["decided_at"], row["ruleset_version"], row["state"] or {}, gave))
    return found


async def actions_of_decision(
    connection: Connection, event_id: UUID, decided_at: datetime, given: Sequence[UUID]
) -> list[tuple[RewardAction, str]]:
    """The actions that one decision made, each with the body of its command. `given`: what it gives, if all is well."""
    found: list[tuple[RewardAction, str]] = []
    for row in await connection.fetch(OF_DECISION, event_id, decided_at, list(given)):
        columns = dict(row)
        body = columns.pop("body")
        found.append((to_action(columns), body))
    return found


async def links(connection: Connection, keys: Sequence[str]) -> dict[str, StateValue]:
    """Which events each link holds, as it stands now."""
    return {row["key"]: StateValue(detail=row["detail"]) for row in await connection.fetch(LINKS, list(keys))}


async def actions_of_ids(connection: Connection, ids: Sequence[UUID]) -> list[RewardAction]:
    return [to_action(row) for row in await connection.fetch(ACTIONS, list(ids))]
