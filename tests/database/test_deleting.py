"""Deleting topics and subscriptions, in any order with everything else (invariant 8), and empty_purges."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import EXAMPLES, NOW, OF_SUBSCRIPTIONS, SECOND, Keys, Settings, Store, wait_until_blocked
from tests.database.usage import measure

TABLES = ("heads", "cursors", "messages", "idempotency_keys", "subscriptions", "topics", *OF_SUBSCRIPTIONS)


def rows_left(store: Store, keys: Keys, tables: tuple[str, ...] = TABLES) -> dict[str, int]:
    counts = {
        table: store.value(f"select count(*) from fastpubsub.{table} where topic_key = %s", keys.topic)
        for table in tables
    }
    return {table: count for table, count in counts.items() if count}


def in_every_table(store: Store) -> Keys:
    """A topic with a row in each table."""
    keys = store.create(max_attempts=2)
    store.fill(keys.topic, 10)
    ids = store.claim(keys, 8).ids
    store.nack(keys, ids[:2])
    store.reject(keys, ids[2:5])
    store.reprocess(keys, ids[2:3])
    store.execute("insert into fastpubsub.idempotency_keys values (%s, 'client', 'key', '', 1, 1, %s)", keys.topic, NOW)
    store.execute("insert into fastpubsub.busy_keys values (%s, %s, 10)", *keys)
    store.execute("insert into fastpubsub.bundles values (%s, %s, 1, 10, '{9, 10}')", *keys)
    store.execute("insert into fastpubsub.subscription_uses values (%s, %s, %s)", *keys, NOW)
    store.execute("insert into fastpubsub.parked values (%s, %s, 10, 9, %s, 1, 'nacked')", *keys, NOW)
    assert rows_left(store, keys).keys() == set(TABLES)
    return keys


def empty(store: Store, limit: int = 5000) -> int:
    """How many calls it took."""
    calls = 0
    while store.empty_purges(limit) is not None:
        calls += 1
    return calls


def test_a_deleted_topic_is_gone_at_once_and_emptied_later(store: Store) -> None:
    keys = in_every_table(store)
    store.delete_topic()
    for call in (
        lambda: store.publish(keys.topic, ["1"]),
        lambda: store.claim(keys),
        store.delete_topic,
        store.delete_subscription,
        lambda: store.seek(keys, "latest"),
    ):
        with store.refused("FP404"):
            call()
    assert rows_left(store, keys).keys() == {"messages", "idempotency_keys", *OF_SUBSCRIPTIONS}
    assert store.orphans() == {}
    empty(store)
    assert rows_left(store, keys) == {}
    assert store.value("select count(*) from fastpubsub.purges") == 0


def test_a_deleted_subscription_leaves_the_topic_and_its_other_subscriptions(store: Store) -> None:
    keys = in_every_table(store)
    other = store.create_subscription("other", settings=Settings(start="earliest"))
    claimed = store.claim(other, 4)
    store.delete_subscription()
    assert store.orphans() == {}
    empty(store)
    assert rows_left(store, keys, ("retries", "dead_letters", "revived")) == {}
    assert [lease.position for lease in store.leases(other)] == claimed.positions
    assert store.positions(keys.topic) == list(range(1, 11))
    assert store.ack(other, claimed.ids) == [1] * 4
    assert rows_left(store, keys)["idempotency_keys"] == 1


def test_names_are_free_again_and_mean_something_new(store: Store) -> None:
    old = store.create()
    store.publish(old.topic, ["1"])
    store.delete_topic()
    new = store.create(start="earliest")
    assert new.topic != old.topic
    assert new.subscription != old.subscription
    assert store.claim(new).positions == []
    store.publish(new.topic, ["2"])
    empty(store)
    assert store.claim(new).payloads == ["2"]


def test_purges_are_emptied_in_chunks(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 1000)
    store.ack(keys, store.claim(keys, 1000).ids[::2])
    store.delete_topic()
    assert store.empty_purges(400) == 800 + 3
    assert rows_left(store, keys) == {"messages": 600, "leases": 100}
    assert empty(store, 400) == 3


def test_several_may_empty_at_once(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    for name in ("one", "other"):
        first.fill(first.create_topic(name), 10)
        first.delete_topic(name)
    with first.transaction():
        assert first.empty_purges() == 10
        assert second.empty_purges() == 10
        assert second.empty_purges() == 0
        assert second.empty_purges() is None
    assert empty(second) == 1


@pytest.mark.parametrize("what", ["topic", "subscription"])
def test_deleting_takes_as_long_whatever_is_stored(store: Store, what: str) -> None:
    blocks = []
    for count in (1, 20_000):
        with store.undone():
            keys = store.create()
            store.fill(keys.topic, count)
            store.claim(keys, count)
            delete: Callable[[], None] = store.delete_topic if what == "topic" else store.delete_subscription
            blocks.append(measure(store, delete)[1].blocks)
    assert max(blocks) <= min(blocks) + 10


# Publishing races with deleting: stored before, or refused; never both, never neither.


def test_a_publish_waits_for_a_delete_and_is_refused(open_store: OpenStore, background: Background) -> None:
    deleting, publishing, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    with deleting.transaction():
        deleting.delete_topic()
        waiting = background(publishing.publish, keys.topic, ["1"])
        wait_until_blocked(watcher, publishing, by=deleting)
    assert sqlstate(waiting.exception()) == "FP404"
    assert watcher.positions(keys.topic) == []


def test_a_publish_waits_for_a_delete_that_is_taken_back(open_store: OpenStore, background: Background) -> None:
    deleting, publishing, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    deleting.execute("begin")
    deleting.delete_topic()
    waiting = background(publishing.publish, keys.topic, ["1"])
    wait_until_blocked(watcher, publishing, by=deleting)
    deleting.execute("rollback")
    assert waiting.result().first_position == 1
    assert watcher.claim(keys).positions == [1]


def test_a_delete_waits_for_a_publish(open_store: OpenStore, background: Background) -> None:
    publishing, deleting, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    with publishing.transaction():
        publishing.publish(keys.topic, ["1"])
        waiting = background(deleting.delete_topic)
        wait_until_blocked(watcher, deleting, by=publishing)
    waiting.result()
    assert watcher.positions(keys.topic) == [1]
    assert watcher.orphans() == {}


def test_publishing_and_deleting_at_once(open_store: OpenStore, background: Background) -> None:
    stores = [open_store() for _ in range(4)]
    watcher = open_store()
    for _ in range(EXAMPLES):
        keys = watcher.create()
        publishing = [background(store.publish, keys.topic, ["1"]) for store in stores[:3]]
        deleting = background(stores[3].delete_topic)
        errors = [future.exception() for future in publishing]
        deleting.result()
        assert {sqlstate(error) for error in errors if error} <= {"FP404"}
        assert watcher.positions(keys.topic) == list(range(1, errors.count(None) + 1))
        assert watcher.orphans() == {}
    empty(watcher)
    assert watcher.value("select count(*) from fastpubsub.messages") == 0


def sqlstate(error: BaseException | None) -> str | None:
    assert isinstance(error, psycopg.Error)
    return error.sqlstate


CALLS: dict[str, Callable[[Store, Keys], object]] = {
    "claim": lambda store, keys: store.claim(keys, 1, now=NOW + timedelta(days=1)),
    "nack": lambda store, keys: store.nack(keys, store.leased(keys)),
    "reject": lambda store, keys: store.reject(keys, store.leased(keys)),
    "give back": lambda store, keys: store.give_back(keys, [one.position for one in store.leased(keys)], None),
    "reprocess": lambda store, keys: store.reprocess(
        keys, [one._replace(created_at=NOW) for one in store.leased(keys)]
    ),
    "purge": lambda store, keys: store.purge(keys, []),
    "seek": lambda store, keys: store.seek(keys, "latest"),
    "release": lambda store, keys: store.release(keys, now=NOW + timedelta(days=1)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("what", ["topic", "subscription"])
def test_what_waits_for_a_delete_inserts_nothing(
    open_store: OpenStore, background: Background, name: str, what: str
) -> None:
    deleting, calling, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.fill(keys.topic, 5)
    watcher.claim(keys, 3)
    with deleting.transaction():
        if what == "topic":
            deleting.delete_topic()
        else:
            deleting.delete_subscription()
        waiting = background(CALLS[name], calling, keys)
        wait_until_blocked(watcher, calling, by=deleting)
    error = waiting.exception()
    assert sqlstate(error) == "FP404" if name != "release" else error is None
    empty(watcher)
    assert watcher.orphans() == {}
    assert rows_left(watcher, keys, OF_SUBSCRIPTIONS) == {}


@pytest.mark.parametrize("name", [name for name in CALLS if name != "purge"])
def test_a_delete_waits_for_what_inserts(open_store: OpenStore, background: Background, name: str) -> None:
    calling, deleting, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.fill(keys.topic, 5)
    watcher.claim(keys, 3)
    with calling.transaction():
        CALLS[name](calling, keys)
        waiting = background(deleting.delete_subscription)
        wait_until_blocked(watcher, deleting, by=calling)
    waiting.result()
    assert watcher.orphans() == {}
    empty(watcher)
    assert rows_left(watcher, keys, OF_SUBSCRIPTIONS) == {}


def test_an_ack_does_not_wait_for_a_delete_and_leaves_nothing(open_store: OpenStore) -> None:
    deleting, acking = open_store(), open_store()
    keys = acking.create()
    acking.fill(keys.topic, 3)
    whole, other = acking.claim(keys, 2).ids, acking.claim(keys).ids
    with deleting.transaction():
        deleting.delete_subscription()
        assert acking.ack(keys, whole) == [1, 1]
    with acking.refused("FP404"):
        acking.ack(keys, other)
    empty(acking)
    assert rows_left(acking, keys, OF_SUBSCRIPTIONS) == {}


def test_a_subscription_waits_for_its_topic_being_deleted(open_store: OpenStore, background: Background) -> None:
    deleting, creating, watcher = open_store(), open_store(), open_store()
    watcher.create_topic()
    with deleting.transaction():
        deleting.delete_topic()
        waiting = background(creating.create_subscription)
        wait_until_blocked(watcher, creating, by=deleting)
    assert sqlstate(waiting.exception()) == "FP404"
    assert watcher.value("select count(*) from fastpubsub.subscriptions") == 0


def test_deleting_a_topic_waits_for_its_new_subscription_and_takes_it_along(
    open_store: OpenStore, background: Background
) -> None:
    creating, deleting, watcher = open_store(), open_store(), open_store()
    watcher.create_topic()
    with creating.transaction():
        keys = creating.create_subscription()
        waiting = background(deleting.delete_topic)
        wait_until_blocked(watcher, deleting, by=creating)
    waiting.result()
    assert watcher.orphans() == {}
    with watcher.refused("FP404"):
        watcher.claim(keys)


def test_two_deletes_at_once(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    watcher.create()
    for delete in (Store.delete_subscription, Store.delete_topic):
        with first.transaction():
            delete(first)
            waiting = background(delete, second)
            wait_until_blocked(watcher, second, by=first)
        assert sqlstate(waiting.exception()) == "FP404"


def test_trimming_what_was_deleted_is_nothing_to_do(store: Store) -> None:
    keys = in_every_table(store)
    store.delete_topic()
    assert store.trim(keys.topic, now=NOW + SECOND) == 0
    assert store.expired(now=NOW + timedelta(days=1)) == []
