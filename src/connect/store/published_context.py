"""Reads what is known beside the live document: reversal paths, since when limits measure, which counters are built."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from connect.engine.counters import generation_id
from connect.engine.index import PublishedContext
from connect.engine.links import LinkPath
from connect.engine.periods import FIRST
from connect.engine.requirements import Requirements
from connect.model import Counter, EconomicEvent
from connect.store.events.rows import EVENT_COLUMNS, to_event
from connect.store.pool import Connection
from connect.store.state import PUBLISH_LAG

KEEP_PATHS = """
INSERT INTO reversal_path (event_type, event_path, original_path, source)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) ORDER BY 1, 2, 3, 4 ON CONFLICT DO NOTHING
"""
PATHS = "SELECT event_type, event_path, original_path, source FROM reversal_path"
DROP_LIMITS = "DELETE FROM limit_definition WHERE definition <> ALL($1::text[])"
KEEP_LIMITS = """
INSERT INTO limit_definition (definition, since)
SELECT definition, clock_timestamp() FROM unnest($1::text[]) AS definition ON CONFLICT DO NOTHING
"""
LIMITS = "SELECT definition, since FROM limit_definition"
RETIRE_COUNTERS = "UPDATE counter SET status = 'retired' WHERE id <> ALL($1::text[]) AND status <> 'retired'"
FORGET_STATE = (
    "DELETE FROM state WHERE key >= 'counter|' || $1 || '|' AND key < 'counter|' || $1 || '}'"  # } is after |
)
# A counter that comes back was blind meanwhile: it is built anew, as a changed one is. Where no event is stored, or it
# starts at its publish, there is nothing to build.
KEEP_COUNTERS = """
INSERT INTO counter (id, name, definition, since_version, status, live_at)
SELECT id, name, definition, $4, CASE WHEN at_once THEN 'live' ELSE 'building' END,
    CASE WHEN at_once THEN now() END
FROM unnest($1::text[], $2::text[], $3::jsonb[], $5::boolean[]) AS new (id, name, definition, at_once)
ON CONFLICT (id) DO UPDATE SET generation = counter.generation + 1, since_version = excluded.since_version,
    status = excluded.status, live_at = excluded.live_at, published_at = now(), position_at = NULL,
    position_id = NULL, counted = 0
WHERE counter.status = 'retired'
"""
HAS_EVENTS = """
SELECT EXISTS (SELECT FROM event WHERE event_type = ANY($1::text[])) OR EXISTS (
    SELECT FROM unnest($2::text[]) AS prefix JOIN event ON event_type >= prefix AND starts_with(event_type, prefix))
"""
BUILDING = "SELECT id, generation FROM counter WHERE status = 'building'"
GENERATIONS = "SELECT id, generation FROM counter WHERE generation > 0 AND status <> 'retired'"
HISTORY_SIZE = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'event'::regclass"
COUNTERS = """
SELECT id, generation, name, since_version, status, published_at, position_at, position_id, counted, live_at
FROM counter WHERE status <> 'retired' ORDER BY name, id
"""
# Only after the lag that processes may follow a publish with: until then some decide by the version before.
LOCK_BUILDING = """
SELECT id, generation, since_version, position_at, position_id FROM counter
WHERE status = 'building' AND published_at < now() - $1::interval ORDER BY position_at NULLS FIRST, position_id, id
FOR UPDATE SKIP LOCKED
"""
TO_COUNT = f"""
SELECT {EVENT_COLUMNS} FROM event
WHERE status = 'decided' AND ruleset_version < $1 AND (received_at, id) > ($2, $3) AND (
    event_type = ANY($4::text[])
    OR EXISTS (SELECT FROM unnest($5::text[]) AS prefix WHERE starts_with(event_type, prefix)))
ORDER BY received_at, id LIMIT $6
"""
ADVANCE = "UPDATE counter SET position_at = $2, position_id = $3, counted = counted + $4 WHERE id = ANY($1::text[])"
FINISH = (
    "UPDATE counter SET status = 'live', live_at = now() WHERE id = ANY($1::text[]) AND status = 'building' "
    "RETURNING id, generation"
)
RESTART = "UPDATE counter SET status = 'retired' WHERE status <> 'retired' AND ($1::text[] = '{}' OR name = ANY($1))"


class Building(Struct, frozen=True):
    """Counters that are built together: they are equally far."""

    ids: tuple[str, ...]
    """The ids of the counters' definitions; `values` are what their values are kept under."""
    values: frozenset[str]
    since_version: int
    position_at: datetime | None
    position_id: UUID | None


class CounterRow(Struct, frozen=True, kw_only=True):
    """How far a counter is built."""

    id: str
    generation: int
    name: str
    since_version: int
    status: str
    published_at: datetime
    position_at: datetime | None
    position_id: UUID | None
    counted: int
    live_at: datetime | None


async def keep_requirements(connection: Connection, required: Requirements, version: int) -> None:
    """Takes over what a document that goes live measures, counts and may take back. Inside the publish."""
    paths = sorted(required.paths, key=repr)
    await connection.execute(
        KEEP_PATHS, [path.event_type for path in paths], [path.event for path in paths],
        [path.original for path in paths], [path.source for path in paths],
    )  # fmt: skip
    limits = sorted(required.limits)
    await connection.execute(DROP_LIMITS, limits)
    await connection.execute(KEEP_LIMITS, limits)
    ids = sorted(required.counters)
    await connection.execute(RETIRE_COUNTERS, ids)
    named: list[Any] = [required.counters[name] for name in ids]
    await connection.execute(
        KEEP_COUNTERS, ids, [name for name, _ in named], [counter for _, counter in named], version,
        [counter.start == "publish" or not await _has_history(connection, counter) for _, counter in named],
    )  # fmt: skip


async def _has_history(connection: Connection, counter: Counter) -> bool:
    """Whether an event is stored that the counter could count, or be undone by."""
    patterns = [counter.event_type, *([counter.undone_by] if counter.undone_by else [])]
    return await connection.fetchval(HAS_EVENTS, *_types(patterns))


def _types(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Whole types, and the beginnings of types."""
    return (
        [pattern for pattern in patterns if not pattern.endswith(".*")],
        [pattern[:-1] for pattern in patterns if pattern.endswith(".*")],
    )


async def read_published_context(connection: Connection) -> PublishedContext:
    paths = [
        LinkPath(row["event_type"], row["event_path"], row["original_path"], row["source"])
        for row in await connection.fetch(PATHS)
    ]
    limits = {row["definition"]: row["since"] for row in await connection.fetch(LIMITS)}
    generations = {row["id"]: row["generation"] for row in await connection.fetch(GENERATIONS)}
    return PublishedContext(tuple(paths), limits, frozenset(await read_building(connection)), generations)


async def read_building(connection: Connection) -> set[str]:
    """Ids of the counters whose history is not yet counted."""
    return {generation_id(row["id"], row["generation"]) for row in await connection.fetch(BUILDING)}


async def history_size(connection: Connection) -> int:
    """Stored events, by the planner's estimate: exact enough for a progress bar."""
    return await connection.fetchval(HISTORY_SIZE)


async def read_counters(connection: Connection) -> list[CounterRow]:
    return [CounterRow(**dict(row)) for row in await connection.fetch(COUNTERS)]


async def lock_building(connection: Connection) -> Building | None:
    """The counters to be built next, locked until the transaction ends; None where there are none to be had."""
    rows = await connection.fetch(LOCK_BUILDING, PUBLISH_LAG)
    if not rows:
        return None
    first = rows[0]
    alike = ("since_version", "position_at", "position_id")
    mine = [row for row in rows if all(row[name] == first[name] for name in alike)]
    values = frozenset(generation_id(row["id"], row["generation"]) for row in mine)
    return Building(
        tuple(row["id"] for row in mine), values, first["since_version"], first["position_at"], first["position_id"]
    )


async def events_to_count(
    connection: Connection, building: Building, patterns: Sequence[str], limit: int
) -> list[EconomicEvent]:
    """The next stored events of these types that were decided before the counters were there, in order of receipt."""
    after = building.position_at or FIRST, building.position_id or UUID(int=0)
    rows = await connection.fetch(TO_COUNT, building.since_version, *after, *_types(patterns), limit)
    return [to_event(row) for row in rows]


async def advance(connection: Connection, ids: Sequence[str], last: EconomicEvent, count: int) -> None:
    await connection.execute(ADVANCE, list(ids), last.received_at, last.id, count)


async def finish(connection: Connection, ids: Sequence[str]) -> None:
    """The counters are built. What an earlier generation kept is forgotten: no process adds to it any more."""
    for row in await connection.fetch(FINISH, list(ids)):
        if row["generation"]:
            await connection.execute(FORGET_STATE, generation_id(row["id"], row["generation"] - 1))


async def restart(connection: Connection, names: Sequence[str]) -> None:
    """Has counters of these names (all: none named) built anew by the publish that follows in the same transaction."""
    await connection.execute(RESTART, list(names))
