"""What is known beside the live document: paths of reversal, since when limits measure, which counters are built."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from connect.engine.index import Standing
from connect.engine.links import LinkPath
from connect.engine.standing import Promises
from connect.store.pool import Connection

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
COMING_BACK = "SELECT id FROM counter WHERE id = ANY($1::text[]) AND status = 'retired'"
FORGET_STATE = (
    "DELETE FROM state WHERE key >= 'counter|' || $1 || '|' AND key < 'counter|' || $1 || '}'"  # } is after |
)
# A counter that comes back was blind meanwhile: it is built anew, as a changed one is. Where no event is stored, or it
# starts at its publish, there is nothing to build.
KEEP_COUNTERS = """
INSERT INTO counter (id, name, definition, since_version, status, live_at)
SELECT id, name, definition, $4, CASE WHEN at_once OR NOT EXISTS (SELECT FROM event) THEN 'live' ELSE 'building' END,
    CASE WHEN at_once OR NOT EXISTS (SELECT FROM event) THEN now() END
FROM unnest($1::text[], $2::text[], $3::jsonb[], $5::boolean[]) AS new (id, name, definition, at_once)
ON CONFLICT (id) DO UPDATE SET since_version = excluded.since_version, status = excluded.status,
    live_at = excluded.live_at, published_at = now(), position_at = NULL, position_id = NULL, counted = 0
WHERE counter.status = 'retired'
"""
BUILDING = "SELECT id FROM counter WHERE status = 'building'"
COUNTERS = """
SELECT id, name, since_version, status, published_at, position_at, position_id, counted, live_at
FROM counter WHERE status <> 'retired' ORDER BY name, id
"""
ADVANCE = """
UPDATE counter SET position_at = $2, position_id = $3, counted = counted + $4 WHERE id = ANY($1::text[])
"""
FINISH = "UPDATE counter SET status = 'live', live_at = now() WHERE id = ANY($1::text[]) AND status = 'building'"
RESTART = """
UPDATE counter SET status = 'building', position_at = NULL, position_id = NULL, counted = 0, live_at = NULL,
    published_at = now(), since_version = $2
WHERE id = ANY($1::text[])
"""


class CounterRow(Struct, frozen=True, kw_only=True):
    """How far a counter is built."""

    id: str
    name: str
    since_version: int
    status: str
    published_at: datetime
    position_at: datetime | None
    position_id: UUID | None
    counted: int
    live_at: datetime | None


async def keep_promises(connection: Connection, promised: Promises, version: int) -> None:
    """Takes over what a document that goes live measures, counts and may take back. Inside the publish."""
    paths = sorted(promised.paths, key=repr)
    await connection.execute(
        KEEP_PATHS, [path.event_type for path in paths], [path.event for path in paths],
        [path.original for path in paths], [path.source for path in paths],
    )  # fmt: skip
    limits = sorted(promised.limits)
    await connection.execute(DROP_LIMITS, limits)
    await connection.execute(KEEP_LIMITS, limits)
    ids = sorted(promised.counters)
    await connection.execute(RETIRE_COUNTERS, ids)
    for row in await connection.fetch(COMING_BACK, ids):
        await connection.execute(FORGET_STATE, row["id"])
    named: list[Any] = [promised.counters[name] for name in ids]
    await connection.execute(
        KEEP_COUNTERS, ids, [name for name, _ in named], [counter for _, counter in named], version,
        [counter.start == "publish" for _, counter in named],
    )  # fmt: skip


async def read_standing(connection: Connection) -> Standing:
    paths = [
        LinkPath(row["event_type"], row["event_path"], row["original_path"], row["source"])
        for row in await connection.fetch(PATHS)
    ]
    limits = {row["definition"]: row["since"] for row in await connection.fetch(LIMITS)}
    return Standing(tuple(paths), limits, frozenset(await read_building(connection)))


async def read_building(connection: Connection) -> set[str]:
    """Ids of the counters whose history is not yet counted."""
    return {row["id"] for row in await connection.fetch(BUILDING)}


async def read_counters(connection: Connection) -> list[CounterRow]:
    return [CounterRow(**dict(row)) for row in await connection.fetch(COUNTERS)]
