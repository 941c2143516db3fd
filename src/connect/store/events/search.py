"""Searching: filters of people, traces, contexts."""

from typing import Any
from uuid import UUID

from msgspec import Struct

from connect.engine.explain import expanded
from connect.model import EconomicEvent, EventStatus, Outcome, RuleTrace, ZonedTime
from connect.store.events.rows import EVENT_COLUMNS, to_event
from connect.store.page import Page, page
from connect.store.pool import Connection

CONTEXTS = """
SELECT context FROM event WHERE event_type = $1 AND ($3::text IS NULL OR source = $3)
ORDER BY received_at DESC, id DESC LIMIT $2
"""

TRACE = "SELECT trace, failure, state -> 'counters' AS counters FROM event WHERE id = $1"


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
    """The outcomes that the rule may have had; needs `rule`."""
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
