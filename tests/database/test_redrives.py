"""create_, list_, cancel_ and step_redrive, list_running_redrives and list_dead_letter_reasons."""

from datetime import datetime, timedelta
from typing import NamedTuple

import pytest

from tests.database.store import NOW, SETTLED, Keys, Store

ALL = (500, 5000)
"""Letters that a step moves, and looks at."""
LATER = NOW + timedelta(days=1)


class Stepped(NamedTuple):
    moved: int
    running: bool
    seconds: float


def begin(
    store: Store,
    keys: Keys,
    action: str = "reprocess",
    *,
    reason: str | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    per_second: int | None = None,
    wanted: str | None = None,
    milliseconds: int = 60_000,
) -> int:
    (redrive,) = store.rows(
        "select redrive_key from fastpubsub.create_redrive_2(%s, %s, %s, %s, %s, %s, %s, 10, 3, %s, %s::json, %s)",
        *keys,
        action,
        reason,
        after,
        before,
        per_second,
        LATER,
        wanted,
        milliseconds,
    )
    return int(redrive[0])


def step(
    store: Store,
    keys: Keys,
    key: int,
    limits: tuple[int, int] = ALL,
    now: datetime = LATER,
    milliseconds: int = 60_000,
) -> Stepped:
    query = "select * from fastpubsub.step_redrive(%s, %s, %s, %s, %s, %s, %s)"
    return Stepped(*store.row(query, *keys, key, *limits, now, milliseconds))


def seen(store: Store, keys: Keys, key: int) -> tuple[int | None, int, str]:
    """How many matched, how many are done, and the state."""
    query = "select matched, done, state from fastpubsub.list_redrives_2(%s, %s, %s)"
    matched, done, state = store.row(query, *keys, key)
    return matched, done, state


def bury(store: Store, reasons: str) -> Keys:
    """A dead letter for each letter, which is its reason."""
    keys = store.create(backoff_min=0)
    store.fill(keys.topic, len(reasons))
    for id_, reason in zip(store.claim(keys, len(reasons)).ids, reasons, strict=True):
        assert store.reject(keys, [id_], reason) == [SETTLED]
    return keys


def dead(store: Store, keys: Keys) -> str:
    return "".join(letter.reason for letter in store.dead_letters(keys))


def test_reasons_are_counted(store: Store) -> None:
    keys = bury(store, "abbcab")
    query = "select reason, letters from fastpubsub.list_dead_letter_reasons(%s, %s, %s)"
    assert store.rows(query, *keys, 100) == [("b", 3), ("a", 2), ("c", 1)]
    assert store.rows(query, *keys, 1) == [("b", 3)]


def test_all_that_match_are_reprocessed(store: Store) -> None:
    keys = bury(store, "abab")
    key = begin(store, keys, reason="b")
    assert seen(store, keys, key) == (2, 0, "running")
    assert step(store, keys, key) == (2, False, 0)
    assert (dead(store, keys), seen(store, keys, key)) == ("aa", (2, 2, "done"))
    assert store.claim(keys, 10, now=LATER).positions == [2, 4]
    assert step(store, keys, key) == (0, False, 0), "it has ended"


def test_all_that_match_are_purged(store: Store) -> None:
    keys = bury(store, "abab")
    key = begin(store, keys, "purge", reason="a")
    assert step(store, keys, key) == (2, False, 0)
    assert dead(store, keys) == "bb"
    assert store.metrics(keys).dead == 2


def test_a_time_bounds_it(store: Store) -> None:
    keys = bury(store, "abc")
    for position in (1, 2, 3):
        died_at = NOW + timedelta(minutes=position)
        store.execute("update fastpubsub.dead_letters set died_at = %s where position = %s", died_at, position)
    key = begin(store, keys, after=NOW + timedelta(minutes=2), before=NOW + timedelta(minutes=3))
    assert step(store, keys, key).moved == 1
    assert dead(store, keys) == "ac"


def bury_payloads(store: Store, *payloads: str, attributes: str | None = None) -> Keys:
    keys = store.create()
    store.publish(keys.topic, payloads, [attributes, *[None] * (len(payloads) - 1)])
    store.reject(keys, store.claim(keys, 100).ids, ["a"] * len(payloads))
    return keys


def positions(store: Store, keys: Keys) -> list[int]:
    return [letter.position for letter in store.dead_letters(keys)]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ('{"n": [1]}', [2, 3, 4, 5]),
        ('{"n": [{"numeric": [">", 1]}]}', [1, 3, 4, 5]),
        ('{"$attributes": {"k": ["v"]}}', [2, 3, 4, 5]),
        ('{"n": [{"exists": false}]}', [1, 2, 3, 5]),
        ("{}", []),
        ("null", []),
    ],
)
def test_a_filter(store: Store, wanted: str, left: list[int]) -> None:
    """A payload that cannot be read matches none."""
    keys = bury_payloads(
        store, '{"n": 1}', '{"n": 2}', '{"n": "1"}', "{}", '{"n": 1, "x": 1e200000}', attributes='{"k": "v"}'
    )
    key = begin(store, keys, "purge", wanted=wanted)
    matched = 5 - len(left)
    assert step(store, keys, key) == (matched, False, 0)
    assert (positions(store, keys), seen(store, keys, key)) == (left, (matched, matched, "done"))


def test_a_filter_on_ordering_keys(store: Store) -> None:
    keys = store.create(max_attempts=1)
    store.publish(keys.topic, ["{}"] * 3, ordering_keys=["a", "b", None])
    store.reject(keys, store.claim(keys).ids)
    key = begin(store, keys, "purge", wanted='{"$message": [{"ordering_key": ["b"]}]}')
    assert step(store, keys, key) == (1, False, 0)
    assert (positions(store, keys), seen(store, keys, key)) == ([1, 3], (1, 1, "done"))


def test_a_filter_beside_a_reason_and_a_rate(store: Store) -> None:
    keys = bury_payloads(store, *['{"n": 1}', '{"n": 2}'] * 10)
    store.execute("update fastpubsub.dead_letters set reason = 'b' where position <= 10")
    key = begin(store, keys, "purge", wanted='{"n": [2]}', reason="b", per_second=2)
    assert step(store, keys, key, now=LATER + timedelta(seconds=5)).moved == 2
    assert positions(store, keys) == [1, 3, *range(5, 21)]
    assert seen(store, keys, key) == (5, 2, "running")


def test_judging_is_bounded(store: Store) -> None:
    """One dead letter at least, so that it ends."""
    keys = bury_payloads(store, *['{"n": 1}', '{"n": 2}', '{"n": 1}'])
    key = begin(store, keys, "purge", wanted='{"n": [1]}', milliseconds=0)
    assert seen(store, keys, key) == (None, 0, "running")
    steps = [step(store, keys, key, milliseconds=0)[:2] for _ in range(4)]
    assert steps == [(1, True), (0, True), (1, True), (0, False)]
    assert (positions(store, keys), seen(store, keys, key)) == ([2], (None, 2, "done"))


def test_a_filter_that_is_wrong(store: Store) -> None:
    with store.refused("FP422"):
        begin(store, bury(store, "a"), wanted="7")


def test_what_dies_later_stays_dead(store: Store) -> None:
    """Or a message that cannot be handled would go round for ever."""
    keys = bury(store, "a")
    key = begin(store, keys)
    store.execute("update fastpubsub.dead_letters set died_at = %s", LATER + timedelta(seconds=1))
    assert step(store, keys, key) == (0, False, 0)
    assert dead(store, keys) == "a"


def test_a_step_goes_on_where_the_last_one_ended(store: Store) -> None:
    keys = bury(store, "abcabcabc")
    key = begin(store, keys, "purge", reason="c")
    moved = [step(store, keys, key, (500, 4)) for _ in range(3)]
    assert moved == [(1, True, 0), (1, True, 0), (1, False, 0)]
    assert dead(store, keys) == "ababab"
    key = begin(store, keys, "purge")
    assert [step(store, keys, key, (4, 5000)).moved for _ in range(2)] == [4, 2]


def test_a_rate(store: Store) -> None:
    """Not more than a second's worth at once, however long nobody came."""
    keys = bury(store, "a" * 30)
    key = begin(store, keys, per_second=10)
    assert step(store, keys, key) == (0, True, 0.1)
    assert step(store, keys, key, now=LATER + timedelta(seconds=0.25)).moved == 2
    assert step(store, keys, key, now=LATER + timedelta(seconds=0.30)).moved == 1, "what was left of the last step"
    assert step(store, keys, key, now=LATER + timedelta(hours=1)).moved == 10
    assert step(store, keys, key, now=LATER + timedelta(hours=1)).moved == 0
    assert step(store, keys, key, now=LATER + timedelta(minutes=1)).moved == 0, "a clock that was set back"
    assert step(store, keys, key, now=LATER + timedelta(hours=2)).moved == 10
    assert seen(store, keys, key) == (30, 23, "running")


def test_one_is_cancelled(store: Store) -> None:
    keys = bury(store, "aaaa")
    key = begin(store, keys)
    assert step(store, keys, key, (1, 5000)).moved == 1
    cancel = "select fastpubsub.cancel_redrive(%s, %s, %s)"
    assert store.value(cancel, *keys, key)
    assert step(store, keys, key) == (0, False, 0)
    assert (dead(store, keys), seen(store, keys, key)) == ("aaa", (4, 1, "cancelled"))
    assert store.value(cancel, *keys, key), "once more changes nothing"
    assert not store.value(cancel, *keys, key + 1)


def test_running_ones_are_listed_until_the_subscription_is_deleted(store: Store) -> None:
    keys = bury(store, "a")
    key = begin(store, keys)
    running = "select * from fastpubsub.list_running_redrives()"
    assert store.rows(running) == [(*keys, key)]
    assert step(store, keys, key).moved == 1
    assert store.rows(running) == []
    begin(store, keys)
    (name,) = store.row("select id from fastpubsub.subscriptions")
    store.value("select fastpubsub.delete_subscription(%s)", name)
    assert store.rows(running) == []
    with store.refused("FP404"):
        step(store, keys, key)
    while store.value("select fastpubsub.empty_purges()") is not None:
        pass
    assert store.value("select count(*) from fastpubsub.redrives") == 0


def test_few_run_and_few_are_remembered(store: Store) -> None:
    keys = bury(store, "a")
    first = [begin(store, keys) for _ in range(10)]
    with store.refused("FP409"):
        begin(store, keys)
    for key in first:
        step(store, keys, key)
    last = begin(store, keys)
    kept = "select redrive_key from fastpubsub.list_redrives_2(%s, %s)"
    assert [key for (key,) in store.rows(kept, *keys)] == [last, *first[:-4:-1]]


def test_a_missing_subscription(store: Store) -> None:
    keys = Keys(store.create_topic(), 1)
    for procedure in ("list_redrives(%s, %s)", "cancel_redrive(%s, %s, 1)", "list_dead_letter_reasons(%s, %s, 1)"):
        with store.refused("FP404"):
            store.rows(f"select * from fastpubsub.{procedure}", *keys)
    with store.refused("FP404"):
        begin(store, keys)
