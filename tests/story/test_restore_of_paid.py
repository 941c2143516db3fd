"""Paid, lost, restored, told again, refunded: the target is asked with the bytes it knows, whatever was reported."""

from pathlib import Path
from typing import Any

import pytest

from connect.authoring import read_and_check
from tests.chaos.buses import Buses, on_buses
from tests.chaos.feeder import Fact
from tests.chaos.processes import all_of
from tests.story.test_restore import empty_anew, run

pytestmark = pytest.mark.whole

RULES = """
version: 1
units: { points: { scale: 0 } }
rules:
  - key: cashback
    event_type: purchase.completed
    limits: [ { per: actor, every: day, uses: 5 } ]
    actions:
      - target: points
        command: credit
        recipient: actor
        amount: context.amount_minor * 0.02
        round: down
        unit: points
    reversal: { event_type: purchase.refunded, same: context.order }
"""
UNDO = {"CONNECT_TARGETS__POINTS__UNDO__CREDIT": "debit"}
FATE = "SELECT status, failure, reversed FROM reward_action WHERE reverses IS NULL"
UNDONE = "SELECT status, amount FROM reward_action WHERE reverses IS NOT NULL"


def purchase(moment: str | None) -> Fact:
    fact: Fact = {
        "external_id": "order-1", "source": "shop", "event_type": "purchase.completed", "actor_user_id": "u1",
        "context": {"order": "o1", "amount_minor": 5000},
    }  # fmt: skip
    return fact | ({"occurred_at": moment} if moment else {})


def refund(moment: str | None) -> Fact:
    return purchase(moment) | {"external_id": "refund-1", "event_type": "purchase.refunded", "context": {"order": "o1"}}


async def tell(buses: Buses, channel: str, fact: Fact, stored: int) -> None:
    """Reports the fact and waits for every command it leads to."""
    if channel == "http":
        await buses.up.feed([fact], singles=1)
    else:
        await buses.reporters["redis"].put([fact])
    await buses.stored(stored)
    assert await buses.up.all_ended()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["2026-11-30T10:00:00Z", None], ids=["reported", "left out"])
@pytest.mark.parametrize("channel", ["http", "redis"])
async def test_a_fact_that_was_paid_is_the_same_command_after_a_restore_and_can_be_refunded(
    channel: str, moment: str | None, database_url: str, tmp_path: Path
):
    rules, _ = read_and_check(RULES)
    backup = str(tmp_path / "before.dump")
    environ: dict[str, Any] = {**UNDO, "CONNECT_EVENT_AGE_MAX_DAYS": "0"}
    async with on_buses(database_url, tmp_path, "redis", rules=rules, **environ) as buses:
        up = buses.up
        await run("pg_dump", "--format=custom", f"--file={backup}", f"--dbname={database_url}")
        await tell(buses, channel, purchase(moment), 1)
        [paid] = await up.ledger()

        await all_of(*(node.stop() for node in up.nodes))
        await up.pool.expire_connections()
        await empty_anew(database_url)
        await run("pg_restore", "--exit-on-error", f"--dbname={database_url}", backup)
        assert await up.pool.fetchval("SELECT count(*) FROM event") == 0
        await all_of(*(node.start() for node in up.nodes))

        await tell(buses, channel, purchase(moment), 1)
        [asked_again] = await up.ledger()
        assert (asked_again["body_sha256"], asked_again["n_requests"]) == (paid["body_sha256"], 2)
        assert [tuple(row) for row in await up.pool.fetch(FATE)] == [("completed", None, "0")]

        await tell(buses, channel, refund(moment), 2)
        assert [tuple(row) for row in await up.pool.fetch(FATE)] == [("completed", None, "100")]
        assert [tuple(row) for row in await up.pool.fetch(UNDONE)] == [("completed", "100")]
        assert sorted(effect["type"] for effect in await up.ledger()) == ["points.credit", "points.debit"]
