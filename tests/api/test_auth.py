"""Every route of the OpenAPI against every kind of credential; keys bound to a source or a target; revocation."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from connect.model import Scope
from connect.store.keys import create_key, revoke_key
from tests.api.conftest import EXAMPLE
from tests.conftest import eventually
from tests.serving import Api

SCOPES = Scope.__args__  # type: ignore[attr-defined]


async def make_key(api: Api, *scopes: str, **bound: Any) -> tuple[Api, Any]:
    async with api.runtime.pool.acquire() as connection:
        key, secret = await create_key(connection, "test", scopes, source=bound.pop("source", None), **bound)
    return api.with_key(secret), key


async def operations(api: Api) -> list[tuple[str, str, str]]:
    """(method, a concrete path, the scope it says it needs) of every route that needs a credential."""
    document = (await api.get("/openapi.json")).json
    found = []
    for path, item in document["paths"].items():
        concrete = re.sub(r"\{(event|action|job)_id\}", str(uuid4()), path)
        concrete = (
            concrete.replace("{key}", "nothing")
            .replace("{name}", "nothing")
            .replace("{dead_id}", str(uuid4()))
            .replace("{version}", "999")
            .replace("{operation}", "retry")
            .replace("{code}", "invalid")
        )
        for method, operation in item.items():
            if "security" in operation:
                scope = operation["description"].rpartition("Scope: `")[2].rstrip("`")
                found.append((method.upper(), concrete, scope))
    return found


async def test_every_route_refuses_no_credential_a_wrong_one_and_one_without_its_scope(api: Api) -> None:
    routes = await operations(api)
    assert len(routes) >= 25
    wrong = api.with_key("ck_wrong")
    nobody = api.with_key(None)
    for method, path, scope in routes:
        others, _ = await make_key(api, *(each for each in SCOPES if each not in {scope, "admin"}))
        assert (await nobody.call(method, path)).status == 401, (method, path)
        assert (await wrong.call(method, path)).status == 401, (method, path)
        refused = await others.call(method, path)
        assert (refused.status, refused.json["code"]) == (403, "scope_missing"), (method, path)


async def test_every_route_lets_its_own_scope_and_admin_in(api: Api) -> None:
    for method, path, scope in await operations(api):
        for holder in (scope, "admin"):
            allowed, _ = await make_key(api, holder)
            assert (await allowed.call(method, path)).status not in {401, 403}, (method, path, holder)


async def test_routes_without_a_credential_tell_nothing_of_the_economy(api: Api) -> None:
    document = (await api.get("/openapi.json")).json
    public = {
        path for path, item in document["paths"].items() for operation in item.values() if "security" not in operation
    }
    assert public == {"/healthz", "/readyz", "/metrics", "/problems/{code}"}


async def test_a_key_bound_to_a_source_reports_reads_and_lists_its_own_events_only(api: Api) -> None:
    foreign = (await api.post("/internal/events", EXAMPLE)).json
    bound, _ = await make_key(api, "events:write", "events:read", "actions:read", "actions:operate", source="till")
    mismatch = await bound.post("/internal/events", {**EXAMPLE, "external_id": "t1"})
    assert (mismatch.status, mismatch.json["code"]) == (403, "source_mismatch")
    own = await bound.post("/internal/events", {name: value for name, value in EXAMPLE.items() if name != "source"})
    assert (own.status, own.json["event"]["source"]) == (201, "till")
    assert [item["source"] for item in (await bound.get("/internal/events?source=shop")).json["items"]] == ["till"]
    for path in ("", "/trace"):
        assert (await bound.get(f"/internal/events/{foreign['event']['id']}{path}")).status == 404
    assert (await bound.post(f"/internal/events/{foreign['event']['id']}/replay")).status == 404
    foreign_action = foreign["actions"][0]["id"]
    assert (await bound.get(f"/internal/reward-actions/{foreign_action}")).status == 404
    assert (await bound.post(f"/internal/reward-actions/{foreign_action}/cancel")).status == 404
    listed = (await bound.get("/internal/reward-actions")).json["items"]
    assert [item["id"] for item in listed] == [own.json["actions"][0]["id"]]
    counted = await bound.post("/internal/reward-actions/cancel", {"filter": {"status": "pending"}, "dry_run": True})
    assert counted.json == {"matched": 1}


async def test_a_key_bound_to_a_target_reports_results_of_its_actions_only(api: Api) -> None:
    action = (await api.post("/internal/events", EXAMPLE)).json["actions"][0]["id"]
    other, _ = await make_key(api, "results:write", target="nft")
    refused = await other.post(f"/internal/reward-actions/{action}/result", {"status": "completed"})
    assert (refused.status, refused.json["code"]) == (403, "target_mismatch")


async def test_history_needs_a_scope_of_its_own(api: Api) -> None:
    reporter, _ = await make_key(api, "events:write")
    assert (await reporter.post("/internal/events", EXAMPLE)).status == 201
    assert (await reporter.post("/internal/events?effects=none", {**EXAMPLE, "external_id": "h1"})).status == 403


async def test_a_revoked_or_expired_key_stops_working_within_ten_seconds(api: Api) -> None:
    reader, key = await make_key(api, "events:read")
    expired, _ = await make_key(api, "events:read", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await reader.get("/internal/events")).status == 200
    assert (await expired.get("/internal/events")).status == 401
    async with api.runtime.pool.acquire() as connection:
        await revoke_key(connection, key.id)

    async def refused() -> bool:
        return (await reader.get("/internal/events")).status == 401

    await eventually(refused, timeout_s=10)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 5000, "bearer ck_\u00e9"])
async def test_a_malformed_credential_is_401(api: Api, header: str) -> None:
    reply = await api.with_key(None).get("/internal/events", Authorization=header)
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="connect"')


async def test_many_guesses_at_once_stay_401(api: Api) -> None:
    replies = await asyncio.gather(*(api.with_key(f"ck_{n}").get("/internal/events") for n in range(100)))
    assert {reply.status for reply in replies} == {401}
