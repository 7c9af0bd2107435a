"""read_messages_2: following a topic without a subscription. held_leases: what a stream still has."""

from typing import Any

from tests.database.store import NOW, Id, Store


def read(store: Store, topic: int, after: int | None, limit: int = 100, max_bytes: int = 1 << 20) -> tuple[Any, ...]:
    """Last, missed, positions, payloads."""
    row = store.row("select * from fastpubsub.read_messages_2(%s, %s, %s, %s)", topic, after, limit, max_bytes)
    return row[0], row[1], row[2], row[4]


def test_from_now_on(store: Store) -> None:
    keys = store.create()
    assert read(store, keys.topic, None) == (0, False, None, None)
    store.publish(keys.topic, ["1", "2"])
    assert read(store, keys.topic, None) == (2, False, None, None)
    assert read(store, keys.topic, 2) == (2, False, None, None)


def test_after_a_position_in_order_and_bounded(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3", "4"])
    assert read(store, keys.topic, 0) == (4, False, [1, 2, 3, 4], ["1", "2", "3", "4"])
    assert read(store, keys.topic, 1, limit=2) == (4, False, [2, 3], ["2", "3"])
    assert read(store, keys.topic, 1, max_bytes=1) == (4, False, [2], ["2"]), "the first always comes"
    assert read(store, keys.topic, 3) == (4, False, [4], ["4"])
    assert read(store, keys.topic, 9) == (4, False, None, None)


def test_what_trimming_took_is_missed(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3", "4"])
    store.execute("delete from fastpubsub.messages where position <= 2")
    assert read(store, keys.topic, 0) == (4, True, [3, 4], ["3", "4"])
    assert read(store, keys.topic, 1, limit=1) == (4, True, [3], ["3"])
    assert read(store, keys.topic, 2) == (4, False, [3, 4], ["3", "4"])


def test_a_missing_topic(store: Store) -> None:
    with store.refused("FP404"):
        read(store, 1 << 40, None)


def test_held(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"])
    claimed = store.claim(keys)
    store.ack(keys, [claimed.ids[1]])

    def held(*ids: Id) -> Any:
        positions, tokens = [one.position for one in ids], [one.token for one in ids]
        return store.value("select fastpubsub.held_leases(%s, %s, %s, %s)", *keys, positions, tokens)

    assert sorted(held(*claimed.ids)) == [1, 3]
    assert held(Id(1, 7, NOW)) == [], "somebody else has it"
    assert held() == []
