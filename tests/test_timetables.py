"""When something repeats, above all on days with a changed clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.timetables import Timetable

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def times(cron: str, zone: str, after: str, count: int) -> list[str]:
    """In UTC, without the year and the seconds."""
    timetable = Timetable(cron, zone, None)
    moment = datetime.fromisoformat(after)
    first = timetable.after(moment, moment)
    assert first is not None
    return [f"{time:%m-%d %H:%M}" for time in timetable.upcoming(first, count)]


# Berlin: at 2026-03-29 01:00 UTC the clock goes from 02:00 to 03:00, at 2026-10-25 01:00 UTC from 03:00 back to 02:00.
SPRING, AUTUMN = "2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"
CHANGES = [
    # A time that does not exist comes right after the change, once.
    ("30 2 * * *", SPRING, ["03-29 01:00", "03-30 00:30"]),
    ("0,30 2 * * *", SPRING, ["03-29 01:00", "03-30 00:00"]),
    ("59 2 29 3 *", SPRING, ["03-29 01:00"]),
    # One that exists does not move.
    ("30 1 * * *", SPRING, ["03-29 00:30", "03-29 23:30"]),
    ("0 3 * * *", SPRING, ["03-29 01:00", "03-30 01:00"]),
    ("0 9 * * *", SPRING, ["03-29 07:00", "03-30 07:00"]),
    # A time that exists twice comes the first time only.
    ("30 2 * * *", AUTUMN, ["10-25 00:30", "10-26 01:30"]),
    ("0 3 * * *", AUTUMN, ["10-25 02:00", "10-26 02:00"]),
    ("0 9 * * *", AUTUMN, ["10-25 08:00", "10-26 08:00"]),
    # With `*` the clock decides: what it skips does not come, and what it shows twice comes twice.
    ("*/30 2 * * *", SPRING, ["03-30 00:00", "03-30 00:30"]),
    ("*/30 2 * * *", AUTUMN, ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-26 01:00"]),
    ("15 * * * *", "2026-03-29T00:00:00Z", ["03-29 00:15", "03-29 01:15", "03-29 02:15"]),
    ("15 * * * *", "2026-10-24T23:30:00Z", ["10-25 00:15", "10-25 01:15", "10-25 02:15"]),
    ("15 * 25 10 *", "2026-10-24T23:30:00Z", ["10-25 00:15", "10-25 01:15", "10-25 02:15"]),
]


@pytest.mark.parametrize(("cron", "after", "expected"), CHANGES)
def test_days_with_a_changed_clock(cron: str, after: str, expected: list[str]) -> None:
    assert times(cron, "Europe/Berlin", after, len(expected)) == expected


@pytest.mark.parametrize("minute", range(0, 60, 10))
def test_in_the_hour_that_comes_twice_nothing_comes_that_is_over(minute: int) -> None:
    """From each moment of the second one."""
    after = f"2026-10-25T01:{minute:02}:30Z"
    assert times("30 2 * * *", "Europe/Berlin", after, 2) == ["10-26 01:30", "10-27 01:30"]


ZONES = [
    ("America/New_York", "0 9 * * MON", "2026-03-06T00:00:00Z", ["03-09 13:00", "03-16 13:00"]),
    # Half an hour.
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00:00Z", ["10-03 15:30", "10-04 15:15"]),
    ("Asia/Kathmandu", "0 0 1 * *", "2026-01-02T00:00:00Z", ["01-31 18:15", "02-28 18:15"]),
    ("UTC", "30 2 * * *", SPRING, ["03-29 02:30", "03-30 02:30"]),
    # Midnight does not exist.
    ("Africa/Cairo", "0 0 * * *", "2026-04-23T12:00:00Z", ["04-23 22:00", "04-24 21:00"]),
]


@pytest.mark.parametrize(("zone", "cron", "after", "expected"), ZONES)
def test_time_zones(zone: str, cron: str, after: str, expected: list[str]) -> None:
    assert times(cron, zone, after, len(expected)) == expected


def test_days_of_the_month_and_of_the_week() -> None:
    assert times("0 0 L * *", "UTC", "2026-01-30T00:00:00Z", 2) == ["01-31 00:00", "02-28 00:00"]
    assert times("0 0 * * FRI#1", "UTC", "2026-01-01T00:00:00Z", 2) == ["01-02 00:00", "02-06 00:00"]
    assert times("0 0 13 * FRI", "UTC", "2026-01-01T00:00:00Z", 2) == ["01-02 00:00", "01-09 00:00"]


@given(
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"]),
    cron=st.sampled_from(["30 2 * * *", "*/20 * * * *", "0 0 * * *", "5 1-3 * * SUN", "15 */2 * * *"]),
)
def test_times_only_go_on(moment: datetime, zone: str, cron: str) -> None:
    timetable = Timetable(cron, zone, None)
    first = timetable.after(moment, moment)
    assert first is not None
    found = [moment, *timetable.upcoming(first, 20)]
    assert all(earlier < later for earlier, later in pairwise(found))
    assert all(timetable.after(earlier, moment) == later for earlier, later in pairwise(found))


# intervals


def test_an_interval_counts_from_its_anchor() -> None:
    timetable = Timetable(None, None, 60)
    minute = timedelta(minutes=1)
    assert timetable.after(NOW, NOW) == NOW + minute
    assert timetable.after(NOW + 59 * timedelta(seconds=1), NOW) == NOW + minute
    assert timetable.after(NOW + minute, NOW) == NOW + 2 * minute
    assert timetable.after(NOW - minute, NOW) == NOW
    assert timetable.from_(NOW, NOW + 2 * minute, 10) == [NOW, NOW + minute, NOW + 2 * minute]
    assert timetable.from_(NOW, NOW + 2 * minute, 2) == [NOW, NOW + minute]
    assert timetable.from_(NOW, NOW - minute, 2) == []


# refusals


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("0 * * * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "Bad minute"),
        ("* 24 * * *", "Bad hour"),
        ("* * 0 * *", "Bad day-of-month"),
        ("* * * 13 *", "Bad month"),
        ("* * * * 8", "Bad day-of-week"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("x * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
        ("9-5 * * * *", "Bad minute"),
        ("¹ * * * *", "Bad minute"),
        ("0 0 * * 5L/2", "Bad day-of-week"),
        ("1" * 200 + " * * * *", "Bad minute"),
        ("0 0 L/x * *", "Bad day-of-month"),
    ],
)
def test_expressions_that_are_refused(cron: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"cron: .*{words}"):
        Timetable(cron, "UTC", None)


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "../etc/passwd", "Europe", "Europe/", "/etc/localtime", "\0", "x" * 64]
)
def test_time_zones_that_are_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest, match=r"time_zone: .* is not a time zone of the IANA database"):
        Timetable("* * * * *", zone, None)
