"""Taking back where a person stands between: what is claimed meanwhile, and what may be sent again."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from connect.dispatch.operating import operate, stop_pending
from connect.errors import NotAllowedNow
from connect.model import Operation, RewardAction
from connect.store.claims import release_ended
from connect.store.operations import Pending
from connect.store.pool import set_codecs
from tests.conftest import eventually
from tests.intake.rule_model import CASHBACK, HEAD, Intake, intake_on, purchase, refund


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


async def test_a_refund_and_a_person_who_cancels_wait_for_each_other_and_never_in_a_circle(database_url: str) -> None:
    """Both lock what is claimed, then the actions. With no lock_timeout, a circle would be a deadlock, and counted."""
    pool = await asyncpg.create_pool(database_url, init=set_codecs, server_settings={"timezone": "UTC"})
    watching: Any = await asyncpg.connect(database_url)

    async def waiting(count: int) -> bool:
        return await watching.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ) == count  # fmt: skip

    async def cancel(intake: Intake, action_id: UUID) -> RewardAction:
        async with pool.acquire() as connection:
            return await operate(connection, intake.rules.rulebook, "cancel", action_id, actor="ann")

    async with intake_on(pool, CASHBACK) as intake:
        [answer] = await intake.report(purchase(1))
        holding = watching.transaction()
        await holding.start()
        await watching.execute("SELECT FROM reward_action FOR UPDATE")
        refunding = asyncio.create_task(intake.report(refund(1, of=1, part=500)))
        await eventually(lambda: waiting(1))
        cancelling = asyncio.create_task(cancel(intake, answer.actions[0].id))
        await eventually(lambda: waiting(2))
        await holding.rollback()
        [refunded] = await refunding
        assert (refunded.event.status, (await cancelling).status) == ("decided", "cancelled")
        assert list((await intake.stored("limit|")).values()) == ["0", "0"]
    await pool.close()  # whose processes tell what they counted as they end
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    await eventually(lambda: waiting(0))
    assert await watching.fetchval(deadlocks) == 0
    await watching.close()


KEPT = CASHBACK.replace("original.context.amount }", "original.context.amount, after_completion: keep }")


async def test_what_is_kept_once_completed_is_not_undone_for_a_part_refunded_before(pool: Any) -> None:
    async with intake_on(pool, KEPT) as intake:
        await intake.report(purchase(1))
        await intake.report(refund(1, of=1, part=500))
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        async with pool.acquire() as connection:
            await release_ended(connection)
        assert await intake.given() == [("cashback", "u1", "100", "completed", "0", False)]
        assert list((await intake.stored("limit|")).values()) == ["100", "1"]


async def test_a_refund_whose_undo_nobody_declared_makes_no_room_while_its_original_is_sent(pool: Any) -> None:
    gift = BADGE.replace("nft, command: mint", "gift, command: wrap").replace("review", "compensate")
    async with intake_on(pool, gift) as intake:
        await intake.report(purchase(1))
        await pool.execute("UPDATE reward_action SET status = 'dispatched', attempts = 1")
        await intake.report(refund(1, of=1))
        assert list((await intake.stored("limit|")).values()) == ["1"]
        assert {(row[3], row[5]) for row in await intake.given()} == {("dispatched", False), ("blocked", True)}


@pytest.mark.parametrize(("operation", "claimed"), [("approve", ["0", "0"]), ("reject", ["100", "1"])])
async def test_what_was_freed_for_an_undo_that_became_a_persons_matter_is_held_again_once_rejected(
    operation: Operation, claimed: list[str], pool: Any
) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        await intake.report(purchase(1))
        await pool.execute("UPDATE reward_action SET status = 'dispatched', attempts = 1")
        await intake.report(refund(1, of=1))
        assert list((await intake.stored("limit|")).values()) == ["0", "0"]
        await pool.execute(
            "UPDATE reward_action SET status = 'failed', failure = 'exhausted', due_at = NULL WHERE reverses IS NULL"
        )
        async with pool.acquire() as connection:
            await release_ended(connection)
            undo = await connection.fetchval("SELECT id FROM reward_action WHERE status = 'awaiting_approval'")
            await operate(connection, intake.rules.rulebook, operation, undo, actor="ann")
        assert list((await intake.stored("limit|")).values()) == claimed


@pytest.mark.parametrize("pending", ["cancel", "review"])
async def test_stopping_a_rule_stops_what_it_gives_and_not_what_is_taken_back(pending: Pending, pool: Any) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        await intake.report(purchase(1))
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        await intake.report(refund(1, of=1), purchase(2, user="u2"))
        async with pool.acquire() as connection:
            assert await stop_pending(connection, intake.rules.rulebook, "cashback", pending, by="ann") == 1
        assert await intake.given("user_id = 'u1'") == [
            ("cashback", "u1", "100", "completed", "100", False), ("cashback", "u1", "100", "pending", "0", True)
        ]  # fmt: skip


async def test_a_stop_that_cancels_takes_along_what_awaits_approval_and_gives_back_what_it_held(pool: Any) -> None:
    async with intake_on(pool, CASHBACK.replace("round: down,", "round: down, review: true,")) as intake:
        await intake.report(purchase(1))
        assert [row[3] for row in await intake.given()] == ["awaiting_approval"]
        assert list((await intake.stored("limit|")).values()) == ["100", "1"]
        async with pool.acquire() as connection:
            assert await stop_pending(connection, intake.rules.rulebook, "cashback", "cancel", by="ann") == 1
        assert [row[3] for row in await intake.given()] == ["cancelled"]
        assert list((await intake.stored("limit|")).values()) == ["0", "0"]
