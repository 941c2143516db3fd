"""Claim, send, settle against a real PostgreSQL and real local targets."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from connect.dispatch.results import report_result
from connect.errors import SettingsError
from connect.model import ResultReport, Target
from connect.store.actions import read_attempts
from tests.conftest import eventually
from tests.dispatch.stand_in import (
    action_of,
    add_actions,
    answer,
    body_of,
    count_of,
    dispatching,
    end_leases,
    has_ended,
    standing_in,
    target_at,
)


def all_in(pool: Any, status: str, count: int) -> Any:
    async def reached() -> bool:
        return await count_of(pool, status) == count

    return reached


async def test_every_due_action_is_sent_once_and_completed(pool: Any):
    ids = await add_actions(pool, 300)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        await eventually(all_in(pool, "completed", 300))
    assert sorted(points.keys) == sorted(map(str, ids))
    assert {key: body.decode() for key, body, _ in points.requests} == {str(id): body_of(id) for id in ids}
    action = await action_of(pool, ids[0])
    assert (action.attempts, action.reference, action.due_at, action.failure) == (1, "ref-1", None, None)
    assert action.dispatched_at is not None
    assert action.completed_at is not None
    assert action.created_at <= action.dispatched_at <= action.completed_at


async def test_two_dispatchers_share_the_work_without_sending_twice(pool: Any):
    ids = await add_actions(pool, 300)
    async with standing_in() as points:
        targets = {"points": target_at(points.url)}
        async with dispatching(pool, targets), dispatching(pool, targets):
            await eventually(all_in(pool, "completed", 300))
    assert sorted(points.keys) == sorted(map(str, ids))


async def test_a_command_is_repeated_byte_for_byte_under_one_key_until_it_is_done(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        points.behave = points.in_turn(answer(500), answer(401), answer(408), answer(200, {"reference": "0x1"}))
        action = await eventually(lambda: has_ended(pool, id, "completed"))
    assert [(key, body) for key, body, _ in points.requests] == [(str(id), body_of(id).encode())] * 4
    assert (action.attempts, action.reference, action.last_error) == (4, "0x1", None)
    attempts = await read_attempts(pool, id)
    told = [(attempt.n, attempt.outcome, attempt.status_code, attempt.error) for attempt in attempts]
    assert told == [
        (1, "retriable", 500, "HTTP 500: null"),
        (2, "misconfigured", 401, "HTTP 401: null"),
        (3, "retriable", 408, "HTTP 408: null"),
        (4, "completed", 200, None),
    ]


async def test_a_refused_command_fails_at_once(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        points.behave = answer(422, {"error": "no such user"})
        action = await eventually(lambda: has_ended(pool, id, "failed"))
    assert (action.failure, action.attempts, len(points.requests)) == ("refused", 1, 1)
    assert action.last_error == 'HTTP 422: {"error": "no such user"}'


async def test_an_accepted_command_waits_for_its_report(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        points.behave = answer(202)
        await eventually(lambda: read_attempts(pool, id))
        action = await action_of(pool, id)
        assert action.status == "dispatched"
        assert action.due_at is not None
        assert timedelta(hours=23) < action.due_at - datetime.now(UTC) < timedelta(hours=25)
        async with pool.acquire() as connection:
            done, disposition = await report_result(
                connection, id, ResultReport(status="completed", reference="0x2"), None
            )
    assert (done.status, done.reference, disposition) == ("completed", "0x2", "applied")


async def test_a_report_that_does_not_come_is_asked_for_with_the_same_key(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url, result_deadline_s=0.2)}):
        points.behave = points.in_turn(answer(202), answer(202), answer(200))
        action = await eventually(lambda: has_ended(pool, id, "completed"))
    assert points.keys == [str(id)] * 3
    assert action.attempts == 3
    assert await pool.fetchval("SELECT retries FROM reward_action") == 0


async def test_a_report_that_overtakes_the_answer_is_not_overwritten(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):

        async def report_then_fail(_: web.Request) -> web.StreamResponse:
            async with pool.acquire() as connection:
                await report_result(connection, id, ResultReport(status="completed", reference="early"), None)
            return web.Response(status=500)

        points.behave = report_then_fail
        await eventually(lambda: read_attempts(pool, id))
    action = await action_of(pool, id)
    assert (action.status, action.reference, action.attempts) == ("completed", "early", 1)


async def test_a_command_is_given_up_after_its_last_attempt(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url, attempts_max=3)}):
        points.behave = answer(503)
        action = await eventually(lambda: has_ended(pool, id, "failed"))
    assert (action.failure, action.attempts, len(points.requests)) == ("exhausted", 3, 3)


async def test_a_command_is_given_up_when_its_time_is_over(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url, give_up_after_s=0.5)}):
        points.behave = answer(500)
        action = await eventually(lambda: has_ended(pool, id, "failed"))
    assert action.failure == "exhausted"
    assert action.attempts > 2


async def test_what_its_senders_never_answered_for_is_given_up(pool: Any):
    (id,) = await add_actions(pool, 1, status="dispatched", attempts=3, retries=2)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url, attempts_max=3)}):
        action = await eventually(lambda: has_ended(pool, id, "failed"))
    assert (action.failure, action.last_error) == ("exhausted", "given up: no answer to attempt 3")
    assert points.requests == []


async def test_a_held_action_waits_for_its_time(pool: Any):
    soon = datetime.now(UTC) + timedelta(seconds=0.6)
    (id,) = await add_actions(pool, 1, due_at=soon, hold_until=soon)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        await eventually(lambda: has_ended(pool, id, "completed"))
    assert datetime.now(UTC) >= soon


async def test_a_hint_is_quicker_than_the_poll(pool: Any):
    (first,) = await add_actions(pool, 1)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}, poll_s=60) as dispatcher:
        await eventually(lambda: has_ended(pool, first, "completed"))
        (second,) = await add_actions(pool, 1)
        dispatcher.notify()
        await eventually(lambda: has_ended(pool, second, "completed"))


async def test_a_target_that_hangs_does_not_delay_a_healthy_one(pool: Any):
    await add_actions(pool, 2000, target="nft")
    ids = await add_actions(pool, 50, target="points")
    async with standing_in() as nft, standing_in() as points:
        nft.behave = nft.hang
        async with dispatching(
            pool, {"nft": target_at(nft.url), "points": target_at(points.url)}, poll_s=0.5, drain_s=0
        ):
            await eventually(lambda: len(nft.requests) == 20)
            started = time.monotonic()
            await eventually(all_in(pool, "completed", len(ids)), every_s=0.01)
            assert time.monotonic() - started < 2
    assert len(nft.requests) == 20


async def test_no_more_are_on_their_way_than_the_target_takes(pool: Any):
    await add_actions(pool, 60)
    now = most = 0

    async def count(_: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _turn in range(20):
            await asyncio.sleep(0)
        now -= 1
        return web.Response()

    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url, max_inflight=3)}):
        points.behave = count
        await eventually(all_in(pool, "completed", 60))
    assert most == 3


async def test_a_rate_is_kept(pool: Any):
    await add_actions(pool, 30)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url, rate=50)}):
        await eventually(lambda: points.requests)
        started = time.monotonic()
        await eventually(all_in(pool, "completed", 30))
    assert 0.4 < time.monotonic() - started < 3


async def test_retry_after_holds_the_whole_lane(pool: Any):
    await add_actions(pool, 5)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url, max_inflight=1)}):
        points.behave = points.in_turn(answer(429, None, {"Retry-After": "1"}), answer(200))
        await eventually(lambda: points.requests)
        started = time.monotonic()
        await eventually(lambda: len(points.requests) > 1)
        assert time.monotonic() - started > 0.9
        await eventually(all_in(pool, "completed", 5))


async def test_an_action_of_an_unknown_target_is_left_and_told(pool: Any):
    (id,) = await add_actions(pool, 1, target="lottery")
    with capture_logs() as lines:
        async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
            await eventually(lambda: [line for line in lines if line["event"] == "unknown_targets"])
            await add_actions(pool, 3)
            await eventually(all_in(pool, "completed", 3))
    told = [line for line in lines if line["event"] == "unknown_targets"]
    assert [line["targets"] for line in told] == [["lottery"]]
    action = await action_of(pool, id)
    assert (action.status, action.attempts) == ("pending", 0)


async def test_each_attempt_is_one_line_in_the_log(pool: Any):
    (id,) = await add_actions(pool, 1)
    with capture_logs() as lines:
        async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
            points.behave = points.in_turn(answer(403), answer(200))
            await eventually(lambda: has_ended(pool, id, "completed"))
    told = [line for line in lines if line.get("action_id") == str(id)]
    assert [(line["event"], line["n"], line["outcome"], line["status_code"], line["status"]) for line in told] == [
        ("target_misconfigured", 1, "misconfigured", 403, "pending"),
        ("attempt", 2, "completed", 200, "completed"),
    ]
    assert all(line["duration_ms"] > 0 and line["target"] == "points" for line in told)


async def test_stopping_waits_for_answers_and_settles_them(pool: Any):
    ids = await add_actions(pool, 30)
    async with standing_in() as points:
        points.behave = points.hang
        async with dispatching(pool, {"points": target_at(points.url, max_inflight=10)}):
            await eventually(lambda: len(points.requests) == 10)
            asyncio.get_running_loop().call_later(0.3, points.released.set)
    assert await count_of(pool, "completed") == 10
    assert await count_of(pool, "pending") == len(ids) - 10


async def test_stopping_ends_though_a_target_hangs(pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points:
        points.behave = points.hang
        async with dispatching(pool, {"points": target_at(points.url)}, drain_s=0.2):
            await eventually(lambda: points.requests)
            started = time.monotonic()
        assert time.monotonic() - started < 5
        assert (await action_of(pool, id)).status == "dispatched"
        points.behave = answer(200)
        await end_leases(pool)
        async with dispatching(pool, {"points": target_at(points.url)}):
            await eventually(lambda: has_ended(pool, id, "completed"))
    assert points.keys == [str(id)] * 2


async def test_an_address_that_cannot_work_is_told_before_anything_is_claimed(pool: Any):
    with pytest.raises(SettingsError):
        async with dispatching(pool, {"points": Target(url="redis://host/0")}):
            pass
