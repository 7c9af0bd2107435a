"""When something is found, by the numbers; what reads them from the database is in tests/database/test_rhythms.py."""

from datetime import UTC, datetime, timedelta

import pytest

from fastpubsub.services.findings import Flow, Load, Rhythm, findings, spelt

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
IDLE = Load("t", "s", False, 0, 0, 0, 0, None, None, None, None, 60)


@pytest.mark.parametrize(
    ("numbers", "grows"),
    [
        ((10, 0, 10, 0), True),
        ((100, 90, 100, 94), True),
        ((100, 90, 100, 95), False),
        ((100, 0, 0, 0), False),
        ((0, 0, 100, 0), False),
        ((100, 0, 100, 200), False),
        ((1, 0, 1, 0), True),
        ((0, 0, 0, 0), False),
    ],
)
def test_a_backlog_grows_in_both_halves(numbers: tuple[int, int, int, int], grows: bool) -> None:
    assert Flow("s", *numbers).grows == grows


@pytest.mark.parametrize(
    ("name", "minutes", "lasted", "pause", "silence", "stopped"),
    [
        ("s", 10, 600, 60, 301, True),
        ("s", 10, 600, 60, 300, False),
        ("s", 10, 600, 300, 601, True),
        ("s", 10, 600, 300, 600, False),
        ("s", 9, 600, 60, 301, False),
        ("s", 10, 540, 60, 301, False),
        (None, 10, 3600, 60, 601, True),
        (None, 10, 3600, 60, 600, False),
        (None, 10, 3540, 60, 601, False),
        (None, 24, 86_000, 3600, 7201, True),
        (None, 24, 86_000, 3600, 7200, False),
    ],
)
def test_silence_is_longer_than_ever_before(
    name: str | None, minutes: int, lasted: int, pause: int, silence: int, stopped: bool
) -> None:
    rhythm = Rhythm("t", name, minutes, lasted, pause, NOW - timedelta(seconds=silence))
    assert rhythm.has_stopped(NOW) == stopped


def test_what_is_said_of_silence() -> None:
    consumers = Rhythm("t", "s", 50, 9999, 60, NOW - HOUR).finding(NOW)
    assert (consumers.kind, consumers.topic_id, consumers.subscription_id) == ("consumers_silent", "t", "s")
    assert consumers.detail == (
        "nothing was delivered for 60 minutes, although messages are ahead; before that, pauses were 1 minute at most"
    )
    publishers = Rhythm("t", None, 50, 9999, 7200, NOW - 20 * HOUR).finding(NOW)
    assert (publishers.kind, publishers.topic_id, publishers.subscription_id) == ("publishers_silent", "t", None)
    assert publishers.detail == "nothing was published for 20 hours; before that, pauses were 2 hours at most"
    assert publishers.since == NOW - 20 * HOUR
    assert spelt(timedelta(0)) == "1 minute"


@pytest.mark.parametrize(
    ("load", "kinds"),
    [
        (IDLE, []),
        (IDLE._replace(behind=1, next_created_at=NOW - 0.9 * HOUR, retention_seconds=86_400), []),
        (IDLE._replace(behind=1, next_created_at=NOW - 1.1 * HOUR, retention_seconds=86_400), ["old_backlog"]),
        (
            IDLE._replace(behind=1, next_created_at=NOW - 1.1 * HOUR, retention_seconds=86_400, paused_at=NOW),
            ["paused"],
        ),
        (IDLE._replace(paused_at=NOW), ["paused"]),
        (IDLE._replace(leased=4, max_in_flight=5, next_created_at=NOW - timedelta(seconds=16)), []),
        (IDLE._replace(leased=5, max_in_flight=5, next_created_at=NOW - timedelta(seconds=14)), []),
        (IDLE._replace(leased=5, max_in_flight=5, next_created_at=NOW - timedelta(seconds=16)), ["at_limit"]),
        (IDLE._replace(at_rate_limit=0.5, next_created_at=NOW - timedelta(seconds=14)), []),
        (IDLE._replace(at_rate_limit=0.5, next_created_at=NOW - timedelta(seconds=16)), ["at_limit"]),
        (IDLE._replace(leased=1, leased_created_at=NOW, first_expires_at=NOW - timedelta(seconds=59)), []),
        (
            IDLE._replace(leased=1, leased_created_at=NOW, first_expires_at=NOW - timedelta(seconds=61)),
            ["expired_leases"],
        ),
    ],
)
def test_what_is_found_in_a_subscription(load: Load, kinds: list[str]) -> None:
    found = list(findings(load, NOW))
    assert [one.kind for one in found] == kinds
    assert all(one.severity == ("error" if one.kind == "expired_leases" else "warning") for one in found)
