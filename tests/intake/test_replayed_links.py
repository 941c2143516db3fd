"""Facts decided before any rule knew their link, and decided again when one does."""

from typing import Any
from uuid import UUID

import pytest

from connect.backtest.reproduce import decide_again
from connect.intake.backlog import replay
from connect.store.history import snapshot
from tests.intake.rule_model import CASHBACK, HEAD, UNDO, Intake, intake_on, purchase, refund

NO_RULES = HEAD + "rules: []\n"


async def decided_again(intake: Intake, *events: UUID) -> None:
    async with intake.pool.acquire() as connection:
        await replay(connection, list(events), intake.rules.rulebook, UNDO)


async def test_what_a_replay_gave_is_taken_back_by_a_later_refund(pool: Any) -> None:
    async with intake_on(pool, NO_RULES) as intake:
        [bought] = await intake.report(purchase(1))
        await intake.publish(CASHBACK)
        await decided_again(intake, bought.event.id)
        await intake.report(refund(1, of=1))
        assert await intake.given() == [("cashback", "u1", "100", "cancelled", "100", False)]
        assert set((await intake.stored("limit|")).values()) == {"0"}


@pytest.mark.parametrize("first", ["bought", "refunded", "together"])
async def test_a_refund_from_before_its_link_was_known_is_found_once_it_is_replayed(first: str, pool: Any) -> None:
    async with intake_on(pool, NO_RULES) as intake:
        answers = await intake.report(purchase(1), refund(1, of=1))
        bought, refunded = (answer.event.id for answer in answers)
        await intake.publish(CASHBACK)
        turns = {"bought": [[bought], [refunded]], "refunded": [[refunded], [bought]], "together": [[bought, refunded]]}
        for turn in turns[first]:
            await decided_again(intake, *turn)
        assert await intake.given() == [("cashback", "u1", "100", "cancelled", "100", False)]
        assert set((await intake.stored("limit|")).values()) == {"0"}


async def test_a_refund_that_is_replayed_twice_takes_back_once(pool: Any, database_url: str) -> None:
    async with intake_on(pool, NO_RULES) as intake:
        bought, refunded, half = await intake.report(purchase(1), refund(1, of=1, part=300), refund(2, of=1, part=500))
        await intake.publish(CASHBACK)
        await decided_again(intake, bought.event.id)
        await pool.execute("UPDATE reward_action SET status = 'completed', due_at = NULL, attempts = 1")
        for one in (refunded, half, refunded, half):
            await decided_again(intake, one.event.id)
        assert [row[2:5] for row in await intake.given()] == [
            ("30", "pending", "0"), ("50", "pending", "0"), ("100", "completed", "80")
        ]  # fmt: skip
        async with snapshot(database_url) as connection:
            assert (await decide_again(connection, 10)).different == []


COUNTED = CASHBACK.replace(
    "rules:",
    """counters:
  purchases:
    { event_type: purchase.completed, of: actor, kind: count, undone_by: purchase.refunded, same: context.order }
rules:""",
)
NO_CASHBACK = COUNTED.replace("  - key: cashback\n", "  - key: cashback\n    enabled: false\n")


async def test_a_replay_that_gives_leaves_its_event_counted_until_a_refund_takes_it_out(pool: Any) -> None:
    async with intake_on(pool, NO_CASHBACK) as intake:
        [bought] = await intake.report(purchase(1))
        await intake.publish(COUNTED)
        await decided_again(intake, bought.event.id)
        assert set((await intake.stored("counter|")).values()) == {"1"}
        await intake.report(refund(1, of=1))
        assert set((await intake.stored("counter|")).values()) == {"0"}
        assert await intake.given() == [("cashback", "u1", "100", "cancelled", "100", False)]
