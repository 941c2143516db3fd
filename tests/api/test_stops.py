"""A stop stands until somebody lets the rule give again, and whoever does is told whose stop that was."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.serving import Api, serving

RULES = """
version: 1
units: { points: {} }
rules:
  - key: cashback
    event_type: purchase.completed
    limits: [ { per: actor, every: ever, uses: 1 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 5, unit: points } ]
  - key: off
    event_type: purchase.completed
    enabled: false
    limits: [ { per: actor, every: ever, uses: 1 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 7, unit: points } ]
"""
RENAMED = RULES.replace("key: cashback", "key: money-back\n    formerly: cashback")


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with serving(database_url, event_age_max_days=0) as api:
        assert (await put(api, RULES))["revived"] == []
        yield api


async def put(api: Api, text: str) -> dict[str, Any]:
    reply = await api.call("PUT", "/internal/ruleset", raw=text.encode(), Content_Type="application/yaml")
    assert reply.status == 200, reply.body
    return reply.json


async def stop(api: Api, note: str = "paid too much") -> dict[str, Any]:
    reply = await api.post("/internal/rules/cashback/stop", {"note": note})
    assert reply.status == 200, reply.body
    return reply.json


async def stops(api: Api) -> dict[str, str]:
    """Rule to the note of the stop that stands."""
    items = (await api.get("/internal/rules")).json["items"]
    return {item["key"]: item["stopped"]["note"] for item in items if item["stopped"]}


async def test_a_stop_is_shown_with_who_when_and_why_and_a_rule_that_is_switched_off_has_none(api: Api):
    stopped = (await stop(api))["stopped"]
    assert {name: stopped[name] for name in ("key", "by", "note")} == {
        "key": "cashback", "by": "bootstrap", "note": "paid too much"
    }  # fmt: skip
    assert (await api.get("/internal/rules/cashback")).json["stopped"] == stopped
    assert (await api.get("/internal/rules/off")).json["stopped"] is None
    assert await stops(api) == {"cashback": "paid too much"}


@pytest.mark.parametrize("pending", ["keep", "review", "cancel"])
async def test_each_stop_is_in_the_audit_whatever_becomes_of_what_is_pending(pending: str, api: Api):
    await api.post("/internal/rules/cashback/stop", {"pending": pending, "note": "why"})
    rows = await api.runtime.pool.fetch(
        "SELECT actor, note FROM audit WHERE verb = 'stop' AND detail ? 'ruleset_version'"
    )
    assert [tuple(row) for row in rows] == [("bootstrap", "why")]


@pytest.mark.parametrize("write", ["PUT ruleset", "publish", "PUT rule", "PATCH rule"])
async def test_each_write_that_lets_a_stopped_rule_give_again_answers_with_the_stop_it_ended(write: str, api: Api):
    rule = (await api.get("/internal/rules/cashback")).json
    stopped = (await stop(api))["stopped"]
    match write:
        case "PUT ruleset":
            answer = await put(api, RULES)
        case "publish":
            answer = (await api.post("/internal/ruleset/versions/1/publish")).json
        case "PUT rule":
            answer = (await api.call("PUT", "/internal/rules/cashback", rule)).json
        case _:
            answer = (await api.call("PATCH", "/internal/rules/cashback", {"enabled": True})).json
    assert answer["revived"] == [stopped]
    assert await stops(api) == {}
    [ended] = await api.runtime.pool.fetch("SELECT actor, subject, detail FROM audit WHERE verb = 'revive'")
    assert (ended["actor"], ended["subject"], ended["detail"]["stopped_by"]) == (
        "bootstrap", "rule/cashback", "bootstrap"
    )  # fmt: skip
    assert (await put(api, RULES.replace("amount: 5", "amount: 6")))["revived"] == []


async def test_a_stop_outlasts_writes_that_leave_the_rule_off_and_ends_once(api: Api):
    await stop(api)
    reply = await api.call("PATCH", "/internal/rules/cashback", {"priority": 3})
    assert (reply.json["revived"], reply.json["stopped"]["note"]) == ([], "paid too much")
    await stop(api, note="once more")
    assert await stops(api) == {"cashback": "once more"}
    await stop(api, note="")
    assert await stops(api) == {"cashback": "once more"}, "a stop without a reason does not take one away"
    assert [ended["note"] for ended in (await put(api, RULES))["revived"]] == ["once more"]
    await api.call("PATCH", "/internal/rules/cashback", {"enabled": False})
    assert await stops(api) == {}, "switched off by a document: nobody stopped it"


async def test_a_stopped_rule_that_is_renamed_is_still_the_one_that_was_stopped(api: Api):
    await stop(api)
    off = RENAMED.replace("formerly: cashback", "formerly: cashback\n    enabled: false")
    assert (await put(api, off))["revived"] == []
    assert await stops(api) == {"money-back": "paid too much"}
    assert [ended["key"] for ended in (await put(api, RENAMED))["revived"]] == ["money-back"]


async def test_a_stopped_rule_that_was_retired_and_comes_back_is_told(api: Api):
    await stop(api)
    assert (await put(api, "version: 1\n"))["revived"] == []
    assert [ended["key"] for ended in (await put(api, RULES))["revived"]] == ["cashback"]
