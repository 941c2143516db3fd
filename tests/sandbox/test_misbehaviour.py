"""Every misbehaviour a stand-in target can be told, over real HTTP."""

import json
from typing import Any

import aiohttp
import pytest

from tests.conftest import eventually
from tests.sandbox.caller import Caller, Connect, command


@pytest.mark.parametrize(
    ("fault", "reports"),
    [
        ("accept_and_report_twice", ["completed", "completed"]),
        ("contradict", ["completed", "failed"]),
        ("report_failed", ["failed"]),
    ],
)
@pytest.mark.parametrize("target", ["gateway", "points"])
async def test_any_target_can_be_told_to_report_oddly(
    gateway: Caller, connect: Connect, target: str, fault: str, reports: list[str]
) -> None:
    await gateway.misbehave(fault, target, times=1)
    assert (await gateway.send(command(f"{target}.credit"), target))[0] == 202
    await eventually(lambda: len(connect.reports) == len(reports))
    assert connect.statuses() == reports


async def test_a_forgotten_report_comes_when_it_is_asked_for_again(gateway: Caller, connect: Connect) -> None:
    await gateway.misbehave("accept_and_forget", "gateway", times=1)
    message = command("gateway.transfer", "5")
    assert (await gateway.send(message, "gateway"))[0] == 202
    status, _, headers = await gateway.send(message, "gateway")
    assert (status, headers["Idempotent-Replayed"]) == (202, "true")
    await eventually(lambda: connect.reports)
    assert connect.statuses() == ["completed"]


@pytest.mark.parametrize(
    ("fault", "settings", "status", "effects"),
    [
        ("error", {}, 503, 0),
        ("error", {"status": 422}, 422, 0),
        ("rate_limited", {"retry_after": 7}, 429, 0),
        ("redirect", {}, 307, 0),
        ("unauthorized", {}, 401, 0),
        ("error_after_effect", {"status": 500}, 500, 1),
        ("conflict_after_effect", {}, 409, 1),
        ("slow", {"seconds": 0.05}, 200, 1),
    ],
)
async def test_a_fault_answers_so_and_the_next_try_succeeds(
    caller: Caller, fault: str, settings: dict[str, Any], status: int, effects: int
) -> None:
    await caller.misbehave(fault, times=1, **settings)
    message = command()
    answered, answer, headers = await caller.send(message)
    assert answered == status
    assert len(await caller.effects()) == effects
    if fault == "rate_limited":
        assert headers["Retry-After"] == "7"
    if fault == "conflict_after_effect":
        assert answer == {"id": message["id"], "status": "completed"}
    assert (await caller.send(message))[0] == 200
    assert [effect["n_requests"] for effect in await caller.effects()] == [2]


@pytest.mark.parametrize(("fault", "effects"), [("reset", 0), ("reset_after_effect", 1), ("hang", 0)])
async def test_a_connection_can_be_cut_before_or_after_the_effect(caller: Caller, fault: str, effects: int) -> None:
    await caller.misbehave(fault, times=1, seconds=0.05)
    with pytest.raises(aiohttp.ClientConnectionError):
        await caller.send(command())
    assert len(await caller.effects()) == effects


async def test_garbage_is_a_success_whose_body_cannot_be_read(caller: Caller) -> None:
    await caller.misbehave("garbage", times=1)
    message = command()
    async with caller.session.post(
        f"{caller.url}/points", json=message, headers={"Idempotency-Key": message["id"]}
    ) as reply:
        assert reply.status == 200
        with pytest.raises(ValueError, match=r"decode|Expecting"):
            json.loads(await reply.read())
    assert len(await caller.effects()) == 1


async def test_chance_is_seeded_and_counts_how_often_it_struck(caller: Caller) -> None:
    async def statuses() -> list[int]:
        await caller.misbehave("error", probability=0.4, seed=7)
        answers = [(await caller.send(command()))[0] for _ in range(40)]
        [fault] = (await caller.ask("GET", "/misbehave"))["items"]
        assert fault["fired"] == answers.count(503) > 0
        assert (await caller.ask("DELETE", "/misbehave?target=points"))["items"] == []
        return answers

    assert await statuses() == await statuses()


async def test_a_fault_strikes_only_its_target_and_what_it_matches(caller: Caller) -> None:
    await caller.ask("POST", "/misbehave", [{"target": "*", "fault": "error", "match": '"poison"'}])
    await caller.misbehave("unauthorized", "nft")
    assert (await caller.send(command()))[0] == 200
    assert (await caller.send(command(user_id="poison")))[0] == 503
    assert (await caller.send(command("nft.mint", "1"), "nft"))[0] == 401


async def test_an_unknown_fault_or_setting_is_refused(caller: Caller) -> None:
    for path, body in (
        ("/misbehave", {"target": "points", "fault": "explode"}),
        ("/misbehave", {"target": "points", "fault": "error", "time": 3}),
        ("/misbehave", [1]),
        ("/settings", {"connect": "http://x"}),
        ("/settings", []),
    ):
        async with caller.session.post(caller.url + path, json=body) as reply:
            assert reply.status == 422, path
