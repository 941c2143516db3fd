"""The statements: rows made on the server, tables in both layouts, today's queries over them.

A row is a function of its number, so that both layouts hold the same rows and any of them can be named later. What is
loaded ends a day before the twelfth month does: what is recorded then falls into a month that is as full as one gets.
"""

import re
from itertools import pairwise
from typing import Any

TABLES = {"event": "received_at", "reward_action": "created_at", "dispatch_attempt": "started_at"}
"""The key that the monthly layout is cut by."""
PRIMARY_KEYS = {"event": "id", "reward_action": "id", "dispatch_attempt": "action_id, n"}
FIRST_MONTH, MONTHS, OPEN_MONTHS = "2025-12-01", 12, 2
"""Loaded months, and empty ones made beforehand."""

ROWS = """
CREATE FUNCTION moment(n bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    RETURN timestamptz '{first} 00:00:00Z' + CASE WHEN n < {events} THEN n * interval '364 days' / {events}
        ELSE interval '364 days' + (n - {events}) * interval '0.5 s' END;
CREATE FUNCTION event_number(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE RETURN (
    lpad(to_hex((extract(epoch FROM moment(n)) * 1000)::bigint), 12, '0') || '8' || substr(md5('order-' || n), 1, 3)
    || 'a' || substr(md5('order-' || n), 5, 15))::uuid;
CREATE FUNCTION action_number(n bigint, k integer) RETURNS uuid LANGUAGE sql IMMUTABLE
    RETURN md5('action-' || n || '-' || k)::uuid;
CREATE FUNCTION user_number(n bigint) RETURNS text LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN n % 100 = 0 THEN 'heavy-' || n / 100 % 10 ELSE 'user-' || (hashint8(n)::bigint & 131071) END;
"""

EVENT_COLUMNS = """id, source, external_id, event_type, occurred_at, received_at, actor_user_id, parties, context,
    extensions, effects, status, ruleset_version, decided_at, fingerprint, trace"""
EVENT_ROWS = """
SELECT event_number(n), 'shop', 'order-' || n, 'order.' || (ARRAY['paid', 'sent', 'kept', 'rated'])[n % 4 + 1],
    moment(n) - interval '1 s', moment(n), user_number(n),
    CASE WHEN n % 5 = 0 THEN jsonb_build_object('seller', 'user-' || n % 1000) ELSE '{}' END,
    jsonb_build_object('order_id', 'order-' || n, 'country', 'DE',
        'total', jsonb_build_object('value', n % 900 + 0.5, 'currency', 'EUR'),
        'items', jsonb_build_array(jsonb_build_object('sku', md5(n::text), 'quantity', n % 3 + 1))),
    '{}'::jsonb, 'all', 'decided', 1, moment(n), sha256(n::text::bytea),
    json_build_array(json_build_array('rule-' || n % 40, 'gave'), json_build_array('rule-' || n % 39, 'limited', n % 7))
FROM generate_series($1::bigint, $2::bigint) AS n
"""
ACTION_COLUMNS = """id, event_id, rule_key, rule_version, effect_key, target, command, recipient_role, user_id, amount,
    unit, params, status, attempts, due_at, reverses, created_at, dispatched_at, completed_at, occurred_at, body"""
# {state} are status, attempts and due_at. Each fiftieth event takes back what the event 1,000 before it gave.
ACTION_ROWS = """
SELECT action_number(n, k), event_number(n), 'rule-' || n % 40, 1, 'e' || k, 'wallet-' || n % 3, 'credit', 'actor',
    user_number(n), n % 90 + 1, 'points', '{{}}'::jsonb, status, attempts, due_at,
    CASE WHEN k = 0 AND n % 50 = 0 THEN action_number(n - 1000, 0) END, moment(n),
    CASE WHEN attempts > 0 THEN moment(n) END, CASE WHEN status = 'completed' THEN moment(n) END,
    moment(n) - interval '1 s',
    '{{"id":"' || action_number(n, k) || '","type":"wallet.credit","event":{{"id":"' || event_number(n)
    || '","source":"shop","external_id":"order-' || n || '"}},"recipient":{{"role":"actor","user_id":"'
    || user_number(n) || '"}},"amount":"' || n % 90 + 1 || '","unit":"points","rule":{{"key":"rule-' || n % 40
    || '","version":1}},"params":{{}}}}'
FROM generate_series($1::bigint, $2::bigint) AS n, generate_series(0, (n % 25 < 9)::integer) AS k,
    LATERAL (SELECT {state}) AS state (status, attempts, due_at)
"""
LOADED_STATE = """
    CASE WHEN n < $3 THEN 'completed' WHEN n < $4 THEN 'dispatched' ELSE 'pending' END, (n < $4)::integer,
    CASE WHEN n >= $3 THEN moment(n) END
"""
NEW_STATE = "'pending', 0, moment(n)"
ATTEMPT_COLUMNS = "action_id, n, started_at, duration_ms, outcome, status_code, excerpt"
ATTEMPT_ROWS = """
SELECT action_number(n, k), 1, moment(n), 12.5, 'completed', 200, '{"ok":true}'
FROM generate_series($1::bigint, $2::bigint) AS n, generate_series(0, (n % 25 < 9)::integer) AS k
"""
IDENTITY_COLUMNS = "source, external_id, fingerprint, event_id, month"
IDENTITY_ROWS = """
SELECT 'shop', 'order-' || n, sha256(n::text::bytea), event_number(n), date_trunc('month', moment(n), 'UTC')::date
FROM generate_series($1::bigint, $2::bigint) AS n
"""
LOCATOR_ROWS = """
SELECT action_number(n, k), date_trunc('month', moment(n), 'UTC')::date
FROM generate_series($1::bigint, $2::bigint) AS n, generate_series(0, (n % 25 < 9)::integer) AS k
"""

IDENTITY = """
CREATE TABLE identity (
    source text NOT NULL, external_id text NOT NULL, fingerprint bytea NOT NULL, event_id uuid NOT NULL,
    month date NOT NULL)
"""
IDENTITY_KEYS = (
    "ALTER TABLE identity ADD PRIMARY KEY (source, external_id)",
    "CREATE UNIQUE INDEX identity_of_event ON identity (event_id)",
)
LOCATOR = "CREATE TABLE action_locator (action_id uuid NOT NULL, month date NOT NULL)"
LOCATOR_KEY = "ALTER TABLE action_locator ADD PRIMARY KEY (action_id)"

LOADS = {
    "event": f"INSERT INTO event ({EVENT_COLUMNS}) {EVENT_ROWS}",
    "reward_action": f"INSERT INTO reward_action ({ACTION_COLUMNS}) {ACTION_ROWS.format(state=LOADED_STATE)}",
    "dispatch_attempt": f"INSERT INTO dispatch_attempt ({ATTEMPT_COLUMNS}) {ATTEMPT_ROWS}",
    "identity": f"INSERT INTO identity ({IDENTITY_COLUMNS}) {IDENTITY_ROWS}",
    "action_locator": f"INSERT INTO action_locator {LOCATOR_ROWS}",
}

_OWED = f"INSERT INTO reward_action ({ACTION_COLUMNS}) SELECT * FROM ({ACTION_ROWS.format(state=NEW_STATE)}) AS action"
_NAMED_OWED = f"{_OWED} ({ACTION_COLUMNS}) WHERE event_id IN (SELECT id FROM recorded)"
_EVENTS = f"INSERT INTO event ({EVENT_COLUMNS}) SELECT * FROM ({EVENT_ROWS}) AS reported ({EVENT_COLUMNS})"
RECORD_SINGLE = f"""
WITH recorded AS ({_EVENTS} -- unknown
    ON CONFLICT (source, external_id) DO NOTHING RETURNING id),
    owed AS ({_NAMED_OWED} ON CONFLICT (id) DO NOTHING)
SELECT count(*) FROM recorded
"""
NOT_ARCHIVED = """WHERE NOT EXISTS (SELECT FROM identity
    WHERE identity.source = reported.source AND identity.external_id = reported.external_id)"""
RECORD_MONTHLY = f"""
WITH fresh AS (INSERT INTO identity ({IDENTITY_COLUMNS}) {IDENTITY_ROWS}
    ON CONFLICT (source, external_id) DO NOTHING RETURNING event_id),
    recorded AS ({_EVENTS} WHERE id IN (SELECT event_id FROM fresh) RETURNING id),
    -- located
    owed AS ({_NAMED_OWED} ON CONFLICT (id, created_at) DO NOTHING)
SELECT count(*) FROM recorded
"""
LOCATED = f"located AS (INSERT INTO action_locator {LOCATOR_ROWS} ON CONFLICT (action_id) DO NOTHING),"

OF_MONTH = "{column} >= ({month}) AND {column} < ({month}) + interval '1 month'"
MONTH_OF_EVENT = "SELECT month::timestamp AT TIME ZONE 'UTC' FROM identity WHERE event_id = $1"
MONTH_OF_ACTION = "SELECT month::timestamp AT TIME ZONE 'UTC' FROM action_locator WHERE action_id = $1"


MONTH_GIVEN = "{column} >= $2 AND {column} < $2 + interval '1 month'"
"""Where the month was asked for by a statement before."""


def in_month(column: str, month: str) -> str:
    return " AND " + OF_MONTH.format(column=column, month=month)


EVENT_BY_ID = "SELECT * FROM event WHERE id = $1"
ACTION_BY_ID = "SELECT * FROM reward_action WHERE id = $1"
ACTIONS_OF_EVENT = "SELECT * FROM reward_action WHERE event_id = $1"
UNDO_OF = "SELECT id, status, amount FROM reward_action WHERE reverses = $1"
ATTEMPTS_OF = "SELECT * FROM dispatch_attempt WHERE action_id = $1"
NEWEST_OF_USER = "SELECT * FROM event WHERE actor_user_id = $1 ORDER BY received_at DESC, id DESC LIMIT 50"
KNOWN = "SELECT event_id FROM identity WHERE source = 'shop' AND external_id = $1"
KNOWN_TODAY = "SELECT id FROM event WHERE source = 'shop' AND external_id = $1"

RESULT = """
WITH locked AS MATERIALIZED (SELECT id FROM reward_action WHERE id = $1{month} FOR UPDATE),
    kept AS (INSERT INTO result_report (action_id, status, reference, disposition)
        SELECT id, 'completed', 'r', 'applied' FROM locked)
UPDATE reward_action SET reference = 'r' WHERE id = $1{month}
"""
CLAIM = """
UPDATE reward_action AS action SET status = 'dispatched', attempts = attempts + 1, due_at = now() + interval '1 h',
    dispatched_at = coalesce(dispatched_at, now())
WHERE id = ANY(ARRAY(SELECT id FROM reward_action WHERE target = 'wallet-1' AND due_at <= now() AND status = 'pending'
    ORDER BY due_at LIMIT 20 FOR UPDATE SKIP LOCKED))
RETURNING id
"""
SETTLE = """
WITH answered AS MATERIALIZED (
    SELECT action_number(n, 0) AS id, moment(n) AS created_at FROM generate_series($1::bigint, $1::bigint + 19) AS n
), attempt AS (
    INSERT INTO dispatch_attempt (action_id, n, started_at, duration_ms, outcome, status_code)
    SELECT id, 2, created_at, 10, 'completed', 200 FROM answered ON CONFLICT (action_id, n{key}) DO NOTHING
)
UPDATE reward_action AS action SET status = 'completed', due_at = NULL, accepted_at = NULL, completed_at = now()
FROM answered
WHERE action.id = answered.id AND action.status = 'dispatched' AND action.attempts = 1{month}
"""

DELETE_BATCH = f"""
WITH old AS MATERIALIZED (SELECT id, source, external_id, fingerprint, received_at FROM event
        WHERE received_at < $1 ORDER BY received_at LIMIT $2),
    kept AS (INSERT INTO identity ({IDENTITY_COLUMNS})
        SELECT source, external_id, fingerprint, id, date_trunc('month', received_at, 'UTC')::date FROM old),
    actions AS (DELETE FROM reward_action WHERE event_id = ANY(ARRAY(SELECT id FROM old)) RETURNING id),
    attempts AS (DELETE FROM dispatch_attempt WHERE action_id IN (SELECT id FROM actions))
DELETE FROM event WHERE id = ANY(ARRAY(SELECT id FROM old))
"""

SIZES = """
SELECT coalesce(pg_partition_root(i.indrelid), i.indrelid)::regclass::text AS of_table,
    coalesce(pg_partition_root(i.indexrelid), i.indexrelid)::regclass::text AS name,
    sum(pg_relation_size(i.indexrelid))::bigint AS bytes
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace GROUP BY 1, 2
UNION ALL
SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text, 'rows', sum(pg_table_size(c.oid))::bigint
FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' GROUP BY 1
ORDER BY 1, 3 DESC
"""
INDEXES = """
SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = $1
    AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""
LOCKS_HELD = """
SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE pid = pg_backend_pid() AND relnamespace = 'public'::regnamespace
"""
UNIQUE_KEYS = """
SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('p', 'u')
"""


def months() -> list[tuple[str, str]]:
    """(first day, first day of the next month) of every partition."""
    first = int(FIRST_MONTH[:4]) * 12 + int(FIRST_MONTH[5:7]) - 1
    days = [f"{number // 12}-{number % 12 + 1:02}-01" for number in range(first, first + MONTHS + OPEN_MONTHS + 1)]
    return list(pairwise(days))


def partition(table: str, day: str) -> str:
    return f"{table}_{re.sub('-', '', day)[:6]}"


async def strip_keys(connection: Any, table: str) -> list[str]:
    """Drops the table's indexes, for loading is several times faster without, and returns what makes them."""
    indexes = await connection.fetch(INDEXES, table)
    for row in await connection.fetch(UNIQUE_KEYS, table):
        await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {row['conname']}")
    for row in indexes:
        await connection.execute(f"DROP INDEX {row['indexname']}")
    return [row["indexdef"] for row in indexes]


async def cut_by_month(connection: Any, table: str) -> None:
    """Makes the empty table a partitioned one with the same columns and checks."""
    await connection.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
    await connection.execute(
        f"CREATE TABLE {table} (LIKE {table}_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS) "
        f"PARTITION BY RANGE ({TABLES[table]})"
    )
    for day, end in months():
        await connection.execute(
            f"CREATE TABLE {partition(table, day)} PARTITION OF {table} "
            f"FOR VALUES FROM ('{day} 00:00:00Z') TO ('{end} 00:00:00Z')"
        )
    await connection.execute(f"DROP TABLE {table}_before")
