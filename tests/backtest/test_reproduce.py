"""Stored decisions come out the same when they are made again, and what was changed by hand is found."""

from typing import Any

from connect.backtest.reproduce import Checked, decide_again
from connect.store.history import snapshot
from tests.backtest.histories import LIVE, RULES, facts, intakes_on, report_at_once
from tests.backtest.test_compare import all_decided, deliver_some
from tests.intake.rule_model import intake_on, purchase, refund


async def again(url: str, count: int = 10_000) -> Checked:
    async with snapshot(url) as connection:
        return await decide_again(connection, count)


async def test_hundreds_of_varied_decisions_of_several_versions_come_out_the_same(pool: Any, database_url: str) -> None:
    async with intakes_on(pool, LIVE, 3) as intakes:
        for version, rate in enumerate(("0.1", "0.07")):
            await intakes[0].publish(RULES.replace("RATE", rate))
            for one in intakes:
                await one.rules.refresh()
            await report_at_once(intakes, facts(120, seed=version, prefix=f"{version}"))
            await all_decided(pool, intakes)
            await deliver_some(pool)
            await report_at_once(intakes, facts(40, seed=version + 9, prefix=f"{version}x"))
            await all_decided(pool, intakes)
        checked = await again(database_url)
        assert checked.different == []
        assert checked.events == await pool.fetchval("SELECT count(*) FROM event") > 400
        assert checked.actions > 600
        assert await pool.fetchval("SELECT count(*) FROM reward_action WHERE reverses IS NOT NULL") > 20


async def test_an_amount_changed_by_hand_is_found_and_its_event_named(pool: Any, database_url: str) -> None:
    async with intake_on(pool, LIVE) as intake:
        await intake.report(purchase(1), purchase(2), refund(1, of=1, part=300))
        assert (await again(database_url)).different == []
        event_id = await pool.fetchval(
            "UPDATE reward_action SET amount = amount + 1 WHERE id = (SELECT min(id::text)::uuid FROM reward_action "
            "WHERE rule_key = 'from-the-pot' AND reverses IS NULL) RETURNING event_id"
        )
        [different] = (await again(database_url)).different
        assert different.event_id == event_id
        assert different.detail.startswith("amount of action ")


async def test_a_command_changed_by_hand_and_an_action_that_is_gone_are_found(pool: Any, database_url: str) -> None:
    async with intake_on(pool, LIVE) as intake:
        await intake.report(purchase(1), purchase(2))
        await pool.execute(
            "UPDATE reward_action SET body = replace(body, 'u1', 'u2') WHERE rule_key = 'token' AND event_id = "
            "(SELECT id FROM event WHERE external_id = 'p1')"
        )
        await pool.execute(
            "DELETE FROM reward_action WHERE rule_key = 'token' AND event_id = "
            "(SELECT id FROM event WHERE external_id = 'p2')"
        )
        gone, other = sorted(one.detail for one in (await again(database_url)).different)
        assert gone.endswith("would be given and is not stored")
        assert other.startswith("the command of action ")
