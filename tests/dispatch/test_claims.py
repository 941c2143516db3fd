"""The queue of record: who holds a claim, who may settle it, and what the statements cost."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from connect.lifecycle import Accepted, Completed, Outcome, Retriable, settle
from connect.model import ClaimedCommand, DispatchAttempt, Settlement
from connect.store import claims
from connect.store.actions import read_attempts
from connect.store.claims import LaneClaim
from tests.conftest import eventually
from tests.dispatch.stand_in import action_of, add_actions, dispatching, end_leases, has_ended, standing_in, target_at

POINTS = target_at("http://points/", timeout_s=10)


def lane(slots: int, **settings: Any) -> dict[str, LaneClaim]:
    return {"points": LaneClaim(slots=slots, target=target_at("http://points/", timeout_s=10, **settings))}


def answered(command: ClaimedCommand, outcome: Outcome, **fields: Any) -> tuple[Settlement, DispatchAttempt]:
    attempt = DispatchAttempt(n=command.n, started_at=command.claimed_at, duration_ms=1, outcome="x", **fields)
    return settle(command, POINTS, outcome, command.claimed_at, 0.5), attempt


async def test_a_claim_is_a_lease_with_a_number(pool: Any):
    (id,) = await add_actions(pool, 1)
    (held,) = await claims.claim(pool, lane(5))
    assert (held.id, held.n, held.retries, held.target) == (id, 1, 0, "points")
    assert held.lease_until - held.claimed_at == timedelta(seconds=30)
    assert held.give_up_at - held.claimed_at == timedelta(days=3)
    assert await claims.claim(pool, lane(5)) == []
    await end_leases(pool)
    (again,) = await claims.claim(pool, lane(5))
    assert (again.n, again.retries, again.give_up_at, again.body) == (2, 1, held.give_up_at, held.body)


async def test_the_oldest_due_come_first_up_to_the_free_slots_of_each_lane(pool: Any):
    now = datetime.now(UTC)
    (late,) = await add_actions(pool, 1, due_at=now - timedelta(minutes=1))
    (later,) = await add_actions(pool, 1, due_at=now - timedelta(hours=1))
    (other,) = await add_actions(pool, 1, target="nft")
    await add_actions(pool, 3)
    lanes = {**lane(2), "nft": LaneClaim(slots=2, target=POINTS)}
    assert {held.id for held in await claims.claim(pool, lanes)} == {late, later, other}


async def test_claims_side_by_side_never_hold_the_same_action(pool: Any):
    await add_actions(pool, 10)
    async with pool.acquire() as one, pool.acquire() as two, one.transaction(), two.transaction():
        first = {held.id for held in await claims.claim(one, lane(6))}
        second = {held.id for held in await claims.claim(two, lane(6))}
    assert (len(first), len(second)) == (6, 4)
    assert not first & second


async def test_a_sender_past_its_lease_does_not_overwrite_what_came_after(pool: Any):
    (id,) = await add_actions(pool, 1)
    (stale,) = await claims.claim(pool, lane(1))
    await end_leases(pool)
    (fresh,) = await claims.claim(pool, lane(1))
    assert await claims.settle(pool, [answered(stale, Completed("stale"))]) == set()
    action = await action_of(pool, id)
    assert (action.status, action.attempts, action.reference) == ("dispatched", 2, None)
    assert await claims.settle(pool, [answered(fresh, Completed("fresh"))]) == {id}
    assert await claims.settle(pool, [answered(stale, Retriable("500"))]) == set()
    action = await action_of(pool, id)
    assert (action.status, action.attempts, action.reference) == ("completed", 2, "fresh")
    assert [attempt.n for attempt in await read_attempts(pool, id)] == [1, 2]


async def test_settling_again_after_an_unknown_commit_changes_nothing(pool: Any):
    ids = await add_actions(pool, 3)
    first, second, third = await claims.claim(pool, lane(5))
    settled = [answered(first, Completed("a")), answered(second, Accepted()), answered(third, Retriable("500"))]
    assert await claims.settle(pool, settled) == set(ids)
    before = [await action_of(pool, id) for id in ids]
    await claims.settle(pool, settled)
    assert [await action_of(pool, id) for id in ids] == before


async def test_an_attempt_of_a_lost_lease_and_its_successor_may_be_settled_together(pool: Any):
    (id,) = await add_actions(pool, 1)
    (stale,) = await claims.claim(pool, lane(1))
    await end_leases(pool)
    (fresh,) = await claims.claim(pool, lane(1))
    assert await claims.settle(pool, [answered(fresh, Completed("b")), answered(stale, Retriable("x"))]) == {id}
    assert (await action_of(pool, id)).reference == "b"


async def test_the_end_of_patience_is_not_claimed_but_given_up(pool: Any):
    past = datetime.now(UTC) - timedelta(seconds=1)
    (timed_out,) = await add_actions(pool, 1, attempts=4, give_up_at=past)
    (crashed,) = await add_actions(pool, 1, status="dispatched", attempts=2, retries=1)
    (accepted,) = await add_actions(pool, 1, status="dispatched", attempts=2, retries=1, accepted_at=past)
    (held,) = await claims.claim(pool, lane(5, attempts_max=2))
    assert held.id == accepted
    ended = await claims.give_up(pool, {"points": target_at("http://points/", attempts_max=2)})
    assert sorted(ended) == sorted([(timed_out, "points"), (crashed, "points")])
    action = await action_of(pool, timed_out)
    assert (action.status, action.failure, action.attempts, action.due_at) == ("failed", "exhausted", 4, None)


async def test_what_is_due_is_counted_by_target(pool: Any):
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await add_actions(pool, 2, due_at=hour_ago)
    await add_actions(pool, 1, target="lottery", due_at=hour_ago + timedelta(minutes=30))
    await add_actions(pool, 1, target="later", due_at=datetime.now(UTC) + timedelta(hours=1))
    due = await claims.due_by_target(pool)
    assert {name: waiting.due for name, waiting in due.items()} == {"points": 2, "lottery": 1}
    assert 3590 < due["points"].oldest_age_s < 3660
    assert await claims.unknown_targets(pool, ["points", "nft"]) == ["later", "lottery"]
    assert await claims.unknown_targets(pool, ["points", "later", "lottery"]) == []


FLOOD = """
INSERT INTO reward_action (id, event_id, rule_key, rule_version, effect_key, target, command, recipient_role, user_id,
    amount, unit, params, status, attempts, due_at, created_at, body)
SELECT gen_random_uuid(), gen_random_uuid(), 'r', 1, 'e', 'nft', 'mint', 'actor', 'u', 1, 'nft', '{}',
    CASE WHEN n % 5 = 0 THEN 'completed' ELSE 'pending' END, 0,
    CASE WHEN n % 5 = 0 THEN NULL ELSE now() - make_interval(secs => n) END, now(), '{}'
FROM generate_series(1, 125000) AS n
"""


def scans(node: dict[str, Any]) -> list[dict[str, Any]]:
    below = [found for child in node.get("Plans", []) for found in scans(child)]
    return [node, *below] if node.get("Relation Name") == "reward_action" else below


@asynccontextmanager
async def undone(pool: Any) -> AsyncGenerator[Any]:
    """A transaction that is rolled back: EXPLAIN ANALYZE runs the statement."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield connection
        finally:
            await transaction.rollback()


async def explained(connection: Any, query: str, *values: Any) -> tuple[list[dict[str, Any]], int]:
    """The nodes that read reward_action, and the pages the whole statement touched. The statement is run."""
    [plan] = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *values)
    plan = plan["Plan"]
    return scans(plan), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


async def test_a_flooded_lane_is_claimed_and_settled_by_index_where_100_000_are_due(pool: Any):
    await pool.execute(FLOOD)
    await add_actions(pool, 20)
    await pool.execute("ANALYZE reward_action")
    terms = [["nft", "points"], [20, 20], [30.0, 30.0], [9.0, 9.0], [None, None], [False, False]]
    for mode in ("force_custom_plan", "force_generic_plan"):
        async with undone(pool) as connection:
            await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
            nodes, pages = await explained(connection, claims.CLAIM, *terms)
            assert {node["Node Type"] for node in nodes} <= {"Index Scan", "Bitmap Heap Scan", "ModifyTable"}, nodes
            assert "reward_action_due" in {node.get("Index Name") for node in nodes}
            assert pages < 3000, pages
    held = await claims.claim(pool, lane(20))
    assert len(held) == 20
    settled = [answered(command, Completed("r")) for command in held]
    columns: list[list[Any]] = [[getattr(s, name) for s, _ in settled] for name in claims.SETTLEMENT_COLUMNS]
    columns += [[getattr(attempt, name) for _, attempt in settled] for name in claims.ATTEMPT_COLUMNS]
    async with undone(pool) as connection:
        nodes, pages = await explained(connection, claims.SETTLE, *columns)
        by_index = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan", "ModifyTable"}
        assert {node["Node Type"] for node in nodes} <= by_index, nodes
        assert pages < 3000, pages
        nodes, pages = await explained(connection, claims.UNKNOWN_TARGETS, ["nft"])
        assert {node["Node Type"] for node in nodes} <= {"Index Scan", "Index Only Scan"}, nodes
        assert pages < 300, pages


async def test_a_flood_for_one_target_does_not_keep_another_waiting(pool: Any):
    await pool.execute(FLOOD)
    (id,) = await add_actions(pool, 1)
    async with standing_in() as nft, standing_in() as points:
        nft.behave = nft.hang
        targets = {"nft": target_at(nft.url), "points": target_at(points.url)}
        async with dispatching(pool, targets, drain_s=0):
            await eventually(lambda: has_ended(pool, id, "completed"), timeout_s=3)
