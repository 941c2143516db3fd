"""Taking back where a person stands between: what is claimed meanwhile, and what may be sent again."""

from typing import Any

import pytest

from connect.dispatch.operating import operate
from connect.errors import NotAllowedNow
from connect.store.claims import release_ended
from tests.intake.rule_model import CASHBACK, HEAD, intake_on, purchase, refund


async def test_a_reversal_that_a_person_cancels_leaves_the_claim_as_it_was(pool: Any) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        await intake.report(purchase(1))
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        await intake.report(refund(1, of=1))
        assert list((await intake.stored("limit|")).values()) == ["0", "0"]
        undo = await pool.fetchval("SELECT id FROM reward_action WHERE reverses IS NOT NULL")
        async with pool.acquire() as connection:
            await operate(connection, intake.rules.rulebook, "cancel", undo, actor="ann")
        assert list((await intake.stored("limit|")).values()) == ["100", "1"]


async def test_what_was_taken_back_is_not_sent_again_by_a_person(pool: Any) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        [answer] = await intake.report(purchase(1))
        await pool.execute(
            "UPDATE reward_action SET status = 'failed', failure = 'exhausted', due_at = NULL, attempts = 9"
        )
        await intake.report(refund(1, of=1))
        assert {(row[3], row[5]) for row in await intake.given()} == {("failed", False), ("awaiting_approval", True)}
        async with pool.acquire() as connection:
            with pytest.raises(NotAllowedNow, match="takes back"):
                await operate(connection, intake.rules.rulebook, "retry", answer.actions[0].id, actor="ann")


BADGE = (
    HEAD
    + """
rules:
  - key: badge
    event_type: purchase.completed
    limits: [ { per: actor, every: ever, uses: 1 } ]
    actions: [ { target: nft, command: mint, recipient: actor, amount: 1, unit: nft } ]
    reversal: { event_type: purchase.refunded, same: context.order, after_completion: review }
"""
)


async def test_a_refund_while_a_badge_is_being_sent_makes_no_room_for_a_second_one(pool: Any) -> None:
    async with intake_on(pool, BADGE) as intake:
        await intake.report(purchase(1))
        await pool.execute("UPDATE reward_action SET status = 'dispatched', attempts = 1")
        await intake.report(refund(1, of=1))
        await intake.report(purchase(2))
        assert await intake.outcomes("p2") == {"badge": "limited"}
        assert {(row[3], row[5]) for row in await intake.given()} == {("dispatched", False), ("blocked", True)}


async def test_what_a_refund_found_refused_is_not_sent_again_by_a_person(pool: Any) -> None:
    async with intake_on(pool, BADGE) as intake:
        [answer] = await intake.report(purchase(1))
        await pool.execute("UPDATE reward_action SET status = 'dispatched', attempts = 1")
        await intake.report(refund(1, of=1))
        await pool.execute(
            "UPDATE reward_action SET status = 'failed', failure = 'refused', due_at = NULL WHERE reverses IS NULL"
        )
        async with pool.acquire() as connection:
            assert await release_ended(connection) == 1
            with pytest.raises(NotAllowedNow):
                await operate(connection, intake.rules.rulebook, "retry", answer.actions[0].id, actor="ann")
        assert {(row[3], row[5]) for row in await intake.given()} == {("failed", False), ("cancelled", True)}
