"""Subscriptions that are deleted when nobody pulls them."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Keys, Settings, Store, wait_until_blocked

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NOTED = 120 * SECOND
"""What is told of uses may be as old."""


def use(store: Store, *keys: Keys, now: datetime) -> None:
    topics, subscriptions = [one.topic for one in keys], [one.subscription for one in keys]
    store.execute("select fastpubsub.record_uses(%s, %s, %s)", topics, subscriptions, now)


def found(store: Store, *, now: datetime) -> list[str]:
    rows = store.rows("select subscription_id from fastpubsub.list_expired_subscriptions(p_now => %s)", now)
    return sorted(name for (name,) in rows)


def expire(store: Store, keys: Keys, *, now: datetime) -> None:
    store.execute("select fastpubsub.expire_subscription(%s, %s, %s)", *keys, now)


def look_all_the_time(store: Store, until: datetime) -> None:
    """As servers do that run: once a minute since `NOW`."""
    store.execute("update fastpubsub.jobs set done_at = %s where name = 'expire_subscriptions'", until - MINUTE)


def expires_at(store: Store, name: str = "subscription") -> datetime | None:
    at: datetime | None = store.value("select expires_at from fastpubsub.list_subscriptions_4(0, 1, array[%s])", name)
    return at


def names(store: Store) -> list[str]:
    return [name for (name,) in store.rows("select id from fastpubsub.list_subscriptions_4(0, 100)")]


def uses(store: Store) -> Iterable[datetime]:
    return [at for (at,) in store.rows("select used_at from fastpubsub.subscription_uses order by used_at")]


def test_nobody_pulls(store: Store) -> None:
    keys = store.create(expire_after=3600)
    store.create_subscription("forever")
    store.fill(keys.topic, 3)
    end = NOW + HOUR + NOTED
    assert (expires_at(store), expires_at(store, "forever")) == (end, None)
    assert found(store, now=NOW + HOUR) == []
    look_all_the_time(store, end)
    assert found(store, now=end - SECOND) == []
    with store.refused("FP409"):
        expire(store, keys, now=end - SECOND)
    assert found(store, now=end) == ["subscription"]
    expire(store, keys, now=end)
    assert names(store) == ["forever"]
    with store.refused("FP404"):
        expire(store, keys, now=end)
    while store.empty_purges() is not None:
        pass
    assert uses(store) == []


def test_each_use_begins_the_time_anew(store: Store) -> None:
    keys = store.create(expire_after=3600)
    other = store.create_subscription("forever")
    use(store, keys, other, now=NOW + HOUR)
    assert expires_at(store) == NOW + 2 * HOUR + NOTED
    # What was written a moment ago is not written again.
    use(store, keys, now=NOW + HOUR + 29 * SECOND)
    assert uses(store) == [NOW + HOUR]
    look_all_the_time(store, NOW + 2 * HOUR + NOTED)
    assert found(store, now=NOW + 2 * HOUR + NOTED - SECOND) == []
    use(store, keys, now=NOW + 2 * HOUR)
    with store.refused("FP409"):
        expire(store, keys, now=NOW + 2 * HOUR + NOTED)


def test_what_counts_as_used(store: Store) -> None:
    topic = store.create_topic()
    kept = Settings(expire_after=60)
    paused, pushed, held, idle = (
        store.create_subscription(name, settings=kept) for name in ("paused", "pushed", "held", "idle")
    )
    store.pause(name="paused", is_paused=True, now=NOW)
    store.execute("update fastpubsub.cursors set is_pushed = true where subscription_key = %s", pushed.subscription)
    store.fill(topic, 1)
    claimed = store.claim(held)
    assert (expires_at(store, "paused"), expires_at(store, "pushed")) == (None, None)
    end = NOW + 60 * SECOND + NOTED
    look_all_the_time(store, end)
    for keys in (paused, pushed, held):
        with store.refused("FP409"):
            expire(store, keys, now=end)
    assert found(store, now=end) == ["idle"]
    # For them the time begins when that ends.
    store.pause(name="paused", is_paused=False, now=end)
    store.ack(held, claimed.ids)
    later = end + 60 * SECOND + NOTED
    assert expires_at(store, "paused") == later
    assert found(store, now=later - SECOND) == ["idle"]
    assert found(store, now=later) == ["held", "idle", "paused"]
    expire(store, idle, now=later)


def test_the_time_without_a_server_does_not_count(store: Store) -> None:
    store.create(expire_after=3600)
    assert found(store, now=NOW + MINUTE) == []
    away = NOW + MINUTE + 10 * HOUR
    assert found(store, now=away) == []
    assert uses(store) == [NOW + 10 * HOUR]
    assert expires_at(store) == NOW + 11 * HOUR + NOTED
    # A short break is none.
    assert found(store, now=away + 5 * MINUTE) == []
    assert uses(store) == [NOW + 10 * HOUR]
    # Nobody was used later than now.
    store.create_subscription("new", settings=Settings(expire_after=60), now=away + 4 * HOUR)
    assert found(store, now=away + 5 * HOUR) == []
    assert max(uses(store)) == away + 5 * HOUR


def test_a_change_during_a_look_counts(open_store: OpenStore, background: Background) -> None:
    """The look has read when the subscription was used, and waits for the row that the change writes."""
    first, second, watcher = open_store(), open_store(), open_store()
    watcher.create(expire_after=3600)
    assert found(watcher, now=NOW + MINUTE) == []
    away = NOW + MINUTE + 10 * HOUR
    with first.transaction():
        first.update_subscription("subscription", expire_after_seconds=1800, now=away)
        looking = background(found, second, now=away)
        wait_until_blocked(watcher, second, by=first)
    assert looking.result() == []
    assert uses(watcher) == [away]


def test_the_setting_can_be_changed_and_removed(store: Store) -> None:
    keys = store.create()
    store.update_subscription("subscription", expire_after_seconds=60, now=NOW + HOUR)
    assert expires_at(store) == NOW + HOUR + 60 * SECOND + NOTED
    store.update_subscription("subscription", ack_deadline_seconds=7)
    assert expires_at(store) == NOW + HOUR + 60 * SECOND + NOTED
    store.update_subscription("subscription", expire_after_seconds=120, now=NOW + 2 * HOUR)
    assert expires_at(store) == NOW + 2 * HOUR + 120 * SECOND + NOTED
    fork = store.fork_subscription("fork", now=NOW + 3 * HOUR)
    assert expires_at(store, "fork") == NOW + 3 * HOUR + 120 * SECOND + NOTED
    store.update_subscription("subscription", expire_after_seconds=0)
    store.fork_subscription("other", "fork", expire_after_seconds=0, now=NOW + 3 * HOUR)
    assert (expires_at(store), expires_at(store, "other")) == (None, None)
    assert uses(store) == [NOW + 3 * HOUR]
    look_all_the_time(store, NOW + 9 * HOUR)
    assert found(store, now=NOW + 9 * HOUR) == ["fork"]
    for one in (keys, fork):
        use(store, one, now=NOW + 9 * HOUR)
    assert found(store, now=NOW + 9 * HOUR) == []


def test_a_change_that_comes_first_keeps_it(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(expire_after=60)
    end = NOW + HOUR
    with first.transaction():
        first.update_subscription("subscription", expire_after_seconds=0)
        waiting = background(refused_to_expire, second, keys, end)
        wait_until_blocked(watcher, second, by=first)
    waiting.result()
    assert names(watcher) == ["subscription"]


def refused_to_expire(store: Store, keys: Keys, now: datetime) -> None:
    with store.refused("FP409"):
        expire(store, keys, now=now)


def test_one_process_at_a_time_looks(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    first.create(expire_after=60)
    with first.transaction():
        assert found(first, now=NOW + HOUR) == ["subscription"]
        assert found(second, now=NOW + HOUR) == []


def test_nothing_is_written_when_nothing_expires(store: Store) -> None:
    keys = store.create()
    use(store, keys, now=NOW)
    assert found(store, now=NOW) == []
    assert store.value("select done_at from fastpubsub.jobs where name = 'expire_subscriptions'") is None


def test_the_time_in_which_the_node_of_a_topic_is_away_does_not_count(store: Store) -> None:
    keys = store.create(expire_after=3600)
    away = store.create_topic("away")
    store.create_subscription("there", "away", Settings(expire_after=3600))
    end = NOW + HOUR + NOTED
    look_all_the_time(store, end)
    query = "select subscription_id from fastpubsub.list_expired_subscriptions(100, %s, array[%s])"
    assert store.rows(query, end, away) == [("there",)]
    assert expires_at(store) == end + MINUTE
    expire(store, keys, now=end + MINUTE)
    assert names(store) == ["there"]
