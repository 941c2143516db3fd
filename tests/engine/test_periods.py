"""The calendar of limits, counters and streaks: at clock changes, leap days, month ends and the two ends of time."""

from datetime import UTC, datetime, timedelta, timezone
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connect.engine.periods import FIRST, LAST, Calendar, Step, local, period, step

TICK = timedelta(microseconds=1)
BERLIN, NEW_YORK, HOWE = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")
ZONES = st.sampled_from([ZoneInfo("UTC"), BERLIN, NEW_YORK, HOWE, ZoneInfo("Asia/Kolkata"), ZoneInfo("Pacific/Apia")])
MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.datetimes(
    datetime(2026, 1, 1),  # noqa: DTZ001 - hypothesis takes bounds without a zone
    datetime(2028, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("moment", "every", "zone", "label", "start", "end"),
    [
        ("2026-10-25T00:30:00Z", "day", BERLIN, "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
        ("2026-10-25T00:30:00Z", "week", BERLIN, "2026-10-19", "2026-10-18T22:00:00Z", "2026-10-25T23:00:00Z"),
        ("2026-10-25T00:30:00Z", "hour", BERLIN, "2026-10-25T02+0200", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
        ("2026-10-25T01:30:00Z", "hour", BERLIN, "2026-10-25T02+0100", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
        ("2026-03-29T12:00:00Z", "day", BERLIN, "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
        ("2026-03-29T12:00:00Z", "week", BERLIN, "2026-03-23", "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z"),
        ("2026-11-01T12:00:00Z", "day", NEW_YORK, "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"),
        ("2026-11-01T12:00:00Z", "week", NEW_YORK, "2026-10-26", "2026-10-26T04:00:00Z", "2026-11-02T05:00:00Z"),
        ("2026-03-08T12:00:00Z", "week", NEW_YORK, "2026-03-02", "2026-03-02T05:00:00Z", "2026-03-09T04:00:00Z"),
        ("2028-02-29T12:00:00Z", "day", BERLIN, "2028-02-29", "2028-02-28T23:00:00Z", "2028-02-29T23:00:00Z"),
        ("2028-02-29T12:00:00Z", "month", BERLIN, "2028-02", "2028-01-31T23:00:00Z", "2028-02-29T23:00:00Z"),
        ("2027-02-10T12:00:00Z", "month", BERLIN, "2027-02", "2027-01-31T23:00:00Z", "2027-02-28T23:00:00Z"),
        ("2026-12-31T23:30:00Z", "month", BERLIN, "2027-01", "2026-12-31T23:00:00Z", "2027-01-31T23:00:00Z"),
        ("2026-12-31T23:30:00Z", "week", BERLIN, "2026-12-28", "2026-12-27T23:00:00Z", "2027-01-03T23:00:00Z"),
        ("2026-10-31T23:00:00Z", "month", BERLIN, "2026-11", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"),
        ("2026-10-31T22:59:59.999999Z", "month", BERLIN, "2026-10", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"),
        ("2026-04-04T14:45:00Z", "hour", HOWE, "2026-04-05T01+1100", "2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z"),
        ("2026-04-04T15:15:00Z", "hour", HOWE, "2026-04-05T01+1030", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"),
        ("2026-06-15T12:00:00Z", "ever", BERLIN, "", FIRST.isoformat(), LAST.isoformat()),
    ],
)  # fmt: skip
def test_a_period_follows_the_clocks_of_its_zone(
    moment: str, every: Calendar, zone: ZoneInfo, label: str, start: str, end: str
) -> None:
    found = period(at(moment), every, zone)
    assert (found.label, found.start, found.end) == (label, at(start), at(end))


@given(MOMENTS, st.sampled_from(get_args(Calendar)), ZONES)
@example(FIRST, "hour", BERLIN)
@example(FIRST, "hour", NEW_YORK)
@example(FIRST, "week", NEW_YORK)
@example(LAST, "hour", BERLIN)
@example(LAST, "week", NEW_YORK)
@example(LAST, "month", BERLIN)
def test_a_period_holds_its_moment_and_is_the_same_from_its_first_moment_to_its_last(
    moment: datetime, every: Calendar, zone: ZoneInfo
) -> None:
    found = period(moment, every, zone)
    assert found.start <= moment
    assert moment < found.end or found.end == LAST
    assert period(found.start, every, zone) == found
    assert period(found.end - TICK, every, zone) == found
    if found.end != LAST:
        after = period(found.end, every, zone)
        assert (after.start, after.label != found.label) == (found.end, True)


@given(MOMENTS, st.integers(-23, 23))
def test_the_offset_a_moment_was_written_with_changes_nothing(moment: datetime, hours: int) -> None:
    try:
        written = moment.astimezone(timezone(timedelta(hours=hours)))
    except OverflowError:
        return
    for every in get_args(Calendar):
        assert period(written, every, BERLIN) == period(moment, every, BERLIN)


@pytest.mark.parametrize(
    ("earlier", "later", "every", "zone", "apart"),
    [
        ("2026-10-24T21:59:59Z", "2026-10-24T22:00:00Z", "day", BERLIN, 1),
        ("2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "day", BERLIN, 0),  # a day of 25 hours
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "day", BERLIN, 1),  # a day of 23
        ("2028-02-28T12:00:00Z", "2028-03-01T12:00:00Z", "day", BERLIN, 2),
        ("2026-12-31T12:00:00Z", "2027-01-01T12:00:00Z", "day", BERLIN, 1),
        ("2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z", "week", BERLIN, 1),
        ("2026-12-28T12:00:00Z", "2027-01-03T12:00:00Z", "week", BERLIN, 0),
        ("2026-12-31T12:00:00Z", "2027-01-01T12:00:00Z", "month", BERLIN, 1),
        ("2028-02-29T12:00:00Z", "2028-03-31T12:00:00Z", "month", NEW_YORK, 1),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "month", NEW_YORK, 9998 * 12 + 11),
    ],
)
def test_steps_of_a_streak_are_neighbours_as_the_calendar_has_them(
    earlier: str, later: str, every: Step, zone: ZoneInfo, apart: int
) -> None:
    assert step(at(later), every, zone) - step(at(earlier), every, zone) == apart


def test_the_ends_of_time_have_a_clock() -> None:
    assert local(LAST, BERLIN) == LAST
    assert local(FIRST, NEW_YORK) == FIRST
