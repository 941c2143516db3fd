"""The reference's calendar, links and counters: read off the full list of facts, each time from its beginning."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from connect.engine.amounts import CONTEXT, SCALE_MAX, round_amount
from connect.engine.expression import Failed, Missing, compile_amount, compile_condition, compile_value, make_activation
from connect.model import Counter, EconomicEvent, Reversal, SamePath

condition = lru_cache(compile_condition)
amount = lru_cache(compile_amount)
value = lru_cache(compile_value)
UNITS_OF_TIME = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration(text: str) -> timedelta:
    return timedelta(seconds=int(text[:-1]) * UNITS_OF_TIME[text[-1]])


def matches(pattern: str, event_type: str) -> bool:
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else pattern == event_type


def names(event: EconomicEvent, **more: Any) -> dict[str, Any]:
    """Returns the names that expressions know, as 3-rules lists them."""
    fields = ("context", "actor_user_id", "primary_subject_user_id", "parties", "event_type", "source", "external_id",
              "occurred_at")  # fmt: skip
    return {field: getattr(event, field) for field in fields} | more


def people(event: EconomicEvent, party: str) -> list[str]:
    """Whom the event names in a role, each once."""
    if party == "actor":
        return [] if event.actor_user_id is None else [event.actor_user_id]
    if party == "subject":
        return [] if event.primary_subject_user_id is None else [event.primary_subject_user_id]
    found = event.parties.get(party.removeprefix("parties."), [])
    return [found] if isinstance(found, str) else list(dict.fromkeys(found))


# --- the calendar --------------------------------------------------------------------------------


def period(moment: datetime, every: str, zone: ZoneInfo) -> str:
    """A name of the calendar's period: two moments are in the same one exactly when the names are equal."""
    clock = moment.astimezone(zone)
    match every:
        case "hour":  # the hour that is repeated when clocks go back is another hour
            return clock.strftime("%Y-%m-%dT%H%z")
        case "day":
            return clock.date().isoformat()
        case "week":
            return (clock.date() - timedelta(days=clock.weekday())).isoformat()
        case "month":
            return clock.strftime("%Y-%m")
        case _:
            return ""


def step(moment: datetime, every: str | None, zone: ZoneInfo) -> int:
    """The number of the day, week or month: neighbours differ by one."""
    day = moment.astimezone(zone).date()
    if every == "month":
        return day.year * 12 + day.month
    return (day - timedelta(days=day.weekday())).toordinal() // 7 if every == "week" else day.toordinal()


# --- links ---------------------------------------------------------------------------------------


def at_path(event: EconomicEvent, path: str) -> Any:
    found: Any = names(event)
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def original_path(same: str | SamePath) -> str:
    return same if isinstance(same, str) else same.original


def takes_back(by: EconomicEvent, original: EconomicEvent, pattern: str, same: str | SamePath, source: str) -> bool:
    """Whether a fact is about another: of the type that takes back, and with an equal, present value."""
    mine = at_path(by, same if isinstance(same, str) else same.event)
    theirs = at_path(original, original_path(same))
    return (
        by.id != original.id
        and matches(pattern, by.event_type)
        and (source == "any" or by.source == original.source)
        and mine is not None
        and mine == theirs
    )


def share(text: str, by: EconomicEvent, original: EconomicEvent) -> Fraction | None:
    """The fraction that a fact takes back of another, 0 to 1; None where it cannot be told."""
    found = amount(text).exact(make_activation(names(by, original=names(original))))
    if isinstance(found, Missing | Failed) or found < 0:
        return None
    return min(Fraction(found), Fraction(1))


def reversers(terms: Reversal, original: EconomicEvent, facts: Sequence[EconomicEvent]) -> list[EconomicEvent]:
    """The facts that take back what the original gave, in the order decided. History has no effects of its own."""
    return [
        one
        for one in facts
        if one.effects == "all" and takes_back(one, original, terms.event_type, terms.same, terms.source)
    ]


# --- counters ------------------------------------------------------------------------------------


class Recount:
    """One counter over a list of facts, in the order decided."""

    def __init__(self, counter: Counter, timezone: str) -> None:
        self.counter, self.timezone = counter, timezone
        self.within = None if counter.within is None else duration(counter.within)

    def zone(self, event: EconomicEvent) -> ZoneInfo | None:
        written = self.counter.zone or self.timezone
        if not written.startswith("context."):
            return ZoneInfo(written)
        found = at_path(event, written)
        return ZoneInfo(found) if isinstance(found, str) else None

    def added(self, event: EconomicEvent) -> Decimal | str | None:
        """Returns what the event adds to a sum, or to the values told apart; None where the event does not count."""
        counter, known = self.counter, make_activation(names(event))
        if not matches(counter.event_type, event.event_type) or self.zone(event) is None:
            return None
        if any(condition(line).evaluate(known) is not True for line in counter.lines):
            return None
        if counter.value is None:
            return Decimal(1)
        compiled = value(counter.value) if counter.kind == "distinct" else amount(counter.value)
        found = compiled.evaluate(known)
        if found is None or isinstance(found, Missing | Failed):
            return None
        return found if counter.kind == "distinct" else round_amount(found, SCALE_MAX, "half_even")

    def is_undone(self, event: EconomicEvent, facts: Sequence[EconomicEvent]) -> bool:
        counter = self.counter
        if counter.undone_by is None or counter.same is None:
            return False
        by = [one for one in facts if takes_back(one, event, counter.undone_by, counter.same, "same")]
        return sum(share(str(counter.fraction), one, event) or Fraction(0) for one in by) >= 1

    def is_counted(self, event: EconomicEvent, facts: Sequence[EconomicEvent]) -> bool:
        return self.added(event) is not None and not self.is_undone(event, facts)

    def counts(self, event: EconomicEvent, subject: str) -> bool:
        return subject in people(event, self.counter.of) and self.added(event) is not None

    def value(
        self, reader: EconomicEvent, facts: Sequence[EconomicEvent], known: Sequence[EconomicEvent]
    ) -> int | Decimal | None:
        """Returns what the reader reads of these facts, less those that all the known ones undo."""
        subjects, zone = people(reader, self.counter.of), self.zone(reader)
        if not subjects or zone is None:
            return None
        live = [one for one in facts if self.counts(one, subjects[0]) and not self.is_undone(one, known)]
        if self.counter.kind == "streak":
            return self.run(reader, live)
        return self.of([one for one in live if self.is_near(one, reader)])

    def of(self, inside: Sequence[EconomicEvent]) -> int | Decimal:
        """Returns what events of one window come to."""
        if self.counter.kind == "distinct":
            return len({str(self.added(one)) for one in inside})
        total = Decimal(0)
        for one in inside:
            total = CONTEXT.add(total, Decimal(str(self.added(one))))
        return int(total) if total == int(total) else total

    def is_near(self, event: EconomicEvent, reader: EconomicEvent) -> bool:
        """Whether the event is in the window that the reader looks at."""
        if self.within is not None:
            return reader.occurred_at - self.within < event.occurred_at <= reader.occurred_at
        here, there = self.zone(reader), self.zone(event)
        assert here is not None
        assert there is not None
        every = self.counter.every or "ever"
        return period(reader.occurred_at, every, here) == period(event.occurred_at, every, there)

    def steps(self, live: Sequence[EconomicEvent]) -> set[int]:
        zones = [(one, self.zone(one)) for one in live]
        return {step(one.occurred_at, self.counter.every, zone) for one, zone in zones if zone is not None}

    def run(self, reader: EconomicEvent, live: Sequence[EconomicEvent]) -> int:
        """Steps with an event in the run that the reader's step belongs to, or follows closely enough to go on."""
        steps, zone = self.steps(live), self.zone(reader)
        assert zone is not None
        here = step(reader.occurred_at, self.counter.every, zone)
        before = [one for one in steps if one <= here]
        if not before or here - max(before) - 1 > self.counter.grace:
            return 0
        run = {max(before)}
        while more := {one for one in steps - run if any(abs(one - mine) - 1 <= self.counter.grace for mine in run)}:
            run |= more
        return len(run)
