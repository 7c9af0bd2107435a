"""Delayed messages: each comes once, when it is due, at the end of the log."""

from datetime import timedelta

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.delayed import (
    MARK,
    MAX_OVERDUE,
    Due,
    Request,
    cancel,
    delay,
    due_topics,
    floor,
    get,
    inspect,
    listed,
    move,
    publish,
    publish_due,
    release,
)
from tests.database.outbox import Relay
from tests.database.store import MICROSECOND, NOW, SECOND, Store, wait_until_blocked
from tests.database.usage import analyse, keep_autovacuum_away, measure

LATER = NOW + timedelta(minutes=1)
AN_HOUR = timedelta(hours=1)
YEAR = timedelta(days=366)


def payloads(store: Store, topic: int) -> list[str]:
    query = "select payload::text from fastpubsub.messages where topic_key = %s order by position"
    return [payload for (payload,) in store.rows(query, topic)]


def numbers(store: Store, topic: int) -> list[int]:
    return [int(payload.removeprefix('{"n": ').removesuffix("}")) for payload in payloads(store, topic)]


# publishing


def test_nothing_comes_before_it_is_due(store: Store) -> None:
    topic = store.create_topic()
    first, second = delay(store, topic, 10, 5)
    assert [(one.key, one.due_at) for one in listed(store, topic)] == [
        (second, NOW + 5 * SECOND),
        (first, NOW + 10 * SECOND),
    ]
    assert due_topics(store) == ([], 5)
    assert publish_due(store, topic, now=NOW + 5 * SECOND - MICROSECOND) == Due("topic", 0, False)
    assert due_topics(store, NOW + 5 * SECOND) == ([topic], 0)
    assert publish_due(store, topic, now=NOW + 5 * SECOND) == Due("topic", 1, False)
    assert numbers(store, topic) == [1]
    assert publish_due(store, topic, now=LATER) == Due("topic", 1, False)
    assert numbers(store, topic) == [1, 0]


def test_what_is_due_comes_in_the_order_of_its_times_and_then_of_publishing(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, 9, 3, NOW + 3 * SECOND, 1, 9)
    assert publish_due(store, topic, now=LATER, limit=2) == Due("topic", 2, True)
    assert publish_due(store, topic, now=LATER, limit=2) == Due("topic", 2, True)
    assert publish_due(store, topic, now=LATER, limit=2) == Due("topic", 1, False)
    assert numbers(store, topic) == [3, 1, 2, 0, 4]


def test_a_subscription_gets_it_with_the_time_at_which_it_came(store: Store) -> None:
    keys = store.create()
    delay(store, keys.topic, 10)
    assert store.claim(keys, now=LATER).positions == []
    publish_due(store, keys.topic, now=LATER)
    claimed = store.claim(keys, now=LATER)
    assert (claimed.positions, claimed.created_at) == ([1], [LATER])


def test_a_request_may_have_both_kinds(store: Store) -> None:
    topic = store.create_topic()
    store.publish(topic, ["0"])
    (answer,) = publish(store, topic, Request(["1", "2", "3", "4"], [None, 5, None, 5]))
    assert (answer.position, answer.created_at) == (2, NOW)
    assert [key is None for key in answer.delayed_keys] == [True, False, True, False]
    assert payloads(store, topic) == ["0", "1", "3"]
    publish_due(store, topic, now=LATER)
    assert payloads(store, topic) == ["0", "1", "3", "2", "4"]


def test_several_requests_share_a_call(store: Store) -> None:
    topic = store.create_topic()
    requests = [Request(["1", "2"], [5, None]), Request(["3"], [5], "key"), Request(["4", "5"], [None, 1])]
    first, second, third = publish(store, topic, *requests)
    assert (first.position, second.position, third.position) == (1, 0, 2)
    assert payloads(store, topic) == ["2", "4"]
    publish_due(store, topic, now=LATER)
    assert payloads(store, topic) == ["2", "4", "5", "1", "3"]


def test_a_repetition_gets_the_same_answer(store: Store) -> None:
    topic = store.create_topic()
    request = Request(["1", "2"], [5, None], "key")
    (first,) = publish(store, topic, request)
    assert publish(store, topic, request, now=NOW + 2 * SECOND) == [first]
    publish_due(store, topic, now=LATER)
    assert publish(store, topic, request, now=LATER) == [first]
    (refused,) = publish(store, topic, request._replace(body=b"another"), now=LATER)
    assert refused.position is None
    assert payloads(store, topic) == ["2", "1"]
    assert publish(store, topic, request, now=NOW + 2 * AN_HOUR) != [first]


def test_a_repetition_in_the_same_call(store: Store) -> None:
    topic = store.create_topic()
    request = Request(["1"], [5], "key")
    first, second = publish(store, topic, request, request)
    assert first == second
    assert len(listed(store, topic)) == 1


def test_a_time_that_has_passed_is_due_at_once(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, NOW - AN_HOUR)
    assert publish_due(store, topic, now=NOW + MICROSECOND).published == 1


def test_more_than_a_year_is_refused(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, NOW + YEAR, 31_536_000)
    with store.refused("FP422"):
        delay(store, topic, NOW + YEAR + MICROSECOND)


def test_a_changed_schema_and_a_missing_topic_are_refused(store: Store) -> None:
    topic = store.create_topic()
    with store.refused("FP428"):
        publish(store, topic, Request(["1"], [5]), schema_version=1)
    with store.refused("FP404"):
        delay(store, topic + 1, 5)
    for call in (move, cancel, get):
        with store.refused("FP404"):
            call(store, topic + 1, 1)
    for other in (release, listed):
        with store.refused("FP404"):
            other(store, topic + 1)


# the floor


def test_nothing_stays_behind_the_floor(store: Store) -> None:
    """The clock was set back, or somebody publishes with a time that has passed."""
    topic = store.create_topic()
    delay(store, topic, 10)
    publish_due(store, topic, now=LATER)
    delay(store, topic, NOW - AN_HOUR, 3)
    reached = floor(store, topic)[0]
    assert [one.due_at for one in listed(store, topic)] == [reached + MICROSECOND] * 2
    publish_due(store, topic, now=LATER)
    assert numbers(store, topic) == [0, 0, 1]


def test_the_floor_moves_without_messages(store: Store) -> None:
    """So that nobody walks over what was cancelled."""
    topic = store.create_topic()
    (key,) = delay(store, topic, 5)
    cancel(store, topic, key)
    before = floor(store, topic)
    assert due_topics(store, NOW + (MARK - 1) * SECOND) == ([], None)
    assert publish_due(store, topic, now=NOW + (MARK - 1) * SECOND).published == 0
    assert floor(store, topic) == before
    later = NOW + MARK * SECOND
    assert due_topics(store, later) == ([topic], None)
    publish_due(store, topic, now=later)
    assert floor(store, topic) == (later, 0, None)
    assert store.value("select count(*) from fastpubsub.fired_messages") == 1


def test_a_topic_that_never_had_any_is_never_looked_at(store: Store) -> None:
    topic = store.create_topic()
    store.publish(topic, ["1"])
    assert due_topics(store, LATER) == ([], None)
    assert store.value("select count(*) from fastpubsub.fired_messages") == 0


# looking, moving, cancelling


def test_what_became_of_it(store: Store) -> None:
    topic = store.create_topic()
    store.publish(topic, ["0"])
    (key,) = delay(store, topic, 5)
    assert get(store, topic, key) == ("waiting", NOW + 5 * SECOND, None)
    publish_due(store, topic, now=LATER)
    assert get(store, topic, key) == ("published", NOW + 5 * SECOND, 2)
    assert get(store, topic, key + 1) == (None, None, None)
    other = store.create_topic("other")
    assert get(store, other, key) == (None, None, None)


def test_it_is_forgotten_after_the_window(store: Store) -> None:
    topic = store.create_topic()
    keys = delay(store, topic, 5, 6)
    publish_due(store, topic, now=LATER)
    query = "select count(*) from fastpubsub.list_trimmable(%s, %s, %s)"
    assert store.value(query, 1 << 30, 3600, LATER + AN_HOUR) == 0
    assert store.value(query, 1 << 30, 3600, LATER + AN_HOUR + SECOND) == 1
    store.trim_claims(topic, now=LATER + AN_HOUR + SECOND)
    assert [get(store, topic, key)[0] for key in keys] == [None, "published"]
    assert floor(store, topic)[1] == keys[1]


def test_moving(store: Store) -> None:
    topic = store.create_topic()
    first, second = delay(store, topic, 5, 6)
    assert move(store, topic, first, seconds=60, now=NOW + SECOND) == (NOW + 61 * SECOND, False)
    assert move(store, topic, second, NOW - AN_HOUR) == (floor(store, topic)[0] + MICROSECOND, False)
    publish_due(store, topic, now=NOW + 7 * SECOND)
    assert numbers(store, topic) == [1]
    assert move(store, topic, second, seconds=1) == (None, True)
    assert move(store, topic, second + 1, seconds=1) == (None, False)
    with store.refused("FP422"):
        move(store, topic, first, NOW + 2 * YEAR)


def test_cancelling(store: Store) -> None:
    topic = store.create_topic()
    first, second = delay(store, topic, 5, 6)
    assert cancel(store, topic, first) == (True, False)
    assert cancel(store, topic, first) == (False, False)
    publish_due(store, topic, now=LATER)
    assert cancel(store, topic, second) == (False, True)
    assert numbers(store, topic) == [1]


def test_deleting_the_topic_deletes_them(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, 5, 600)
    publish_due(store, topic, now=LATER)
    store.delete_topic()
    assert due_topics(store, LATER + YEAR) == ([], None)
    assert publish_due(store, topic, now=LATER + YEAR) == Due(None, 0, False)
    while store.empty_purges() is not None:
        pass
    tables = ("delayed_messages", "fired_messages")
    assert [store.value(f"select count(*) from fastpubsub.{table}") for table in tables] == [0, 0]


# what was overdue for long


def test_what_was_overdue_for_long_when_a_server_comes_back_is_held(store: Store) -> None:
    topic = store.create_topic()
    old, recent, ahead = delay(store, topic, 60, MAX_OVERDUE, 10 * MAX_OVERDUE)
    back = NOW + timedelta(seconds=MAX_OVERDUE + 120)
    assert publish_due(store, topic, now=back).published == 1
    assert [get(store, topic, key)[0] for key in (old, recent, ahead)] == ["held", "published", "waiting"]
    assert [one.key for one in listed(store, topic, held=True)] == [old]
    assert [one.key for one in listed(store, topic)] == [ahead]
    assert inspect(store, back) == (1, 1, 0)
    assert publish_due(store, topic, now=back).published == 0
    assert release(store, topic, now=back) == 1
    assert inspect(store, back + 2 * SECOND) == (2, 0, pytest.approx(2, abs=0.1))
    assert publish_due(store, topic, now=back + SECOND).published == 1
    assert numbers(store, topic) == [1, 0]


def test_held_ones_are_moved_and_cancelled_like_others(store: Store) -> None:
    topic = store.create_topic()
    first, second, third = delay(store, topic, 1, 2, 3)
    back = NOW + timedelta(seconds=2 * MAX_OVERDUE)
    assert publish_due(store, topic, now=back).published == 0
    assert cancel(store, topic, second) == (True, False)
    assert move(store, topic, third, seconds=5, now=back)[0] == back + 5 * SECOND
    assert [one.key for one in listed(store, topic, held=True)] == [first]
    assert publish_due(store, topic, now=back + 5 * SECOND).published == 1
    assert release(store, topic, now=back) == 1


def test_held_ones_are_released_in_their_order_and_in_chunks(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, 3, 1, 2)
    back = NOW + timedelta(seconds=2 * MAX_OVERDUE)
    publish_due(store, topic, now=back)
    later = back + SECOND
    assert [release(store, topic, 2, now=back), release(store, topic, 2, now=later)] == [2, 1]
    publish_due(store, topic, now=later + SECOND)
    assert numbers(store, topic) == [1, 2, 0]
    assert release(store, topic, now=later) == 0


def test_a_server_that_runs_holds_nothing_however_slow_it_is(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, *range(1, 11))
    now = NOW
    for published in range(1, 11):
        now += timedelta(seconds=MAX_OVERDUE - 60)
        assert publish_due(store, topic, now=now, limit=1).published == 1
        assert len(numbers(store, topic)) == published
    assert inspect(store, now) == (0, 0, 0)


def test_a_server_that_runs_has_seen_a_topic_without_due_messages(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, 3 * MAX_OVERDUE)
    publish_due(store, topic, now=NOW + timedelta(seconds=2 * MAX_OVERDUE + 1))
    assert publish_due(store, topic, now=NOW + timedelta(seconds=3 * MAX_OVERDUE + 3600)).published == 1


# from SQL

FROM_SQL = "select fastpubsub.publish('topic', %s, deliver_at => %s)"


def test_from_sql(store: Store) -> None:
    """The id is known before the relay has moved the message."""
    topic = store.create_topic()
    in_an_hour = store.value("select clock_timestamp() + interval '1 hour'")
    now, later = (store.value(FROM_SQL, payload, time) for payload, time in (("{}", None), ('{"n": 1}', in_an_hour)))
    assert now is None
    assert Relay(store).everything() == 1
    (waiting,) = listed(store, topic)
    assert (f"delayed-{waiting.key}", waiting.due_at, waiting.payload) == (later, in_an_hour, '{"n": 1}')
    assert payloads(store, topic) == ["{}"]
    publish_due(store, topic, now=in_an_hour)
    assert payloads(store, topic) == ["{}", '{"n": 1}']


def test_from_sql_more_than_a_year_is_refused(store: Store) -> None:
    store.create_topic()
    with store.refused("FP422"):
        store.execute("select fastpubsub.publish('topic', '{}', deliver_at => clock_timestamp() + interval '370 days')")


def test_from_sql_a_transaction_may_last_longer_than_the_delay(store: Store) -> None:
    topic = store.create_topic()
    delay(store, topic, 5)
    publish_due(store, topic, now=LATER)
    store.execute(FROM_SQL, '{"n": 7}', NOW)
    Relay(store).everything()
    assert publish_due(store, topic, now=LATER + SECOND).published == 1
    assert numbers(store, topic) == [0, 7]


# races


def test_a_message_comes_once_whoever_publishes_it(open_store: OpenStore, background: Background) -> None:
    first, second = open_store(), open_store()
    topic = first.create_topic()
    delay(first, topic, 5)
    with first.transaction():
        assert publish_due(first, topic, now=LATER).published == 1
        waiting = background(publish_due, second, topic, now=LATER)
        wait_until_blocked(first, second)
    assert waiting.result().published == 0
    assert numbers(first, topic) == [0]


def test_a_cancellation_waits_for_the_one_who_publishes(open_store: OpenStore, background: Background) -> None:
    first, second = open_store(), open_store()
    topic = first.create_topic()
    (key,) = delay(first, topic, 5)
    with first.transaction():
        publish_due(first, topic, now=LATER)
        waiting = background(cancel, second, topic, key)
        wait_until_blocked(first, second)
    assert waiting.result() == (False, True)


def test_what_is_being_cancelled_does_not_come(open_store: OpenStore, background: Background) -> None:
    first, second = open_store(), open_store()
    topic = first.create_topic()
    key, _ = delay(first, topic, 5, 6)
    with first.transaction():
        cancel(first, topic, key)
        waiting = background(publish_due, second, topic, now=LATER)
        wait_until_blocked(first, second)
    assert waiting.result().published == 1
    assert numbers(first, topic) == [1]


@pytest.mark.parametrize("way", ["publish", "move", "relay"])
def test_what_is_stored_while_the_floor_moves_comes(open_store: OpenStore, background: Background, way: str) -> None:
    """Whoever puts a message aside waits until the floor has moved, and sees it."""
    first, second = open_store(), open_store()
    topic = first.create_topic()
    _, key = delay(first, topic, 10, 60)
    second.execute(FROM_SQL, '{"n": 5}', NOW)
    calls = {
        "publish": lambda: delay(second, topic, 5),
        "move": lambda: move(second, topic, key, seconds=5),
        "relay": lambda: Relay(second).everything(),
    }
    with first.transaction():
        assert publish_due(first, topic, now=NOW + 10 * SECOND).published == 1
        waiting = background(calls[way])
        wait_until_blocked(first, second)
    waiting.result()
    assert listed(first, topic)[0].due_at == NOW + 10 * SECOND + MICROSECOND
    assert publish_due(first, topic, now=NOW + 11 * SECOND).published == 1


# what it costs

ROWS = 20_000
TABLES = ("delayed_messages", "fired_messages")
MAX_ENTRIES = 300


@pytest.mark.parametrize("analysed", ["empty", "full", "never"])
def test_nobody_walks_over_what_came_while_a_snapshot_is_held(open_store: OpenStore, analysed: str) -> None:
    store, holding = open_store(), open_store()
    topic = store.create_topic()
    keep_autovacuum_away(store, TABLES)
    if analysed == "empty":
        analyse(store, TABLES)
    (first,) = delay(store, topic, 5)
    fill = """
        insert into fastpubsub.delayed_messages
        select %s, nextval('fastpubsub.delayed_messages_delayed_key_seq'), %s + i * interval '1 ms', %s, '{}'
        from generate_series(1, %s) as i
    """
    store.execute(fill, topic, NOW, NOW, 2 * ROWS)
    store.execute(fill, topic, NOW + 100 * AN_HOUR, NOW, ROWS)
    if analysed == "full":
        analyse(store, TABLES)
    now = NOW + ROWS // 1000 * SECOND
    with holding.transaction():
        holding.execute("set transaction isolation level repeatable read")
        holding.execute("select count(*) from fastpubsub.delayed_messages")
        assert store.value("select backend_xmin is not null from pg_stat_activity where pid = %s", holding.pid)
        assert publish_due(store, topic, now=now, limit=ROWS).more
        store.execute("delete from fastpubsub.delayed_messages where due_at < %s", now + ROWS // 2000 * SECOND)
        publish_due(store, topic, now=now + ROWS // 2000 * SECOND, limit=ROWS)
        publish_due(store, topic, now=now + ROWS // 2000 * SECOND + MARK * SECOND, limit=ROWS)
        later = now + 60 * SECOND
        with store.transaction():
            _, looked = measure(store, lambda: due_topics(store, later), TABLES)
            (key,), delayed = measure(store, lambda: delay(store, topic, 1, now=later), TABLES)
            _, moved = measure(store, lambda: move(store, topic, key, seconds=2, now=later), TABLES)
            published, due = measure(store, lambda: publish_due(store, topic, now=later + 2 * SECOND), TABLES)
            _, found = measure(store, lambda: get(store, topic, first), TABLES)
            _, cancelled = measure(store, lambda: cancel(store, topic, key), TABLES)
            _, inspected = measure(store, lambda: inspect(store, later, 50), TABLES)
            _, shown = measure(store, lambda: listed(store, topic, limit=10), TABLES)
    assert published.published == 1
    for usage in (looked, delayed, moved, due, found, cancelled, inspected, shown):
        assert usage.sequential == set()
        assert usage.entries <= MAX_ENTRIES
