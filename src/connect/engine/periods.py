"""Periods of the calendar in a zone, and the steps of a streak. Every moment of the years 1 to 9999 has one."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Struct

Calendar: TypeAlias = Literal["hour", "day", "week", "month", "ever"]
Step: TypeAlias = Literal["day", "week", "month"]

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


class Period(Struct, frozen=True):
    """`label` names it among those of its kind and zone; it holds the moments of [start, end)."""

    label: str
    start: datetime
    end: datetime


def local(moment: datetime, zone: ZoneInfo) -> datetime:
    """The moment by the zone's clocks; at the two ends of time, where a clock would leave the calendar, by UTC's."""
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment.astimezone(UTC)


def local_date(moment: datetime, zone: ZoneInfo) -> date:
    return local(moment, zone).date()


def period(moment: datetime, every: Calendar, zone: ZoneInfo) -> Period:
    """The period that holds the moment. An hour is one of the clock, so the hour a fold repeats is two periods."""
    match every:
        case "ever":
            return Period("", FIRST, LAST)
        case "hour":
            return _hour(moment, zone)
        case "day":
            day = local_date(moment, zone)
            return _days(day.isoformat(), day, 1, zone)
        case "week":
            day = local_date(moment, zone)
            monday = date.fromordinal(day.toordinal() - day.weekday())  # 0001-01-01 was a Monday
            return _days(monday.isoformat(), monday, 7, zone)
        case "month":
            first = local_date(moment, zone).replace(day=1)
            return _days(first.isoformat()[:7], first, _days_of_month(first), zone)


def step(moment: datetime, every: Step, zone: ZoneInfo) -> int:
    """The number of the day, week or month, so that neighbours differ by one."""
    day = local_date(moment, zone)
    match every:
        case "day":
            return day.toordinal()
        case "week":
            return (day.toordinal() - 1) // 7
        case "month":
            return day.year * 12 + day.month


def _hour(moment: datetime, zone: ZoneInfo) -> Period:
    """As long as the clock shows it and stands as it does: half of it where clocks are moved by half an hour."""
    clock = local(moment, zone)
    passed = timedelta(minutes=clock.minute, seconds=clock.second, microseconds=clock.microsecond)
    begins, ends = _plus(moment, -passed), _plus(moment, HOUR - passed)
    if local(begins, zone).utcoffset() != clock.utcoffset():
        begins = _turn(begins, moment, zone)
    if local(ends - TICK, zone).utcoffset() != clock.utcoffset():
        ends = _turn(moment, ends, zone)
    return Period(f"{clock.isoformat()[:13]}{clock:%z}", begins, ends)


def _turn(earlier: datetime, later: datetime, zone: ZoneInfo) -> datetime:
    """When clocks are moved, between two moments that see them stand differently."""
    low, high, offset = earlier.astimezone(UTC), later.astimezone(UTC), local(earlier, zone).utcoffset()
    while high - low > TICK:
        middle = low + (high - low) // 2
        if local(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high


def _days(label: str, first: date, days: int, zone: ZoneInfo) -> Period:
    end = first.toordinal() + days
    after = LAST if end > date.max.toordinal() else _midnight(date.fromordinal(end), zone)
    return Period(label, FIRST if first == date.min else _midnight(first, zone), after)


def _days_of_month(first: date) -> int:
    if first.month == 12:
        return 31
    return (first.replace(month=first.month + 1) - first).days


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of the day; where clocks skip midnight, the moment they do."""
    try:
        return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    except OverflowError:
        return FIRST if day.year == 1 else LAST


def _plus(moment: datetime, length: timedelta) -> datetime:
    try:
        return (moment + length).astimezone(UTC)
    except OverflowError:
        return LAST if length > timedelta() else FIRST


@lru_cache(maxsize=1_024)
def utc_text(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`, as events, traces and links write a moment."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
