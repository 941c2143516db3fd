"""Actions as the reference remembers them, and what a rule would give before anything is denied."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from connect.engine.amounts import round_amount, split_amount
from connect.engine.expression import Activation, Failed, Missing
from connect.model import EconomicEvent, Effect, RewardRule, Ruleset
from tests.engine.reference_counters import amount, people, value

ZERO = Decimal(0)


@dataclass
class Gift:
    effect: Effect
    role: str
    user: str
    amount: Decimal


@dataclass(eq=False)
class Given:
    """One action, as the reference remembers it."""

    event: EconomicEvent
    rule: RewardRule
    effect: Effect
    role: str
    user: str
    amount: Decimal
    decided_at: datetime
    status: str = "pending"
    attempts: int = 0
    failure: str | None = None
    freed: Decimal = ZERO
    """Taken back, and out of limits since."""
    reverses: "Given | None" = None
    frees: bool = True

    @property
    def live(self) -> Decimal:
        return ZERO if self.status == "cancelled" else self.amount - self.freed

    @property
    def name(self) -> tuple[str, ...]:
        return (self.event.external_id, self.rule.key, self.effect.effect_key, self.user)


@dataclass
class Answer:
    """Tells what one fact comes to."""

    outcomes: dict[str, str] = field(default_factory=dict)
    actions: list[Given] = field(default_factory=list)
    cancelled: list[tuple[Given, Decimal]] = field(default_factory=list)
    """The actions that stood before and are cancelled, and how much that takes back."""


class NoGiftError(Exception):
    """A rule ends without giving; the outcome is its only argument."""


def gifts(document: Ruleset, rule: RewardRule, event: EconomicEvent, known: Activation) -> list[Gift]:
    everyone: list[Gift] = []
    for effect in rule.actions:
        found = parts(document, effect, event, known)
        if not found and rule.all_or_nothing:
            raise NoGiftError("no_recipient")
        for user in dict.fromkeys(user for user, _ in found):
            total = sum((part for other, part in found if other == user), ZERO)
            everyone.append(Gift(effect, effect.recipient or "each", user, total))
    if not everyone:
        raise NoGiftError("no_recipient")
    if not any(gift.amount for gift in everyone):
        raise NoGiftError("zero")
    return [gift for gift in everyone if gift.amount]


def parts(document: Ruleset, effect: Effect, event: EconomicEvent, known: Activation) -> list[tuple[str, Decimal]]:
    """Who gets what by one effect; the same user may come twice."""
    scale, each = document.units[effect.unit].scale, effect.each
    if each is None:
        assert effect.recipient is not None
        found = event.parties.get(effect.recipient.removeprefix("parties."), people(event, effect.recipient))
        users = [found] if isinstance(found, str) else found
        one = rounded(str(effect.amount), known, effect, scale) if users else ZERO
        return [(user, one) for user in users]
    scopes = [
        known.bind({each.name: item, "rank": rank}) for rank, item in enumerate(evaluated(value(each.items), known))
    ]
    bound = frozenset({each.name, "rank"})
    users = [evaluated(value(each.recipient, bound), scope) for scope in scopes]
    listed = [(user, scope) for user, scope in zip(users, scopes, strict=True) if user is not None]
    if each.share is None or not listed:
        text = str(effect.amount if each.amount is None else each.amount)
        return [(user, rounded(text, scope, effect, scale, bound)) for user, scope in listed]
    whole = rounded(str(effect.amount), known, effect, scale)
    points = [int(evaluated(amount(each.share, bound), scope)) for _, scope in listed]
    if sum(points) != 10_000:
        raise NoGiftError("error")
    return [(user, part) for (user, _), part in zip(listed, split_amount(whole, points, scale), strict=True)]


def total(wish: list[Gift] | str) -> Decimal:
    assert not isinstance(wish, str)
    return sum((gift.amount for gift in wish), ZERO)


def exact(found: Any) -> Any:
    return Decimal(found) if isinstance(found, str) else found


def evaluated(expression: Any, known: Activation) -> Any:
    found = expression.evaluate(known)
    if isinstance(found, Missing | Failed):
        raise NoGiftError("missing" if isinstance(found, Missing) else "error")
    return found


def rounded(text: str, known: Activation, effect: Effect, scale: int, bound: frozenset[str] = frozenset()) -> Decimal:
    found: Decimal = evaluated(amount(text, bound), known)
    if found < 0:
        raise NoGiftError("error")
    try:
        return round_amount(found, scale, effect.round)
    except ValueError:
        raise NoGiftError("error") from None
