"""Rules over HTTP: versions, drafts, rollback, stop, stale writes, check and dry run."""

import asyncio
from typing import Any

from tests.api.conftest import CASHBACK, EXAMPLE
from tests.conftest import eventually
from tests.serving import Api, serving

YAML = """
version: 1
units: { points: { scale: 0 } }
rules:
  - key: cashback-2
    event_type: purchase.completed
    condition: context.amount_minor >= 1000
    actions: [ { target: points, command: credit, recipient: actor, amount: 7, unit: points } ]
"""


async def earned(api: Api, external_id: str) -> list[str]:
    return [
        action["amount"]
        for action in (await api.post("/internal/events", {**EXAMPLE, "external_id": external_id})).json["actions"]
    ]


async def test_a_rule_is_added_read_changed_and_retired_each_as_a_new_version(api: Api) -> None:
    shown = await api.get("/internal/rules/cashback-2")
    assert (shown.status, shown.json["version"], shown.headers["ETag"]) == (200, 1, '"1"')
    changed = await api.call(
        "PATCH",
        "/internal/rules/cashback-2",
        {"actions": None}
        | {"priority": 5, "name": "Two percent"}
        | {"actions": [{**CASHBACK["actions"][0], "amount": "context.amount_minor * 0.04"}]},
    )
    assert (changed.status, changed.json["version"], changed.json["ruleset_version"]) == (200, 2, 2)
    assert await earned(api, "e1") == ["519"]
    replaced = await api.call("PUT", "/internal/rules/cashback-2", CASHBACK)
    assert (replaced.status, replaced.json["version"]) == (200, 3)
    assert await earned(api, "e2") == ["259"]
    assert (await api.call("DELETE", "/internal/rules/cashback-2")).status == 204
    assert (await api.get("/internal/rules/cashback-2")).status == 404
    assert await earned(api, "e3") == []
    versions = (await api.get("/internal/rules/cashback-2/versions")).json["items"]
    assert [(each["version"], each["retired_in"]) for each in versions] == [(3, 4), (2, 4), (1, 4)]


async def test_what_was_read_can_be_sent_again(api: Api) -> None:
    shown = (await api.get("/internal/rules/cashback-2")).json
    again = await api.call("PUT", "/internal/rules/cashback-2", shown)
    assert (again.status, again.json["version"], again.json["ruleset_version"]) == (200, 1, 2)


async def test_a_second_rule_of_a_key_is_a_conflict_and_a_wrong_one_has_all_its_errors(api: Api) -> None:
    assert (await api.post("/internal/rules", CASHBACK)).status == 409
    wrong: dict[str, Any] = {
        **CASHBACK,
        "key": "wrong",
        "condition": ["context.a >", "contxt.b"],
        "actions": [{**CASHBACK["actions"][0], "recipient": "nobody", "round": None} | {"round": "down"}],
    }
    reply = await api.post("/internal/rules", wrong)
    assert (reply.status, reply.json["code"]) == (422, "ruleset_invalid")
    pointers = [error["pointer"] for error in reply.json["errors"]]
    assert {"#/condition/0", "#/condition/1", "#/actions/0/recipient"} <= set(pointers)
    assert (await api.post("/internal/rules", {**CASHBACK, "key": "x", "limitz": []})).status == 422


async def test_a_stale_write_is_refused_and_changes_nothing(api: Api) -> None:
    stale = await api.call("PATCH", "/internal/rules/cashback-2", {"enabled": False}, If_Match='"7"')
    assert (stale.status, stale.json["code"]) == (412, "version_stale")
    assert (await api.call("PATCH", "/internal/rules/cashback-2", {"enabled": False}, If_Match='"1"')).status == 200
    assert (await api.call("PATCH", "/internal/rules/cashback-2", {"enabled": True}, If_Match="nonsense")).status == 400


async def test_concurrent_writes_all_land_each_on_the_one_before(api: Api) -> None:
    rules = [{**CASHBACK, "key": f"rule-{n}"} for n in range(8)]
    replies = await asyncio.gather(*(api.post("/internal/rules", rule) for rule in rules))
    assert {reply.status for reply in replies} == {201}
    listed = (await api.get("/internal/rules")).json["items"]
    assert len(listed) == 9
    assert sorted(reply.json["ruleset_version"] for reply in replies) == list(range(2, 10))
    assert len(await earned(api, "e1")) == 9


async def test_the_whole_ruleset_goes_in_as_yaml_and_comes_out_as_either(api: Api) -> None:
    put = await api.call("PUT", "/internal/ruleset", raw=YAML.encode(), Content_Type="application/yaml", If_Match='"1"')
    assert (put.status, put.json["version"], put.json["live"]) == (200, 2, True)
    assert await earned(api, "e1") == ["7"]
    assert (await api.get("/internal/ruleset")).json["rules"][0]["key"] == "cashback-2"
    text = (await api.get("/internal/ruleset", Accept="application/yaml")).body
    back = await api.call("PUT", "/internal/ruleset", raw=text, Content_Type="application/yaml")
    assert back.json["rule_versions"] == put.json["rule_versions"]


async def test_a_draft_is_stored_not_live_until_published_and_an_old_version_comes_back_as_a_new_one(api: Api) -> None:
    draft = await api.post("/internal/ruleset/versions", raw=YAML.encode(), Content_Type="application/yaml")
    assert (draft.status, draft.json["version"], draft.json["live"]) == (201, 2, False)
    assert await earned(api, "e1") == ["259"]
    published = await api.post("/internal/ruleset/versions/2/publish", {"note": "autumn"})
    assert (published.status, published.json["live"], published.json["note"]) == (200, True, "autumn")
    assert await earned(api, "e2") == ["7"]
    rolled_back = await api.post("/internal/ruleset/versions/1/publish")
    assert rolled_back.json["version"] == 3
    assert await earned(api, "e3") == ["259"]
    versions = (await api.get("/internal/ruleset/versions")).json["items"]
    assert [(each["version"], each["live"]) for each in versions] == [(3, True), (2, False), (1, False)]
    assert (await api.post("/internal/ruleset/versions/99/publish")).status == 404


async def test_a_draft_older_than_the_live_version_goes_live_as_a_new_one(api: Api) -> None:
    await api.post("/internal/ruleset/versions", raw=YAML.encode(), Content_Type="application/yaml")
    await api.call("PATCH", "/internal/rules/cashback-2", {"priority": 1})
    published = await api.post("/internal/ruleset/versions/2/publish")
    assert (published.json["version"], published.json["note"]) == (4, "draft version 2")
    assert await earned(api, "e1") == ["7"]


async def test_a_stop_acts_at_once_and_says_what_becomes_of_what_waits(api: Api) -> None:
    action = (await api.post("/internal/events", EXAMPLE)).json["actions"][0]["id"]
    reply = await api.post(
        "/internal/rules/cashback-2/stop", {"pending": "review", "note": "too generous"}, If_Match='"99"'
    )
    assert (reply.status, reply.json["enabled"], reply.json["touched"]) == (200, False, 1)
    assert (await api.get(f"/internal/reward-actions/{action}")).json["status"] == "awaiting_approval"
    assert await earned(api, "e2") == []


async def test_other_processes_follow_a_publish_within_two_seconds(api: Api, database_url: str) -> None:
    async with serving(database_url, event_age_max_days=0) as other:
        await api.call("PUT", "/internal/ruleset", raw=YAML.encode(), Content_Type="application/yaml")
        await eventually(lambda: other.runtime.rules.rulebook.version == 2, timeout_s=2)
        assert await earned(other, "e1") == ["7"]


async def test_check_tells_errors_with_line_and_column_and_stores_nothing(api: Api) -> None:
    wrong = YAML.replace("context.amount_minor >= 1000", "contxt.amount_minor >= 1000")
    for body in ({"text": wrong}, None):
        raw = wrong.encode() if body is None else None
        kind = {"Content_Type": "application/yaml"} if body is None else {}
        reply = await api.post("/internal/rules/check", body, raw=raw, **kind)
        assert (reply.status, reply.json["ok"]) == (200, False)
        [error] = reply.json["errors"]
        assert (error["pointer"], error["line"], error["column"]) == ("#/rules/0/condition", 7, 16)
        assert "context" in error["message"] + str(error.get("hint"))
    assert (await api.post("/internal/rules/check", {"text": YAML})).json["ok"] is True
    assert len((await api.get("/internal/ruleset/versions")).json["items"]) == 1


async def test_a_dry_run_says_what_an_event_would_earn_and_changes_nothing(api: Api) -> None:
    reply = await api.post("/internal/rules/dry-run", {"event": EXAMPLE})
    assert [action["amount"] for action in reply.json["actions"]] == ["259"]
    assert reply.json["trace"][0]["outcome"] == "gave"
    tried = {**CASHBACK, "actions": [{**CASHBACK["actions"][0], "amount": 1000}]}
    assert [
        action["amount"]
        for action in (await api.post("/internal/rules/dry-run", {"event": EXAMPLE, "rules": [tried]})).json["actions"]
    ] == ["1000"]
    assert (await api.get("/internal/events")).json["items"] == []
