"""A backtest by the ruleset that decided is without any difference; by another, exactly what that one would do."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any

from connect.backtest.totals import summed
from connect.dispatch.operating import operate
from connect.intake.backlog import Backlog
from tests.backtest.histories import (
    LIVE,
    RULES,
    UNDO,
    backtested,
    differences,
    facts,
    intakes_on,
    report_at_once,
)
from tests.intake.rule_model import Intake, intake_on, purchase, refund

HEAD = """
version: 1
timezone: Europe/Berlin
units: { points: { scale: 0, worth: 0.01 EUR } }
"""
CASHBACK = (
    HEAD
    + """
rules:
  - key: cashback
    event_type: purchase.completed
    limits: [ { per: recipient, every: month, amount: 350 } ]
    actions:
      - { target: points, command: credit, recipient: actor, amount: context.amount * RATE, round: down, unit: points }
    reversal: { event_type: purchase.refunded, same: context.order, fraction: context.part / original.context.amount }
"""
)
TENTH = CASHBACK.replace("RATE", "0.1")


async def now(pool: Any) -> datetime:
    return await pool.fetchval("SELECT clock_timestamp()")


async def all_decided(pool: Any, intakes: list[Intake]) -> None:
    """Decides what met a held lock and was recorded undecided: a worker's part."""
    backlog = Backlog(pool, intakes[0].rules, UNDO)
    while await pool.fetchval("SELECT count(*) FROM event WHERE status = 'received'"):
        await backlog.tick()
        await asyncio.to_thread(lambda: None)


async def deliver_some(pool: Any) -> None:
    """Delivers some of what is on its way: some completed, some given up, some refused."""
    await pool.execute("""
        UPDATE reward_action SET attempts = 1, due_at = NULL, completed_at = clock_timestamp(),
            status = CASE WHEN get_byte(uuid_send(id), 7) % 8 < 5 THEN 'completed' ELSE 'failed' END,
            failure = CASE get_byte(uuid_send(id), 7) % 8 WHEN 5 THEN 'refused' WHEN 6 THEN 'exhausted'
                WHEN 7 THEN 'reported' END
        WHERE status = 'pending' AND get_byte(uuid_send(id), 6) % 3 > 0
    """)


async def operate_on_some(intake: Intake, operation: Any, where: str, count: int) -> None:
    rows = await intake.pool.fetch(f"SELECT id FROM reward_action WHERE {where} ORDER BY id LIMIT {count}")
    for row in rows:
        async with intake.pool.acquire() as connection:
            await operate(connection, intake.rules.rulebook, operation, row["id"], actor="test")


def nets(compared: Any) -> dict[tuple[str, ...], tuple[Decimal, Decimal]]:
    return {key: (pair.was.net, pair.would.net) for key, pair in summed(compared.tally.pairs(), (0, 1)).items()}


async def test_a_mixed_history_of_several_writers_comes_out_the_same(pool: Any, database_url: str) -> None:
    async with intakes_on(pool, LIVE, 4) as intakes:
        await report_at_once(intakes, facts(250, seed=1))
        await all_decided(pool, intakes)
        compared = await backtested(database_url, LIVE, LIVE)
        assert differences(compared) == {}
        assert compared.tally.users_was == compared.tally.users_would
        assert compared.budgets_was == compared.budgets_would
        assert {end.day is None for end in compared.budgets_was} == {False}
        assert {rule for rule, _, _ in compared.tally.was} == {
            "cashback", "eighty", "from-the-pot", "token", "third", "spender", "referral", "arms"
        }  # fmt: skip


async def test_what_was_delivered_and_what_people_did_makes_no_difference_of_rules(
    pool: Any, database_url: str
) -> None:
    async with intakes_on(pool, LIVE, 2) as intakes:
        moments: list[datetime] = []
        for round_ in range(4):
            await report_at_once(intakes, facts(60, seed=round_, prefix=f"{round_}"))
            await all_decided(pool, intakes)
            moments.append(await now(pool))
            await deliver_some(pool)
            await operate_on_some(intakes[0], "cancel", "status = 'failed' AND reverses IS NULL", 4)
            await operate_on_some(intakes[0], "cancel", "status = 'pending' AND attempts = 0 AND reverses IS NULL", 4)
            await operate_on_some(intakes[0], "reject", "status = 'awaiting_approval'", 1)
            await operate_on_some(intakes[0], "approve", "status = 'awaiting_approval' AND reverses IS NOT NULL", 3)
        for since in (datetime.fromisoformat("0001-01-01T00:00:00Z"), *moments):
            compared = await backtested(database_url, LIVE, LIVE, since)
            assert differences(compared) == {}, since
            assert compared.tally.users_was == compared.tally.users_would
        compared = await backtested(database_url, LIVE, LIVE)
        assert sum(side.by_people for side in compared.tally.was.values()) > 0
        audit = await pool.fetch("SELECT verb, count(*) FROM audit WHERE verb <> 'publish' GROUP BY 1")
        assert {row["verb"] for row in audit} == {"cancel", "approve", "reject"}


async def test_a_window_may_begin_anywhere_in_the_middle_of_it_all(pool: Any, database_url: str) -> None:
    async with intakes_on(pool, LIVE, 3) as intakes:
        moments: list[datetime] = []
        history = facts(210, seed=7)
        for start in range(0, len(history), 60):
            await report_at_once(intakes, history[start : start + 60])
            await all_decided(pool, intakes)
            moments.append(await now(pool))
        for since in moments:
            compared = await backtested(database_url, LIVE, LIVE, since)
            assert differences(compared) == {}, since
            assert compared.earlier > 0


async def test_another_rate_gives_exactly_what_it_comes_to(pool: Any, database_url: str) -> None:
    async with intake_on(pool, TENTH) as intake:
        await intake.report(purchase(1), purchase(2, amount=2005), purchase(3, user="u2"), refund(1, of=1, part=500))
        fifth = CASHBACK.replace("RATE", "0.05")
        compared = await backtested(database_url, TENTH, fifth)
        assert nets(compared) == {("cashback", "points"): (Decimal(350), Decimal(175))}  # 50 + 200 + 100, 25 + 100 + 50
        [pair] = differences(compared).values()
        assert (pair.was.given, pair.was.taken_back, pair.would.given, pair.would.taken_back) == (400, 50, 200, 25)
        assert compared.tally.users_would == {("u1", "points"): Decimal(125), ("u2", "points"): Decimal(50)}


async def test_a_limit_goes_on_from_what_was_given_before_the_window(pool: Any, database_url: str) -> None:
    async with intake_on(pool, TENTH) as intake:
        await intake.report(purchase(1, amount=3000))  # 300 of the month's 350
        since = await now(pool)
        await intake.report(purchase(2, amount=1000), purchase(3, amount=500), purchase(4, user="u2"))
        compared = await backtested(database_url, TENTH, TENTH, since)
        assert differences(compared) == {}
        assert nets(compared) == {("cashback", "points"): (Decimal(150), Decimal(150))}  # 50 of u1, 100 of u2
        doubled = CASHBACK.replace("RATE", "0.2").replace("350", "480")
        compared = await backtested(database_url, TENTH, doubled, since)
        assert nets(compared) == {("cashback", "points"): (Decimal(150), Decimal(300))}  # 100 of u1: 180 are left


async def test_a_refund_of_what_was_given_before_the_window_frees_the_limit_in_it(pool: Any, database_url: str) -> None:
    async with intake_on(pool, TENTH) as intake:
        await intake.report(purchase(1, amount=3000))
        since = await now(pool)
        await intake.report(purchase(2), refund(1, of=1, part=3000), purchase(3), purchase(4, user="u2"))
        compared = await backtested(database_url, TENTH, TENTH, since)
        assert differences(compared) == {}
        day = compared.tally.pairs()["cashback", "points", ""]
        assert (day.was.given, day.was.taken_back, day.would.taken_back) == (0, 300, 300)
        assert nets(compared) == {("cashback", "points"): (Decimal(-100), Decimal(-100))}


async def test_a_counter_of_the_draft_has_counted_what_came_before_the_window(pool: Any, database_url: str) -> None:
    third = (
        HEAD
        + """
counters: { purchases: { event_type: purchase.completed, of: actor, kind: count } }
rules:
  - key: third
    event_type: purchase.completed
    condition: counters.purchases == 3
    limits: [ { per: actor, every: ever, uses: 1 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 7, unit: points } ]
"""
    )
    async with intake_on(pool, TENTH) as intake:
        await intake.report(purchase(1), purchase(2))
        since = await now(pool)
        await intake.report(purchase(3), purchase(4), purchase(5, user="u2"))
        compared = await backtested(database_url, TENTH, third, since)
        assert nets(compared)["third", "points"] == (0, 7)
        begun = third.replace("kind: count", "kind: count, start: publish")
        compared = await backtested(database_url, TENTH, begun, since)
        assert ("third", "points") not in nets(compared)


async def test_several_rates_over_a_mixed_history_are_what_live_gives_by_them(pool: Any, database_url: str) -> None:
    """Equal facts in equal order, reported to a Connect that lives by the draft, give what the backtest said."""
    draft = RULES.replace("RATE", "0.13").replace("uses: 3", "uses: 2").replace("cap: 9000", "cap: 4000")
    history = facts(120, seed=3)
    async with intake_on(pool, LIVE) as intake:
        await intake.report(*history)
        said = await backtested(database_url, LIVE, draft)
    await pool.execute("TRUNCATE event, reward_action, state, exposure, counter, limit_definition")
    async with intake_on(pool, draft) as intake:
        await intake.report(*history)
        lived = await backtested(database_url, draft, draft)
    assert differences(said)
    assert said.tally.would == lived.tally.was == lived.tally.would
