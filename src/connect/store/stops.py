"""Stops of rules. One stands until a publish lets the rule give again, and that publish says whose stop it ended.

A stop is a row of the audit with the version it made; so is its end. What a document switches off is not stopped.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct

from connect.model import Ruleset
from connect.store.pool import Connection

# By a rule's identity, so that a stopped rule that is renamed is still the one that was stopped.
STANDING = """
SELECT subject, actor, at, note FROM (
    SELECT DISTINCT ON (subject) subject, verb, actor, at, note FROM audit
    WHERE subject = ANY($1) AND verb IN ('stop', 'revive') AND detail ? 'ruleset_version'
    ORDER BY subject, id DESC
) AS newest WHERE verb = 'stop'
"""
RECORD = """
INSERT INTO audit (actor, verb, subject, note, detail)
VALUES ($1, 'stop', $2, $3, jsonb_build_object('ruleset_version', $4::integer))
"""
END = """
INSERT INTO audit (actor, verb, subject, note, detail)
SELECT $1, 'revive', subject, $2, jsonb_build_object(
    'ruleset_version', $3::integer, 'stopped_by', stopped_by, 'stopped_at', stopped_at, 'stopped_note', stopped_note)
FROM unnest($4::text[], $5::text[], $6::timestamptz[], $7::text[])
    AS ended (subject, stopped_by, stopped_at, stopped_note)
"""
ENDED_BY = """
SELECT subject, detail ->> 'stopped_by' AS actor, (detail ->> 'stopped_at')::timestamptz AS at,
    detail ->> 'stopped_note' AS note
FROM audit WHERE subject = ANY($1) AND verb = 'revive' AND (detail ->> 'ruleset_version')::integer = $2
"""


class RuleStop(Struct, frozen=True, kw_only=True):
    """Who stopped a rule, when and why."""

    key: str
    by: str
    at: datetime
    note: str


async def standing_stops(connection: Connection, document: Ruleset) -> dict[str, RuleStop]:
    """Rule key -> its stop, of the document's rules that a person stopped and that give nothing since."""
    return await _stops(connection, STANDING, document, enabled=False)


async def record_stop(connection: Connection, identity: str, version: int, by: str, note: str) -> None:
    await connection.execute(RECORD, by, _subject(identity), note, version)


async def end_stops(connection: Connection, document: Ruleset, version: int, by: str, note: str) -> None:
    """Records which stops end because the document, which goes live as `version`, lets the rules give again."""
    ended = await _stops(connection, STANDING, document, enabled=True)
    if not ended:
        return
    identities = {rule.key: rule.identity for rule in document.rules}
    subjects = [_subject(identities[key]) for key in ended]
    stops = list(ended.values())
    await connection.execute(
        END, by, note, version, subjects, [s.by for s in stops], [s.at for s in stops], [s.note for s in stops]
    )


async def stops_ended(connection: Connection, document: Ruleset, version: int) -> list[RuleStop]:
    """The stops that the publish of a version ended."""
    return list((await _stops(connection, ENDED_BY, document, version, enabled=True)).values())


async def _stops(
    connection: Connection, query: str, document: Ruleset, *values: object, enabled: bool
) -> dict[str, RuleStop]:
    keys = {_subject(rule.identity): rule.key for rule in document.rules if rule.enabled is enabled}
    rows: list[Any] = await connection.fetch(query, list(keys), *values) if keys else []
    stops = [RuleStop(key=keys[row["subject"]], by=row["actor"], at=row["at"], note=row["note"]) for row in rows]
    return {stop.key: stop for stop in sorted(stops, key=lambda stop: stop.key)}


def _subject(identity: str) -> str:
    return f"rule/{identity}"
