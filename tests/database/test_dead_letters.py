"""list_, reprocess_ and purge_dead_letters."""

import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.database.store import (
    EVERYTHING,
    GONE,
    MICROSECOND,
    NOW,
    SECOND,
    SETTLED,
    Id,
    Keys,
    Metrics,
    Released,
    Settings,
    Store,
)
from tests.database.usage import measure

LATER = NOW + timedelta(days=1)


def die(store: Store, keys: Keys, positions: int = 1) -> list[Id]:
    """The ids of what was claimed and rejected."""
    ids = store.claim(keys, positions).ids
    assert store.reject(keys, ids) == [SETTLED] * positions
    return [one.bare for one in ids]


def counts(metrics: Metrics) -> tuple[int, int, int, int, int]:
    return metrics[:5]


def test_the_list_is_by_position_in_pages(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 5)
    die(store, keys, 5)
    assert [dead.position for dead in store.dead_letters(keys)] == [1, 2, 3, 4, 5]
    assert [dead.position for dead in store.dead_letters(keys, 1, 2)] == [2, 3]
    assert store.dead_letters(keys, 5, 2) == []
    assert [dead.position for dead in store.dead_letters(keys, 1, 5, max_bytes=1)] == [2]


def test_the_list_goes_on_after_a_position(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 5)
    die(store, keys, 5)

    def page(*arguments: object) -> tuple[list[int], int | None]:
        letters, end = store.page_of_dead_letters(keys, 0, *arguments)  # type: ignore[arg-type]
        return [dead.position for dead in letters], end

    assert page(2, EVERYTHING) == ([1, 2], 2)
    assert page(2, EVERYTHING, 2) == ([3, 4], 4)
    assert page(2, EVERYTHING, 4) == ([5], None)
    assert page(5, EVERYTHING) == ([1, 2, 3, 4, 5], None)
    assert page(5, EVERYTHING, 9) == ([], None)
    assert page(5, 1, 1) == ([2], 2), "cut by its size"
    assert store.page_of_dead_letters(keys, 1, 2)[1] == 3


def test_the_list_chooses_by_reason_and_time(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 6)
    for second in range(6):
        reason = "even" if second % 2 == 0 else "odd"
        store.reject(keys, store.claim(keys, 1).ids, [reason], now=NOW + second * SECOND)

    def page(*wanted: object, limit: int = 10) -> tuple[list[int], int | None]:
        letters, end = store.page_of_dead_letters(keys, 0, limit, EVERYTHING, *wanted)
        return [dead.position for dead in letters], end

    assert page(None, "odd") == ([2, 4, 6], None)
    assert page(None, "odd", limit=2) == ([2, 4], 4)
    assert page(4, "odd", limit=2) == ([6], None)
    assert page(None, "Odd") == ([], None)
    assert page(None, None, NOW + SECOND, NOW + 4 * SECOND) == ([2, 3, 4], None)
    assert page(None, "even", NOW + SECOND, None) == ([3, 5], None)
    assert page(None, "even", None, NOW + 2 * SECOND, 100) == ([1], None)
    assert page(None, "odd", NOW + 5 * SECOND, None, 4) == ([], 4), "it has looked at four"
    assert page(4, "odd", NOW + 5 * SECOND, None, 4) == ([6], None)
    skipped, _ = store.page_of_dead_letters(keys, 2, 10, EVERYTHING, None, None, None, None, 1)
    assert [one.position for one in skipped] == [3]


def test_a_late_page_costs_what_the_first_does(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 2000)
    die(store, keys, 2000)
    for after in (0, 1900):
        call = partial(store.page_of_dead_letters, keys, 0, 10, EVERYTHING, after)
        (letters, _), usage = measure(store, call)
        assert [one.position for one in letters] == list(range(after + 1, after + 11))
        assert usage.blocks < 100


def test_a_missing_subscription(store: Store) -> None:
    keys = Keys(store.create_topic(), 1)
    for call in (
        lambda: store.dead_letters(keys),
        lambda: store.reprocess(keys, []),
        lambda: store.purge(keys, []),
        lambda: store.metrics(keys),
    ):
        with store.refused("FP404"):
            call()


def test_a_reprocessed_message_starts_at_its_first_attempt(store: Store) -> None:
    keys = store.create(max_attempts=2, backoff_min=0)
    store.publish(keys.topic, ["1"])
    for _ in range(2):
        store.nack(keys, store.claim(keys).ids)
    (dead,) = store.dead_letters(keys)
    assert dead.attempts == 2
    assert store.reprocess(keys, [Id(1, None, NOW)], now=NOW + SECOND) == [1]
    assert store.dead_letters(keys) == []
    assert store.claim(keys, now=NOW + SECOND - MICROSECOND).positions == []
    claimed = store.claim(keys, now=NOW + SECOND)
    assert (claimed.positions, claimed.attempts) == ([1], [1])
    assert store.ack(keys, claimed.ids) == [SETTLED]
    assert store.value("select count(*) from fastpubsub.revived") == 0


def test_a_message_that_was_trimmed_comes_back_with_the_same_id_and_bytes(store: Store) -> None:
    keys = store.create(max_attempts=1)
    payload = '{ "n" : 18446744073709551621,"x":"é" }'
    store.publish(keys.topic, [payload, "2"], ['{"k": "v"}', None])
    (dead,) = die(store, keys)
    store.ack(keys, store.claim(keys).ids)
    assert store.trim(keys.topic, now=LATER) == 1
    assert store.positions(keys.topic) == [2]
    store.reprocess(keys, [dead], now=LATER)
    claimed = store.claim(keys, now=LATER)
    assert claimed.positions == [dead.position]
    assert claimed.created_at == [dead.created_at]
    assert claimed.payloads == [payload]
    assert claimed.attributes == ['{"k": "v"}']
    assert store.release(keys, now=LATER + timedelta(days=1)) == Released(1, 1)
    assert [(one.payload, one.attributes) for one in store.dead_letters(keys)] == [(payload, '{"k": "v"}')]


def test_what_waits_revived_does_not_pin_the_log(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"])
    (dead,) = die(store, keys)
    store.ack(keys, store.claim(keys, 1).ids)
    assert store.trim(keys.topic) == 2
    store.ack(keys, store.claim(keys).ids)
    store.publish(keys.topic, ["4"])
    store.reprocess(keys, [dead])
    assert store.trim(keys.topic) == 1
    assert store.claim(keys).payloads == ["1", "4"]


@pytest.mark.parametrize("procedure", ["reprocess", "purge"])
def test_only_what_the_ids_name(store: Store, procedure: str) -> None:
    keys = store.create()
    store.fill(keys.topic, 4)
    first, second, third, _ = die(store, keys, 4)
    wrong = [second._replace(created_at=NOW - SECOND), Id(99, None, NOW), Id(3, None, None)]
    assert getattr(store, procedure)(keys, [third, first, *wrong, first]) == [1, 3]
    assert [dead.position for dead in store.dead_letters(keys)] == [2, 4]
    assert getattr(store, procedure)(keys, [first]) == []
    assert getattr(store, procedure)(keys, []) == []


@pytest.mark.parametrize("procedure", ["reprocess", "purge"])
def test_only_of_the_subscription(store: Store, procedure: str) -> None:
    keys = store.create()
    other = store.create_subscription("other")
    store.publish(keys.topic, ["1"])
    ids = die(store, keys)
    die(store, other)
    getattr(store, procedure)(keys, ids)
    assert [dead.position for dead in store.dead_letters(other)] == [1]


def test_purged_messages_count_neither_as_dead_nor_as_acked(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 3)
    ids = die(store, keys, 3)
    store.purge(keys, ids[:2])
    assert counts(store.metrics(keys)) == (0, 0, 0, 1, 0)
    assert store.claim(keys, now=LATER).positions == []


def test_a_message_that_a_seek_put_ahead_comes_once(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 2)
    ids = die(store, keys, 2)
    store.seek(keys, "earliest")
    assert store.reprocess(keys, ids) == [1, 2]
    assert counts(store.metrics(keys)) == (2, 0, 0, 0, 0)
    claimed = store.claim(keys)
    assert claimed.positions == [1, 2]
    assert store.ack(keys, claimed.ids) == [SETTLED] * 2
    assert counts(store.metrics(keys)) == (0, 0, 0, 0, 2)


@pytest.mark.parametrize("waits", [False, True])
def test_a_message_that_is_on_its_way_again_comes_once(store: Store, waits: bool) -> None:
    """Reprocessing it beside its lease or its retry would hold up every claim: two holders of one message."""
    keys = store.create()
    store.fill(keys.topic, 2)
    ids = die(store, keys, 2)
    store.seek(keys, "earliest")
    claimed = store.claim(keys)
    if waits:
        store.nack(keys, claimed.ids, [5, 5])
    assert store.reprocess(keys, ids) == [1, 2]
    assert counts(store.metrics(keys)) == ((0, 2, 0, 0, 0) if waits else (0, 0, 2, 0, 0))
    assert store.claim(keys).positions == []
    assert store.claim(keys, now=LATER).positions == ([1, 2] if waits else [])


@pytest.mark.parametrize("is_old", [False, True])
def test_one_that_is_parked_again_comes_once(store: Store, is_old: bool) -> None:
    """Behind another one of its key. `is_old`: it died before dead letters said at which claim they did."""
    keys = store.create(ordered=True)
    store.publish(keys.topic, ["{}"] * 6, ordering_keys=[*"aaabba"])
    ids = die(store, keys, 6)
    store.seek(keys, "earliest")
    if is_old:
        store.execute("update fastpubsub.dead_letters set sequence = null")
    claimed = store.claim(keys, 5)
    assert claimed.positions == [1, 2, 3, 4, 5]
    store.nack(keys, claimed.ids[:2], [5, 5])
    parked = "select position from fastpubsub.parked order by position"
    assert store.rows(parked) == [(2,), (3,)], "4 and 5 are leased, 6 is ahead"
    assert store.reprocess(keys, ids) == [1, 2, 3, 4, 5, 6]
    assert counts(store.metrics(keys)) == (1, 3, 2, 0, 0)
    store.ack(keys, claimed.ids[3:])
    again = store.claim(keys, now=LATER)
    assert again.positions == [1, 2, 3]
    store.ack(keys, again.ids, now=LATER)
    last = store.claim(keys, now=LATER + SECOND)
    assert last.positions == [6]
    store.ack(keys, last.ids, now=LATER + SECOND)
    assert counts(store.metrics(keys)) == (0, 0, 0, 0, 6)


@pytest.mark.parametrize("sought", ["", "latest", "earliest"])
def test_reprocessing_looks_at_nothing_of_what_waits(store: Store, sought: str) -> None:
    """However many messages wait, are parked or were put aside. Behind a seek back it looks at the retries."""
    keys = store.create(ordered=True)
    store.publish(keys.topic, ["{}"] * 2, ordering_keys=["a", "b"])
    if sought == "latest":
        store.seek(keys, "latest")
        store.seek(keys, "earliest")
    ids = die(store, keys, 2)

    def blocks() -> int:
        with store.undone():
            moved, usage = measure(store, lambda: store.reprocess(keys, ids[:1]))
        assert (moved, usage.sequential) == ([1], set())
        return usage.blocks

    few = blocks()
    store.publish(keys.topic, ["{}"] * 1000, ordering_keys=["c"] * 1000)
    store.claim(keys, 1)
    store.claim(keys, 100)
    for table, columns in (("parked", "i, i + 1, %s, 1, 'nacked'"), ("retries", "%s, i, 1, 'nacked'")):
        made = f"select %s::bigint, %s::bigint, {columns} from generate_series(2001, 12000) as i"
        store.execute(f"insert into fastpubsub.{table} {made}", *keys, LATER)
    of_retries = 0
    if sought == "earliest":
        store.execute("update fastpubsub.cursors set sought_sequence = 1000")
        of_retries = store.value("select pg_total_relation_size('fastpubsub.retries') / 8192")
    assert blocks() <= few + of_retries + 15


def test_one_ahead_that_the_filter_would_skip_stays_dead(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'])
    ids = die(store, keys, 2)
    store.update_subscription("subscription", change_filter=True, filter='{"a": [2]}')
    store.seek(keys, "earliest")
    assert store.reprocess(keys, ids) == [2]
    assert [dead.position for dead in store.dead_letters(keys)] == [1]


@pytest.mark.parametrize("settings", [{"ordered": True}, {"fair_by": "ordering_key"}])
def test_one_put_aside_that_the_filter_would_skip_stays_dead(store: Store, settings: dict[str, Any]) -> None:
    keys = store.create(**settings)
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}', '{"a": 1}'], ordering_keys=["x"] * 3)
    ids = die(store, keys, 3)
    store.update_subscription("subscription", change_filter=True, filter='{"a": [1]}')
    store.seek(keys, "earliest")
    first = store.claim(keys, 1)
    assert first.positions == [1]
    assert store.claim(keys, 1, now=NOW - SECOND).positions == []
    assert store.rows("select * from fastpubsub.put_aside(%s, %s)", *keys) == [(2,), (3,)]
    assert store.reprocess(keys, ids[1:]) == [3]
    assert store.reprocess(keys, ids[1:2]) == []
    assert [dead.position for dead in store.dead_letters(keys)] == [1, 2]
    store.ack(keys, first.ids)
    assert store.claim(keys, now=LATER).positions == [3]
    assert store.claim(keys, now=LATER).positions == []
    store.update_subscription("subscription", change_filter=True, filter="{}")
    assert store.reprocess(keys, ids[1:2], now=LATER) == [2]
    assert store.claim(keys, now=LATER + SECOND).positions == [2]


def test_one_ahead_that_no_filter_can_read_fails_nobody(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ['{"a": 1e200000}', '{"a": 2}'])
    ids = die(store, keys, 2)
    store.update_subscription("subscription", change_filter=True, filter='{"a": [2]}')
    store.seek(keys, "earliest")
    assert store.reprocess(keys, ids) == [2]


def test_a_seek_makes_an_unsettled_reprocessed_message_a_dead_letter_again(store: Store) -> None:
    """Its message may be trimmed: this copy is the last."""
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"])
    ids = die(store, keys, 2)
    store.trim(keys.topic)
    store.reprocess(keys, ids)
    held = store.claim(keys, 1)
    assert held.positions == [1]
    store.seek(keys, "latest", now=LATER)
    assert store.ack(keys, held.ids) == [GONE]
    assert [(dead.position, dead.payload, dead.attempts) for dead in store.dead_letters(keys)] == [
        (1, "1", 0),
        (2, "2", 0),
    ]
    assert store.reprocess(keys, ids, now=LATER) == [1, 2]
    assert store.claim(keys, now=LATER).payloads == ["1", "2"]


def test_dead_letters_survive_a_seek(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    die(store, keys)
    for target in ("latest", "earliest"):
        store.seek(keys, target)
        assert [dead.position for dead in store.dead_letters(keys)] == [1]


def test_many_large_ones(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 50, json.dumps("x" * 20_000))
    ids = die(store, keys, 50)
    assert len(store.dead_letters(keys, max_bytes=100_000)) == 4
    assert store.reprocess(keys, ids) == list(range(1, 51))
    assert len(store.claim(keys, max_bytes=100_000).positions) == 4


def test_subscriptions_that_start_later_do_not_see_what_died_before(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    die(store, keys)
    other = store.create_subscription("other", settings=Settings(start="earliest"))
    assert store.dead_letters(other) == []
    assert store.claim(other).positions == [1]


def test_a_reprocessed_message_behind_one_that_was_returned_is_settled_for_good(store: Store) -> None:
    """Both are claimed at their first attempt, side by side; a seek must not find the dead letter again."""
    keys = store.create()
    store.fill(keys.topic, 2)
    claimed = store.claim(keys)
    store.reject(keys, claimed.ids[1:])
    store.give_back(keys, [1], claimed.token)
    store.reprocess(keys, [Id(2, None, NOW)])
    again = store.claim(keys)
    assert (again.positions, again.attempts) == ([1, 2], [1, 1])
    assert store.ack(keys, again.ids) == [SETTLED, SETTLED]
    store.seek(keys, "latest")
    assert store.dead_letters(keys) == []
