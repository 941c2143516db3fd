"""Ruleset versions: immutable documents, one of them live. Publishing takes the lock of one row."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec.structs import replace

from connect.engine.requirements import requirements
from connect.errors import NotFound, VersionStale
from connect.model import RewardRule, Ruleset, RulesetVersion
from connect.store.pool import Connection
from connect.store.published_context import keep_requirements, restart
from connect.store.stops import end_stops, record_stop, standing_stops

LIVE = "SELECT version FROM ruleset_live"
LOCK_LIVE = "SELECT version FROM ruleset_live FOR UPDATE"
MAKE_LIVE_ROW = "INSERT INTO ruleset_live (version) VALUES (0) ON CONFLICT DO NOTHING"
SET_LIVE = "UPDATE ruleset_live SET version = $1, changed_at = now()"
VERSION = """
SELECT version, document, rule_versions, author, note, created_at, published_at FROM ruleset_version WHERE version = $1
"""
VERSIONS = """
SELECT version, rule_versions, author, note, created_at, published_at FROM ruleset_version
WHERE $1::integer IS NULL OR version < $1 ORDER BY version DESC LIMIT $2
"""
ADD_VERSION = """
INSERT INTO ruleset_version (version, document, author, note)
SELECT coalesce(max(version), 0) + 1, $1, $2, $3 FROM ruleset_version RETURNING version
"""
MARK_PUBLISHED = """
UPDATE ruleset_version SET published_at = now(), rule_versions = $2, note = CASE WHEN $3 = '' THEN note ELSE $3 END
WHERE version = $1
"""
NEWEST_RULES = (
    "SELECT DISTINCT ON (key) key, version, document, retired_in FROM rule_version ORDER BY key, version DESC"
)
ADD_RULES = """
INSERT INTO rule_version (key, version, ruleset_version, document)
SELECT key, version, $3, document FROM unnest($1::text[], $2::integer[], $4::jsonb[]) AS new (key, version, document)
"""
RETIRE = "UPDATE rule_version SET retired_in = $2 WHERE key = ANY($1) AND retired_in IS NULL"
RULE_VERSIONS = """
SELECT key, version, ruleset_version, document, retired_in FROM rule_version WHERE key = $1 ORDER BY version DESC
"""
AUDIT = "INSERT INTO audit (actor, verb, subject, note, detail) VALUES ($1, $2, $3, $4, $5)"


async def live_version(connection: Connection) -> int:
    """0 before the first publish."""
    return await connection.fetchval(LIVE) or 0


async def read_version(connection: Connection, version: int) -> RulesetVersion:
    """Raises `NotFound`."""
    row = await connection.fetchrow(VERSION, version)
    if row is None:
        raise NotFound(f"there is no ruleset version {version}")
    return msgspec.convert(dict(row), RulesetVersion)


async def list_versions(connection: Connection, *, before: int | None, limit: int) -> list[dict[str, Any]]:
    """Newest first."""
    live = await live_version(connection)
    rows = await connection.fetch(VERSIONS, before, limit)
    return [{**dict(row), "live": row["version"] == live} for row in rows]


async def rule_versions(connection: Connection, key: str) -> list[dict[str, Any]]:
    """All versions of one rule, newest first. Raises `NotFound`."""
    rows = [dict(row) for row in await connection.fetch(RULE_VERSIONS, key)]
    if not rows:
        raise NotFound(f"there was never a rule {key!r}")
    return rows


async def add_draft(connection: Connection, document: Ruleset, author: str, note: str) -> int:
    """Stores a version that is not live; returns its number."""
    async with connection.transaction():
        await _lock_live(connection)
        return await connection.fetchval(ADD_VERSION, document, author, note)


async def publish(
    connection: Connection, version: int, author: str, note: str, *, expected: int | None = None
) -> RulesetVersion:
    """Makes a version live. One that was live before, or a draft older than the live one, becomes a new version.

    So the live version's number only grows, and processes that follow it cannot mistake an older one for news.

    Raises `NotFound`, and `VersionStale` when `expected` is not the live version.
    """
    async with connection.transaction():
        live = await _expect(connection, expected)
        found = await read_version(connection, version)
        if found.published_at is not None or version < live:
            note = note or f"{'rollback to' if found.published_at else 'draft'} version {version}"
            version = await connection.fetchval(ADD_VERSION, found.document, author, note)
        return await _make_live(connection, version, found.document, author, note)


async def change(
    connection: Connection, edit: Callable[[Ruleset], Ruleset], author: str, note: str, *, expected: int | None = None
) -> RulesetVersion:
    """Publishes `edit(live document)` as a new version, in one step that no other change can come between.

    Raises what `edit` raises, and `VersionStale` when `expected` is not the live version.
    """
    async with connection.transaction():
        live = await _expect(connection, expected)
        document = edit((await read_version(connection, live)).document if live else Ruleset())
        version = await connection.fetchval(ADD_VERSION, document, author, note)
        return await _make_live(connection, version, document, author, note)


async def stop_rule(connection: Connection, key: str, by: str, note: str) -> RulesetVersion:
    """Publishes the live document with the rule switched off, whatever its tests say, and records the stop.

    Again and without a note it leaves the stop that stands, with its reason. Raises `NotFound`.
    """

    def edit(document: Ruleset) -> Ruleset:
        keys = [rule.key for rule in document.rules]
        if key not in keys:
            near = get_close_matches(key, keys, n=1)
            meant = f": did you mean {near[0]}?" if near else ""
            raise NotFound(f"the live ruleset has no rule {key!r}{meant}")
        rules = [replace(rule, enabled=False) if rule.key == key else rule for rule in document.rules]
        return replace(document, rules=rules)

    async with connection.transaction():
        published = await change(connection, edit, by, note or f"stop {key}")
        rule = next(rule for rule in published.document.rules if rule.key == key)
        if note or key not in await standing_stops(connection, published.document):  # the reason that stands is kept
            await record_stop(connection, rule.identity, published.version, by, note)
    return published


async def rebuild_counters(connection: Connection, names: Sequence[str], author: str, note: str) -> RulesetVersion:
    """Publishes the live document again, with these counters (all: none named) to be built from history by a worker.

    The new version tells the events that are counted as they are decided from those that history counts.
    """
    async with connection.transaction():
        live = await _lock_live(connection)
        document = (await read_version(connection, live)).document
        await restart(connection, names)
        note = note or f"rebuild counters: {', '.join(names) or 'all'}"
        version = await connection.fetchval(ADD_VERSION, document, author, note)
        return await _make_live(connection, version, document, author, note)


async def _lock_live(connection: Connection) -> int:
    await connection.execute(MAKE_LIVE_ROW)
    return await connection.fetchval(LOCK_LIVE)


async def _expect(connection: Connection, expected: int | None) -> int:
    live = await _lock_live(connection)
    if expected is not None and expected != live:
        raise VersionStale(
            f"the live ruleset is version {live}, the request was made against {expected}: read it again"
        )
    return live


async def _make_live(connection: Connection, version: int, document: Ruleset, author: str, note: str) -> RulesetVersion:
    numbers = await _number_rules(connection, version, document)
    await connection.execute(MARK_PUBLISHED, version, numbers, note)
    await connection.execute(SET_LIVE, version)
    await keep_requirements(connection, requirements(document), version)
    await connection.execute(AUDIT, author, "publish", f"ruleset/{version}", note, {})
    await end_stops(connection, document, version, author, note)
    return await read_version(connection, version)


async def _number_rules(connection: Connection, version: int, document: Ruleset) -> dict[str, int]:
    """Rule key -> the rule's own version: a new one where its content changed since its newest, else that one again."""
    newest = {row["key"]: row for row in await connection.fetch(NEWEST_RULES)}
    numbers: dict[str, int] = {}
    changed: list[RewardRule] = []
    for rule in document.rules:
        row = newest.get(rule.key)
        same = row is not None and row["retired_in"] is None and msgspec.convert(row["document"], RewardRule) == rule
        numbers[rule.key] = row["version"] if row and same else (row["version"] if row else 0) + 1
        if not same:
            changed.append(rule)
    await connection.execute(RETIRE, sorted(newest.keys() - numbers.keys()), version)
    keys = [rule.key for rule in changed]
    await connection.execute(ADD_RULES, keys, [numbers[key] for key in keys], version, changed)
    return numbers
