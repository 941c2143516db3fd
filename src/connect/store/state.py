"""Keeps what rules remember: locks rows in the order of their keys, works new ones out from stored actions.

A limit or a budget that has no row yet, or one from before its definition was published, is computed under its lock. So
a limit added in mid-month starts from what was given, and one that comes back after a pause has missed nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from connect.engine.limits import Slot
from connect.engine.periods import FIRST, LAST
from connect.engine.state import ZERO, StateValue
from connect.model import Exposure
from connect.store.pool import Connection

PUBLISH_LAG = timedelta(seconds=5)
"""Processes follow a publish within 2 s: what they gave by the older rules meanwhile is counted after this."""

KNOWN_ROWS = "SELECT key FROM state WHERE key = ANY($1::text[])"
MAKE_ROWS = "INSERT INTO state (key) SELECT key FROM unnest($1::text[]) AS key ORDER BY key ON CONFLICT DO NOTHING"
LOCK_ROWS = "SELECT key, value, detail, computed_at FROM state WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE"
SAVE_ROWS = """
UPDATE state SET value = changed.value::numeric, detail = changed.detail::jsonb,
    computed_at = CASE WHEN state.key = ANY($4::text[]) THEN clock_timestamp() ELSE state.computed_at END
FROM unnest($1::text[], $2::text[], $3::text[]) AS changed (key, value, detail)
WHERE state.key = changed.key AND state.key = ANY($1::text[])
"""
"""Texts, which cost the driver least. Its last line names the keys once more: a join alone may read the whole table."""
VALUES = "SELECT key, value FROM state WHERE key = ANY($1::text[])"
NOW = "SELECT clock_timestamp()"

_WANTED = """
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[])
    AS wanted (key, rule_key, subject, role, start, until, unit)
"""
_OCCURRED = "occurred_at >= wanted.start AND occurred_at < wanted.until"
_LIVE = "reverses IS NULL AND status <> 'cancelled' AND reversed < amount AND (wanted.unit = '' OR unit = wanted.unit)"
_OF_EVENTS = """FROM (SELECT id FROM event WHERE {mine} AND {occurred} OFFSET 0) AS mine, LATERAL (
        SELECT * FROM reward_action WHERE event_id = mine.id OFFSET 0) AS action"""
_ACTIONS = {
    "recipient": f"""FROM (
        SELECT * FROM reward_action WHERE user_id = wanted.subject AND rule_key = wanted.rule_key OFFSET 0) AS action
        WHERE (wanted.role = '' OR recipient_role = wanted.role) AND {_OCCURRED} AND {_LIVE}""",
    "rule": f"FROM reward_action WHERE rule_key = wanted.rule_key AND {_OCCURRED} AND {_LIVE}",
} | {
    scope: f"{_OF_EVENTS.format(mine=mine, occurred=_OCCURRED)} WHERE rule_key = wanted.rule_key AND {_LIVE}"
    for scope, mine in {
        "actor": "actor_user_id = wanted.subject",
        "subject": "primary_subject_user_id = wanted.subject",
        "party": """parties <> '{}' AND (parties @> jsonb_build_object(wanted.role, wanted.subject)
            OR parties @> jsonb_build_object(wanted.role, jsonb_build_array(wanted.subject)))""",
    }.items()
}
"""The actions that a limit is about. `OFFSET 0` keeps the planner to the indexes of subject and event: by a rule's own
index it would read all that the rule ever gave, for each subject or event again, and it does so where a table has no
statistics or old ones."""
USED = {
    scope: f"""
SELECT wanted.key, used.uses, used.amount {_WANTED}, LATERAL (
    SELECT count(DISTINCT event_id) AS uses, coalesce(sum(amount - reversed), 0) AS amount {actions}
) AS used
"""
    for scope, actions in _ACTIONS.items()
}
ENTRIES = {
    scope: f"""
SELECT wanted.key, given.occurred_at, given.amount {_WANTED}, LATERAL (
    SELECT min(occurred_at) AS occurred_at, sum(amount - reversed) AS amount {actions} GROUP BY event_id
) AS given
"""
    for scope, actions in _ACTIONS.items()
}
SPENT = """
SELECT wanted.key, coalesce(sum(CASE WHEN NOT action.refills THEN action.amount
    WHEN action.status = 'cancelled' THEN 0 ELSE action.amount - action.reversed END), 0) AS amount
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (key, name, unit)
LEFT JOIN reward_action AS action
    ON action.budget = wanted.name AND action.unit = wanted.unit AND action.reverses IS NULL
GROUP BY wanted.key
"""

_encode_json = msgspec.json.Encoder(decimal_format="number").encode

EXPOSE = """
INSERT INTO exposure (experiment, user_id, arm, propensity, rule_key, event_id, ruleset_version, first_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::text[], $6::uuid[], $7::integer[],
    $8::timestamptz[]) ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""


class LockedRow(Struct, frozen=True):
    stored: StateValue
    computed_at: datetime | None


class Reach(Struct):
    """A sliding limit's slot and the moments it is asked about."""

    slot: Slot
    first: datetime
    last: datetime


async def database_now(connection: Connection) -> datetime:
    """By the server's clock, at the time of asking: after locks were taken, it orders decisions as the locks did."""
    return await connection.fetchval(NOW)


async def lock(connection: Connection, keys: Iterable[str]) -> dict[str, LockedRow]:
    """The rows of these keys, made where they are missing, locked until the transaction ends."""
    wanted = sorted(keys)
    if not wanted:
        return {}
    known = {row["key"] for row in await connection.fetch(KNOWN_ROWS, wanted)}
    if missing := [key for key in wanted if key not in known]:
        await connection.execute(MAKE_ROWS, missing)
    return {
        row["key"]: LockedRow(StateValue(Decimal(row["value"]), row["detail"]), row["computed_at"])
        for row in await connection.fetch(LOCK_ROWS, wanted)
    }


async def used(connection: Connection, slots: Sequence[Slot]) -> dict[str, StateValue]:
    """Returns what the stored actions come to for each slot of a calendar period."""
    values: dict[str, StateValue] = {}
    for scope, group in _by_scope(slots).items():
        by_key = {slot.key: slot for slot in group}
        sums = dict.fromkeys(by_key, ZERO)
        for row in await connection.fetch(USED[scope], *_columns([(slot, None, None) for slot in group])):
            measure = by_key[row["key"]].meter.measure
            sums[row["key"]] += Decimal(row["uses"] if measure == "uses" else row["amount"])
        values.update((key, StateValue(found)) for key, found in sums.items())
    return values


async def window_entries(connection: Connection, reaches: Sequence[Reach]) -> dict[str, list[tuple[datetime, Decimal]]]:
    """Returns what was given near the moments that sliding limits are asked about, sorted."""
    entries: dict[str, list[tuple[datetime, Decimal]]] = {reach.slot.key: [] for reach in reaches}
    by_key = {reach.slot.key: reach for reach in reaches}
    for scope, group in _by_scope([reach.slot for reach in reaches]).items():
        spans = [_span(by_key[slot.key]) for slot in group]
        for row in await connection.fetch(ENTRIES[scope], *_columns(spans)):
            uses = by_key[row["key"]].slot.meter.measure == "uses"
            entries[row["key"]].append((row["occurred_at"], Decimal(1) if uses else Decimal(row["amount"])))
    return {key: sorted(found) for key, found in entries.items()}


async def spent(connection: Connection, budgets: Mapping[str, tuple[str, str]]) -> dict[str, StateValue]:
    """Returns what the stored actions took from each budget: key -> (name, unit)."""
    if not budgets:
        return {}
    names, units = [name for name, _ in budgets.values()], [unit for _, unit in budgets.values()]
    rows = await connection.fetch(SPENT, list(budgets), names, units)
    return {row["key"]: StateValue(Decimal(row["amount"])) for row in rows}


async def read_values(connection: Connection, keys: Sequence[str]) -> dict[str, Decimal]:
    """The values of these keys as they are committed; absent ones are left out."""
    return {row["key"]: Decimal(row["value"]) for row in await connection.fetch(VALUES, list(keys))}


async def save(connection: Connection, changes: Mapping[str, StateValue], computed: set[str]) -> None:
    """Writes the values of locked rows. `computed`: keys whose value was worked out anew in this transaction."""
    keys = sorted(changes)
    if keys:
        values, details = [str(changes[key].value) for key in keys], [_detail(changes[key]) for key in keys]
        await connection.execute(SAVE_ROWS, keys, values, details, sorted(computed))


def _detail(value: StateValue) -> str | None:
    return None if value.detail is None else _encode_json(value.detail).decode()


async def expose(connection: Connection, exposures: Sequence[tuple[Exposure, Any, int, datetime]]) -> None:
    """Keeps the first meeting of each user with an experiment: (exposure, event id, ruleset version, moment)."""
    if not exposures:
        return
    first = {(one.experiment, one.user_id): (one, *rest) for one, *rest in reversed(exposures)}
    rows = [first[key] for key in sorted(first)]
    columns = [
        [one.experiment for one, *_ in rows], [one.user_id for one, *_ in rows], [one.arm for one, *_ in rows],
        [one.propensity for one, *_ in rows], [one.rule for one, *_ in rows],
        *zip(*(rest for _, *rest in rows), strict=True),
    ]  # fmt: skip
    await connection.execute(EXPOSE, *columns)


def _by_scope(slots: Iterable[Slot]) -> dict[str, list[Slot]]:
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        groups.setdefault(_scope(slot), []).append(slot)
    return groups


def _scope(slot: Slot) -> str:
    per = slot.meter.per
    if per == "rule":
        return "rule"
    if slot.meter.role_only:
        return "recipient"
    return per if per in ("actor", "subject") else "party"


def _role(slot: Slot) -> str:
    """Returns what the query compares the role with: the recipient's own, or the name in `parties`."""
    per = slot.meter.per
    if slot.meter.role_only:
        return "" if per == "recipient" else per
    return per.removeprefix("parties.")


def _span(reach: Reach) -> tuple[Slot, datetime, datetime]:
    within = reach.slot.meter.within or timedelta()
    return reach.slot, _plus(reach.first, -within), _plus(reach.last, within)


def _plus(moment: datetime, length: timedelta) -> datetime:
    try:
        return moment + length
    except OverflowError:
        return LAST if length > timedelta() else FIRST


def _columns(spans: Sequence[tuple[Slot, datetime | None, datetime | None]]) -> list[list[Any]]:
    rows = [
        (
            slot.key, rule_key, slot.subject, _role(slot),
            first or (slot.period.start if slot.period else None), last or (slot.period.end if slot.period else None),
            "" if slot.meter.measure == "uses" else slot.meter.unit,
        )
        for slot, first, last in spans
        for rule_key in slot.meter.keys
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]
