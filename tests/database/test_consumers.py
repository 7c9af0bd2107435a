"""Who holds messages or waits for some: what processes write, how long it counts, and who is listed."""

from datetime import timedelta
from itertools import chain
from typing import Any

from tests.database.store import NOW, SECOND, Keys, Settings, Store

RECORD = "select fastpubsub.record_consumers(%s, %s, %s, %s, %s, %s, %s, %s)"
LIST = "select * from fastpubsub.list_consumers(%s, %s, %s, %s, %s, %s, %s, %s, 15, %s)"
TRIM = "select fastpubsub.trim_consumers(60, %s)"
ROWS = "select count(*) from fastpubsub.consumers"

Waiting = dict[str, tuple[bool, float]]
"""By consumer: whether it has a stream, and for how many seconds."""


def columns(waiting: Waiting) -> tuple[list[Any], list[Any], list[Any]]:
    return list(waiting), [one[0] for one in waiting.values()], [one[1] for one in waiting.values()]


def record(store: Store, process: int, seconds: float, told: dict[Keys, Waiting]) -> None:
    together = [columns(waiting) for waiting in told.values()]
    flat = [list(chain.from_iterable(one[n] for one in together)) for n in range(3)]
    keys = [keys.topic for keys in told], [keys.subscription for keys in told]
    store.execute(RECORD, process, *keys, [len(one) for one in told.values()], *flat, NOW + seconds * SECOND)


def found(
    store: Store,
    keys: Keys,
    seconds: float = 0,
    *,
    here: Waiting | None = None,
    after: str | None = None,
    limit: int = 100,
) -> dict[str, tuple[Any, ...]]:
    """By consumer, the times in seconds. This is process 1."""
    rows = store.rows(LIST, *keys, 1, *columns(here or {}), after, limit, NOW + seconds * SECOND)
    return {
        name: (leased, pulls, streams, *(time and (time - NOW) / SECOND for time in times))
        for name, leased, times, pulls, streams in (
            (row[0], row[1], (row[2], row[5], row[6]), row[3], row[4]) for row in rows
        )
    }


def test_who_holds_messages(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3", "4", "5"])
    store.claim(keys, [1, 2], ["a", "b"])
    held = store.claim(keys, [1], ["a"], now=NOW + 3 * SECOND)
    assert found(store, keys) == {"a": (2, 0, 0, 0, None, 3), "b": (2, 0, 0, 0, None, 0)}
    store.extend(keys, held.ids, 600, now=NOW + 9 * SECOND)
    assert found(store, keys)["a"] == (2, 0, 0, 0, None, 3), "an extension is of the same lease"
    store.ack(keys, store.leased(keys)[:1])
    assert found(store, keys)["a"] == (1, 0, 0, 3, None, 3)
    store.ack(keys, store.leased(keys)[:1])
    assert found(store, keys)["b"] == (1, 0, 0, 0, None, 0), "what is left of a lease that was cut"
    store.ack(keys, store.leased(keys))
    assert found(store, keys) == {}


def test_who_waits_at_every_process(store: Store) -> None:
    keys = store.create()
    other = store.create_subscription("other", settings=Settings())
    record(store, 2, 0, {keys: {"a": (False, 3), "b": (True, 60)}, other: {"c": (False, 0)}})
    record(store, 3, 1, {keys: {"a": (True, 2)}})
    record(store, 1, 1, {keys: {"x": (True, 2)}})
    expected = {"a": (0, 1, 1, None, -3, 1), "b": (0, 0, 1, None, -60, 0), "d": (0, 1, 0, None, 1.5, 2)}
    assert found(store, keys, 2, here={"d": (False, 0.5)}) == expected, "and what this process wrote is older"
    assert found(store, other, 2) == {"c": (0, 1, 0, None, 0, 0)}
    record(store, 2, 5, {keys: {}, other: {"c": (False, 5)}})
    assert found(store, keys, 6).keys() == {"a"}
    assert found(store, other, 6) == {"c": (0, 1, 0, None, 0, 5)}


def test_a_process_that_is_gone(store: Store) -> None:
    keys = store.create()
    record(store, 2, 0, {keys: {"a": (False, 3)}})
    assert found(store, keys, 14.9).keys() == {"a"}
    assert found(store, keys, 15.1) == {}
    store.execute(TRIM, NOW + timedelta(seconds=59))
    assert store.value(ROWS) == 1
    store.execute(TRIM, NOW + timedelta(seconds=61))
    assert store.value(ROWS) == 0


def test_page_by_page(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"])
    store.claim(keys, [1, 1, 1], ["B", "a", "é"])
    here: Waiting = {"C": (False, 0), "a": (False, 0)}
    assert list(found(store, keys, here=here)) == ["B", "C", "a", "é"]
    assert list(found(store, keys, here=here, limit=2)) == ["B", "C"]
    assert found(store, keys, here=here, after="C", limit=1) == {"a": (1, 1, 0, 0, 0, 0)}
    assert list(found(store, keys, here=here, after="a")) == ["é"]


def test_a_subscription_that_is_gone(store: Store) -> None:
    keys = store.create()
    record(store, 2, 0, {keys: {"a": (False, 3)}})
    store.delete_subscription("subscription")
    with store.refused("FP404"):
        found(store, keys)
    while store.empty_purges(5) is not None:
        pass
    assert store.value(ROWS) == 0
