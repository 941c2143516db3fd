"""The breaker of a target and its pause: shared by all processes, and nothing is lost or counted meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connect.store import claims, targets
from connect.store.targets import FAILURES_TO_OPEN, Health
from tests.conftest import eventually
from tests.dispatch.stand_in import (
    StandIn,
    action_of,
    add_actions,
    answer,
    count_of,
    dispatching,
    has_ended,
    standing_in,
    target_at,
)

FAST = {"max_inflight": 5, "backoff_base_s": 0.4, "backoff_cap_s": 0.4}
"""It opens for 0.4 s, then for twice that."""


async def gate_of(pool: Any) -> targets.Gate:
    return (await targets.read_gates(pool))["points"]


async def stands(pool: Any, standing: str) -> bool:
    gates = await targets.read_gates(pool)
    return (gates["points"].standing if gates else "closed") == standing


async def pause(pool: Any, **fields: Any) -> bool:
    async with pool.acquire() as connection:
        return await targets.pause(connection, "points", **fields)


async def resume(pool: Any, **fields: Any) -> bool:
    async with pool.acquire() as connection:
        return await targets.resume(connection, "points", **fields)


def told(**fields: Any) -> dict[str, Health]:
    healthy = {"alive_at": None, "failures": 0, "last_failure": None, "probe": None, "held_s": 0.0, "open_base_s": 5.0}
    return {"points": Health(**(healthy | fields))}


async def test_ten_faults_open_the_breaker_and_nothing_is_sent_or_counted_until_the_probe(pool: Any):
    await add_actions(pool, 150)
    async with standing_in() as points:
        points.behave = answer(500)
        async with dispatching(pool, {"points": target_at(points.url, **FAST)}, poll_s=0.02):
            await eventually(lambda: stands(pool, "open"))
            opened = await gate_of(pool)
            sent = len(points.requests)
            assert FAILURES_TO_OPEN <= sent < 100, "what is on its way when the tenth answer is written comes on top"
            assert await pool.fetchval("SELECT sum(attempts) FROM reward_action") == sent
            await eventually(lambda: len(points.requests) > sent)
            assert len(points.requests) == sent + 1, "half-open lets one through"
            assert await pool.fetchval("SELECT now()") >= opened.open_until, "and not before its time"
            points.behave = answer(200)
            await eventually(lambda: _all_completed(pool, 150), timeout_s=20)
        closed = await gate_of(pool)
    assert (opened.openings, opened.last_failure) == (1, "HTTP 500: null")
    assert (closed.standing, closed.failures, closed.openings, closed.opened_at) == ("closed", 0, 0, None)


async def _all_completed(pool: Any, count: int) -> bool:
    return await count_of(pool, "completed") == count


async def test_a_probe_that_fails_opens_it_for_longer(pool: Any):
    await targets.tell_health(pool, told(failures=FAILURES_TO_OPEN))
    first = await gate_of(pool)
    await targets.tell_health(pool, told(failures=1, probe="fault"))
    second = await gate_of(pool)
    lasts = [gate.open_until - gate.changed_at for gate in (first, second) if gate.open_until]
    assert lasts == [timedelta(seconds=5), timedelta(seconds=10)]
    assert (second.openings, second.opened_at) == (2, first.opened_at)


async def test_faults_of_several_processes_add_up_and_one_good_answer_begins_anew(pool: Any):
    for _ in range(2):
        assert await targets.tell_health(pool, told(failures=FAILURES_TO_OPEN - 1, alive_at=datetime.now(UTC))) == []
    assert await targets.tell_health(pool, told(failures=1)) == ["points"]


async def test_what_was_sent_before_it_opened_does_not_close_it(pool: Any):
    before = datetime.now(UTC) - timedelta(seconds=1)
    await targets.tell_health(pool, told(failures=FAILURES_TO_OPEN))
    await targets.tell_health(pool, told(alive_at=before))
    assert (await gate_of(pool)).standing == "open"
    await targets.tell_health(pool, told(alive_at=datetime.now(UTC)))
    assert (await gate_of(pool)).standing == "closed"


async def test_one_process_of_many_probes_and_a_dead_one_lets_another(pool: Any):
    await targets.tell_health(pool, told(failures=FAILURES_TO_OPEN))
    assert await targets.take_probes(pool, {"points": 30.0}) == set(), "it is open still"
    await pool.execute("UPDATE target SET open_until = now()")
    taken = await asyncio.gather(*(targets.take_probes(pool, {"points": 30.0}) for _ in range(8)))
    assert sorted(map(len, taken)) == [0] * 7 + [1]
    await pool.execute("UPDATE target SET probe_until = now()")
    assert await targets.take_probes(pool, {"points": 30.0}) == {"points"}
    await targets.leave_probes(pool, ["points"])
    assert await targets.take_probes(pool, {"points": 30.0}) == {"points"}


@pytest.mark.parametrize("status", [409, 425, 429])
async def test_a_target_that_is_busy_is_no_broken_one(pool: Any, status: int):
    await add_actions(pool, 30)
    async with standing_in() as points:
        points.behave = answer(status)
        async with dispatching(pool, {"points": target_at(points.url)}):
            await eventually(lambda: len(points.requests) > 3 * FAILURES_TO_OPEN)
        assert await targets.read_gates(pool) == {}


async def test_patience_that_one_process_was_asked_for_holds_for_all(pool: Any):
    await add_actions(pool, 1)
    async with standing_in() as points:
        points.behave = answer(503, headers={"Retry-After": "600"})
        terms = {"points": target_at(points.url)}
        async with dispatching(pool, terms):
            await eventually(lambda: _is_held(pool))
        assert (await gate_of(pool)).standing == "closed"
        await add_actions(pool, 5)
        [other] = await add_actions(pool, 1, target="nft")
        async with standing_in() as nft, dispatching(pool, terms | {"nft": target_at(nft.url)}):
            await eventually(lambda: has_ended(pool, other, "completed"))
        assert len(points.requests) == 1


async def _is_held(pool: Any) -> bool:
    gates = await targets.read_gates(pool)
    return bool(gates) and gates["points"].held_until is not None


async def test_pause_keeps_everything_and_resume_drains_it(pool: Any):
    old = datetime.now(UTC) - timedelta(hours=2)
    [tried] = await add_actions(pool, 1, attempts=1, give_up_at=datetime.now(UTC) + timedelta(hours=1), due_at=old)
    await pause(pool, actor="ops", note="deploy")
    await add_actions(pool, 30)
    [other] = await add_actions(pool, 1, target="nft", attempts=1, give_up_at=old, due_at=old)
    async with standing_in() as points, dispatching(pool, dict.fromkeys(("points", "nft"), target_at(points.url))):
        await pool.execute("UPDATE target SET paused_at = now() - interval '2 hours'")
        await pool.execute("UPDATE reward_action SET give_up_at = now() - interval '1 hour' WHERE id = $1", tried)
        await eventually(lambda: has_ended(pool, other, "failed"))
        assert points.requests == []
        assert await count_of(pool, "pending") == 31, "nothing is given up while it is paused"
        assert await resume(pool, actor="ops")
        await eventually(lambda: has_ended(pool, tried, "completed"))
        await eventually(lambda: _all_completed(pool, 31))
    assert not await resume(pool, actor="ops"), "it was resumed already"
    audit = await pool.fetch("SELECT actor, verb, subject, note FROM audit ORDER BY id")
    assert [tuple(row) for row in audit] == [
        ("ops", "pause", "target/points", "deploy"),
        ("ops", "resume", "target/points", ""),
    ]


async def test_a_claim_by_a_process_that_does_not_know_of_the_pause_finds_nothing(pool: Any):
    await add_actions(pool, 3)
    await pause(pool, actor="ops")
    lane = {"points": claims.LaneClaim(slots=3, target=target_at("http://127.0.0.1:1/"))}
    assert await claims.claim(pool, lane) == []
    await resume(pool, actor="ops")
    assert len(await claims.claim(pool, lane)) == 3


async def test_a_healthy_target_pays_nothing_for_its_breaker(pool: Any):
    [id] = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        await eventually(lambda: has_ended(pool, id, "completed"))
    assert await targets.read_gates(pool) == {}
    assert (await action_of(pool, id)).attempts == 1
    assert isinstance(points, StandIn)
