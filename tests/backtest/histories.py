"""Mixed histories, made through real recorders that write at once, and what a backtest says of them."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from connect.authoring import read_and_check
from connect.backtest.compare import Compared, compare
from connect.engine.periods import FIRST
from connect.intake.live import LiveRules
from connect.intake.normalize import NormalEvent
from connect.intake.record import Recorder
from connect.store.history import snapshot
from tests.intake.rule_model import UNDO, Intake, fact

RULES = """
version: 1
timezone: Europe/Berlin
units: { points: { scale: 0, worth: 0.01 EUR }, nft: { scale: 0 }, token: { scale: 18 } }
budgets:
  pot: { unit: points, cap: 9000, refill_on_reversal: true }
  once: { unit: token, cap: "40", closes: true }
safety: { review_above: { points: 400 } }
counters:
  purchases:
    { event_type: purchase.completed, of: actor, kind: count, undone_by: purchase.refunded, same: context.order,
      fraction: context.part / original.context.amount }
  spent: { event_type: purchase.completed, of: actor, kind: sum, value: context.amount, within: 7d }
  weeks: { event_type: purchase.completed, of: actor, kind: streak, every: week }
groups: { best: { pick: highest, unit: points } }
rules:
  - key: cashback
    event_type: purchase.completed
    group: best
    limits: [ { per: recipient, every: day, uses: 3 }, { per: recipient, every: month, amount: 400 } ]
    actions:
      - { target: points, command: credit, recipient: actor, amount: context.amount * RATE, round: down, unit: points,
          params: { order: =context.order } }
    reversal: { event_type: purchase.refunded, same: context.order, fraction: context.part / original.context.amount }
  - key: eighty
    event_type: purchase.completed
    group: best
    condition: context.amount >= 800
    limits: [ { per: recipient, within: 6h, uses: 1 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 80, unit: points } ]
    reversal: { event_type: purchase.refunded, same: context.order }
  - key: from-the-pot
    event_type: purchase.completed
    condition: context.amount > 500
    budget: { from: pot, when_short: clip }
    actions:
      - { target: points, command: credit, recipient: actor, amount: context.amount / 7, round: up, unit: points }
    reversal: { event_type: purchase.refunded, same: context.order, after_completion: review }
  - key: token
    event_type: purchase.completed
    budget: { from: once, when_short: deny }
    actions: [ { target: gateway, command: transfer, recipient: actor, amount: 10 / 3, round: down, unit: token } ]
    reversal: { event_type: purchase.refunded, same: context.order }
  - key: third
    event_type: purchase.completed
    condition: counters.purchases >= 3
    limits: [ { per: actor, every: week, uses: 2 } ]
    actions: [ { target: nft, command: mint, recipient: actor, amount: 1, unit: nft } ]
  - key: spender
    event_type: purchase.completed
    condition: [ counters.spent > 1500, counters.weeks >= 1 ]
    limits: [ { per: actor, within: 48h, amount: 60 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: 20, unit: points } ]
  - key: referral
    event_type: purchase.completed
    condition: has(parties.referrer)
    limits: [ { per: actor, every: ever, uses: 1 }, { per: parties.referrer, every: month, uses: 4 } ]
    all_or_nothing: true
    actions:
      - { target: points, command: credit, recipient: parties.referrer, amount: 50, unit: points, key: referrer }
      - { target: points, command: credit, recipient: actor, amount: 25, unit: points }
    reversal: { event_type: purchase.refunded, same: context.order }
  - key: arms
    event_type: purchase.*
    condition: event_type == "purchase.completed"
    variants:
      { by: actor, seed: s, holdout: 20, arms: { five: { weight: 40, give: 5 }, nine: { weight: 40, give: 9 } } }
    limits: [ { per: rule, every: day, uses: 40 } ]
    actions: [ { target: points, command: credit, recipient: actor, amount: variant.give, round: down, unit: points } ]
    reversal: { event_type: purchase.refunded, same: context.order }
"""
LIVE = RULES.replace("RATE", "0.1")


def facts(count: int, *, seed: int, prefix: str = "", first: int = 0) -> list[NormalEvent]:
    """Purchases of a June, a third of them refunded in one to three parts, some before their purchase is known."""
    chance = random.Random(seed)
    made: list[NormalEvent] = []
    for n in range(first, first + count):
        user, amount, order = f"u{chance.randrange(12)}", chance.randrange(1, 1500), f"{prefix}o{n}"
        at = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(30 * 24 * 60))
        parties = {"referrer": f"u{chance.randrange(12)}"} if chance.random() < 0.2 else {}
        bought = fact(
            f"{prefix}p{n}", user=user, occurred_at=at.isoformat(), parties=parties,
            context={"order": order, "amount": amount},
        )  # fmt: skip
        refunds = [
            fact(
                f"{prefix}r{n}-{part}", "purchase.refunded", user=user, occurred_at=at.isoformat(),
                context={"order": order, "part": chance.choice([amount, amount // 2, amount // 3])},
            )
            for part in range(chance.choice([0, 0, 0, 0, 1, 2, 3]))
        ]  # fmt: skip
        made += [*refunds, bought] if chance.random() < 0.2 else [bought, *refunds]
    return made


@contextlib.asynccontextmanager
async def intakes_on(pool: Any, text: str, count: int) -> AsyncIterator[list[Intake]]:
    """Several recorders, each with rules of its own, as several processes have."""
    made: list[Intake] = []
    for _ in range(count):
        rules = LiveRules(pool)
        made.append(Intake(pool, rules, Recorder(pool, rules, undo=UNDO)))
    await made[0].publish(text)
    flushers = [asyncio.create_task(one.recorder.run()) for one in made]
    try:
        yield made
    finally:
        for one in made:
            one.recorder.close()
        await asyncio.gather(*flushers)


async def report_at_once(intakes: list[Intake], events: list[NormalEvent], batch: int = 7) -> None:
    """Every recorder its share, in batches; all of them write at the same time."""

    async def some(intake: Intake, share: list[NormalEvent]) -> None:
        for start in range(0, len(share), batch):
            answers = await intake.report(*share[start : start + batch])
            assert all(not isinstance(answer, Exception) for answer in answers), answers

    await asyncio.gather(*(some(one, events[place :: len(intakes)]) for place, one in enumerate(intakes)))


async def backtested(url: str, live: str, candidate: str, since: datetime = FIRST) -> Compared:
    async with snapshot(url) as connection:
        return await compare(connection, read_and_check(live)[0], read_and_check(candidate)[0], since, UNDO)


def differences(compared: Compared) -> dict[Any, Any]:
    return {key: pair for key, pair in compared.tally.pairs().items() if not pair.is_same}
