"""An action is taken back once, however many facts and people would take it back."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from connect.dispatch.operating import operate, operate_all
from connect.errors import CountChanged, NotAllowedNow
from connect.store.actions import ActionFilter
from connect.store.operations import count_operable
from tests.intake.rule_model import intake_on, purchase, refund

RULES = """
version: 1
units: { nft: { scale: 0 } }
counters:
  purchases:
    { event_type: purchase.completed, of: actor, kind: count, undone_by: purchase.refunded, same: context.order }
rules:
  - key: third
    event_type: purchase.completed
    condition: counters.purchases == 3
    actions: [ { target: nft, command: mint, recipient: actor, amount: 1, unit: nft } ]
    reversal: { event_type: purchase.refunded, same: context.order }
"""
WAITING = "SELECT id FROM reward_action WHERE status = 'awaiting_approval'"


async def test_what_was_listed_for_a_person_is_not_approved_once_a_refund_took_it_back(pool: Any) -> None:
    """The refund of an earlier purchase lists the third's reward; then the third itself is refunded."""
    async with intake_on(pool, RULES) as intake:
        await intake.report(*(purchase(n) for n in range(3)))
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        await intake.report(refund(1, of=0))
        listed = await pool.fetchval(WAITING)
        await intake.report(refund(2, of=2))
        assert await intake.given("reverses IS NOT NULL") == [
            ("third", "u1", "1", "awaiting_approval", "0", True), ("third", "u1", "1", "pending", "0", True)
        ]  # fmt: skip
        async with pool.acquire() as connection:
            with pytest.raises(NotAllowedNow, match="while its original still has as much"):
                await operate(connection, intake.rules.rulebook, "approve", listed, actor="ann")
            await operate(connection, intake.rules.rulebook, "reject", listed, actor="ann")
        assert await intake.given("reverses IS NOT NULL AND status <> 'cancelled'") == [
            ("third", "u1", "1", "pending", "0", True)
        ]


async def test_a_refund_takes_back_no_more_than_a_person_has_left(pool: Any) -> None:
    """The other way round: the listed reversal is approved first, then the third itself is refunded."""
    async with intake_on(pool, RULES) as intake:
        await intake.report(*(purchase(n) for n in range(3)))
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        await intake.report(refund(1, of=0))
        async with pool.acquire() as connection:
            await operate(connection, intake.rules.rulebook, "approve", await pool.fetchval(WAITING), actor="ann")
        await intake.report(refund(2, of=2))
        assert await pool.fetchval("SELECT array_agg(DISTINCT status) FROM event") == ["decided"]
        assert await intake.given("reverses IS NOT NULL") == [("third", "u1", "1", "pending", "0", True)]


REVIEWED = RULES.replace("refunded, same: context.order }", "refunded, same: context.order, after_completion: review }")
REVIEWED = REVIEWED.replace("same: context.order, after_completion: review }\nrules", "same: context.order }\nrules")


async def test_of_two_reversals_that_wait_for_one_reward_a_person_who_approves_all_approves_one(pool: Any) -> None:
    """One is listed as its counter is smaller, one is the refund's own: each may be approved, both may not."""
    async with intake_on(pool, REVIEWED) as intake:
        await intake.report(*(purchase(n) for n in range(3)))
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        await intake.report(refund(1, of=0), refund(2, of=2))
        assert len(await pool.fetch(WAITING)) == 2
        every = ActionFilter(rule=["third"], status=["awaiting_approval"])
        async with pool.acquire() as connection:
            with pytest.raises(CountChanged):
                await operate_all(connection, intake.rules.rulebook, "approve", every, expect=2, actor="ann")
            assert len(await pool.fetch(WAITING)) == 2
            assert await count_operable(connection, "approve", every) == 1
            assert await operate_all(connection, intake.rules.rulebook, "approve", every, expect=1, actor="ann") == 1
            assert await count_operable(connection, "approve", every) == 0
            assert await count_operable(connection, "reject", every) == 1
        assert await intake.given("reverses IS NOT NULL") == [
            ("third", "u1", "1", "awaiting_approval", "0", True), ("third", "u1", "1", "pending", "0", True)
        ]  # fmt: skip


async def test_people_who_approve_two_reversals_of_one_reward_at_once_approve_one(pool: Any) -> None:
    async with intake_on(pool, REVIEWED) as intake:
        await intake.report(*(purchase(n) for n in range(3)))
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        await intake.report(refund(1, of=0), refund(2, of=2))
        events = [row["event_id"] for row in await pool.fetch(WAITING.replace("id", "event_id"))]

        async def approve(event_id: UUID) -> int:
            async with pool.acquire() as connection:
                which = ActionFilter(event_id=[event_id])
                return await operate_all(connection, intake.rules.rulebook, "approve", which, expect=1, actor="ann")

        done = await asyncio.gather(*(approve(event_id) for event_id in events), return_exceptions=True)
        assert sorted(type(one).__name__ for one in done) == ["CountChanged", "int"]
        assert [row[3] for row in await intake.given("reverses IS NOT NULL")] == ["awaiting_approval", "pending"]
