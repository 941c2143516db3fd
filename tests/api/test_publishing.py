"""A ruleset goes live only as a whole that is checked and passes its own tests, by every route; a stop gets through."""

import asyncio
from typing import Any

import pytest

from tests.api.conftest import CASHBACK, EXAMPLE
from tests.serving import Api, serving

TEST: dict[str, Any] = {
    "name": "two percent",
    "given": [
        {"external_id": "e1", "event_type": "purchase.completed", "actor_user_id": "u1",
         "context": {"currency": "EUR", "amount_minor": 12990}},
    ],
    "expect": {"e1": [{"rule": "cashback-2", "user_id": "u1", "amount": 259}]},
}  # fmt: skip
GREEN: dict[str, Any] = {"units": {"points": {}}, "rules": [CASHBACK], "tests": [TEST]}
RED = {**GREEN, "tests": [{**TEST, "expect": {"e1": []}}]}
TRIPLE = {**CASHBACK, "actions": [{**CASHBACK["actions"][0], "amount": "context.amount_minor * 0.06"}]}
OTHER = {**CASHBACK, "key": "other"}


@pytest.fixture
async def tested(api: Api) -> Api:
    """The API with a ruleset live, as version 2, that has a green test."""
    assert (await api.call("PUT", "/internal/ruleset", GREEN)).status == 200
    return api


async def newest(api: Api) -> int:
    return (await api.get("/internal/ruleset/versions?limit=1")).json["items"][0]["version"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/internal/ruleset", RED),
        ("POST", "/internal/ruleset/versions", RED),
        ("POST", "/internal/rules", OTHER),
        ("PUT", "/internal/rules/cashback-2", TRIPLE),
        ("PUT", "/internal/rules/other", OTHER),
        ("PATCH", "/internal/rules/cashback-2", {"condition": "context.amount_minor > 99999"}),
    ],
)
async def test_what_a_red_test_speaks_against_is_refused_and_changes_nothing(
    tested: Api, method: str, path: str, body: Any
) -> None:
    refused = await tested.call(method, path, body)
    assert (refused.status, refused.json["code"]) == (422, "tests_red"), refused.body
    assert "'two percent'" in refused.json["detail"]
    assert {error["pointer"] for error in refused.json["errors"]} == {"#/tests/0"}
    assert "two percent: e1: " in refused.json["errors"][0]["detail"]
    assert await newest(tested) == 2


async def test_the_refusal_says_which_line_failed_on_what_value(tested: Api) -> None:
    refused = await tested.call("PATCH", "/internal/rules/cashback-2", {"condition": "context.amount_minor > 99999"})
    assert [error["detail"] for error in refused.json["errors"]] == [
        "two percent: e1: missing points 259 for u1 by cashback-2 (its condition did not hold: "
        "line 1 `context.amount_minor > 99999`, with context.amount_minor = 12990)"
    ]


async def test_a_version_with_a_red_test_is_not_published_again(tested: Api) -> None:
    """A stop is how a version with a red test comes to be: nothing looks at its tests."""
    group = {"pick": "first"}
    both = {
        **GREEN,
        "groups": {"g": group},
        "rules": [{**CASHBACK, "group": "g", "priority": 1}, {**OTHER, "group": "g"}],
    }
    assert (await tested.call("PUT", "/internal/ruleset", both)).json["version"] == 3
    assert (await tested.post("/internal/rules/cashback-2/stop")).json["ruleset_version"] == 4
    again = await tested.post("/internal/ruleset/versions/4/publish")
    assert (again.status, again.json["code"]) == (422, "tests_red")
    assert (await tested.post("/internal/ruleset/versions/3/publish")).json["version"] == 5


async def test_a_stop_is_never_refused_by_a_red_test(tested: Api) -> None:
    lone = {**TEST, "name": "with the other", "expect": {"e1": [{"rule": "cashback-2", "amount": 259}]}}
    both = {**GREEN, "groups": {"g": {"pick": "first"}}, "tests": [lone],
            "rules": [{**CASHBACK, "group": "g", "priority": 1}, {**OTHER, "group": "g"}]}  # fmt: skip
    assert (await tested.call("PUT", "/internal/ruleset", both)).status == 200
    off = await tested.call("PATCH", "/internal/rules/cashback-2", {"enabled": False})
    assert (off.status, off.json["code"]) == (422, "tests_red")
    stopped = await tested.post("/internal/rules/cashback-2/stop")
    assert (stopped.status, stopped.json["enabled"]) == (200, False)


async def test_a_rule_that_a_test_names_is_retired_once_the_test_is_gone(tested: Api) -> None:
    refused = await tested.call("DELETE", "/internal/rules/cashback-2")
    assert (refused.status, refused.json["code"]) == (422, "ruleset_invalid")
    assert [error["pointer"] for error in refused.json["errors"]] == ["#/tests/0/expect/e1/0/rule"]
    assert (await tested.call("PUT", "/internal/ruleset", {**GREEN, "tests": []})).status == 200
    assert (await tested.call("DELETE", "/internal/rules/cashback-2")).status == 204


async def test_a_rule_is_checked_with_all_that_is_live_and_told_its_own_warnings_only(tested: Api) -> None:
    assert (await tested.call("PUT", "/internal/ruleset", {**GREEN, "tests": []})).status == 200
    for wrong, pointer in (
        ({**OTHER, "group": "no-such"}, "#/group"),
        ({**OTHER, "formerly": "cashback-2"}, "#/formerly"),
        ({**OTHER, "condition": "counters.n == 1"}, "#/condition"),
    ):
        refused = await tested.post("/internal/rules", wrong)
        assert (refused.status, refused.json["code"]) == (422, "ruleset_invalid"), refused.body
        assert pointer in [error["pointer"] for error in refused.json["errors"]]
    limited = {**OTHER, "limits": [{"per": "recipient", "every": "day", "uses": 1}]}
    assert (await tested.post("/internal/rules", limited)).json["warnings"] == []
    unlimited = (await tested.call("PUT", "/internal/rules/other", OTHER)).json["warnings"]
    assert [warning["pointer"] for warning in unlimited] == ["#"]


async def test_writers_of_two_processes_all_land_each_on_the_one_before(api: Api, database_url: str) -> None:
    async with serving(database_url, event_age_max_days=0) as other:
        rules = [{**CASHBACK, "key": f"rule-{n}"} for n in range(8)]
        replies = await asyncio.gather(
            *((api if n % 2 else other).post("/internal/rules", rule) for n, rule in enumerate(rules))
        )
    assert {reply.status for reply in replies} == {201}, [reply.body for reply in replies]
    assert sorted(reply.json["ruleset_version"] for reply in replies) == list(range(2, 10))
    assert len((await api.get("/internal/rules")).json["items"]) == 9


async def test_of_two_writers_with_one_etag_one_is_told_that_it_is_stale(tested: Api, database_url: str) -> None:
    async with serving(database_url, event_age_max_days=0) as other:
        replies = await asyncio.gather(
            *(
                one.call("PATCH", "/internal/rules/cashback-2", {"priority": n}, If_Match='"2"')
                for n, one in enumerate([tested, other, tested, other])
            )
        )
    assert sorted(reply.status for reply in replies) == [200, 412, 412, 412]


async def test_events_are_decided_while_a_long_story_is_told(tested: Api) -> None:
    """Examining holds neither the event loop nor the lock."""
    story = [{**TEST["given"][0], "external_id": f"e{n}"} for n in range(1000)]
    long = {**GREEN, "tests": [{**TEST, "name": f"t{n}", "given": story} for n in range(8)]}
    writing = asyncio.create_task(tested.call("PUT", "/internal/ruleset", long))
    for n in range(5):
        assert (await tested.post("/internal/events", {**EXAMPLE, "external_id": f"order-{n}"})).status == 201
    assert not writing.done()
    assert (await tested.post("/internal/rules/cashback-2/stop")).status == 200
    assert not writing.done()
    assert (await writing).status == 200
