"""list_ready_subscriptions_2: what consumers that wait have to know."""

import pytest

from tests.database.store import NOW, SECOND, Keys, Settings, Store


def test_nothing_to_tell(store: Store) -> None:
    keys = store.create()
    assert store.ready() == []
    assert store.ready(keys) == []
    store.publish(keys.topic, ["1"])
    store.claim(keys)
    assert store.ready(keys) == []


def test_what_is_ready_is_named_by_its_place(store: Store) -> None:
    quiet = store.create()
    busy = store.create_subscription("busy")
    store.publish(quiet.topic, ["1"])
    store.claim(quiet)
    assert store.ready(quiet, busy) == [(2, True, None)]
    assert store.ready(busy, quiet) == [(1, True, None)]


def test_a_subscription_that_is_gone_is_ready_for_the_bad_news(store: Store) -> None:
    keys = store.create()
    missing = Keys(keys.topic, keys.subscription + 1000)
    store.delete_subscription("subscription")
    assert store.ready(keys, missing) == [(1, True, None), (2, True, None)]


@pytest.mark.parametrize(
    ("later", "expected"),
    [(0, (False, 5.0)), (4, (False, 1.0)), (5, (True, 15.0)), (20, (True, None))],
)
def test_retries(store: Store, later: int, expected: tuple[bool, float | None]) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    store.nack(keys, store.claim(keys).ids, [5, 20])
    rows = store.ready(keys, now=NOW + later * SECOND)
    assert [(ready, due) for _, ready, due in rows] == [expected]
    assert bool(store.claim(keys, now=NOW + later * SECOND).positions) is expected[0], "as a claim sees it"


def test_what_the_filter_may_skip_is_ready_until_it_was_looked_at(store: Store) -> None:
    topic = store.create_topic()
    keys = store.create_subscription(settings=Settings(filter='{"a": [1]}'))
    store.publish(topic, ['{"a": 2}'])
    assert store.ready(keys) == [(1, True, None)]
    store.claim(keys)
    assert store.ready(keys) == []
