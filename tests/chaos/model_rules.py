"""Rules that use the whole model, and a day of shop life for them: purchases, refunds whole and in parts, friends."""

from datetime import UTC, datetime, timedelta
from random import Random

from connect.authoring import read_and_check
from connect.model import Ruleset
from tests.chaos.feeder import Fact

CASHBACKS_A_DAY, CASHBACK_A_MONTH, BONUS, POT, FRIENDS_A_WEEK = 3, 900, 40, 2_500, 4

TEXT = f"""
version: 1
timezone: Europe/Berlin
units: {{ points: {{ scale: 0 }}, badge: {{ scale: 0 }} }}
budgets:
  pot: {{ unit: points, cap: {POT}, refill_on_reversal: true }}
counters:
  purchases:
    event_type: purchase.completed
    of: actor
    kind: count
    undone_by: purchase.refunded
    same: context.order
    fraction: context.refunded_minor / original.context.amount_minor
  spent:
    event_type: purchase.completed
    of: actor
    kind: sum
    value: context.amount_minor
    every: day
    undone_by: purchase.refunded
    same: context.order
    fraction: context.refunded_minor / original.context.amount_minor
  shops: {{ event_type: purchase.completed, of: actor, kind: distinct, value: context.shop }}
rules:
  - key: cashback
    event_type: purchase.completed
    limits:
      - {{ per: recipient, every: day, uses: {CASHBACKS_A_DAY} }}
      - {{ per: recipient, every: month, amount: {CASHBACK_A_MONTH} }}
    actions:
      - target: points
        command: credit
        recipient: actor
        amount: context.amount_minor * 0.02
        round: down
        unit: points
    reversal:
      event_type: purchase.refunded
      same: context.order
      fraction: context.refunded_minor / original.context.amount_minor
  - key: bonus
    event_type: purchase.completed
    budget: {{ from: pot, when_short: clip }}
    actions: [ {{ target: points, command: credit, recipient: actor, amount: {BONUS}, unit: points }} ]
    reversal:
      event_type: purchase.refunded
      same: context.order
      fraction: context.refunded_minor / original.context.amount_minor
  - key: third
    event_type: purchase.completed
    condition: counters.purchases == 3
    limits: [ {{ per: actor, every: ever, uses: 1 }} ]
    actions: [ {{ target: nft, command: grant, recipient: actor, amount: 1, unit: badge }} ]
  - key: friend
    event_type: friend.joined
    limits:
      - {{ per: parties.referrer, every: week, uses: {FRIENDS_A_WEEK} }}
      - {{ per: actor, every: ever, uses: 1 }}
    actions: [ {{ target: points, command: credit, recipient: parties.referrer, amount: 50, unit: points }} ]
"""

UNDO = {"CONNECT_TARGETS__POINTS__UNDO__CREDIT": "debit", "CONNECT_TARGETS__NFT__UNDO__GRANT": "revoke"}
"""Settings of the targets that these rules take back from."""


def model_rules() -> Ruleset:
    document, problems = read_and_check(TEXT)
    assert document is not None, problems
    return document


def shop_life(rng: Random, count: int, *, users: int = 40) -> list[Fact]:
    """Purchases of three days, a third of them refunded: some in parts, some twice, some before they are reported.

    From a morning on, whenever it runs: with a week's end among few facts, neither week's limit would be reached.
    """
    begun = datetime.now(UTC).replace(hour=8, minute=0, second=0, microsecond=0) - timedelta(days=4)
    facts: list[tuple[float, Fact]] = []
    number = 0
    while len(facts) < count:
        number += 1
        at = begun + timedelta(minutes=number % 4_000)
        if rng.random() < 0.15:
            facts.append((number, _friend(rng, number, at)))
            continue
        bought = _purchase(rng, number, at, users)
        facts.append((number, bought))
        if rng.random() < 0.35:
            facts += [(number + rng.uniform(-6, 30), one) for one in _refunds(rng, bought, at)]
    return [fact for _, fact in sorted(facts, key=lambda placed: placed[0])][:count]


def _fact(external_id: str, kind: str, at: datetime, user: str, **fields: object) -> Fact:
    return {
        "external_id": external_id, "source": "shop", "event_type": kind, "occurred_at": at.isoformat(),
        "actor_user_id": user, "context": {}, **fields,
    }  # fmt: skip


def _purchase(rng: Random, number: int, at: datetime, users: int) -> Fact:
    context = {"order": f"o{number}", "amount_minor": rng.randrange(100, 20_000), "shop": f"s{rng.randrange(4)}"}
    return _fact(f"buy-{number}", "purchase.completed", at, f"u{rng.randrange(users)}", context=context)


def _refunds(rng: Random, bought: Fact, at: datetime) -> list[Fact]:
    """The whole, the whole twice, or three parts that come to it or to less."""
    order, amount = bought["context"]["order"], bought["context"]["amount_minor"]
    third = amount // 3
    parts = rng.choice([(amount,), (amount, amount), (third, third, amount - 2 * third), (third,)])
    return [
        _fact(f"refund-{order}-{n}", "purchase.refunded", at + timedelta(minutes=n + 1), bought["actor_user_id"],
              context={"order": order, "refunded_minor": part})
        for n, part in enumerate(parts)
    ]  # fmt: skip


def _friend(rng: Random, number: int, at: datetime) -> Fact:
    parties = {"referrer": f"r{rng.randrange(6)}"}
    return _fact(f"friend-{number}", "friend.joined", at, f"n{rng.randrange(500)}", parties=parties)
