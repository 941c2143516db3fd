"""Sums of what was given and of what a candidate would have given, side by side."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from heapq import nlargest, nsmallest
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import Struct

from connect.engine.amounts import CONTEXT, format_amount, minus, plus
from connect.engine.limits import Periods
from connect.engine.state import ZERO
from connect.model import Unit

WINNERS = 10
GAINERS = 5
FINGERPRINT = (1 << 64) - 1


class Side(Struct):
    """One side's sums of a rule, unit and day."""

    actions: int = 0
    given: Decimal = ZERO
    taken_back: Decimal = ZERO
    by_people: Decimal = ZERO
    """The part of the given amount that people cancelled or rejected. Rules did not do it: it lessens nothing here."""
    fingerprint: int = 0
    """A sum over every action's id and amount, in any order: equal where both sides gave exactly the same."""

    @property
    def net(self) -> Decimal:
        return minus(self.given, self.taken_back)

    def add(self, other: "Side") -> None:
        self.actions += other.actions
        self.given = plus(self.given, other.given)
        self.taken_back = plus(self.taken_back, other.taken_back)
        self.by_people = plus(self.by_people, other.by_people)
        self.fingerprint = self.fingerprint + other.fingerprint & FINGERPRINT


class Pair(Struct):
    was: Side
    would: Side

    @property
    def difference(self) -> Decimal:
        return minus(self.would.net, self.was.net)

    @property
    def is_same(self) -> bool:
        """To the last action, and what was taken back of all of them."""
        one, other = self.was, self.would
        return (one.actions, one.given, one.taken_back, one.fingerprint) == (
            other.actions, other.given, other.taken_back, other.fingerprint
        )  # fmt: skip


Key = tuple[str, str, str]
"""Rule, unit, day (of occurrence, in the ruleset's zone); the day is empty for what was given before the window."""
BEFORE_WINDOW = ""


class Tally:
    """Both sides' sums. A user's sums are the net of what they keep."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._moment: datetime | None = None
        self._day = BEFORE_WINDOW
        self.was: defaultdict[Key, Side] = defaultdict(Side)
        self.would: defaultdict[Key, Side] = defaultdict(Side)
        self.users_was: dict[tuple[str, str], Decimal] = {}
        self.users_would: dict[tuple[str, str], Decimal] = {}

    def key(self, rule: str, unit: str, occurred_at: datetime | None) -> Key:
        return rule, unit, BEFORE_WINDOW if occurred_at is None else self._day_of(occurred_at)

    def _day_of(self, occurred_at: datetime) -> str:
        """Remembers the last: one event's actions come together."""
        if occurred_at != self._moment:
            self._moment, self._day = occurred_at, Periods(occurred_at).of("day", self._zone).label
        return self._day

    def give(self, side: Mapping[Key, Side], key: Key, user_id: str, action_id: UUID, amount: Decimal) -> None:
        found = side[key]
        found.actions += 1
        found.given = CONTEXT.add(found.given, amount)
        found.fingerprint = found.fingerprint + hash((action_id.int, amount)) & FINGERPRINT
        self._add(side, user_id, key[1], amount)

    def take(self, side: Mapping[Key, Side], key: Key, user_id: str, amount: Decimal) -> None:
        """Back. A negative amount is one that a person decided to leave after all."""
        side[key].taken_back = CONTEXT.add(side[key].taken_back, amount)
        self._add(side, user_id, key[1], amount.copy_negate())

    def _add(self, side: Mapping[Key, Side], user_id: str, unit: str, amount: Decimal) -> None:
        users = self.users_was if side is self.was else self.users_would
        users[user_id, unit] = CONTEXT.add(users.get((user_id, unit), ZERO), amount)

    def pairs(self) -> dict[Key, Pair]:
        keys = sorted(self.was.keys() | self.would.keys())
        return {key: Pair(self.was.get(key, Side()), self.would.get(key, Side())) for key in keys}


def summed(pairs: Mapping[Key, Pair], parts: tuple[int, ...]) -> dict[tuple[str, ...], Pair]:
    """The pairs added up over all but these parts of their keys."""
    sums: dict[tuple[str, ...], Pair] = {}
    for key, pair in pairs.items():
        into = sums.setdefault(tuple(key[part] for part in parts), Pair(Side(), Side()))
        into.was.add(pair.was)
        into.would.add(pair.would)
    return sums


class Worth(Struct, frozen=True):
    """Says what one of a unit is in money."""

    amount: Decimal
    currency: str

    @classmethod
    def of(cls, unit: Unit | None) -> "Worth | None":
        if unit is None or unit.worth is None:
            return None
        amount, currency = unit.worth.split()
        return cls(Decimal(amount), currency)


class Users(Struct, frozen=True):
    """Who gets what, in one measure: a currency, or a unit that has no worth."""

    measure: str
    winners: list[dict[str, Any]]
    """Those whom the candidate would give most, with what they were given."""
    gaining: int
    losing: int
    same: int
    gainers: list[dict[str, Any]]
    losers: list[dict[str, Any]]


def users_of(tally: Tally, worths: Mapping[str, Worth]) -> list[Users]:
    measures: dict[str, dict[str, tuple[Decimal, Decimal]]] = defaultdict(dict)
    for user_id, unit in sorted(tally.users_was.keys() | tally.users_would.keys()):
        worth = worths.get(unit)
        measure, rate = (worth.currency, worth.amount) if worth else (unit, Decimal(1))
        was, would = measures[measure].get(user_id, (ZERO, ZERO))
        measures[measure][user_id] = (
            plus(was, CONTEXT.multiply(tally.users_was.get((user_id, unit), ZERO), rate)),
            plus(would, CONTEXT.multiply(tally.users_would.get((user_id, unit), ZERO), rate)),
        )
    return [_users(measure, found) for measure, found in sorted(measures.items())]


def _users(measure: str, found: Mapping[str, tuple[Decimal, Decimal]]) -> Users:
    changes = {user_id: minus(would, was) for user_id, (was, would) in found.items()}
    gaining = [user_id for user_id, change in changes.items() if change > 0]
    losing = [user_id for user_id, change in changes.items() if change < 0]

    def rows(users: Iterable[str]) -> list[dict[str, Any]]:
        return [
            {
                "user_id": user_id,
                "was": format_amount(found[user_id][0]),
                "would": format_amount(found[user_id][1]),
                "difference": format_amount(changes[user_id]),
            }
            for user_id in users
        ]

    winners = nlargest(WINNERS, (user_id for user_id in found if found[user_id][1] > 0), key=lambda one: found[one][1])
    return Users(
        measure=measure,
        winners=rows(winners),
        gaining=len(gaining),
        losing=len(losing),
        same=len(found) - len(gaining) - len(losing),
        gainers=rows(nlargest(GAINERS, gaining, key=lambda one: changes[one])),
        losers=rows(nsmallest(GAINERS, losing, key=lambda one: changes[one])),
    )
