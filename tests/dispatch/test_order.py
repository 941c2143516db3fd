"""`order_by = "user"`: a user's commands one at a time, in the order they were given, whatever happens to them."""

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web

from connect.dispatch.operating import operate
from connect.dispatch.results import report_result
from connect.engine.index import Rulebook
from connect.model import ResultReport, Ruleset
from connect.store import claims, order
from tests.conftest import eventually
from tests.dispatch.stand_in import action_of, add_actions, count_of, dispatching, end_leases, has_ended, standing_in
from tests.dispatch.stand_in import target_at as at

ORDERED = ["points"]
NO_RULES = Rulebook.compile(0, Ruleset(), {})


async def given(pool: Any, count: int, **columns: Any) -> list[UUID]:
    """Actions that entered their user's lane in this order."""
    async with pool.acquire() as connection, connection.transaction():
        ids = await add_actions(connection, count, **columns)
        await order.enter(connection, ids, ORDERED)
    return ids


async def statuses(pool: Any, ids: list[UUID]) -> list[str]:
    return [(await action_of(pool, id)).status for id in ids]


class Witness:
    """A target that keeps which commands are with it at once, and in which order each user's were done."""

    def __init__(self, users: dict[str, str], rng: Random) -> None:
        self.users, self.rng = users, rng
        self.within: dict[str, set[str]] = defaultdict(set)
        self.done: dict[str, list[str]] = defaultdict(list)
        self.together: list[set[str]] = []

    async def behave(self, request: web.Request) -> web.StreamResponse:
        key = msgspec.json.decode(await request.read())["id"]
        user = self.users[key]
        self.within[user].add(key)
        if len(self.within[user]) > 1:
            self.together.append(set(self.within[user]))
        for _ in range(self.rng.randint(0, 50)):
            await asyncio.sleep(0)
        self.within[user].discard(key)
        if self.rng.random() < 0.3:
            return web.Response(status=self.rng.choice([500, 503, 429]))
        if self.rng.random() < 0.1:
            return web.Response(status=422)
        if key not in self.done[user]:
            self.done[user].append(key)
        return web.json_response({})


async def test_four_dispatchers_with_failures_between_keep_every_users_order(pool: Any):
    users, expected = dict[str, str](), dict[str, list[str]]()
    for user in (f"u{n}" for n in range(12)):
        expected[user] = [str(id) for id in await given(pool, 12, user_id=user)]
        users |= dict.fromkeys(expected[user], user)
    witness = Witness(users, Random(7))
    async with standing_in() as points, AsyncExitStack() as running:
        points.behave = witness.behave
        for _ in range(4):
            await running.enter_async_context(dispatching(pool, {"points": at(points.url, order_by="user")}))
        await eventually(lambda: _all_ended(pool), timeout_s=60)
    assert witness.together == []
    for user, done in witness.done.items():
        assert done == [key for key in expected[user] if key in done], user
    assert await count_of(pool, "completed") + await count_of(pool, "failed") == 144
    assert await count_of(pool, "failed") > 0, "void: nothing was refused in between"


async def _all_ended(pool: Any) -> bool:
    return await pool.fetchval("SELECT count(*) FROM reward_action WHERE status NOT IN ('completed', 'failed')") == 0


async def test_only_the_head_is_due_and_other_users_do_not_wait(pool: Any):
    mine, others = await given(pool, 3), await given(pool, 1, user_id="u2")
    assert await statuses(pool, [*mine, *others]) == ["pending", "blocked", "blocked", "pending"]
    free = await add_actions(pool, 1, target="nft")
    async with pool.acquire() as connection, connection.transaction():
        await order.enter(connection, free, ORDERED)
    assert await statuses(pool, free) == ["pending"], "this target has no order"


async def test_held_actions_and_those_that_await_approval_block_nobody(pool: Any):
    later = datetime.now(UTC) + timedelta(hours=1)
    held = await given(pool, 1, hold_until=later, due_at=later)
    awaiting = await given(pool, 1, status="awaiting_approval", due_at=None)
    [head] = await given(pool, 1)
    assert await statuses(pool, [*held, *awaiting, head]) == ["pending", "awaiting_approval", "pending"]
    async with pool.acquire() as connection:
        await operate(connection, NO_RULES, "approve", awaiting[0], actor="ops")
    assert await statuses(pool, awaiting) == ["blocked"], "approved, it goes behind"


async def test_a_result_that_comes_later_lets_the_next_go_on(pool: Any):
    first, second = await given(pool, 2)
    async with standing_in() as points:
        terms = {"points": claims.LaneClaim(slots=9, target=at(points.url))}
        assert [one.id for one in await claims.claim(pool, terms)] == [first]
    async with pool.acquire() as connection:
        await report_result(connection, first, ResultReport(status="failed", reason="no"), None)
    assert await statuses(pool, [first, second]) == ["failed", "pending"]


async def test_a_cancelled_head_lets_the_next_go_on_and_a_retried_one_goes_behind(pool: Any):
    first, second, third = await given(pool, 3)
    async with pool.acquire() as connection:
        await operate(connection, NO_RULES, "cancel", first, actor="ops")
    assert await statuses(pool, [first, second, third]) == ["cancelled", "pending", "blocked"]
    await pool.execute(
        "UPDATE reward_action SET status = 'failed', failure = 'refused', due_at = NULL, attempts = 1 WHERE id = $1",
        second,
    )
    async with pool.acquire() as connection:
        await order.leave(connection, [second])
        again = await operate(connection, NO_RULES, "retry", second, actor="ops")
    assert again.status == "blocked"
    assert await statuses(pool, [second, third]) == ["blocked", "pending"]
    async with standing_in() as points, dispatching(pool, {"points": at(points.url)}):
        await eventually(lambda: has_ended(pool, second, "completed"))
    assert points.keys == [str(third), str(second)]


async def test_a_process_that_died_between_an_end_and_telling_it_is_mended(pool: Any):
    first, second = await given(pool, 2)
    await pool.execute(
        "UPDATE reward_action SET status = 'completed', due_at = NULL, completed_at = now() WHERE id = $1", first
    )
    async with standing_in() as points, dispatching(pool, {"points": at(points.url)}):
        await eventually(lambda: has_ended(pool, second, "completed"))


async def test_one_that_is_given_up_lets_the_next_go_on(pool: Any):
    first, second = await given(pool, 2)
    async with standing_in() as points:
        points.behave = points.hang
        async with dispatching(pool, {"points": at(points.url, order_by="user")}, drain_s=0):
            await eventually(lambda: has_ended(pool, first, "dispatched"))
        await end_leases(pool)
        await pool.execute("UPDATE reward_action SET give_up_at = now() WHERE id = $1", first)
        points.released.set()
        async with dispatching(pool, {"points": at(points.url, order_by="user")}):
            await eventually(lambda: has_ended(pool, second, "completed"))
    assert (await action_of(pool, first)).failure == "exhausted"


async def test_many_who_enter_and_leave_at_once_keep_one_head_a_lane(pool: Any):
    ids = await given(pool, 1)

    async def give(number: int) -> None:
        ids.extend(await given(pool, 1, user_id=f"u{number % 3}"))

    async with standing_in() as points, dispatching(pool, {"points": at(points.url)}, housekeeping_s=60):
        for _ in range(10):
            await asyncio.gather(*(give(number) for number in range(9)))
        await eventually(lambda: _all_ended(pool), timeout_s=20)
    assert len(points.keys) == len(set(points.keys)) == 91
