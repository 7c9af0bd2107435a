"""reject_messages_2: dead at once, with a reason."""

from tests.database.store import NOW, SECOND, SETTLED, Store


def test_a_rejected_message_is_dead_whatever_attempts_are_left(store: Store) -> None:
    keys = store.create(max_attempts=100)
    store.publish(keys.topic, ["1", "2"])
    claimed = store.claim(keys)
    assert store.reject(keys, claimed.ids, ["bad", "worse"], now=NOW + SECOND) == [SETTLED] * 2
    assert [(dead.reason, dead.attempts, dead.died_at) for dead in store.dead_letters(keys)] == [
        ("bad", 1, NOW + SECOND),
        ("worse", 1, NOW + SECOND),
    ]
    assert store.retries(keys) == []
    assert store.claim(keys).positions == []


def test_each_reason_goes_with_the_id_that_settles(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    old = store.claim(keys).ids
    store.nack(keys, old, [0])
    new = store.claim(keys).ids
    outcomes = store.reject(keys, [*old, *new], ["by somebody else", "by its holder"])
    assert outcomes[1] == SETTLED
    assert [dead.reason for dead in store.dead_letters(keys)] == ["by its holder"]


def test_no_reason_is_no_second_chance(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    claimed = store.claim(keys)
    query = "select outcomes from fastpubsub.reject_messages_2(%s, %s, '{1}', %s::bigint[], null, null, null, %s)"
    assert store.value(query, *keys, [claimed.token], NOW) == [SETTLED]
    assert [dead.reason for dead in store.dead_letters(keys)] == ["rejected"]


def test_a_message_that_dies_again_after_a_seek_is_one_dead_letter(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    store.reject(keys, store.claim(keys).ids, ["first"])
    store.seek(keys, "earliest")
    store.reject(keys, store.claim(keys).ids, ["second"])
    assert [dead.reason for dead in store.dead_letters(keys)] == ["second"]
    assert store.metrics(keys).acked == 0
