"""What a schedule publishes when its time has come, and after no server has run for a while."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastpubsub.services.firing import MOST_MISSED, Due, plan_of
from fastpubsub.services.schedules import Plan

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MAX_OVERDUE = 6 * HOUR


def due(next_at: datetime, **given: Any) -> Due:
    """Every hour."""
    settings: dict[str, Any] = {"cron": "0 * * * *", "time_zone": "UTC", "interval_seconds": None}
    settings |= {"catch_up": "once", "payload": b"{}"} | given
    return Due(topic_key=1, topic_id="t", id="s", revision=1, next_at=next_at, now=NOW, **settings)


def plan(next_at: datetime, **given: Any) -> Plan:
    return plan_of(due(next_at, **given), MAX_OVERDUE)


@pytest.mark.parametrize("catch_up", ["once", "all", "none"])
def test_on_time_all_do_the_same(catch_up: str) -> None:
    assert plan(NOW, catch_up=catch_up) == Plan([NOW], 0, NOW + HOUR)


MISSED = [
    ("once", Plan([NOW], 3, NOW + HOUR)),
    ("all", Plan([NOW - 3 * HOUR, NOW - 2 * HOUR, NOW - HOUR, NOW], 0, NOW + HOUR)),
    ("none", Plan([NOW], 3, NOW + HOUR)),
]


@pytest.mark.parametrize(("catch_up", "expected"), MISSED)
def test_what_was_missed(catch_up: str, expected: Plan) -> None:
    assert plan(NOW - 3 * HOUR, catch_up=catch_up) == expected


def test_none_publishes_nothing_that_is_more_than_a_minute_late() -> None:
    late = due(NOW - 3 * HOUR, catch_up="none")
    for minutes, fired in ((1, [NOW]), (2, [])):
        now = NOW + minutes * MINUTE
        assert plan_of(late._replace(now=now), MAX_OVERDUE) == Plan(fired, 4 - len(fired), NOW + HOUR)


def test_once_is_the_last_time_that_was_missed() -> None:
    late = due(NOW - 3 * HOUR)._replace(now=NOW + 30 * MINUTE)
    assert plan_of(late, MAX_OVERDUE) == Plan([NOW], 3, NOW + HOUR)


LONG_OVERDUE = [
    ("once", Plan([NOW], 24, NOW + HOUR)),
    ("all", Plan([NOW - hours * HOUR for hours in (5, 4, 3, 2, 1, 0)], 19, NOW + HOUR)),
    ("none", Plan([NOW], 24, NOW + HOUR)),
]


@pytest.mark.parametrize(("catch_up", "expected"), LONG_OVERDUE)
def test_what_is_long_overdue_is_given_up(catch_up: str, expected: Plan) -> None:
    """As after the restore of an old dump."""
    assert plan(NOW - 24 * HOUR, catch_up=catch_up) == expected


@pytest.mark.parametrize("catch_up", ["once", "all", "none"])
def test_a_daily_one_that_is_long_overdue_publishes_nothing(catch_up: str) -> None:
    daily = plan(NOW - 9 * HOUR, catch_up=catch_up, cron="0 3 * * *")
    assert daily == Plan([], 1, NOW + 15 * HOUR)


def test_all_goes_on_in_parts() -> None:
    seconds = {"cron": None, "time_zone": None, "interval_seconds": 1}
    first = plan(NOW - 10 * MINUTE, catch_up="all", **seconds)
    assert (len(first.times), first.missed) == (100, 0)
    assert first.next_at == NOW - 10 * MINUTE + timedelta(seconds=100)
    large = plan(NOW - 10 * MINUTE, catch_up="all", payload=b" " * 60_000, **seconds)
    assert len(large.times) == 17


def test_no_more_times_are_looked_at_than_that() -> None:
    seconds = {"cron": None, "time_zone": None, "interval_seconds": 1}
    long = plan(NOW - 1000 * HOUR, **seconds)
    assert (len(long.times), long.missed) == (1, 2 * MOST_MISSED - 1)
    assert long.next_at == NOW + timedelta(seconds=1)
