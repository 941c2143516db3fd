"""Reporting facts over HTTP, as the contract says and as hostile clients do."""

import asyncio
from typing import Any

import msgspec
import pytest

from connect.intake.backlog import Backlog
from tests.api.conftest import EXAMPLE
from tests.conftest import eventually
from tests.serving import KEY, Api, serving


def event(external_id: str, **fields: Any) -> dict[str, Any]:
    return {**EXAMPLE, "external_id": external_id, **fields}


async def test_the_contracts_example_earns_its_cashback(api: Api) -> None:
    reply = await api.post("/internal/events", EXAMPLE)
    assert reply.status == 201
    body = reply.json
    assert reply.headers["Location"] == f"/internal/events/{body['event']['id']}"
    assert (body["duplicate"], body["warnings"]) == (False, [])
    [action] = body["actions"]
    assert (action["user_id"], action["amount"], action["unit"], action["target"], action["status"]) == (
        "u1",
        "259",
        "points",
        "points",
        "pending",
    )
    assert body["event"] == {
        **EXAMPLE,
        **{name: body["event"][name] for name in ("id", "received_at", "decided_at", "ruleset_version")},
        "status": "decided",
        "effects": "all",
        "extensions": {},
        "occurred_at_reported": True,
    }


async def test_a_repeat_answers_the_stored_event_and_its_actions(api: Api) -> None:
    first = (await api.post("/internal/events", EXAMPLE)).json
    reply = await api.post("/internal/events", EXAMPLE)
    assert (reply.status, reply.json["duplicate"]) == (200, True)
    assert reply.json["event"] == first["event"]
    assert [action["id"] for action in reply.json["actions"]] == [action["id"] for action in first["actions"]]


async def test_other_content_is_a_conflict_that_names_the_stored_event(api: Api) -> None:
    first = (await api.post("/internal/events", EXAMPLE)).json
    reply = await api.post("/internal/events", event("order-1001", actor_user_id="u9"))
    assert (reply.status, reply.headers["Content-Type"].split(";")[0]) == (409, "application/problem+json")
    assert (reply.json["code"], reply.json["event_id"], reply.json["type"]) == (
        "event_conflict",
        first["event"]["id"],
        "/problems/event_conflict",
    )
    assert (await api.get("/problems/event_conflict")).status == 200


async def test_fifty_reports_at_once_to_two_servers_make_one_set_of_actions(api: Api, database_url: str) -> None:
    async with serving(database_url, event_age_max_days=0) as other:
        await eventually(lambda: other.runtime.rules.rulebook.version)
        replies = await asyncio.gather(*((api, other)[n % 2].post("/internal/events", EXAMPLE) for n in range(50)))
    assert sorted(reply.status for reply in replies) == [200] * 49 + [201]
    assert len({reply.json["actions"][0]["id"] for reply in replies}) == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "not_json"),
        (b"{", {}, 400, "not_json"),
        (b'{"extra":', {}, 400, "not_json"),
        (b'{"external_id":5,}', {}, 400, "not_json"),
        (b"[]", {}, 422, "event_invalid"),
        (b"{}", {}, 422, "event_invalid"),
        (b'{"external_id":"a","event_type":"x","extra":1}', {}, 422, "event_invalid"),
        (b'{"external_id":"a","event_type":"x","context":{"a":"\\u0000"}}', {}, 422, "event_invalid"),
        (b'{"external_id":"a","event_type":"x","context":{"a":1e1000000}}', {}, 422, "event_invalid"),
        (b'{"external_id":"a","event_type":"x","context":{"a":18446744073709551616}}', {}, 422, "event_invalid"),
        (b'{"external_id":"a","event_type":"x","occurred_at":"2999-01-01T00:00:00Z"}', {}, 422, "event_in_future"),
        (b'{"external_id":"a","event_type":"x"}', {"Content_Type": "text/plain"}, 415, "media_type_refused"),
        (b'{"external_id":"a","event_type":"x"}', {"Content_Encoding": "gzip"}, 415, "media_type_refused"),
        (b'{"external_id":"' + b"x" * 262144 + b'"}', {}, 413, "body_too_large"),
        (
            b'{"external_id":"a","event_type":"x","context":{"a":' + b"[" * 4000 + b"]" * 4000 + b"}}",
            {},
            422,
            "event_invalid",
        ),
    ],
)
async def test_hostile_input_is_told_what_is_wrong_and_burns_no_identity(
    api: Api, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    reply = await api.post("/internal/events", raw=body, **headers)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert (await api.get("/internal/events")).json["items"] == []


async def test_an_old_event_is_refused_unless_it_is_history(database_url: str) -> None:
    async with serving(database_url) as api:
        old = event("old", occurred_at="2020-01-01T00:00:00Z")
        refused = await api.post("/internal/events", old)
        assert (refused.status, refused.json["code"]) == (422, "event_too_old")
        history = await api.post("/internal/events?effects=none", old)
        assert (history.status, history.json["actions"], history.json["event"]["effects"]) == (201, [], "none")


async def test_a_client_may_ask_not_to_wait_for_the_decision(api: Api) -> None:
    reply = await api.post("/internal/events", EXAMPLE, Prefer="respond-async")
    assert (reply.status, reply.headers["Preference-Applied"]) == (202, "respond-async")
    assert "actions" not in reply.json
    shown = (await api.get(reply.headers["Location"])).json
    assert (shown["event"]["status"], shown["actions"]) == ("received", [])


@pytest.mark.parametrize(
    ("preference", "applied"), [("respond-async", True), ("wait=10, Respond-Async", True), ("return=minimal", False)]
)
async def test_only_a_preference_that_was_stated_is_said_to_be_applied(
    database_url: str, preference: str, applied: bool
) -> None:
    async with serving(database_url, event_age_max_days=0, processing="queued") as api:
        reply = await api.post("/internal/events", EXAMPLE, Prefer=preference)
    assert (reply.status, "Preference-Applied" in reply.headers) == (202, applied)


async def test_a_mistyped_type_is_told_the_nearest_known_one(api: Api) -> None:
    reply = await api.post("/internal/events", event("e1", event_type="purchase.complete"))
    assert reply.status == 201
    [warning] = reply.json["warnings"]
    assert (warning["code"], warning["nearest"]) == ("no_rule_for_type", "purchase.completed")


async def test_a_missing_field_is_told_with_its_rule_and_line(api: Api) -> None:
    reply = await api.post("/internal/events", event("e1", context={"currency": "EUR"}))
    [warning] = reply.json["warnings"]
    assert (warning["code"], warning["rule"], warning["line"], warning["field"]) == (
        "field_missing",
        "cashback-2",
        2,
        "context.amount_minor",
    )


async def test_events_are_found_by_what_a_rule_made_of_them(api: Api) -> None:
    for n, amount in enumerate([5000, 5000, 200, 200]):
        await api.post(
            "/internal/events",
            event(f"e{n}", actor_user_id=f"u{n % 2}", context={"currency": "EUR", "amount_minor": amount}),
        )

    async def found(query: str) -> list[str]:
        reply = await api.get(f"/internal/events?{query}")
        assert reply.status == 200, reply.json
        return sorted(item["external_id"] for item in reply.json["items"])

    assert await found("rule=cashback-2") == ["e0", "e1", "e2", "e3"]
    assert await found("rule=cashback-2&outcome=gave") == ["e0", "e1"]
    assert await found("rule=cashback-2&outcome=not_matched&actor_user_id=u1") == ["e3"]
    assert await found("rule=cashback-2&outcome=not_matched&outcome=gave") == ["e0", "e1", "e2", "e3"]
    assert await found("rule=nobody-knows&outcome=gave") == []
    for query in ("outcome=gave", "rule=cashback-2&outcome=generous"):
        reply = await api.get(f"/internal/events?{query}")
        assert (reply.status, reply.json["errors"][0]["pointer"][:9]) == (422, "#/outcome")


async def test_the_trace_says_which_line_failed_on_what_value(api: Api) -> None:
    reply = await api.post("/internal/events", event("e1", context={"currency": "USD", "amount_minor": 5000}))
    [rule] = (await api.get(f"{reply.headers['Location']}/trace")).json["rules"]
    assert (rule["rule"], rule["outcome"], rule["line"], rule["text"]) == (
        "cashback-2",
        "not_matched",
        1,
        'context.currency == "EUR"',
    )
    assert rule["values"] == {"context.currency": "USD"}


async def test_a_batch_answers_each_item_in_order(api: Api) -> None:
    batch = [
        event("b1"),
        event("b1"),
        event("b1", actor_user_id="other"),
        {"external_id": "b2"},
        event("b3", event_type="other"),
    ]
    reply = await api.post("/internal/events/batch", batch)
    assert reply.status == 200
    results = reply.json["results"]
    assert [result["status"] for result in results] == ["created", "duplicate", "conflict", "invalid", "created"]
    assert [result["actions"] for result in results] == [1, 1, 0, 0, 0]
    assert [result["external_id"] for result in results] == ["b1", "b1", "b1", "b2", "b3"]
    assert {name: reply.json[name] for name in ("created", "duplicate", "conflict", "invalid", "unavailable")} == {
        "created": 2,
        "duplicate": 1,
        "conflict": 1,
        "invalid": 1,
        "unavailable": 0,
    }


async def test_a_batch_comes_wrapped_or_as_lines_too(api: Api) -> None:
    wrapped = await api.post("/internal/events/batch", {"events": [event("w1")]})
    said = [msgspec.json.encode(event(name, **more)) for name, more in (("n1", {}), ("n2", {"event_type": "no type"}))]
    lines = b"\n".join([said[0], b"not json", b"", said[1], msgspec.json.encode(event("n3"))])
    ndjson = await api.post("/internal/events/batch", raw=lines, Content_Type="application/x-ndjson")
    assert wrapped.json["created"] == 1
    assert [(result["external_id"], result["status"]) for result in ndjson.json["results"]] == [
        ("n1", "created"),
        (None, "invalid"),
        ("n2", "invalid"),
        ("n3", "created"),
    ]


async def test_a_batch_that_is_too_large_or_no_list_is_refused_whole(api: Api) -> None:
    assert (await api.post("/internal/events/batch", [{}] * 1001)).status == 413
    assert (await api.post("/internal/events/batch", raw=b" " * (4 * 1024 * 1024 + 1))).status == 413
    assert (await api.post("/internal/events/batch", {"event": []})).status == 422
    assert (await api.post("/internal/events/batch", [])).json["results"] == []


async def test_cloudevents_come_structured_batched_and_binary(api: Api) -> None:
    data = {name: EXAMPLE[name] for name in ("actor_user_id", "context")}
    attributes = {"specversion": "1.0", "id": "c1", "source": "shop", "type": "purchase.completed"}
    structured = await api.post(
        "/internal/events",
        raw=msgspec.json.encode({**attributes, "traceparent": "x", "data": data}),
        Content_Type="application/cloudevents+json; charset=utf-8",
    )
    batched = await api.post(
        "/internal/events",
        raw=msgspec.json.encode([{**attributes, "id": "c2", "data": data}, {"id": "bad"}]),
        Content_Type="application/cloudevents-batch+json",
    )
    binary = await api.post(
        "/internal/events", data, ce_specversion="1.0", ce_id="c1", ce_source="shop", ce_type="purchase.completed"
    )
    assert (structured.status, structured.json["event"]["extensions"]) == (201, {"traceparent": "x"})
    assert [result["status"] for result in batched.json["results"]] == ["created", "invalid"]
    assert (binary.status, binary.json["duplicate"]) == (200, True)


async def test_lists_are_paged_newest_first_and_filtered(api: Api) -> None:
    await api.post("/internal/events/batch", [event(f"e{n}", actor_user_id=f"u{n % 2}") for n in range(7)])
    seen: list[str] = []
    path = "/internal/events?limit=3&actor_user_id=u0&actor_user_id=u1"
    page: dict[str, Any] = {"next_cursor": ""}
    while page["next_cursor"] is not None:
        page = (await api.get(path + (f"&cursor={page['next_cursor']}" if page["next_cursor"] else ""))).json
        seen += [item["external_id"] for item in page["items"]]
    assert sorted(seen) == [f"e{n}" for n in range(7)]
    assert len((await api.get("/internal/events?actor_user_id=u1")).json["items"]) == 3
    assert len((await api.get("/internal/events?external_id=e3&source=shop")).json["items"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=nonsense",
        "since=yesterday",
        "colour=red",
        "status=odd",
        "event_type=%00",
    ],
)
async def test_a_wrong_query_is_told(api: Api, query: str) -> None:
    assert (await api.get(f"/internal/events?{query}")).status in {400, 422}


async def test_bulk_replay_counts_first_and_refuses_another_count(api: Api) -> None:
    await api.post("/internal/events/batch", [event(f"e{n}") for n in range(5)])
    chosen = {"filter": {"source": ["shop"]}}
    assert (await api.post("/internal/events/replay", {**chosen, "dry_run": True})).json == {"matched": 5}
    alone = {"filter": {"source": "shop", "status": "decided"}}
    assert (await api.post("/internal/events/replay", {**alone, "dry_run": True})).json == {"matched": 5}
    changed = await api.post("/internal/events/replay", {**chosen, "expect": 4})
    assert (changed.status, changed.json["matched"]) == (409, 5)
    assert (await api.post("/internal/events/replay", {**chosen, "expect": 5})).json["replayed"] == 5
    assert (await api.post("/internal/events/replay", {"filter": {}, "dry_run": True})).status == 422
    assert len((await api.get("/internal/reward-actions")).json["items"]) == 5


async def test_a_replay_is_refused_while_a_counter_is_built_and_not_a_moment_longer(api: Api) -> None:
    path = f"/internal/events/{(await api.post('/internal/events', EXAMPLE)).json['event']['id']}/replay"
    rules = {"version": 1, "counters": {"orders": {"event_type": "purchase.completed", "of": "actor", "kind": "count"}}}
    assert (await api.call("PUT", "/internal/ruleset", rules)).status == 200
    assert (await api.post(path)).status == 409
    async with api.runtime.pool.acquire() as connection:
        await connection.execute("UPDATE counter SET status = 'live', live_at = now()")
    assert (await api.post(path)).status == 200


async def test_a_flood_over_the_queue_is_shed_with_a_word_on_when_to_come_back(database_url: str) -> None:
    async with serving(database_url, queue_max=1) as api:
        reply = await api.post("/internal/events/batch", [event(f"e{n}") for n in range(2)])
    assert (reply.status, reply.headers["Retry-After"], reply.json["code"]) == (503, "1", "overloaded")


async def test_a_key_may_make_so_many_requests_a_second(database_url: str) -> None:
    async with serving(database_url, rate_per_key=5) as api:
        replies = await asyncio.gather(*(api.get("/internal/events") for _ in range(20)))
    limited = [reply for reply in replies if reply.status == 429]
    assert len(limited) >= 10
    assert limited[0].headers["Retry-After"] == "1"


async def test_no_secret_is_ever_answered(api: Api) -> None:
    for path in ("/metrics", "/openapi.json", "/internal/rules", "/readyz"):
        assert KEY.encode() not in (await api.get(path)).body


async def test_whoever_waits_for_an_undecided_event_is_answered_when_it_is_decided(api: Api) -> None:
    reported = await api.post("/internal/events", EXAMPLE, Prefer="respond-async")
    place = reported.headers["Location"]
    assert (await api.get(f"{place}?wait=0.1")).json["event"]["status"] == "received"
    waiting = asyncio.create_task(api.get(f"{place}?wait=20"))
    await Backlog(api.runtime.pool, api.runtime.rules).tick()
    body = (await waiting).json
    assert (body["event"]["status"], [action["amount"] for action in body["actions"]]) == ("decided", ["259"])
    assert (await api.get(f"{place}?wait=31")).status == 422


@pytest.mark.parametrize(("processing", "decided"), [("respond-sync", True), ("respond-async", False)])
async def test_a_batch_says_of_each_event_whether_it_is_decided(api: Api, processing: str, decided: bool) -> None:
    reply = await api.post("/internal/events/batch", [EXAMPLE], Prefer=processing)
    [result] = reply.json["results"]
    assert (result["status"], result["decided"]) == ("created", decided)
