"""claim_messages_2: one holder (invariant 2), tokens (3), an empty poll writes nothing (9), order and bounds."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate
from operator import itemgetter

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.database.conftest import Background, OpenStore
from tests.database.store import (
    EXAMPLES,
    MICROSECOND,
    NOW,
    SECOND,
    SETTLED,
    Id,
    Keys,
    Released,
    Settings,
    Store,
    wait_until_blocked,
)

DEADLINE = 60
EXPIRY = NOW + timedelta(seconds=DEADLINE)
MESSAGES = st.tuples(st.integers(1, 12), st.integers(1, 2), st.booleans())


def test_a_claim_leases_in_order_until_the_deadline(store: Store) -> None:
    keys = store.create(ack_deadline=DEADLINE)
    store.publish(keys.topic, ['{"n": 1}', '{"n": 2}'])
    claimed = store.claim(keys)
    assert claimed.positions == [1, 2]
    assert claimed.payloads == ['{"n": 1}', '{"n": 2}']
    assert claimed.attempts == [1, 1]
    assert claimed.created_at == [NOW, NOW]
    assert claimed.expires_at == EXPIRY
    assert (claimed.scanned, claimed.last) == (2, 2)
    assert store.claim(keys).positions == []


def test_a_missing_subscription(store: Store) -> None:
    topic = store.create_topic()
    with store.refused("FP404"):
        store.claim(Keys(topic, 1))


def test_retries_come_first_by_due_time_and_then_the_log(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3", "4", "5"])
    claimed = store.claim(keys, 4)
    store.nack(keys, claimed.ids, [9, 5, 5, 100])
    assert store.claim(keys, 0, now=NOW + 10 * SECOND).positions == []
    assert store.claim(keys, 1, now=NOW + 10 * SECOND).positions == [2]
    assert store.claim(keys, now=NOW + 10 * SECOND).positions == [3, 1, 5]
    assert store.claim(keys, now=NOW + 99 * SECOND).positions == []
    assert store.claim(keys, now=NOW + 100 * SECOND).positions == [4]


def test_each_message_that_is_handed_out_is_leased_in_whatever_order(store: Store) -> None:
    """Returned messages come in the order of their return, and look like a stretch of the log by their ends."""
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3", "4"])
    first = store.claim(keys)
    assert store.give_back(keys, [1, 4], first.token) == 2
    assert store.give_back(keys, [3], first.token, now=NOW + SECOND) == 1
    again = store.claim(keys, now=NOW + 2 * SECOND)
    assert again.positions == [1, 4, 3]
    assert store.ack(keys, [first.ids[1], *again.ids]) == [SETTLED] * 4


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(1, 2), st.booleans()),
        min_size=1,
        max_size=12,
        unique_by=itemgetter(0),
    ),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
@example([(1, 1, False), (4, 1, False), (3, 1, False)], [3])
@hypothesis_settings(max_examples=EXAMPLES)
def test_leases_are_of_exactly_what_each_consumer_gets(
    store: Store, messages: list[tuple[int, int, bool]], limits: list[int]
) -> None:
    ends = list(accumulate(limits))
    messages = messages[: ends[-1]]
    runs = store.connection.execute(
        "select * from fastpubsub.lease_runs(%s::bigint[], %s::integer[], %s::boolean[], %s::bigint[])",
        [*map(list, zip(*messages, strict=True)), ends],
    ).fetchall()
    leased = [
        (position, attempts, revived, consumer)
        for start, end, attempts, revived, consumer in runs
        for position in range(start, end + 1)
    ]
    expected = [(*message, bisect_right(ends, place) + 1) for place, message in enumerate(messages)]
    assert sorted(leased) == sorted(expected)


def test_a_limit_is_filled_from_both(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3", "4", "5"])
    store.nack(keys, store.claim(keys, 2).ids, [0, 0])
    assert store.claim(keys, 3).positions == [1, 2, 3]
    assert store.claim(keys, 3).positions == [4, 5]


@pytest.mark.parametrize(
    ("limits", "shares"),
    [
        ([2, 1, 4], ["a", "a", "b", "c", "c"]),
        ([5], ["a"] * 5),
        ([1, 1], ["a", "b"]),
        ([10, 10], ["a"] * 5),
    ],
)
def test_limits_share_out_what_was_claimed(store: Store, limits: Sequence[int], shares: Sequence[str]) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3", "4", "5"])
    store.nack(keys, store.claim(keys, 1).ids, [0])
    claimed = store.claim(keys, limits, ["a", "b", "c"][: len(limits)])
    assert claimed.positions == [1, 2, 3, 4, 5][: len(shares)]
    assert [lease.consumer_id for lease in store.leases(keys)] == shares
    assert {lease.token for lease in store.leases(keys)} == {claimed.token}


def test_bytes_bound_a_claim_and_the_first_message_always_goes(store: Store) -> None:
    keys = store.create()
    payload = json.dumps("x" * 98)  # 100 characters, and one byte for the length
    store.publish(keys.topic, [payload] * 6)
    assert store.claim(keys, max_bytes=1).positions == [1]
    assert store.claim(keys, max_bytes=202).positions == [2, 3]
    assert store.claim(keys, max_bytes=302).positions == [4, 5]
    assert store.cursor(keys).position == 5


def test_bytes_bound_retries_and_what_follows_them_from_the_log(store: Store) -> None:
    keys = store.create()
    payload = json.dumps("x" * 98)
    store.publish(keys.topic, [payload] * 5)
    store.nack(keys, store.claim(keys, 2).ids, [0, 1])
    later = NOW + SECOND
    assert store.claim(keys, max_bytes=1, now=later).positions == [1]
    assert store.claim(keys, max_bytes=250, now=later).positions == [2, 3]
    assert store.claim(keys, max_bytes=101, now=later).positions == [4]


@pytest.mark.parametrize("limit", [1, 10])
def test_bytes_bound_a_filtered_claim(store: Store, limit: int) -> None:
    keys = store.create(filter='{"a": [1]}')
    payloads = [json.dumps({"a": number % 2, "x": "x" * 90}) for number in range(7)]
    store.publish(keys.topic, payloads)
    assert store.claim(keys, limit, max_bytes=1).positions == [2]
    assert store.cursor(keys).position == 2
    assert store.claim(keys, limit, max_bytes=150).positions == [4]
    assert store.cursor(keys).position == 4
    assert store.claim(keys, limit).positions == [6]


def test_a_message_can_be_larger_than_every_bound(store: Store) -> None:
    keys = store.create()
    large = json.dumps("x" * 300_000)
    store.publish(keys.topic, [large, "1"])
    assert store.claim(keys, max_bytes=1000).payloads == [large]


def test_bytes_count_as_they_are_sent(store: Store) -> None:
    """However well they could be compressed; also for what waits, and for dead letters."""
    keys = store.create(max_attempts=1)
    store.fill(keys.topic, 8, json.dumps("x" * 99_998))
    assert len(store.claim(keys, max_bytes=350_000).positions) == 3
    store.nack(keys, [Id(position, None, NOW) for position in (1, 2, 3)])
    assert len(store.dead_letters(keys, max_bytes=250_000)) == 2
    store.reprocess(keys, [Id(position, None, NOW) for position in (1, 2, 3)])
    assert len(store.claim(keys, max_bytes=250_000).positions) == 2


def test_attributes_count_too(store: Store) -> None:
    keys = store.create(max_attempts=1)
    store.publish(keys.topic, ["1"] * 8, [json.dumps({"k": "x" * 9_980})] * 8)
    assert len(store.claim(keys, max_bytes=35_000).positions) == 3
    store.nack(keys, [Id(position, None, NOW) for position in (1, 2, 3)])
    assert len(store.dead_letters(keys, max_bytes=25_000)) == 2
    store.reprocess(keys, [Id(position, None, NOW) for position in (1, 2, 3)])
    assert len(store.claim(keys, max_bytes=25_000).positions) == 2


def test_tokens_are_drawn_per_claim_and_use_all_64_bits(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    tokens = []
    for number in range(200):
        claimed = store.claim(keys, now=NOW + number * SECOND)
        tokens.append(claimed.token or 0)
        store.nack(keys, claimed.ids, [0])
        store.execute("update fastpubsub.retries set attempts = 0")
    assert len(set(tokens)) == 200
    ones = [sum(token >> bit & 1 for token in tokens) for bit in range(64)]
    assert min(ones) > 40
    assert max(ones) < 160


@pytest.mark.parametrize(
    ("moment", "released"), [(EXPIRY - MICROSECOND, 0), (EXPIRY, 1), (EXPIRY + MICROSECOND, 1)], ids=str
)
def test_nobody_else_gets_a_message_before_its_deadline(store: Store, moment: object, released: int) -> None:
    keys = store.create(ack_deadline=DEADLINE, backoff_min=0)
    store.publish(keys.topic, ["1"])
    store.claim(keys)
    assert store.claim(keys, now=moment).positions == []  # type: ignore[arg-type]
    assert store.release(keys, now=moment) == Released(released, 0)  # type: ignore[arg-type]
    assert store.claim(keys, now=EXPIRY + SECOND).positions == [1] * released


def test_claims_at_once_never_share_a_message(open_store: OpenStore, background: Background) -> None:
    stores = [open_store() for _ in range(4)]
    keys = stores[0].create()
    stores[0].fill(keys.topic, 300)
    stores[0].nack(keys, stores[0].claim(keys, 100).ids, [0] * 100)

    def consume(store: Store) -> list[int]:
        taken: list[int] = []
        while claimed := store.claim(keys, 7).positions:
            taken += claimed
        return taken

    taken = [future.result() for future in [background(consume, store) for store in stores]]
    assert sorted(position for each in taken for position in each) == list(range(1, 301))


def test_a_claim_waits_for_another_and_takes_what_follows(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.publish(keys.topic, ["1", "2", "3"])
    with first.transaction():
        assert first.claim(keys, 2).positions == [1, 2]
        waiting = background(second.claim, keys, 2)
        wait_until_blocked(watcher, second, by=first)
    assert waiting.result().positions == [3]


def test_the_primary_key_is_the_last_guard(open_store: OpenStore, background: Background) -> None:
    """As if the lock of the cursor were lost: an error and nothing stored, never two holders."""
    first, second = open_store(), open_store()
    lock = "select pg_get_functiondef('fastpubsub.lock_subscription'::regproc)"
    first.execute(first.value(lock).replace("for no key update", ""))
    keys = first.create()
    first.publish(keys.topic, ["1", "2", "3"])
    with first.transaction():
        held = first.claim(keys).positions
        waiting = background(second.claim, keys)
        wait_until_blocked(open_store(), second, by=first)
    assert held == [1, 2, 3]
    assert isinstance(waiting.exception(), psycopg.errors.UniqueViolation)
    assert [lease.position for lease in first.leases(keys)] == held


def test_a_message_that_waits_but_is_nowhere_is_reported(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    store.execute("insert into fastpubsub.retries values (%s, %s, %s, 77, 1, 'nacked')", *keys, NOW)
    with store.refused("FP500"):
        store.claim(keys)
    assert [retry.position for retry in store.retries(keys)] == [77]


@pytest.mark.parametrize("wanted", [None, '{"a": [1]}'])
@pytest.mark.parametrize("waiting", [0, 1])
def test_an_empty_poll_takes_no_transaction_id_and_writes_nothing(
    open_store: OpenStore, waiting: int, wanted: str | None
) -> None:
    store = open_store()
    keys = store.create(filter=wanted)
    store.publish(keys.topic, ['{"a": 1}', '{"a": 1}', "{}"])
    claimed = store.claim(keys)
    store.nack(keys, claimed.ids[:waiting], [600] * waiting)
    with store.transaction():
        assert store.claim(keys).positions == []
        assert store.value("select pg_current_xact_id_if_assigned()") is None
    query = "select * from fastpubsub.claim_messages_2(%s, %s, '{1}', '{c}', 1000)"
    assert store.written(query, *keys) == 0


def test_a_poll_for_what_is_there_does_take_one(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    store.claim(keys)
    assert store.value("select pg_current_xact_id_if_assigned()") is not None


def test_a_time_in_the_past_finds_nothing_due(store: Store) -> None:
    keys = store.create(backoff_min=10)
    store.publish(keys.topic, ["1"])
    store.nack(keys, store.claim(keys).ids)
    assert store.claim(keys, now=NOW - SECOND).positions == []


def test_a_claim_that_waited_counts_from_after_the_wait(open_store: OpenStore, background: Background) -> None:
    holding, store, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(ack_deadline=DEADLINE)
    watcher.publish(keys.topic, ["1"])
    with holding.transaction():
        holding.execute("select from fastpubsub.cursors where topic_key = %s for update", keys.topic)
        waiting = background(store.claim, keys, now=None)
        wait_until_blocked(watcher, store, by=holding)
        waited_until = watcher.value("select clock_timestamp()")
    expires_at = waiting.result().expires_at
    assert expires_at is not None
    assert expires_at >= waited_until + timedelta(seconds=DEADLINE)


def test_leases_that_expire_during_a_wait_are_released(open_store: OpenStore, background: Background) -> None:
    holding, store, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(ack_deadline=DEADLINE)
    watcher.publish(keys.topic, ["1"])
    watcher.claim(keys, now=None)
    with holding.transaction():
        holding.execute("select from fastpubsub.cursors where topic_key = %s for update", keys.topic)
        waiting = background(store.release, keys, now=None)
        wait_until_blocked(watcher, store, by=holding)
        watcher.execute("update fastpubsub.leases set expires_at = clock_timestamp()")
    assert waiting.result() == Released(1, 0)


def test_a_nack_that_waited_counts_from_after_the_wait(open_store: OpenStore, background: Background) -> None:
    holding, store, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.publish(keys.topic, ["1"])
    held: list[Id] = watcher.claim(keys).ids
    with holding.transaction():
        holding.execute("select from fastpubsub.cursors where topic_key = %s for update", keys.topic)
        waiting = background(store.nack, keys, held, [5], now=None)
        wait_until_blocked(watcher, store, by=holding)
        waited_until = watcher.value("select clock_timestamp()")
    assert waiting.result() == [1]
    (retry,) = watcher.retries(keys)
    assert retry.due_at >= waited_until + 5 * SECOND


def test_a_publish_that_waited_is_not_older_than_what_it_follows(open_store: OpenStore, background: Background) -> None:
    holding, store, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    with holding.transaction():
        holding.execute("select from fastpubsub.heads where topic_key = %s for update", topic)
        waiting = background(store.publish, topic, ["1"], now=None)
        wait_until_blocked(watcher, store, by=holding)
        waited_until = watcher.value("select date_trunc('milliseconds', clock_timestamp())")
    assert waiting.result().created_at >= waited_until


def test_one_match_behind_300_000_others_is_reached_in_bounded_calls(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.fill(keys.topic, 300_000, '{"a": 0}')
    store.publish(keys.topic, ['{"a": 1}'])
    calls = 0
    while True:
        claimed = store.claim(keys, scan_rows=50_000)
        calls += 1
        if claimed.positions or claimed.scanned == claimed.last:
            break
        assert claimed.scanned == calls * 50_000
        assert claimed.last == 300_001
    assert claimed.positions == [300_001]
    assert calls == 7


def test_a_share_of_time_bounds_a_call(store: Store) -> None:
    """No call looks at everything, each gets on, and together they reach the end."""
    keys = store.create(filter='{"a": [1]}')
    store.fill(keys.topic, 20_000, '{"a": 0}')
    store.publish(keys.topic, ['{"a": 1}'])
    scanned = [0]
    while True:
        claimed = store.claim(keys, scan_milliseconds=0)
        assert claimed.scanned > scanned[-1]
        scanned.append(claimed.scanned)
        if claimed.scanned == claimed.last:
            break
    assert claimed.positions == [20_001]
    assert scanned[1] <= 256


def test_bytes_bound_what_a_filter_looks_at_at_once(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.fill(keys.topic, 40, json.dumps("x" * 100_000))
    assert 0 < store.claim(keys, scan_milliseconds=0).scanned < 40


def test_settings_of_a_subscription_count_for_the_next_claim(store: Store) -> None:
    keys = store.create(ack_deadline=DEADLINE)
    store.publish(keys.topic, ["1"])
    store.update_subscription("subscription", ack_deadline_seconds=5)
    assert store.claim(keys).expires_at == NOW + 5 * SECOND


def test_subscriptions_of_a_topic_each_get_everything(store: Store) -> None:
    keys = store.create()
    other = store.create_subscription("other", settings=Settings())
    store.publish(keys.topic, ["1", "2"])
    assert store.claim(keys).positions == [1, 2]
    assert store.claim(other).positions == [1, 2]
