"""A recount of the stored facts equals what rules remember, and finds a row that does not."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connect.intake.backlog import replay
from connect.intake.rebuild import Rebuilder
from connect.store.health import wrong_state
from connect.store.recount import wrong_counters
from tests.backtest.histories import LIVE, facts, intakes_on, report_at_once
from tests.backtest.test_compare import all_decided
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
  days:
    event_type: purchase.completed
    of: actor
    kind: streak
    every: day
    grace: 1
    undone_by: purchase.refunded
    same: context.order
  weeks: { event_type: purchase.completed, of: actor, kind: streak, every: week }
  lately:
    event_type: purchase.completed
    of: actor
    kind: sum
    value: context.amount
    within: 7d
    undone_by: purchase.refunded
    same: context.order
  recent: { event_type: purchase.*, of: actor, kind: distinct, value: context.order, within: 48h }
  begun: { event_type: purchase.completed, of: actor, kind: count, start: publish }
  friends: { event_type: purchase.completed, of: parties.friend, kind: count, every: month }
  about: { event_type: purchase.completed, of: subject, kind: sum, value: context.amount }
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
COUNTERS = """
counters:
  days:
    { event_type: purchase.completed, of: actor, kind: streak, every: day, grace: 2, undone_by: purchase.refunded,
      same: context.order, fraction: context.part / original.context.amount }
  friends: { event_type: purchase.*, of: parties.referrer, kind: streak, every: week }
  amounts: { event_type: purchase.completed, of: actor, kind: distinct, value: context.amount / 100, within: 12h }
  brought:
    { event_type: purchase.completed, of: parties.referrer, kind: sum, value: context.amount, within: 36h,
      undone_by: purchase.refunded, same: context.order }
"""[:-1]
FOLLOWED = "UPDATE limit_definition SET since = since - interval '1 minute'"


@pytest.fixture
async def intake(pool: Any) -> AsyncIterator[Intake]:
    """Purchases of three users, some late, some refunded in part or wholly, and all processes long at the ruleset."""
    async with intake_on(pool, RULES) as intake:
        await pool.execute(FOLLOWED)
        fields: dict[str, Any] = {"parties": {"friend": ["f", "g"]}, "primary_subject_user_id": "s"}
        await intake.report(*(purchase(n, user=f"u|{n % 2}", **fields) for n in range(6)))
        await intake.report(refund(1, of=1, part=300), refund(2, of=2))
        moments = ("05-30", "06-18", "02-01", "06-16", "06-25", "01-10", "06-14")  # late, and later than a window holds
        days = (purchase(f"{day}", user="u|0", occurred_at=f"2026-{day}T12:00:00Z") for day in moments)
        for reported in (*days, refund(3, of="06-25"), purchase("one", parties={"friend": "f"})):
            await intake.report(reported)
        yield intake


async def told(pool: Any) -> tuple[list[str], list[str]]:
    async with pool.acquire() as connection:
        return await wrong_state(connection)


async def test_rows_that_intake_kept_are_what_a_recount_gives(pool: Any, intake: Intake) -> None:
    assert len(await intake.stored("limit|")) > 9
    assert {key.split(".")[0] for key in await intake.stored("counter|")} == {
        f"counter|{name}" for name in
        "about amounts begun days friends lately purchases recent spent weeks".split()
    }  # fmt: skip
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


@pytest.mark.parametrize("name", ["purchases", "spent", "amounts", "begun", "friends", "about"])
async def test_a_counter_that_holds_something_else_is_found(pool: Any, intake: Intake, name: str) -> None:
    [broken, *_] = await intake.stored(f"counter|{name}.")
    await pool.execute("UPDATE state SET value = value + 1 WHERE key = $1", broken)
    limits, [counter] = await told(pool)
    assert counter.startswith(f"{broken} holds ")
    assert limits == []


SPOILED = {
    "days": """'{"runs": [[1, 2]]}'""",
    "weeks": 'detail || \'{"more": {"739782": 1}}\'',
    "lately": """'{"entries": []}'""",
    "recent": """jsonb_set(detail, '{entries, 0, 2}', '"another"')""",
}


@pytest.mark.parametrize("name", SPOILED)
async def test_a_streak_or_a_window_that_holds_something_else_is_found(pool: Any, intake: Intake, name: str) -> None:
    broken = next(key for key in await intake.stored(f"counter|{name}.") if key.endswith("|u|0"))
    await pool.execute(f"UPDATE state SET detail = {SPOILED[name]} WHERE key = $1", broken)
    limits, [counter] = await told(pool)
    assert counter.startswith(f"{broken} holds ")
    assert limits == []


async def test_an_event_that_was_lost_is_missed_by_each_counter_that_counted_it(pool: Any, intake: Intake) -> None:
    await pool.execute("DELETE FROM reward_action")
    await pool.execute("DELETE FROM event WHERE external_id = 'p06-16'")
    _, counters = await told(pool)
    assert {counter.split(".")[0] for counter in counters} == {
        f"counter|{name}" for name in ("purchases", "spent", "amounts", "days", "lately", "recent", "begun")
    }


async def test_a_counter_that_begins_at_its_publish_owes_nothing_for_what_was_before(pool: Any, intake: Intake) -> None:
    late = "  late: { event_type: purchase.*, of: actor, kind: streak, every: day, start: publish }\nrules:"
    await intake.publish(RULES.replace("rules:", late, 1))
    await pool.execute(FOLLOWED)
    await intake.report(purchase("new", user="u|0", occurred_at="2026-06-20T12:00:00Z"))
    assert await told(pool) == ([], [])
    [row] = await intake.stored("counter|late.")
    await pool.execute("UPDATE state SET detail = '{\"runs\": []}' WHERE key = $1", row)
    _, [counter] = await told(pool)
    assert counter == f'{row} holds {{"runs":[],"more":{{}}}}, due is {{"runs":[[739787,739787]],"more":{{}}}}'
    await decide_again(pool, intake, "p1")
    assert len((await told(pool))[1]) == 1
    await decide_again(pool, intake, "p0")
    assert await told(pool) == ([], [])  # of this user it can no longer be said which events were counted


async def decide_again(pool: Any, intake: Intake, external_id: str) -> None:
    async with pool.acquire() as connection:
        event_id = await connection.fetchval("SELECT id FROM event WHERE external_id = $1", external_id)
        await replay(connection, [event_id], intake.rules.rulebook)


async def test_a_lost_action_is_found_in_the_limits_that_counted_it(pool: Any, intake: Intake) -> None:
    await pool.execute("DELETE FROM reward_action WHERE user_id = 'u|1' AND reverses IS NULL AND reversed = 0")
    limits, _ = await told(pool)
    assert {limit.split("|")[3] for limit in limits} == {"recipient", "actor", "parties.friend", "rule"}


async def test_what_is_about_to_be_worked_out_anew_is_no_difference(pool: Any, intake: Intake) -> None:
    """A limit published a moment ago: processes may still have given by the ruleset before it."""
    await pool.execute("UPDATE limit_definition SET since = now()")
    await pool.execute("UPDATE state SET value = value + 1 WHERE key LIKE 'limit|%'")
    assert await told(pool) == ([], [])


@pytest.mark.parametrize("seed", range(3))
async def test_mixed_histories_of_several_processes_differ_in_nothing_and_neither_do_counters_built_from_them(
    pool: Any, seed: int
) -> None:
    begun = COUNTERS.replace(" undone_by", " start: publish, undone_by").replace(" 12h ", " 24h ")
    async with intakes_on(pool, LIVE.replace("\ncounters:", COUNTERS), 3) as intakes:
        await report_at_once(intakes, facts(60, seed=seed))
        await intakes[0].publish(LIVE.replace("\ncounters:", begun))
        for intake in intakes:
            await intake.rules.refresh()
        await report_at_once(intakes, facts(60, seed=seed, prefix="then"))
        await all_decided(pool, intakes)
        await pool.execute("UPDATE counter SET published_at = published_at - interval '1 minute'")
        while await Rebuilder(pool, intakes[0].rules).tick():
            pass
        assert intakes[0].rules.rulebook.published.building == frozenset()
        async with pool.acquire() as connection:
            assert await wrong_counters(connection, 10_000, "state") == []
