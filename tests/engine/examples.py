"""The event and the rule of the contract, and short ways to write others."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from connect.authoring import convert_rule
from connect.engine.decide import State, decide
from connect.engine.index import Rulebook
from connect.model import Decision, EconomicEvent, RewardRule, Ruleset, Unit

OCCURRED = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW = OCCURRED + timedelta(seconds=5)
CONTEXT = {
    "order_id": "o-1001",
    "amount_minor": 12990,
    "currency": "EUR",
    "tags": [],
    "items": [{"sku": "b1", "category": "books"}],
}
EVENT = EconomicEvent(
    id=UUID("01990000-0000-7000-8000-000000000001"),
    external_id="order-1001",
    source="shop",
    event_type="purchase.completed",
    occurred_at=OCCURRED,
    received_at=NOW,
    actor_user_id="u1",
    primary_subject_user_id="u2",
    parties={"referrer": "u3", "upline": ["u4", "u5", "u4"]},
    context=CONTEXT,
)
UNITS = {"points": Unit(scale=0, worth="0.01 EUR"), "token": Unit(scale=18), "money": Unit(scale=2)}
CASHBACK = {
    "key": "cashback-2",
    "name": "2 % back on purchases from 10 EUR",
    "event_type": "purchase.completed",
    "starts_at": "2026-09-01T00:00:00+02:00",
    "priority": 100,
    "condition": [
        'context.currency == "EUR"',
        "context.amount_minor >= 1000",
        '!has(context.tags) || !("employee" in context.tags)',
    ],
    "actions": [
        {
            "target": "points",
            "command": "credit",
            "recipient": "actor",
            "amount": "context.amount_minor * 0.02",
            "round": "down",
            "unit": "points",
            "hold": "14d",
            "params": {"reason": "cashback", "order": "=context.order_id"},
        }
    ],
}
CREDIT: dict[str, Any] = {"target": "points", "command": "credit", "recipient": "actor", "amount": 5, "unit": "points"}


def rule(key: str = "r", actions: list[dict[str, Any]] | None = None, **fields: object) -> RewardRule:
    given = {"key": key, "event_type": "purchase.completed", "actions": actions or [CREDIT], **fields}
    return convert_rule(given)


def effect(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in {**CREDIT, **fields}.items() if value is not None}


def each(**fields: object) -> dict[str, Any]:
    """An action for each of `context.items`, called `item`."""
    listed = {"in": "context.items", "as": "item", "recipient": "item.seller", **fields}
    return effect(recipient=None, amount=None, each=listed)


def rulebook(*rules: RewardRule, versions: dict[str, int] | None = None) -> Rulebook:
    return Rulebook.compile(7, Ruleset(units=UNITS, rules=list(rules)), versions or {})


def decided(*rules: RewardRule, given: frozenset[str] = frozenset(), **event: object) -> Decision:
    return decide(msgspec.structs.replace(EVENT, **event), rulebook(*rules), State(now=NOW, given=given))


def paid(decision: Decision) -> list[tuple[str, str]]:
    return [(action.user_id, action.amount) for action in decision.actions]


def outcomes(decision: Decision) -> list[tuple[str, str]]:
    return [(trace.rule, trace.outcome) for trace in decision.trace]
