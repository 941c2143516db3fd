"""Dead events over HTTP: listed, mended, replayed; each message once, and each fact once."""

from typing import Any
from uuid import uuid4

import msgspec

from connect.errors import InvalidEvent, Located
from connect.store.dead_letters import Dead, keep_dead
from tests.api.conftest import EXAMPLE
from tests.serving import Api

DEAD = "/internal/dead-events"


async def bury(api: Api, body: bytes, times: int = 1, **fields: Any) -> str:
    error = InvalidEvent("external_id is missing", errors=[Located("#/external_id", "is missing")])
    given = {"bus": "orders", "kind": "event", "attributes": {}, "error": error} | fields
    async with api.runtime.pool.acquire() as connection:
        for _ in range(times):
            await keep_dead(connection, [Dead(body=body, **given)])
    return (await api.get(DEAD)).json["items"][0]["id"]


async def test_a_message_that_a_broker_gives_again_and_again_is_one_dead_event(api: Api) -> None:
    await bury(api, b"\xff\x00{", times=3)
    [found] = (await api.get(DEAD)).json["items"]
    assert (found["times"], found["body"], found["code"]) == (3, "\ufffd\x00{", "event_invalid")
    assert found["errors"] == [{"pointer": "#/external_id", "detail": "is missing"}]


async def test_a_mended_event_is_replayed_once_and_decided(api: Api) -> None:
    dead = await bury(api, b'{"event_type": "purchase.completed"}')
    refused = await api.post(f"{DEAD}/{dead}/replay")
    assert (refused.status, refused.json["code"]) == (422, "event_invalid")
    assert "external_id" in (await api.get(f"{DEAD}/{dead}")).json["reason"]
    assert (await api.call("PATCH", f"{DEAD}/{dead}", {"event": EXAMPLE, "note": "by hand"})).json["mended_at"]
    replayed = (await api.post(f"{DEAD}/{dead}/replay")).json
    event = (await api.get(f"/internal/events/{replayed['event_id']}")).json
    assert (event["event"]["external_id"], len(event["actions"])) == (EXAMPLE["external_id"], 1)
    assert (await api.get(DEAD)).json["items"] == []
    assert [one["id"] for one in (await api.get(f"{DEAD}?replayed=true")).json["items"]] == [dead]
    again = await api.post(f"{DEAD}/{dead}/replay")
    assert (again.status, event["event"]["id"] in again.json["detail"]) == (409, True)
    assert (await api.call("PATCH", f"{DEAD}/{dead}", {"body": "{}"})).status == 409


async def test_one_that_was_recorded_meanwhile_is_that_event(api: Api) -> None:
    dead = await bury(api, msgspec.json.encode(EXAMPLE))
    event = (await api.post("/internal/events", EXAMPLE)).json["event"]["id"]
    assert (await api.post(f"{DEAD}/{dead}/replay")).json["event_id"] == event
    assert len((await api.get("/internal/reward-actions")).json["items"]) == 1


async def test_other_content_under_a_known_identity_stays_dead(api: Api) -> None:
    event = (await api.post("/internal/events", EXAMPLE)).json["event"]["id"]
    dead = await bury(api, msgspec.json.encode({**EXAMPLE, "actor_user_id": "u9"}))
    refused = await api.post(f"{DEAD}/{dead}/replay")
    assert (refused.status, refused.json["code"], refused.json["event_id"]) == (409, "event_conflict", event)
    assert (await api.get(f"{DEAD}/{dead}")).json["code"] == "event_conflict"


async def test_a_dead_result_is_taken_in_when_its_action_is_there(api: Api) -> None:
    action = (await api.post("/internal/events", EXAMPLE)).json["actions"][0]["id"]
    result = msgspec.json.encode({"action_id": action, "status": "completed", "reference": "0xabc"})
    dead = await bury(api, result, kind="result", bus="points")
    assert (await api.post(f"{DEAD}/{dead}/replay")).status == 409, "it was never sent"
    async with api.runtime.pool.acquire() as connection:
        await connection.execute("UPDATE reward_action SET attempts = 1, status = 'dispatched'")
    assert (await api.post(f"{DEAD}/{dead}/replay")).status == 200
    found = (await api.get(f"/internal/reward-actions/{action}")).json
    assert (found["status"], found["reference"]) == ("completed", "0xabc")


async def test_what_does_not_exist_or_is_no_mend_is_told(api: Api) -> None:
    assert (await api.get(f"{DEAD}/{uuid4()}")).status == 404
    dead = await bury(api, b"{}")
    for wrong in ({}, {"event": {}, "body": ""}, {"event": 1}, {"nonsense": 1}):
        assert (await api.call("PATCH", f"{DEAD}/{dead}", wrong)).status == 422, wrong
