"""What is kept of deliveries that failed."""

import json
from datetime import datetime
from functools import partial

import pytest

from tests.database.store import NOW, SECOND, SETTLED, Failed, Id, Keys, Store
from tests.database.usage import measure


def fail(store: Store, keys: Keys, times: int, *, now: datetime = NOW) -> None:
    """The message that comes first, each time a second later."""
    for _ in range(times):
        assert store.nack(keys, store.claim(keys, 1, now=now).ids, [0], now=now) == [SETTLED]
        now += SECOND


def test_each_failed_delivery_is_kept_with_its_reason_and_its_consumer(store: Store) -> None:
    keys = store.create(max_attempts=4, ack_deadline=5)
    store.publish(keys.topic, ["1"])
    store.nack(keys, store.claim(keys, 1, ["first"]).ids, [0], reason='KeyError: "a"')
    store.claim(keys, 1, ["second"])
    store.release(keys, now=NOW + 5 * SECOND)
    later = NOW + 60 * SECOND
    returned = store.claim(keys, 1, ["third"], now=later)
    store.give_back(keys, [1], returned.token, now=later)
    store.reject(keys, store.claim(keys, 1, ["fourth"], now=later).ids, ["no such customer"], now=later)
    expected = [
        Failed(NOW, 1, "nacked", 'KeyError: "a"', "first"),
        Failed(NOW + 5 * SECOND, 2, "lease expired", None, "second"),
        Failed(later, 3, "rejected", "no such customer", "fourth"),
    ]
    assert store.failures(keys) == expected
    shown = store.explain(keys, 1).failures or ""
    assert json.loads(shown) == [
        {"failed_at": "2026-01-02T03:04:05.000000Z", "delivery_attempt": 1}
        | {"cause": "nacked", "reason": 'KeyError: "a"', "consumer_id": "first"},
        {"failed_at": "2026-01-02T03:04:10.000000Z", "delivery_attempt": 2}
        | {"cause": "lease expired", "consumer_id": "second"},
        {"failed_at": "2026-01-02T03:05:05.000000Z", "delivery_attempt": 3}
        | {"cause": "rejected", "reason": "no such customer", "consumer_id": "fourth"},
    ]
    assert [one.failures for one in store.browse(keys, "dead").seen] == [shown]
    letters = store.rows("select * from fastpubsub.list_dead_letters_2(%s, %s, 0, 10, 1000)", *keys)
    assert [row[-1] for row in letters] == [shown, None]


def test_what_did_not_fail_has_none(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 2)
    store.ack(keys, store.claim(keys, 1).ids)
    assert [store.explain(keys, position).failures for position in (1, 2)] == [None, None]
    assert [one.failures for one in store.browse(keys).seen + store.browse(keys, "all").seen] == [None] * 3


def test_only_of_the_subscription(store: Store) -> None:
    keys = store.create()
    other = store.create_subscription("other")
    store.publish(keys.topic, ["1"])
    fail(store, keys, 1)
    assert (len(store.failures(keys)), store.failures(other)) == (1, [])
    assert store.explain(other, 1).failures is None


def test_the_last_twenty_are_kept(store: Store) -> None:
    keys = store.create(max_attempts=100)
    store.publish(keys.topic, ["1"])
    fail(store, keys, 45)
    kept = [one.attempt for one in store.failures(keys)]
    assert kept == list(range(21, 46)), "old ones go every 20th time"
    shown = json.loads(store.explain(keys, 1).failures or "")
    assert [one["delivery_attempt"] for one in shown] == list(range(26, 46))


def test_a_dead_letter_has_the_last_twenty_however_often_it_was_reprocessed(store: Store) -> None:
    keys = store.create(max_attempts=3, backoff_min=0)
    store.publish(keys.topic, ["1"])
    for minute in range(10):
        now = NOW + 60 * minute * SECOND
        fail(store, keys, 3, now=now)
        store.reprocess(keys, [Id(1, None, NOW)], now=now + 10 * SECOND)
    assert [one.attempt for one in store.failures(keys)] == [2, 3] + [1, 2, 3] * 6


def test_they_go_with_the_message(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 3)
    failed = store.claim(keys, 2)
    store.nack(keys, failed.ids, [0, 0])
    store.ack(keys, store.claim(keys).ids)
    assert len(store.failures(keys, 1)) == 1, "also of what was acknowledged then"
    assert store.trim(keys.topic, limit=1) == 1
    assert (store.failures(keys, 1), len(store.failures(keys, 2))) == ([], 1)
    assert store.trim(keys.topic) == 1
    assert store.value("select count(*) from fastpubsub.failures") == 0


@pytest.mark.parametrize("end", ["purge", "ack", "purge all", "die again"])
def test_those_of_a_dead_letter_go_with_it(store: Store, end: str) -> None:
    keys = store.create(max_attempts=1)
    store.fill(keys.topic, 2)
    fail(store, keys, 1)
    store.ack(keys, store.claim(keys).ids)
    assert store.trim(keys.topic) == 1
    assert len(store.failures(keys)) == 1
    dead = [Id(1, None, NOW)]
    if end == "purge":
        store.purge(keys, dead)
    else:
        store.reprocess(keys, dead)
        if end == "purge all":
            store.purge_all(keys)
        elif end == "ack":
            store.ack(keys, store.claim(keys).ids)
        else:
            fail(store, keys, 1)
    assert len(store.failures(keys)) == (2 if end == "die again" else 0)


@pytest.mark.parametrize("end", ["purge", "ack", "purge all"])
def test_those_of_a_message_outlive_its_dead_letter(store: Store, end: str) -> None:
    keys = store.create(max_attempts=1)
    store.fill(keys.topic, 2)
    fail(store, keys, 1)
    if end == "purge":
        store.purge(keys, [Id(1, None, NOW)])
    else:
        store.reprocess(keys, [Id(1, None, NOW)])
        if end == "ack":
            store.ack(keys, store.claim(keys, 1).ids)
        else:
            store.purge_all(keys)
    assert len(store.failures(keys)) == 1


def test_a_deleted_subscription_leaves_none(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 3)
    store.nack(keys, store.claim(keys).ids)
    store.delete_subscription()
    while store.empty_purges() is not None:
        pass
    assert store.value("select count(*) from fastpubsub.failures") == 0


def test_what_succeeds_does_not_look_at_them(store: Store) -> None:
    keys = store.create(backoff_min=0)
    store.fill(keys.topic, 10)
    store.nack(keys, store.claim(keys).ids)
    claimed, first = measure(store, partial(store.claim, keys, 10), ["failures"])
    _, second = measure(store, partial(store.ack, keys, claimed.ids), ["failures"])
    _, third = measure(store, partial(store.fill, keys.topic, 10), ["failures"])
    assert [one.blocks for one in (first, second, third)] == [0, 0, 0]
