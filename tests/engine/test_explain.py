"""A trace is stored without what its event holds, and spelled out as if it held it all."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from connect.authoring import read_and_check
from connect.engine.decide import State, decide
from connect.engine.explain import HISTORY, Read, compact, expanded, spell_out
from connect.engine.index import Rulebook
from connect.engine.state import Memory
from connect.intake.normalize import Terms, convert_reported, normalize
from connect.model import EconomicEvent, Effects

BYTES_MAX = 400
"""The most bytes of a stored trace, for 10 rules of an event's type, on average."""
RULES = """
version: 1
timezone: Europe/Berlin
units: { points: { scale: 0 }, nft: { scale: 0 } }
budgets: { autumn: { unit: points, cap: 300 } }
groups: { cashback: { pick: highest, unit: points } }
counters:
  purchases: { event_type: purchase.completed, of: actor, kind: count }
  spent: { event_type: purchase.completed, of: actor, kind: sum, value: context.amount * 0.5 }
rules:
  - key: cashback-2
    event_type: purchase.completed
    condition: [ 'context.currency == "EUR"', context.amount >= 1000 ]
    group: cashback
    limits: [ { per: recipient, every: day, uses: 3 } ]
    actions:
      - { target: points, command: credit, recipient: actor, amount: context.amount * 0.02, round: down, unit: points }
  - key: autumn-books
    event_type: purchase.completed
    condition: has(context.items) && context.items.exists(item, item == "books")
    group: cashback
    budget: { from: autumn, when_short: deny }
    variants:
      by: actor
      seed: autumn
      holdout: 40
      arms: { five: { weight: 30, rate: 0.05 }, eight: { weight: 30, rate: 0.08 } }
    actions: [ { target: points, command: credit, recipient: actor, unit: points, round: half_even,
          amount: context.amount * variant.rate } ]
  - key: referral-first-purchase
    event_type: purchase.completed
    condition: has(parties.referrer) && parties.referrer != actor_user_id && counters.purchases == 1
    actions: [ { target: points, command: credit, recipient: parties.referrer, amount: 500, unit: points } ]
  - key: tenth-purchase
    event_type: purchase.completed
    condition: counters.purchases == 10
    actions: [ { target: nft, command: mint, recipient: actor, amount: 1, unit: nft } ]
  - key: big-spender
    event_type: purchase.completed
    condition: counters.spent > 20000.5
    actions: [ { target: nft, command: mint, recipient: actor, amount: 1, unit: nft } ]
  - key: large-basket
    event_type: purchase.completed
    condition: context.amount >= 15000
    actions:
      - { target: points, command: credit, recipient: actor, amount: 'max(context.amount - 19000, 0)', unit: points }
  - key: app-coupon
    event_type: purchase.completed
    condition: context.coupon == "APP"
    actions: [ { target: points, command: credit, recipient: actor, amount: 50, unit: points } ]
  - key: gift-to-friend
    event_type: purchase.completed
    actions:
      - { target: points, command: credit, recipient: parties.friend, unit: points, round: down,
          amount: context.amount / 100 }
  - key: spring
    event_type: purchase.completed
    ends_at: 2026-06-01T00:00:00+02:00
    actions: [ { target: points, command: credit, recipient: actor, amount: 5, unit: points } ]
  - key: double-points
    event_type: purchase.completed
    enabled: false
    actions: [ { target: points, command: credit, recipient: actor, amount: 5, unit: points } ]
"""


def rulebook() -> Rulebook:
    document, _ = read_and_check(RULES)
    return Rulebook.compile(1, document, {})


def purchase(n: int, effects: Effects = "all") -> EconomicEvent:
    """Every kind of outcome comes by in a few hundred of these."""
    context: dict[str, Any] = {"currency": "EUR" if n % 7 else "USD", "amount": 900 + n * 97 % 20_000}
    if n % 3:
        context["items"] = [["books", "food", "toys"][(n + k) % 3] for k in range(n % 5)]
    if n % 4 == 0:
        context["coupon"] = ["APP", "WEB"][n % 8 == 0]
    fact = {
        "external_id": f"e{n}", "event_type": "purchase.completed", "occurred_at": "2026-06-15T12:00:00Z",
        "actor_user_id": f"u{n % 90}", "context": context,
        "parties": {"referrer": f"u{n % 11}"} if n % 2 else {"friend": f"f{n}"} if n % 6 == 0 else {},
    }  # fmt: skip
    return normalize(convert_reported(fact), Terms(age_max_days=0, effects=effects), datetime.now(UTC)).event


def test_ten_rules_of_a_type_take_at_most_400_bytes_on_average():
    book, memory = rulebook(), Memory()
    decided = [decide(purchase(n), book, State(now=datetime.now(UTC), memory=memory)) for n in range(400)]
    assert {len(decision.trace) for decision in decided} == {10}
    assert sum(len(compact(decision.trace)) for decision in decided) / len(decided) <= BYTES_MAX


@pytest.mark.parametrize("effects", ["all", "none"])
def test_a_stored_trace_is_spelled_out_as_the_whole_one_is(effects: Effects):
    book, memory = rulebook(), Memory()
    seen: set[str] = set()
    for n in range(400):
        event = purchase(n, effects)
        decision = decide(event, book, State(now=datetime.now(UTC), memory=memory))
        stored = expanded(msgspec.json.decode(compact(decision.trace)))
        counters = msgspec.json.decode(msgspec.json.encode(decision.read)).get("counters", {})
        read = Read(event, counters, {} if n % 40 == 0 else book.rules)
        assert spell_out(stored, book.document, read) == spell_out(decision.trace, book.document)
        seen |= {entry.outcome for entry in decision.trace}
    everything = {"gave", "not_matched", "missing", "limited", "short_of_budget", "lost_group", "held_out", "not_live",
                  "no_recipient", "zero"}  # fmt: skip
    assert seen == (everything if effects == "all" else {"not_matched", "missing", "not_live"})
    assert effects == "all" or any(entry.detail == HISTORY for entry in decision.trace)


def test_an_erased_event_has_erased_values():
    book, event = rulebook(), purchase(1)
    decision = decide(event, book, State(now=datetime.now(UTC)))
    stored = expanded(msgspec.json.decode(compact(decision.trace)))
    erased = msgspec.structs.replace(event, context={})
    assert not any("context" in name for told in spell_out(stored, book.document, Read(erased)) for name in told.values)
