"""How the database is: which invariants its tables break, what waits in them, and the server's own settings.

Checks are cheap at any size: those that an index or a small table answers see every row; the others see a sample, the
newest rows and random pages of the rest, and say so. A small table is its own sample.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from connect.engine.command import action_id
from connect.store.events.rows import EVENT_COLUMNS, to_event
from connect.store.invariants import CHECKS, Check
from connect.store.pool import Connection
from connect.store.recount import wrong_counters, wrong_limits
from connect.store.targets import LaneHealth, read_gates

STATEMENT_TIMEOUT_S = 5
"""A check that takes longer is given up and said to be: looking must not slow down what it looks at."""
EXAMPLES_MAX = 5
COUNT_MAX = 10_000
"""Counting stops here: past it the number changes nothing about what to do."""
SAMPLE_NEWEST = 20_000
SAMPLE_RANDOM = 20_000
ROW_BYTES_MIN = 200
"""The least bytes of a row, from which rows of a table never analysed are estimated; events and actions take more."""
DERIVED_SAMPLE = 200
"""Rows whose ids and fingerprints are computed again."""


class Broken(Struct, frozen=True, kw_only=True):
    """Tells what one check found."""

    check: Check
    count: int
    """At most `COUNT_MAX`."""
    examples: Sequence[str] = ()
    sample_of: int | None = None
    """About how many rows the sampled table has; None where every row was seen."""
    timed_out: bool = False


COUNT = """
SELECT count(*)::integer AS count, (array_agg(id))[1:{examples}] AS examples
FROM (SELECT id::text AS id FROM ({sql}) AS broken LIMIT {most}) AS broken
"""
ESTIMATE = """
SELECT CASE WHEN reltuples >= 0 AND relpages > 0 THEN reltuples / relpages * pg_relation_size(oid) / 8192
    ELSE pg_relation_size(oid) / {row_bytes}.0 END::float8
FROM pg_class WHERE oid = to_regclass($1)
"""
SAMPLE = """(SELECT * FROM {table} WHERE id IN (
    (SELECT id FROM {table} ORDER BY {moment} DESC, id DESC LIMIT {newest})
    UNION SELECT id FROM {table} TABLESAMPLE SYSTEM ({percent})))"""
PAGES = "(SELECT * FROM {table} TABLESAMPLE SYSTEM ({percent}))"

DERIVED_ACTIONS = """
SELECT action.id, source, external_id, coalesce(rule.document ->> 'formerly', rule_key) AS identity, effect_key, user_id
FROM {actions} AS action JOIN event ON event.id = action.event_id
LEFT JOIN rule_version AS rule ON rule.key = rule_key AND rule.version = action.rule_version
WHERE reverses IS NULL ORDER BY random() LIMIT $1
"""
DERIVED_EVENTS = "SELECT {columns}, fingerprint FROM {events} AS event ORDER BY random() LIMIT $1"


async def broken_checks(
    connection: Connection, targets: Sequence[str], checks: Sequence[Check] = CHECKS
) -> list[Broken]:
    """Runs every check and returns what each found, zeros included. `targets`: the names that the settings know."""
    samples = await _samples(connection)
    return [await _run(connection, check, samples, list(targets)) for check in checks]


async def wrong_action_ids(connection: Connection) -> list[str]:
    """Finds, in a random sample, actions whose id their fact does not derive: after a restore they would pay twice."""
    samples = await _samples(connection)
    async with connection.transaction(readonly=True):
        await _limit(connection)
        rows = await connection.fetch(DERIVED_ACTIONS.format(**samples.sql), DERIVED_SAMPLE)
    parts = ("source", "external_id", "identity", "effect_key", "user_id")
    return [str(row["id"]) for row in rows if action_id(*(row[part] for part in parts)) != row["id"]]


async def wrong_state(connection: Connection) -> tuple[list[str], list[str]]:
    """Finds random rows of limits and of counters that do not hold what the stored facts come to, and words them."""
    samples = await _samples(connection)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await _limit(connection)
        limits = await wrong_limits(connection, DERIVED_SAMPLE, samples.sql["state"])
        counters = await wrong_counters(connection, DERIVED_SAMPLE, samples.sql["state"])
    return [str(one) for one in limits], [str(one) for one in counters]


async def sample_events(connection: Connection) -> list[tuple[Any, bytes]]:
    """A random sample of (EconomicEvent, fingerprint), for who can compute fingerprints."""
    samples = await _samples(connection)
    async with connection.transaction(readonly=True):
        await _limit(connection)
        rows = await connection.fetch(DERIVED_EVENTS.format(columns=EVENT_COLUMNS, **samples.sql), DERIVED_SAMPLE)
    return [(to_event(row), row["fingerprint"]) for row in rows]


class _Samples(Struct, frozen=True):
    sql: dict[str, str]
    rows: dict[str, int]
    """Table -> about how many rows it has, for tables that are not seen whole."""


async def _samples(connection: Connection) -> _Samples:
    tables = ("event", "reward_action", "dispatch_attempt", "state")
    estimates = {
        table: await connection.fetchval(ESTIMATE.format(row_bytes=ROW_BYTES_MIN), table) or 0.0 for table in tables
    }
    percents = {
        table: 100.0 if rows <= SAMPLE_RANDOM else 100.0 * SAMPLE_RANDOM / rows for table, rows in estimates.items()
    }
    sql = {
        "events": SAMPLE.format(table="event", moment="received_at", newest=SAMPLE_NEWEST, percent=percents["event"]),
        "actions": SAMPLE.format(
            table="reward_action", moment="created_at", newest=SAMPLE_NEWEST, percent=percents["reward_action"]
        ),
        "attempts": PAGES.format(table="dispatch_attempt", percent=percents["dispatch_attempt"]),
        "state": PAGES.format(table="state", percent=percents["state"]) if percents["state"] < 100 else "state",
    }
    return _Samples(sql, {table: round(rows) for table, rows in estimates.items() if percents[table] < 100})


async def _limit(connection: Connection) -> None:
    await connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")


async def _run(connection: Connection, check: Check, samples: _Samples, targets: list[str]) -> Broken:
    sql = COUNT.format(sql=check.sql.format(**samples.sql), examples=EXAMPLES_MAX, most=COUNT_MAX)
    sample_of = samples.rows.get(check.sees)
    try:
        async with connection.transaction(readonly=True):
            await _limit(connection)
            row = await connection.fetchrow(sql, *([targets] if "$1" in sql else []))
    except asyncpg.QueryCanceledError:
        return Broken(check=check, count=0, sample_of=sample_of, timed_out=True)
    return Broken(check=check, count=row["count"], examples=row["examples"] or [], sample_of=sample_of)


# --- what waits -----------------------------------------------------------------------------------

LANES = """
SELECT target,
    (count(*) FILTER (WHERE due_at <= now()))::integer AS due,
    coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE due_at <= now())), 0)::float8 AS oldest_due_age_s,
    (count(*) FILTER (WHERE status = 'dispatched' AND accepted_at IS NULL AND due_at > now()))::integer AS in_flight,
    (count(*) FILTER (WHERE status = 'dispatched' AND accepted_at IS NOT NULL AND due_at > now()))::integer
        AS awaiting_result,
    (count(*) FILTER (WHERE status = 'pending' AND attempts > 0 AND due_at > now()))::integer AS retrying,
    (count(*) FILTER (WHERE status = 'pending' AND attempts = 0 AND due_at > now()))::integer AS scheduled
FROM reward_action WHERE due_at IS NOT NULL GROUP BY target
"""
NEEDING_A_PERSON = """
SELECT target, coalesce(failure, status) AS state, count(*)::integer AS count
FROM reward_action WHERE status IN ('failed', 'awaiting_approval', 'blocked') GROUP BY 1, 2
"""
EVENTS = f"""
SELECT count(*)::integer AS undecided,
    coalesce(extract(epoch FROM now() - min(received_at)), 0)::float8 AS oldest_undecided_s,
    (SELECT count(*)::integer FROM (SELECT FROM event WHERE status = 'failed' LIMIT {COUNT_MAX}) AS failed) AS failed
FROM event WHERE decide_at IS NOT NULL
"""


class Lane(Struct, kw_only=True):
    """Tells what waits for one target. Ages in seconds."""

    target: str
    configured: bool
    standing: LaneHealth = "closed"
    """The state of the lane's breaker, or paused."""
    paused_by: str | None = None
    due: int = 0
    oldest_due_age_s: float = 0.0
    in_flight: int = 0
    awaiting_result: int = 0
    """Accepted (202); the target has not reported yet."""
    retrying: int = 0
    scheduled: int = 0
    refused: int = 0
    exhausted: int = 0
    reported: int = 0
    awaiting_approval: int = 0
    blocked: int = 0

    @property
    def waiting(self) -> int:
        """Not ended."""
        open_ = (self.due, self.in_flight, self.awaiting_result, self.retrying, self.scheduled)
        return sum(open_) + self.awaiting_approval + self.blocked


class EventCounts(Struct, frozen=True, kw_only=True):
    undecided: int
    oldest_undecided_s: float
    failed: int
    """At most `COUNT_MAX`."""


async def lanes(connection: Connection, targets: Sequence[str]) -> list[Lane]:
    """Every configured target, and every other one that actions name, in order of name."""
    found = {name: Lane(target=name, configured=True) for name in targets}
    for row in await connection.fetch(LANES):
        found[row["target"]] = Lane(configured=row["target"] in targets, **dict(row))
    for row in await connection.fetch(NEEDING_A_PERSON):
        lane = found.setdefault(row["target"], Lane(target=row["target"], configured=row["target"] in targets))
        setattr(lane, row["state"], row["count"])
    for name, gate in (await read_gates(connection)).items():
        lane = found.setdefault(name, Lane(target=name, configured=name in targets))
        lane.standing, lane.paused_by = gate.standing, gate.paused_by
    return [found[name] for name in sorted(found)]


async def event_counts(connection: Connection) -> EventCounts:
    return msgspec.convert(dict(await connection.fetchrow(EVENTS)), EventCounts)


# --- the server -----------------------------------------------------------------------------------

SERVER = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS version_number,
    current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('full_page_writes') AS full_page_writes, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS standby, current_setting('max_connections')::integer AS connections_max
"""


class Server(Struct, frozen=True, kw_only=True):
    """The PostgreSQL settings that promises rest on."""

    version: str
    version_number: int
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    encoding: str
    standby: bool
    connections_max: int


async def server(connection: Connection) -> Server:
    return msgspec.convert(dict(await connection.fetchrow(SERVER)), Server)


async def live_ruleset(connection: Connection) -> tuple[int, float]:
    """The live version (0: none yet) and for how many seconds it has been."""
    row = await connection.fetchrow(
        "SELECT version, extract(epoch FROM now() - changed_at)::float8 AS age_s FROM ruleset_live"
    )
    return (row["version"], row["age_s"]) if row else (0, 0.0)


async def clock(connection: Connection) -> float:
    """The database's time, in seconds since 1970."""
    return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
