"""Many commands in one POST: each answered on its own, and none harmed by its neighbours."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from aiohttp import web

from connect.dispatch.command import sign, signing_key
from connect.dispatch.targets import open_transport
from connect.lifecycle import Accepted, Completed, Misconfigured, Outcome, Refused, Retriable
from connect.model import ClaimedCommand
from tests.conftest import eventually
from tests.dispatch.stand_in import add_actions, body_of, command, count_of, dispatching, standing_in, target_at

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def commands(count: int) -> list[ClaimedCommand]:
    return [command(id=id, body=body_of(id)) for id in (uuid4() for _ in range(count))]


async def sent(batch: list[ClaimedCommand], behave: Callable[..., Awaitable[Any]]) -> tuple[list[Outcome], Any]:
    async with standing_in() as points:
        points.behave = behave
        transport = open_transport(target_at(points.url, batch=100, secret=(SECRET,)))
        answers = await transport.send(batch)
        await transport.close()
        return [answer.outcome for answer in answers], points


def results(*items: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.json_response({"results": items})

    return behave


async def test_one_post_carries_each_commands_own_bytes_and_is_signed_whole():
    batch = commands(3)
    outcomes, points = await sent(batch, results(*({"id": str(one.id), "status": "completed"} for one in batch)))
    assert outcomes == [Completed()] * 3
    [(key, body, headers)] = points.requests
    assert body.decode() == '{"commands":[' + ",".join(one.body for one in batch) + "]}"
    signed = sign(signing_key(SECRET), headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert (headers["webhook-id"], headers["webhook-signature"]) == (key, signed)


async def test_each_command_comes_to_what_is_said_of_it():
    batch = commands(7)
    ids = [str(one.id) for one in batch]
    outcomes, _ = await sent(
        batch,
        results(
            {"id": ids[0], "status": "completed", "reference": "0xabc"},
            {"id": ids[6].upper(), "status": "completed", "reference": 42},
            {"id": ids[2], "status": "failed", "reason": "no such user"},
            {"id": ids[1], "status": "accepted"},
            {"id": ids[3], "status": "retry", "reason": "busy"},
            {"id": ids[4], "status": "done"},
            {"id": str(uuid4()), "status": "failed"},
            {"status": "failed"},
        ),
    )
    assert outcomes[:3] == [Completed("0xabc"), Accepted(), Refused("no such user")]
    assert outcomes[3] == Retriable("busy", alive=True)
    assert isinstance(outcomes[4], Misconfigured)
    assert outcomes[5] == Retriable("HTTP 200 says nothing of this command")
    assert outcomes[6] == Completed("42")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [(200, b"", Misconfigured), (204, b"", Misconfigured), (200, b'{"results": 1}', Misconfigured),
     (202, b"", Accepted), (500, b"", Retriable), (429, b"", Retriable), (404, b"", Misconfigured),
     (200, b"[" * 9000, Misconfigured)],
)  # fmt: skip
async def test_an_answer_to_the_whole_is_every_commands(status: int, body: bytes, expected: type[Outcome]):
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    outcomes, points = await sent(commands(4), behave)
    assert [type(outcome) for outcome in outcomes] == [expected] * 4
    assert len(points.requests) == 1


async def test_a_command_that_the_target_refuses_does_not_take_its_neighbours_along():
    batch = commands(10)
    poison = str(batch[3].id)

    async def behave(request: web.Request) -> web.StreamResponse:
        ids = [one["id"] for one in (await request.json())["commands"]]
        if poison in ids:
            return web.json_response({"reason": f"{poison} is malformed"}, status=422)
        return web.json_response({"results": [{"id": id, "status": "completed"} for id in ids]})

    outcomes, points = await sent(batch, behave)
    assert [isinstance(outcome, Completed) for outcome in outcomes] == [n != 3 for n in range(10)]
    assert isinstance(outcomes[3], Refused)
    assert len(points.requests) == 11


async def test_a_lane_sends_what_is_due_in_few_posts(pool: Any):
    await add_actions(pool, 250)

    async def behave(request: web.Request) -> web.StreamResponse:
        ids = [one["id"] for one in (await request.json())["commands"]]
        return web.json_response({"results": [{"id": id, "status": "completed"} for id in ids]})

    async with standing_in() as points:
        points.behave = behave
        async with dispatching(pool, {"points": target_at(points.url, batch=100)}):
            await eventually(lambda: _completed(pool, 250))
        assert len(points.requests) == 3
        sizes = [len(msgspec.json.decode(body)["commands"]) for _, body, _ in points.requests]
        assert sorted(sizes) == [50, 100, 100]
        assert all(UUID(key) for key in points.keys)


async def _completed(pool: Any, count: int) -> bool:
    return await count_of(pool, "completed") == count
