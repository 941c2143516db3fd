"""A noun is written as a struct and as a table: here the two are held together. And hot queries use indexes."""

from typing import Any, Literal, get_args, get_origin
from uuid import uuid4

import asyncpg
import pytest
from msgspec import Struct

from connect.engine.periods import FIRST, LAST
from connect.model import ApiKey, DispatchAttempt, EconomicEvent, Job, RewardAction, RulesetVersion
from connect.store.actions import ACTIONS_OF_EVENTS, ActionFilter
from connect.store.actions import where as where_actions
from connect.store.events.backlog import CLAIM_TO_DECIDE, FAIL_EXHAUSTED
from connect.store.events.record import STORED
from connect.store.events.search import EventFilter, list_events, where_traced
from connect.store.events.search import where as where_events
from connect.store.state import USED

NOT_ON_THE_WIRE = {
    "event": {"fingerprint", "trace", "tries", "decide_at", "failure", "state"},
    "reward_action": {"body", "retries", "give_up_at", "accepted_at", "lane_position"},
    "dispatch_attempt": {"action_id"},
    "api_key": {"secret_hash"},
    "job": {"task", "source", "target", "step", "tries", "lease", "lease_until"},
    "ruleset_version": set[str](),
}
TABLES: list[tuple[str, type[Struct]]] = [
    ("event", EconomicEvent),
    ("reward_action", RewardAction),
    ("dispatch_attempt", DispatchAttempt),
    ("api_key", ApiKey),
    ("job", Job),
    ("ruleset_version", RulesetVersion),
]
NEWEST_EVENTS = "ORDER BY received_at DESC, id DESC LIMIT 51"
NEWEST_ACTIONS = "ORDER BY created_at DESC, id DESC LIMIT 51"
COLUMNS = "SELECT column_name, is_nullable = 'YES' AS nullable FROM information_schema.columns WHERE table_name = $1"


@pytest.mark.parametrize(("table", "struct"), TABLES)
async def test_a_struct_and_its_table_have_the_same_columns_and_the_same_nulls(
    pool: "asyncpg.Pool[Any]", table: str, struct: type[Struct]
) -> None:
    columns = {row["column_name"]: row["nullable"] for row in await pool.fetch(COLUMNS, table)}
    wire = {name: nullable for name, nullable in columns.items() if name not in NOT_ON_THE_WIRE[table]}
    assert wire.keys() == set(struct.__struct_fields__)
    may_be_null = {name for name, hint in struct.__annotations__.items() if type(None) in get_args(hint)}
    assert {name for name, nullable in wire.items() if nullable} == may_be_null


@pytest.mark.parametrize(
    ("table", "column", "type_"),
    [("event", "status", "EventStatus"), ("event", "effects", "Effects"), ("reward_action", "status", "ActionStatus"),
     ("reward_action", "failure", "Failure"), ("result_report", "disposition", "Disposition"),
     ("job", "status", "JobStatus")],
)  # fmt: skip
async def test_a_check_names_the_same_values_as_the_type(
    pool: "asyncpg.Pool[Any]", table: str, column: str, type_: str
) -> None:
    import connect.model as model

    literal = getattr(model, type_)
    assert get_origin(literal) is Literal
    checks = await pool.fetch(
        "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'",
        table,
    )
    named = [row["text"] for row in checks if f"(({column} = ANY" in row["text"]]
    assert any(set(text.split("'")[1::2]) == set(get_args(literal)) for text in named), named


EVENTS = """
INSERT INTO event (id, source, external_id, event_type, occurred_at, received_at, actor_user_id, parties, context,
    extensions, effects, status, ruleset_version, decided_at, fingerprint, trace, decide_at)
SELECT gen_random_uuid(), 'shop', 'e' || n, 'type-' || n % 50, now(), now() - make_interval(secs => n),
    'u' || n % 5000, '{}', '{}', '{}', 'all', CASE WHEN n % 10 = 0 THEN 'received' ELSE 'decided' END,
    CASE WHEN n % 10 > 0 THEN 1 END, CASE WHEN n % 10 > 0 THEN now() END, sha256(n::text::bytea),
    CASE WHEN n % 10 > 0 THEN json_build_array(json_build_array('rule-' || n % 50, 'gave')) END,
    CASE WHEN n % 10 = 0 THEN now() - make_interval(secs => n) END
FROM generate_series(1, 50000) AS n
"""
ACTIONS = """
INSERT INTO reward_action (id, event_id, rule_key, rule_version, effect_key, target, command, recipient_role, user_id,
    amount, unit, params, status, failure, attempts, due_at, created_at, completed_at, body)
SELECT gen_random_uuid(), id, 'rule-' || n % 50, 1, 'k', 'points', 'credit', 'actor', 'u' || n % 5000, 1, 'points',
    '{}', CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 10 = 1 THEN 'pending' ELSE 'completed' END,
    CASE WHEN n % 100 = 0 THEN 'refused' END, 1, CASE WHEN n % 10 = 1 THEN now() END,
    now() - make_interval(secs => n), now(), '{}'
FROM (SELECT id, row_number() OVER () AS n FROM event) AS numbered
"""


@pytest.fixture
async def full(pool: "asyncpg.Pool[Any]") -> "asyncpg.Pool[Any]":
    """50,000 events, a tenth undecided, and as many actions, most of them ended."""
    await pool.execute(EVENTS)
    await pool.execute(ACTIONS)
    await pool.execute("ANALYZE event, reward_action")
    return pool


async def plan(pool: "asyncpg.Pool[Any]", query: str, *values: Any) -> str:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        rows = await connection.fetch(f"EXPLAIN {query}", *values)
        await transaction.rollback()
    return "\n".join(row[0] for row in rows)


async def test_hot_queries_use_their_indexes_on_fifty_thousand_rows(full: "asyncpg.Pool[Any]") -> None:
    ids = [row["id"] for row in await full.fetch("SELECT id FROM event LIMIT 500")]
    queries: list[tuple[str, tuple[Any, ...]]] = [
        (CLAIM_TO_DECIDE, (500, True)),
        (FAIL_EXHAUSTED, ()),
        (STORED, (["shop"] * 100, [f"e{n}" for n in range(100)])),
        (ACTIONS_OF_EVENTS, (ids[:50],)),
        ("SELECT * FROM event WHERE id = $1", (uuid4(),)),
        (f"SELECT * FROM event {NEWEST_EVENTS}", ()),
        (f"SELECT * FROM reward_action {NEWEST_ACTIONS}", ()),
    ]
    for filters in (
        EventFilter(actor_user_id=["u7"]),
        EventFilter(event_type=["type-7"]),
        EventFilter(external_id=["e7"], source=["shop"]),
    ):
        condition, values = where_events(filters)
        queries.append((f"SELECT * FROM event WHERE {condition} {NEWEST_EVENTS}", tuple(values)))
    for chosen in (
        ActionFilter(user_id=["u7"]),
        ActionFilter(status=["failed"]),
        ActionFilter(rule=["rule-7"]),
        ActionFilter(event_id=ids[:3]),
    ):
        condition, values = where_actions(chosen)
        queries.append((f"SELECT * FROM reward_action WHERE {condition} {NEWEST_ACTIONS}", tuple(values)))
    for query, values in queries:
        text = await plan(full, query, *values)
        assert "Seq Scan on event" not in text, f"{query}\n{text}"
        assert "Seq Scan on reward_action" not in text, f"{query}\n{text}"


RULES = """
INSERT INTO rule_version (key, version, ruleset_version, document)
VALUES ('rule-7', 1, 1, '{"event_type": "type-7"}'), ('rule-8', 1, 1, '{"event_type": "type-8.*"}')
"""


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (EventFilter(rule=["rule-7"], outcome=["gave"]), "event_by_type"),
        (EventFilter(rule=["rule-7"], outcome=["limited"]), "event_by_type"),
        (EventFilter(rule=["rule-7"], outcome=["gave"], actor_user_id=["u7"]), "event_by_actor"),
        (EventFilter(rule=["rule-8"], outcome=["gave"]), "event_by_type"),
    ],
)
async def test_a_search_by_rule_and_outcome_is_narrowed_by_an_index(
    full: "asyncpg.Pool[Any]", filters: EventFilter, index: str
) -> None:
    await full.execute(RULES)
    async with full.acquire() as connection:
        condition, values = await where_traced(connection, filters)
    text = await plan(full, f"SELECT * FROM event WHERE {condition} {NEWEST_EVENTS}", *values)
    assert index in text, text
    assert "Seq Scan on event" not in text, text


FEW_EVENTS_MANY_RULES = ACTIONS.replace("'rule-' || n % 50", "'old-' || gen_random_uuid()").replace(
    "FROM (SELECT id, row_number() OVER () AS n FROM event) AS numbered",
    "FROM (SELECT id FROM event LIMIT 200) AS few, generate_series(1, 10) AS n",
)


@pytest.mark.parametrize(
    ("scope", "statistics"),
    [*((scope, "none") for scope in ("recipient", "actor", "subject", "party")), ("actor", "old"), ("party", "old")],
)
async def test_a_new_limit_reads_what_its_subjects_were_given_not_all_that_the_rule_gave(
    pool: "asyncpg.Pool[Any]", scope: str, statistics: str
) -> None:
    await pool.execute(EVENTS)  # and no ANALYZE: a table that just filled up has no statistics, or those from before
    async with pool.acquire() as connection:
        await connection.execute("SET gin_pending_list_limit = '1GB'")  # as where autovacuum is busy or was cancelled
        await connection.execute(
            "UPDATE event SET parties = jsonb_build_object('friend', actor_user_id) WHERE $1", scope == "party"
        )
    if statistics == "old":
        await pool.execute(FEW_EVENTS_MANY_RULES)
        await pool.execute("ANALYZE reward_action")
    await pool.execute(ACTIONS)
    count = 200
    wanted = [
        [f"k{n}" for n in range(count)], [f"rule-{n % 50}" for n in range(count)], [f"u{n}" for n in range(count)],
        ["friend" if scope == "party" else ""] * count, [FIRST] * count, [LAST] * count, ["points"] * count,
    ]  # fmt: skip
    async with pool.acquire() as connection:
        [[row]] = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {USED[scope]}", *wanted)
    read = row[0]["Plan"]["Shared Hit Blocks"] + row[0]["Plan"]["Shared Read Blocks"]
    assert read < 10 * count * 10, f"{read} pages for {count} users with 10 events each"


async def test_pages_are_stable_and_complete_over_many_rows(full: "asyncpg.Pool[Any]") -> None:
    async with full.acquire() as connection:
        seen: list[Any] = []
        cursor: str | None = None
        while len(seen) < 2000:
            page = await list_events(connection, EventFilter(), limit=500, cursor=cursor)
            seen += [event.id for event in page.items]
            cursor = page.next_cursor
    assert len(set(seen)) == 2000
