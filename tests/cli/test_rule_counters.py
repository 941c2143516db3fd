"""`connect rules rebuild-counters` and `learn-schema` against a real server, with the loop of a worker beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connect.intake.live import LiveRules
from connect.intake.rebuild import Rebuilder
from tests.cli.shell import Shell, purchase, shell_on
from tests.conftest import eventually

RULES = """
version: 1
units: { points: { scale: 0 } }
counters: { purchases: { event_type: purchase.completed, of: actor, kind: count } }
rules:
  - key: first
    event_type: purchase.completed
    condition: counters.purchases == 1
    limits: [ { per: actor, every: ever, uses: 1 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 5, unit: points } ]
"""


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


@contextlib.asynccontextmanager
async def rebuilding(pool: Any) -> AsyncIterator[None]:
    rules, stop = LiveRules(pool), asyncio.Event()
    await rules.refresh()
    tasks = [asyncio.create_task(Rebuilder(pool, rules).run(stop)), asyncio.create_task(rules.follow())]
    yield
    stop.set()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_counters_are_built_anew_while_a_dry_run_reads_them_live(shell: Shell, pool: Any) -> None:
    api = shell.api
    assert api is not None
    published = await api.call("PUT", "/internal/ruleset", raw=RULES.encode(), Content_Type="application/yaml")
    assert published.status == 200
    for n in range(3):
        await api.post("/internal/events", purchase(n, actor_user_id="ann"))

    async def outcome(user: str) -> str:
        event = purchase(99, actor_user_id=user)
        return (await api.post("/internal/rules/dry-run", {"event": event})).json["trace"][0]["outcome"]

    async def built() -> bool:
        return (await api.get("/internal/counters")).json["items"][0]["status"] == "live"

    assert (await outcome("ann"), await outcome("bob")) == ("not_matched", "gave")
    assert await pool.fetchval("SELECT count(*) FROM state WHERE key LIKE '%bob'") == 0
    begun = await shell("rules", "rebuild-counters", "--no-wait", "-o", "json")
    assert [(row["name"], row["status"]) for row in begun.json["items"]] == [("purchases", "building")]
    assert await outcome("ann") == "not_live"
    again = await shell("rules", "rebuild-counters", "--no-wait")
    assert (again.code, "being built already" in again.err) == (4, True), again
    await pool.execute("UPDATE counter SET published_at = published_at - interval '1 minute'")
    async with rebuilding(pool):
        await eventually(built)
    await api.runtime.rules.refresh()
    assert (await outcome("ann"), await outcome("bob")) == ("not_matched", "gave")
    wrong = await shell("rules", "rebuild-counters", "purchase")
    assert "no counter 'purchase' (it has: purchases)" in wrong.err


async def test_a_schema_is_learnt_from_events_and_finds_a_mistyped_field(shell: Shell, tmp_path: Any) -> None:
    api = shell.api
    assert api is not None
    for n in range(3):
        await api.post("/internal/events", purchase(n))
    learnt = await shell("rules", "learn-schema", "purchase.completed")
    assert (learnt.code, learnt.err) == (0, "learnt from 3 event(s)\n")
    file = tmp_path / "rules.yaml"
    file.write_text(
        RULES.replace("condition: ", "condition: context.amont_minor > 5 && ").replace(
            "rules:", f"{learnt.out}\nrules:"
        )
    )
    checked = await shell("rules", "check", str(file))
    assert "did you mean context.amount_minor?" in checked.out
    nothing = await shell("rules", "learn-schema", "deal.closed")
    assert "nothing to learn from" in nothing.err
