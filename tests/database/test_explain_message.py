"""explain_message_2 beside the states, which are those of the model: test_model.py compares them."""

import json

import pytest

from tests.database.store import NOW, SECOND, Store


def test_a_lease(store: Store) -> None:
    keys = store.create(ack_deadline=30)
    store.fill(keys.topic, 5)
    store.claim(keys, [2, 3], ["one", "two"])
    explained = store.explain(keys, 4)
    assert (explained.state, explained.attempts, explained.consumer_id) == ("leased", 1, "two")
    assert explained.until == NOW + 30 * SECOND


def test_a_retry_and_a_dead_letter(store: Store) -> None:
    keys = store.create(backoff_min=10)
    store.fill(keys.topic, 2)
    first, second = store.claim(keys).ids
    store.nack(keys, [first])
    store.reject(keys, [second], ["no such customer"])
    waiting, dead = store.explain(keys, 1), store.explain(keys, 2)
    assert (waiting.state, waiting.attempts, waiting.until) == ("waiting", 1, NOW + 10 * SECOND)
    assert (dead.state, dead.attempts, dead.died_at, dead.reason) == ("dead", 1, NOW, "no such customer")


@pytest.mark.parametrize(
    ("payload", "field", "found", "similar"),
    [
        ('{"country": "BR", "size": 2}', None, None, None),
        ('{"country": "AR", "size": 2}', "country", "AR", None),
        ('{"Country": "BR", "size": 2}', "country", None, "Country"),
        ('{"country": "BR", "size": "2"}', "size", "2", None),
        ('{"country": null, "size": 2}', "country", "null", None),
        ('{"size": 2}', "country", None, None),
    ],
)
def test_the_field_that_decides(
    store: Store, payload: str, field: str | None, found: str | None, similar: str | None
) -> None:
    keys = store.create(filter='{"country": ["BR", "US"], "size": [2]}')
    store.publish(keys.topic, [payload])
    store.claim(keys)
    explained = store.explain(keys, 1)
    assert explained.state == ("leased" if field is None else "filtered")
    shown = None if found == "null" else found
    assert (explained.field, explained.similar_field) == (field, similar)
    assert (None if explained.actual is None else json.loads(explained.actual)) == shown
    assert (explained.actual_bytes is None) == (found is None)


def test_a_long_value_is_not_shown(store: Store) -> None:
    keys = store.create(filter='{"a": ["x"]}')
    store.publish(keys.topic, [json.dumps({"a": "y" * 2000})])
    explained = store.explain(keys, 1)
    assert (explained.state, explained.actual, explained.actual_bytes) == ("filtered", None, 2002)


def test_what_cannot_be_read(store: Store) -> None:
    """A number that json takes and jsonb does not."""
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 1e999999}'])
    explained = store.explain(keys, 1)
    assert (explained.state, explained.is_readable, explained.field) == ("filtered", False, None)


def test_the_filter_that_judged_it_then(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'])
    store.ack(keys, store.claim(keys).ids)
    store.update_subscription("subscription", change_filter=True, filter='{"a": [2]}')
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'])
    store.ack(keys, store.claim(keys).ids)
    assert [store.explain(keys, position).state for position in range(1, 5)] == [
        "settled", "filtered", "filtered", "settled",
    ]  # fmt: skip
    assert [store.explain(keys, position).filter for position in (2, 3)] == ['{"a": [1]}', '{"a": [2]}']


def test_filters_beyond_a_hundred_are_forgotten(store: Store) -> None:
    keys = store.create(filter='{"a": [0]}')
    for number in range(1, 110):
        store.publish(keys.topic, ['{"a": 0}'])
        store.ack(keys, store.claim(keys).ids)
        store.update_subscription("subscription", change_filter=True, filter=json.dumps({"a": [number]}))
    states = [store.explain(keys, position).state for position in range(1, 110)]
    assert states == ["unknown"] * 11 + ["filtered"] * 98
    assert store.value("select count(*) from fastpubsub.filter_history where topic_key = %s", keys.topic) == 100


def test_how_many_come_before(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'] * 50)
    explained = store.explain(keys, 99)
    assert (explained.state, explained.before, explained.before_is_estimated) == ("ahead", 49, False)
    explained = store.explain(keys, 99, look=20)
    assert (explained.before, explained.before_is_estimated) == (49, True)


def test_no_such_subscription(store: Store) -> None:
    keys = store.create()
    store.delete_subscription()
    with store.refused("FP404"):
        store.explain(keys, 1)


@pytest.mark.parametrize("filter_", [None, "null", "{}"])
def test_a_filter_that_was_taken_away(store: Store, filter_: str | None) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.update_subscription("subscription", change_filter=True, filter=filter_)
    store.publish(keys.topic, ['{"b": 1}'] * 2)
    store.ack(keys, store.claim(keys, 1).ids)
    assert [store.explain(keys, position).state for position in (1, 2)] == ["settled", "ahead"]
