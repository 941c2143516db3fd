"""What rules remember equals what a recount of the stored facts gives, and a row that does not is found."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connect.store.health import wrong_state
from tests.intake.rule_model import Intake, intake_on, purchase, refund

RULES = """
version: 1
timezone: Europe/Berlin
units: { points: { scale: 0 } }
counters:
  purchases:
    { event_type: purchase.completed, of: actor, kind: count, undone_by: purchase.refunded, same: context.order }
  spent: { event_type: purchase.*, of: actor, kind: sum, value: context.amount / 4, every: month }
  amounts: { event_type: purchase.completed, of: actor, kind: distinct, value: context.amount }
rules:
  - key: cashback
    event_type: purchase.completed
    limits:
      - { per: recipient, every: day, uses: 4 }
      - { per: recipient, every: month, amount: 450 }
      - { per: actor, every: hour, uses: 9 }
      - { per: parties.friend, every: week, uses: 9 }
      - { per: rule, every: ever, uses: 100 }
    actions:
      - { target: points, command: credit, recipient: actor, amount: context.amount / 10, round: down, unit: points }
    reversal: { event_type: purchase.refunded, same: context.order, fraction: context.part / original.context.amount }
"""
FOLLOWED = "UPDATE limit_definition SET since = since - interval '1 minute'"


@pytest.fixture
async def intake(pool: Any) -> AsyncIterator[Intake]:
    """Six purchases of two users, one refunded in part and one wholly, and all processes long at the ruleset."""
    async with intake_on(pool, RULES) as intake:
        await pool.execute(FOLLOWED)
        await intake.report(*(purchase(n, user=f"u|{n % 2}", parties={"friend": ["f", "g"]}) for n in range(6)))
        await intake.report(refund(1, of=1, part=300), refund(2, of=2))
        yield intake


async def told(pool: Any) -> tuple[list[str], list[str]]:
    async with pool.acquire() as connection:
        return await wrong_state(connection)


async def test_rows_that_intake_kept_are_what_a_recount_gives(pool: Any, intake: Intake) -> None:
    assert len(await intake.stored("limit|")) == 9
    assert len(await intake.stored("counter|")) > 5
    assert await told(pool) == ([], [])


@pytest.mark.parametrize(
    "key",
    [
        "limit|cashback|uses|recipient|role|day|", "limit|cashback|amount:points|recipient|",
        "limit|cashback|uses|rule|", "limit|cashback|uses|actor|role|hour|",
        "limit|cashback|uses|parties.friend|rule|week|",
    ],
)  # fmt: skip
async def test_a_limit_that_holds_something_else_is_found(pool: Any, intake: Intake, key: str) -> None:
    [broken, *_] = await intake.stored(key)
    await pool.execute("UPDATE state SET value = value + 1 WHERE key = $1", broken)
    [limit], counters = await told(pool)
    assert limit.startswith(f"{broken} holds ")
    assert counters == []


@pytest.mark.parametrize("name", ["purchases", "spent", "amounts"])
async def test_a_counter_that_holds_something_else_is_found(pool: Any, intake: Intake, name: str) -> None:
    [broken, *_] = await intake.stored(f"counter|{name}.")
    await pool.execute("UPDATE state SET value = value + 1 WHERE key = $1", broken)
    limits, [counter] = await told(pool)
    assert counter.startswith(f"{broken} holds ")
    assert limits == []


async def test_a_lost_action_is_found_in_the_limits_that_counted_it(pool: Any, intake: Intake) -> None:
    await pool.execute("DELETE FROM reward_action WHERE user_id = 'u|1' AND reverses IS NULL AND reversed = 0")
    limits, _ = await told(pool)
    assert {limit.split("|")[3] for limit in limits} == {"recipient", "actor", "parties.friend", "rule"}


async def test_what_is_about_to_be_worked_out_anew_is_no_difference(pool: Any, intake: Intake) -> None:
    """A limit published a moment ago: processes may still have given by the ruleset before it."""
    await pool.execute("UPDATE limit_definition SET since = now()")
    await pool.execute("UPDATE state SET value = value + 1 WHERE key LIKE 'limit|%'")
    assert await told(pool) == ([], [])
