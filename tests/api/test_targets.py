"""Targets over HTTP: how they stand, pause and resume, and sending again what failed since a moment."""

from typing import Any

from tests.api.conftest import EXAMPLE
from tests.serving import Api

TARGETS = "/internal/targets"
FAIL = """
UPDATE reward_action SET status = 'failed', failure = 'exhausted', due_at = NULL, attempts = 3, completed_at = now()
"""


async def fail_all(api: Api) -> None:
    async with api.runtime.pool.acquire() as connection:
        await connection.execute(FAIL)


def row(answer: Any, name: str = "points") -> Any:
    return next(one for one in answer["items"] if one["name"] == name)


async def test_a_target_that_actions_wait_for_is_shown_though_no_setting_names_it(api: Api) -> None:
    await api.post("/internal/events", EXAMPLE)
    points = row((await api.get(TARGETS)).json)
    assert (points["configured"], points["status"], points["due"], points["failed"]) == (False, "closed", 1, 0)


async def test_pause_and_resume_say_who_and_are_done_once(api: Api) -> None:
    await api.post("/internal/events", EXAMPLE)
    for _ in range(2):
        paused = (await api.post(f"{TARGETS}/points/pause", {"note": "deploy"})).json
        assert (paused["status"], paused["paused_by"]) == ("paused", "bootstrap")
    assert (await api.post(f"{TARGETS}/points/resume")).json["status"] == "closed"
    assert (await api.post(f"{TARGETS}/points/resume")).json["paused_at"] is None
    async with api.runtime.pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit WHERE subject = 'target/points'") == 2


async def test_what_failed_since_a_moment_is_counted_and_then_sent_again(api: Api) -> None:
    for number in range(3):
        await api.post("/internal/events", {**EXAMPLE, "external_id": f"order-{number}"})
    await fail_all(api)
    path, since = f"{TARGETS}/points/recover", {"since": "2020-01-01T00:00:00Z"}
    assert (await api.post(path, {"since": "2100-01-01T00:00:00Z", "dry_run": True})).json == {"matched": 0}
    assert (await api.post(path, {**since, "dry_run": True})).json == {"matched": 3}
    assert (await api.post(path, since)).status == 422
    assert (await api.post(path, {**since, "expect": 2})).status == 409
    assert (await api.post(path, {**since, "expect": 3})).json == {"matched": 3}
    assert row((await api.get(TARGETS)).json)["due"] == 3


async def test_an_unknown_target_is_told_with_the_known_ones(api: Api) -> None:
    await api.post("/internal/events", EXAMPLE)
    reply = await api.post(f"{TARGETS}/poinst/pause")
    assert (reply.status, "points" in reply.json["detail"]) == (404, True)
