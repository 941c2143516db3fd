"""Counters built from history, while events are decided, and anew."""

from typing import Any

from connect.intake.live import LiveRules
from connect.intake.rebuild import Rebuilder
from connect.store.published_context import restart
from connect.store.rules import change
from tests.conftest import eventually
from tests.intake.rule_model import CASHBACK, HEAD, intake_on, purchase, refund

FIRST = """
counters:
  purchases:
    { event_type: purchase.completed, of: actor, kind: count, undone_by: purchase.refunded, same: context.order }
  spent: { event_type: purchase.*, of: actor, kind: sum, value: context.amount }
rules:
  - key: first
    event_type: purchase.completed
    condition: [ counters.purchases == 1, counters.spent > 0 ]
    limits: [ { per: actor, every: ever, uses: 1 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 1, unit: points } ]
"""


async def test_a_counter_added_to_a_live_ruleset_pays_no_old_customer_for_a_first_purchase(pool: Any) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        await intake.report(*(purchase(n, user=f"u{n % 700}") for n in range(1200)), refund(1, of=1), refund(2, of=2))
        await intake.publish(HEAD + FIRST)
        await intake.report(purchase("a", user="u3"), purchase("b", user="new"))
        assert (await intake.outcomes("pa"))["first"] == "not_live"
        await pool.execute("UPDATE counter SET published_at = published_at - interval '1 minute'")
        rebuilder = Rebuilder(pool, intake.rules)
        while await rebuilder.tick():
            await intake.report(purchase(f"m{intake.rules.rulebook.version}", user="u4"))
        await intake.report(purchase("c", user="u5"), purchase("d", user="newer"), purchase("e", user="u1"))
        assert (await intake.outcomes("pc"))["first"] == "not_matched"
        assert (await intake.outcomes("pd"))["first"] == "gave"
        counts = await intake.stored("counter|purchases")
        by_user = {key.rpartition("|")[2]: int(value) for key, value in counts.items()}
        assert (by_user["u3"], by_user["new"], by_user["newer"], by_user["u5"]) == (3, 1, 1, 3)
        assert (by_user["u1"], by_user["u2"]) == (2, 1)  # two less one undone, and one more
        assert sum(by_user.values()) == 1200 - 2 + 2 + 1 + 3
        total = sum(int(value) for value in (await intake.stored("counter|spent")).values())
        assert total == 1000 * (sum(by_user.values()) + 2)


async def test_a_counter_built_anew_comes_to_the_same(pool: Any) -> None:
    async with intake_on(pool, HEAD + FIRST) as intake:
        await intake.report(*(purchase(n, user=f"u{n % 7}") for n in range(30)), refund(1, of=1))
        before = sorted(value for value in (await intake.stored("counter|")).values())
        async with pool.acquire() as connection, connection.transaction():
            await restart(connection, [])
            await change(connection, lambda document: document, "ann", "counters anew")
        await intake.rules.refresh()
        await intake.report(purchase("x", user="u3"))
        assert (await intake.outcomes("px"))["first"] == "not_live"
        await pool.execute("UPDATE counter SET published_at = published_at - interval '1 minute'")
        while await Rebuilder(pool, intake.rules).tick():
            pass
        after = await intake.stored("counter|")
        assert sum(int(value) for value in after.values()) == sum(int(value) for value in before) + 1001
        assert all(".1|" in key for key in after)
        assert not intake.rules.rulebook.published.building


async def test_a_process_that_stood_still_looks_for_a_publish_before_it_decides(pool: Any) -> None:
    async with intake_on(pool, CASHBACK) as intake:
        stale = LiveRules(pool)
        await stale.refresh()
        async with pool.acquire() as connection:
            await change(connection, lambda document: document, "ann", "")
        assert (await stale.fresh()).version == 1
        stale.looked_at -= 3
        wanted = intake.rules.rulebook.version + 1

        async def looked() -> bool:
            return (await stale.fresh()).version == wanted

        await eventually(looked)
