"""The history: what processes record, in which interval it counts, and how long it stays."""

from datetime import UTC, datetime

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import Store, wait_until_blocked
from tests.database.usage import measure

START = 1_800_000_000
"""A full minute."""

RECORD = "select fastpubsub.record_history(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
READ = "select * from fastpubsub.list_history(%s, %s, %s, %s, %s, %s)"
ALL = (None, None)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


def record(
    store: Store, seconds: float, *, topic: str = "topic", published: int = 0, acked: int = 0, filtered: int = 0
) -> None:
    counts = ([0], [acked], [0], [0], [0], [0], [filtered])
    store.execute(RECORD, [topic], [published], ["subscription"], *counts, at(seconds))


def published(store: Store, seconds: float, interval: int = 5, topics: list[str] | None = None) -> dict[int, int]:
    """By the seconds after the start, without zeros."""
    rows = store.rows(READ, topics, [], interval, None, None, at(seconds))
    return {row[0] - START: row[1] for row in rows if row[1]}


def test_what_several_processes_record_adds_up_in_its_interval(store: Store) -> None:
    store.create()
    for seconds, count in ((0, 1), (4.99, 2), (5, 4), (12, 8)):
        record(store, seconds, published=count)
    assert published(store, 15) == {0: 3, 5: 4, 10: 8}
    assert published(store, 14.9) == {0: 3, 5: 4}
    assert published(store, 60, 60) == {0: 15}
    rows = store.rows(READ, ["topic"], [], 5, START + 3, START + 10, at(60))
    assert [row[:2] for row in rows] == [(START, 3), (START + 5, 4)]
    assert store.rows(READ, ["topic"], [], 5, START + 10, START + 3, at(60)) == []


def test_a_history_has_all_intervals_with_and_without_counts(store: Store) -> None:
    for interval, count in ((5, 720), (60, 1440)):
        rows = store.rows(READ, *ALL, interval, None, None, at(0))
        assert [row[0] for row in rows] == [START + interval * n for n in range(-count, 0)]
        assert not any(any(row[1:]) for row in rows)


def test_topics_have_what_was_published_and_subscriptions_the_rest(store: Store) -> None:
    store.create()
    store.create_topic("other")
    record(store, 0, published=1, acked=2, filtered=3)
    record(store, 0, topic="other", published=10)

    def sums(topics: list[str] | None, subscriptions: list[str] | None) -> tuple[int, ...]:
        row = store.rows(READ, topics, subscriptions, 5, START, None, at(5))[0]
        return row[1], row[3], row[8]

    assert sums(None, None) == (11, 2, 3)
    assert sums(["topic"], []) == (1, 0, 0)
    assert sums(["topic", "other", "unknown"], []) == (11, 0, 0)
    assert sums([], ["subscription"]) == (0, 2, 3)
    assert sums([], None) == (0, 2, 3)
    assert sums([], []) == (0, 0, 0)


def test_after_an_hour_intervals_become_minutes_and_after_a_day_they_go(store: Store) -> None:
    store.create()
    for seconds in range(0, 180, 5):
        record(store, seconds, published=1)
    count = "select interval_seconds, count(*) from fastpubsub.history group by 1 order by 1"
    before = published(store, 3720, 60)
    assert store.value("select fastpubsub.trim_history(100, %s)", at(3720)) is True
    while store.value("select fastpubsub.trim_history(100, %s)", at(3720)):
        pass
    # Of the topic, its subscription, and the server.
    assert store.rows(count) == [(5, 3 * 12), (60, 3 * 2)]
    assert published(store, 3720, 60) == before == {0: 12, 60: 12, 120: 12}
    # What is late counts as well.
    record(store, 3, published=5)
    store.execute("select fastpubsub.trim_history(100, %s)", at(3720))
    assert published(store, 3720, 60)[0] == 17
    while store.value("select fastpubsub.trim_history(1, %s)", at(2 * 86400)):
        pass
    assert store.rows(count) == []


def test_a_clock_that_jumps_back_loses_nothing_and_shows_nothing_of_the_future(store: Store) -> None:
    store.create()
    record(store, 100, published=1)
    record(store, 40, published=2)
    assert published(store, 60) == {40: 2}
    assert published(store, 200) == {40: 2, 100: 1}


@pytest.mark.parametrize("what", ["topic", "subscription"])
def test_the_history_goes_with_its_object(store: Store, what: str) -> None:
    keys = store.create()
    record(store, 0, published=1, acked=1)
    store.execute(f"select fastpubsub.delete_{what}(%s)", what)
    while store.value("select fastpubsub.empty_purges()") is not None:
        pass
    left = store.rows("select topic_key > 0, subscription_key > 0 from fastpubsub.history order by 1, 2")
    assert left == ([(False, False)] if what == "topic" else [(False, False), (True, False)])
    # A process that has counted for it leaves it out.
    record(store, 5, published=1, acked=1)
    assert store.rows(
        "select topic_key, subscription_key from fastpubsub.history where at = %s and topic_key > 0", START + 5
    ) == ([] if what == "topic" else [(keys.topic, 0)])
    assert sum(row[3] for row in store.rows(READ, *ALL, 5, None, None, at(10))) == 2


def test_rates_are_those_of_the_last_minute_that_is_over(store: Store) -> None:
    keys = store.create()
    for seconds in range(0, 120, 5):
        record(store, seconds, published=30, acked=60 if seconds < 60 else 6)
    rates = "select published, acked from fastpubsub.recent_rates(%s, %s, %s)"
    assert store.row(rates, keys.topic, 0, at(120)) == (6, 0)
    assert store.row(rates, *keys, at(120)) == (0, 1.2)
    assert store.row(rates, *keys, at(62)) == (0, 12)
    assert store.row(rates, *keys, at(600)) == (0, 0)
    assert store.row(rates, 0, 0, at(120)) == (6, 1.2)


def test_processes_that_record_at_once_wait_and_do_not_deadlock(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    watcher.create()
    watcher.create_topic("other")
    with first.transaction():
        first.execute(RECORD, ["topic", "other"], [1, 1], [], *[[]] * 7, at(0))
        waiting = background(second.execute, RECORD, ["other", "topic"], [2, 2], [], *[[]] * 7, at(0))
        wait_until_blocked(watcher, second, by=first)
    waiting.result()
    assert published(watcher, 5, topics=["topic"]) == {0: 3}


def test_a_history_is_read_by_its_key(store: Store) -> None:
    store.create()
    store.execute(
        """
        insert into fastpubsub.history (topic_key, subscription_key, at, interval_seconds, acked)
        select t, 1, %s + 5 * n, 5, 1 from generate_series(100, 120) as t, generate_series(0, 719) as n
    """,
        START,
    )
    record(store, 3595, published=1)
    _, usage = measure(store, lambda: published(store, 3600, topics=["topic"]))
    assert usage.blocks < 60
