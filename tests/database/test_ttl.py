"""Messages that expire: who still gets them, what becomes of them, and what it costs to pass them."""

from datetime import datetime

import pytest

from tests.database import delayed
from tests.database.store import NOW, SECOND, Id, Keys, Settles, Store

LATER = NOW + 10 * SECOND
"""The ttl of the messages here is over."""


def publish(store: Store, keys: Keys, letters: str, *, now: datetime = NOW) -> None:
    """A message for each letter, which is its ordering key; a capital one expires in ten seconds, so does a dot, which
    has no key, as a space has none."""
    store.publish(
        keys.topic,
        ["{}"] * len(letters),
        ordering_keys=[None if letter in " ." else letter.lower() for letter in letters],
        ttls=[10 if letter.isupper() or letter == "." else None for letter in letters],
        now=now,
    )


def test_who_claims_before_the_time_gets_it(store: Store) -> None:
    keys = store.create()
    publish(store, keys, " . ")
    assert store.claim(keys, now=LATER - SECOND / 1000).positions == [1, 2, 3]


def test_who_claims_at_the_time_does_not(store: Store) -> None:
    keys = store.create()
    publish(store, keys, ". . .")
    claimed = store.claim(keys, now=LATER)
    assert claimed.positions == [2, 4]
    assert (claimed.ttl_expired, claimed.dead_lettered, claimed.filtered) == (3, 0, 0)
    store.ack(keys, claimed.ids, now=LATER)
    metrics = store.metrics(keys)
    assert (metrics.ahead, metrics.leased, metrics.dead, metrics.acked, metrics.ttl_expired) == (0, 0, 0, 2, 3)


def test_a_time_of_its_own(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["{}"] * 3, expires_at=[NOW - SECOND, NOW + SECOND, None])
    assert store.claim(keys).positions == [2, 3], "the first had expired when it was published"


def test_a_delivery_from_before_is_settled_as_ever(store: Store) -> None:
    keys = store.create()
    publish(store, keys, "..")
    claimed = store.claim(keys)
    assert store.extend(keys, claimed.ids[:1], 60, now=LATER) == [1]
    assert store.ack(keys, claimed.ids, now=LATER) == [1, 1]
    assert store.metrics(keys).acked == 2


@pytest.mark.parametrize("ordered", [False, True])
def test_it_does_not_come_again(store: Store, ordered: bool) -> None:
    keys = store.create(ordered=ordered, backoff_min=0)
    publish(store, keys, "A.")
    claimed = store.claim(keys)
    store.nack(keys, claimed.ids[:1], now=LATER)
    assert store.release(keys, now=NOW + 60 * SECOND).released == 1
    again = store.claim(keys, now=NOW + 120 * SECOND)
    assert (again.positions, again.ttl_expired) == ([], 2)
    assert store.retries(keys) == []
    assert store.metrics(keys)[1:5] == (0, 0, 0, 0)


@pytest.mark.parametrize("ordered", [False, True])
def test_dead_letters(store: Store, ordered: bool) -> None:
    keys = store.create(ordered=ordered, on_expired="dead_letter", backoff_min=0)
    publish(store, keys, "A b.")
    first = store.claim(keys, 1)
    store.nack(keys, first.ids, now=NOW)
    claimed = store.claim(keys, now=LATER)
    assert (claimed.positions, claimed.ttl_expired, claimed.dead_lettered) == ([2, 3], 0, 2)
    assert [(dead.position, dead.attempts, dead.reason) for dead in store.dead_letters(keys)] == [
        (1, 1, "expired"),
        (4, 0, "expired"),
    ]
    assert (store.metrics(keys).dead, store.metrics(keys).leased) == (2, 2)


@pytest.mark.parametrize("ordered", [False, True])
def test_reprocessing_hands_it_out_all_the_same(store: Store, ordered: bool) -> None:
    keys = store.create(ordered=ordered, on_expired="dead_letter")
    publish(store, keys, ".")
    store.claim(keys, now=LATER)
    (dead,) = store.dead_letters(keys)
    assert store.reprocess(keys, [Id(dead.position, None, dead.created_at)], now=LATER) == [1]
    assert store.explain(keys, 1, now=LATER).expired_at is None
    assert store.claim(keys, now=LATER + SECOND).positions == [1]


def test_what_the_filter_keeps_out_does_not_count(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}', on_expired="dead_letter")
    store.publish(keys.topic, ['{"a": 2}', '{"a": 1}', '{"a": 1}', '{"a": 2}'], ttls=[10, 10, None, None])
    claimed = store.claim(keys, now=LATER)
    assert (claimed.positions, claimed.dead_lettered) == ([3], 1)
    assert store.metrics(keys).filtered == 2


def test_a_seek_back_brings_none_of_them(store: Store) -> None:
    keys = store.create()
    publish(store, keys, ". .")
    store.ack(keys, store.claim(keys).ids)
    store.seek(keys, "earliest", now=LATER)
    assert store.claim(keys, now=LATER).positions == [2]
    assert store.metrics(keys).acked == 3
    assert store.metrics(keys).ttl_expired == 2


def test_a_key_goes_on_behind_one_that_expired(store: Store) -> None:
    keys = store.create(ordered=True)
    publish(store, keys, "aAAa")
    first = store.claim(keys, 1)
    assert first.positions == [1]
    assert store.claim(keys, now=LATER).positions == [], "the key is busy, and the rest of it put aside"
    store.ack(keys, first.ids, now=LATER)
    claimed = store.claim(keys, now=LATER + SECOND)
    assert (claimed.positions, claimed.ttl_expired) == ([4], 2)
    store.ack(keys, claimed.ids, now=LATER + SECOND)
    assert store.rows("select from fastpubsub.busy_keys") == []


def test_a_key_of_which_all_has_expired_is_free(store: Store) -> None:
    keys = store.create(ordered=True, backoff_min=0)
    publish(store, keys, "AAAAA")
    first = store.claim(keys, 2)
    assert store.claim(keys).positions == []
    store.nack(keys, first.ids, now=LATER)
    passed = 0
    for attempt in range(1, 5):
        claimed = store.claim(keys, 1, now=LATER + attempt * SECOND)
        assert claimed.positions == []
        passed += claimed.ttl_expired or 0
    assert passed == 5
    assert store.rows("select from fastpubsub.busy_keys") == store.rows("select from fastpubsub.parked") == []
    publish(store, keys, "a", now=LATER + 10 * SECOND)
    assert store.claim(keys, now=LATER + 10 * SECOND).positions == [6]


def test_a_claim_does_not_pass_what_has_expired_of_many_keys(store: Store) -> None:
    """It holds the lock of the cursor, and may make dead letters of all of it."""
    keys = store.create(ordered=True)
    publish(store, keys, "abcA" + "B" * 1100 + "C" * 1100)
    first = store.claim(keys, 3)
    assert store.claim(keys).positions == []
    store.ack(keys, first.ids, now=LATER)
    passed = [store.claim(keys, now=LATER + attempt * SECOND).ttl_expired or 0 for attempt in range(1, 6)]
    assert sum(passed) == 2201
    assert max(passed) < 1200


def test_settling_with_the_next_pull_passes_them_too(store: Store) -> None:
    keys = store.create()
    publish(store, keys, " . ")
    claimed = store.claim(keys, 1)
    _, following = store.settle_and_claim(keys, Settles(acks=(claimed.ids, None)), now=LATER)
    assert (following.positions, following.ttl_expired) == ([3], 1)


def test_the_seconds_of_a_delayed_message_begin_when_it_comes(store: Store) -> None:
    keys = store.create()
    delayed.publish(store, keys.topic, delayed.Request(["{}", "{}"], [5, None], ttls=[10, 10]))
    delayed.publish_due(store, keys.topic, now=NOW + 6 * SECOND)
    expiries = store.rows("select expires_at from fastpubsub.messages order by position")
    assert expiries == [(LATER,), (NOW + 16 * SECOND,)]


def test_a_limit_of_messages_in_flight_is_not_used_up(store: Store) -> None:
    keys = store.create(max_in_flight=2)
    publish(store, keys, "... . ")
    assert store.claim(keys, now=LATER).positions == [4]
    assert store.claim(keys, now=LATER).positions == [6]


@pytest.mark.parametrize("filter_", [None, '{"a": [1]}'])
@pytest.mark.parametrize("on_expired", ["drop", "dead_letter"])
def test_a_backlog_of_expired_messages_is_passed_in_steps(store: Store, filter_: str | None, on_expired: str) -> None:
    keys = store.create(filter=filter_, on_expired=on_expired)
    store.fill(keys.topic, 5000, '{"a": 1}', ttl=10)
    store.publish(keys.topic, ['{"a": 1}'], now=LATER)
    claims, passed = 0, 0
    while not (claimed := store.claim(keys, 1, now=LATER, scan_milliseconds=0)).positions:
        step = (claimed.ttl_expired or 0) + (claimed.dead_lettered or 0)
        assert 0 < step <= 1001, "a claim of one message passes a bounded number"
        passed += step
        claims += 1
    assert passed + (claimed.ttl_expired or 0) + (claimed.dead_lettered or 0) == 5000
    assert claims >= 4
    assert claimed.positions == [5001]


def test_a_listener_of_the_topic_reads_past_them(store: Store) -> None:
    keys = store.create()
    publish(store, keys, " ..")
    query = "select positions, scanned, missed from fastpubsub.read_messages_2(%s, %s, 100, 1000, %s)"
    assert store.row(query, keys.topic, 0, NOW) == ([1, 2, 3], 3, False)
    assert store.row(query, keys.topic, 0, LATER) == ([1], 3, False)
    assert store.row(query, keys.topic, 1, LATER) == (None, 3, False)


def test_what_is_known_of_one(store: Store) -> None:
    keys = store.create()
    publish(store, keys, ". ")
    assert store.explain(keys, 1).expired_at is None
    explained = store.explain(keys, 1, now=LATER)
    assert (explained.state, explained.expired_at) == ("ahead", LATER)
    assert [one.expires_at for one in store.browse(keys, "all").seen] == [LATER, None]
    assert [one.expires_at for one in store.browse(keys, "ahead").seen] == [LATER, None]
    store.claim(keys, now=LATER)
    explained = store.explain(keys, 1, now=LATER)
    assert (explained.state, explained.expired_at) == ("settled", LATER)
    assert store.explain(keys, 2, now=LATER).expired_at is None


def test_from_sql(store: Store) -> None:
    keys = store.create()
    query = "select fastpubsub.publish('topic', '{}', ttl_seconds => %s, expires_at => %s)"
    store.row(query, 10, None)
    store.row(query, None, NOW + SECOND)
    for given in ((0, None), (31_536_001, None), (1, NOW)):
        with store.refused("FP422"):
            store.row(query, *given)
    rows = store.rows("select transaction_id::text::bigint, ordinal from fastpubsub.outbox order by ordinal")
    columns = [list(column) for column in zip(*rows, strict=True)]
    store.row(
        "select * from fastpubsub.relay_messages_2(%s, %s::bigint[], %s::bigint[], p_now => %s)",
        keys.topic,
        *columns,
        NOW,
    )
    assert store.rows("select expires_at from fastpubsub.messages order by position") == [(LATER,), (NOW + SECOND,)]
