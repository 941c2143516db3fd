"""Limits, as meters: each measures uses or an amount, of one rule, for one subject, in one period.

A meter's key is made of the rule, what is measured, for whom, the kind of period, the zone, the period and the subject,
never of the limit's position or its cap: limits can be reordered and changed, and what was used stays used.

`per` names whose measure is kept. Where the rule gives to that role, the limit is about what the role gets; where it
does not, about all that the rule gives because of that person.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import ClassVar, Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from connect.engine.amounts import minus, parse_amount, plus
from connect.engine.periods import Calendar, Period, period
from connect.engine.state import ZERO
from connect.engine.state_keys import limit_definition, limit_key
from connect.model import EconomicEvent, Limit, RewardAction

Measure = Literal["uses", "amount"]
ONE = Decimal(1)


class Window(timedelta):
    """The length of a sliding window; its text is as rulesets write it: `6h`, `90m`, `2w`."""

    def __str__(self) -> str:
        seconds = round(self.total_seconds())
        size, letter = next((size, letter) for size, letter in _LETTERS if seconds % size == 0)
        return f"{seconds // size}{letter}"


_LETTERS = ((604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
"""Seconds of each letter, longest first."""


class Meter(Struct, frozen=True):
    """One measure of one limit, ready to be read."""

    definition: str
    """The text that all of the meter's keys begin with, and that names it when it is new."""
    measure: Measure
    per: str
    role_only: bool
    """true: only what the role `per` gets is measured and denied; false: all that the rule gives."""
    every: Calendar | None
    within: Window | None
    zone: ZoneInfo
    cap: Decimal
    unit: str
    keys: tuple[str, ...]
    """The rule's key, and the one it had before: what stored actions may be found by."""

    @property
    def words(self) -> str:
        """Whose and how often, after the cap and what is measured. A sliding window's length is said before these."""
        if self.every is None:
            return "in all" if self.per == "rule" else f"per {self.per}"
        whose = "" if self.per == "rule" else f"per {self.per} "
        return whose + (self.every if self.every == "ever" else f"a{'n' * (self.every == 'hour')} {self.every}")


def meters(
    limits: Iterable[Limit], *, identity: str, keys: tuple[str, ...], roles: frozenset[str], unit: str, zone: ZoneInfo,
    durations: "Sequence[timedelta | None]",
) -> tuple[Meter, ...]:  # fmt: skip
    """`roles`: the recipients that the rule's effects name; `durations`: each limit's `within`, parsed."""
    made: list[Meter] = []
    for limit, length in zip(limits, durations, strict=True):
        within = None if length is None else Window(seconds=length.total_seconds())
        role_only = limit.per == "recipient" or limit.per in roles
        caps: list[tuple[Measure, Decimal]] = []
        if limit.uses is not None:
            caps.append(("uses", Decimal(limit.uses)))
        if limit.amount is not None:
            caps.append(("amount", parse_amount(str(limit.amount))))
        for measure, cap in caps:
            what = measure if measure == "uses" else f"amount:{unit}"
            span = f"within:{int(within.total_seconds())}" if within else str(limit.every)
            about = "role" if role_only else "rule"
            definition = limit_definition(identity, what, limit.per, about, span, "" if within else zone.key)
            made.append(
                Meter(definition, measure, limit.per, role_only, limit.every, within, zone, cap, unit, keys)
            )  # fmt: skip
    return tuple(made)


class Slot(Struct, frozen=True):
    """Where one meter keeps the measure of one subject at one event."""

    key: str
    meter: Meter
    subject: str
    period: Period | None
    """None for a sliding window."""


class Periods:
    """The periods of one moment."""

    __slots__ = ("moment",)
    _latest: ClassVar[dict[tuple[Calendar, str], Period]] = {}
    """By kind and zone, the one worked out last: events come in the order of time, mostly."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def of(self, every: Calendar, zone: ZoneInfo) -> Period:
        latest = self._latest.get((every, zone.key))
        if latest is None or not latest.start <= self.moment < latest.end:
            latest = self._latest[every, zone.key] = period(self.moment, every, zone)
        return latest


def slot(meter: Meter, subject: str, periods: Periods) -> Slot:
    if meter.every is None:
        return Slot(limit_key(meter.definition, "", subject), meter, subject, None)
    found = periods.of(meter.every, meter.zone)
    return Slot(limit_key(meter.definition, found.label, subject), meter, subject, found)


def subjects(meter: Meter, event: EconomicEvent, user_id: str, role: str) -> tuple[str, ...]:
    """Whose measure a gift to `user_id` in this role touches; empty where the meter is not about it."""
    if meter.per == "recipient":
        return (user_id,)
    if meter.per == "rule":
        return ("",)
    if meter.role_only:
        return (user_id,) if role == meter.per else ()
    return parties(event, meter.per)


def parties(event: EconomicEvent, party: str) -> tuple[str, ...]:
    """The ids of a party: `actor`, `subject` or `parties.<role>`; each once, in order."""
    if party == "actor":
        return () if event.actor_user_id is None else (event.actor_user_id,)
    if party == "subject":
        return () if event.primary_subject_user_id is None else (event.primary_subject_user_id,)
    named = event.parties.get(party.removeprefix("parties."), ())
    return (named,) if isinstance(named, str) else tuple(dict.fromkeys(named))


def contribution(meter: Meter, event: EconomicEvent, subject: str, actions: Iterable[RewardAction]) -> Decimal:
    """Sums one event's actions of the meter's rule on a subject's measure: live ones, less what was reversed."""
    total = ZERO
    for action in actions:
        if action.reverses is not None or action.status == "cancelled":
            continue
        if subject not in subjects(meter, event, action.user_id, action.recipient_role):
            continue
        live = minus(Decimal(action.amount), Decimal(action.reversed))
        if live > 0:
            if meter.measure == "uses":
                return ONE
            total = plus(total, live)
    return total


def fits_window(
    entries: Sequence[tuple[datetime, Decimal]], moment: datetime, length: timedelta, amount: Decimal, cap: Decimal
) -> bool:
    """Whether every window [s, s + length) that holds the moment stays within the cap with this amount in it.

    `entries` are sorted by moment. Windows that begin at an entry, or at the moment itself, are the fullest.
    """
    moments = [entry[0] for entry in entries]
    sums = [ZERO, *accumulate((entry[1] for entry in entries), plus)]
    first = bisect_right(moments, moment - length) if moment - _BEGINNING > length else 0
    starts = [*moments[first : bisect_right(moments, moment)], moment]
    return all(plus(_inside(moments, sums, start, length), amount) <= cap for start in starts)


_BEGINNING = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
_END = datetime.fromisoformat("9999-12-31T23:59:59.999999+00:00")


def _inside(moments: Sequence[datetime], sums: Sequence[Decimal], start: datetime, length: timedelta) -> Decimal:
    end = bisect_left(moments, start + length) if _END - start > length else len(moments)
    return minus(sums[end], sums[bisect_left(moments, start)])


def slots_of(
    meters_of_rule: Iterable[Meter], event: EconomicEvent, given: Iterable[tuple[str, str]], periods: Periods
) -> Iterator[Slot]:
    """Each slot once that gifts to these (user id, role) touch."""
    seen: set[str] = set()
    gifts = list(given)
    for meter in meters_of_rule:
        for user_id, role in gifts:
            for subject in subjects(meter, event, user_id, role):
                found = slot(meter, subject, periods)
                if found.key not in seen:
                    seen.add(found.key)
                    yield found
