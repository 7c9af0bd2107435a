"""Ordered subscriptions: who gets what of a key, and when."""

from collections.abc import Callable
from typing import TypeVar

import pytest

from fastpubsub.message_ids import MessageIds
from tests.database.conftest import OpenStore
from tests.database.store import NOW, SECOND, Claimed, Id, Keys, Settings, Settles, Store
from tests.database.usage import HOT, keep_autovacuum_away, measure

T = TypeVar("T")


@pytest.fixture
def keys(store: Store) -> Keys:
    return store.create(ordered=True, max_attempts=3)


def publish(store: Store, keys: Keys, letters: str) -> None:
    """A message for each letter, which is its key; without one for a space."""
    names = [None if letter == " " else letter for letter in letters]
    store.publish(keys.topic, ["{}"] * len(letters), ordering_keys=names)


def test_a_key_goes_to_one_consumer_at_a_time(store: Store, keys: Keys) -> None:
    publish(store, keys, "aabb ab")
    first = store.claim(keys, 3)
    assert first.positions == [1, 2, 3]
    second = store.claim(keys)
    assert second.positions == [5], "a and b are busy"
    assert store.claim(keys).positions == []
    store.ack(keys, first.ids[2:])
    third = store.claim(keys)
    assert third.positions == [4, 7]
    store.ack(keys, first.ids[:1])
    assert store.claim(keys).positions == []
    store.ack(keys, first.ids[1:2])
    assert store.claim(keys, now=NOW + SECOND).positions == [6]
    assert store.claim(keys, now=NOW + SECOND).positions == []


def busy(store: Store) -> list[int]:
    return [position for (position,) in store.rows("select position from fastpubsub.busy_keys order by position")]


def test_nothing_is_left_when_everything_is_settled(store: Store, keys: Keys) -> None:
    publish(store, keys, "abcabc ")
    claimed = store.claim(keys)
    assert claimed.positions == [1, 2, 3, 4, 5, 6, 7]
    assert busy(store) == [4, 5, 6]
    store.ack(keys, claimed.ids)
    assert busy(store) == []
    assert store.claim(keys).positions == []
    publish(store, keys, "a")
    assert store.claim(keys).positions == [8]


def test_a_nack_takes_with_it_what_was_leased_after_it(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaab")
    claimed = store.claim(keys)
    store.nack(keys, claimed.ids[1:2])
    assert [lease.position for lease in store.leases(keys)] == [1, 5]
    assert store.ack(keys, claimed.ids[2:4]) == [0, 0]
    assert store.claim(keys, now=NOW + 100 * SECOND).positions == [], "the first one is with its consumer"
    store.ack(keys, claimed.ids[:1])
    assert store.claim(keys, now=NOW + 9 * SECOND).positions == [], "the backoff holds"
    again = store.claim(keys, now=NOW + 10 * SECOND)
    assert (again.positions, again.attempts) == ([2, 3, 4], [2, 1, 1])


def test_a_preview_of_a_seek_counts_what_waits_behind_another(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaabb")
    store.nack(keys, store.claim(keys).ids[1:2])
    waiting = store.metrics(keys).waiting
    assert waiting == 3
    query = "select ends_leased, ends_waiting from fastpubsub.preview_seek(%s, %s, 'latest')"
    assert store.row(query, *keys) == (3, waiting)


def test_expiry_keeps_the_order(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaab")
    claimed = store.claim(keys)
    store.extend(keys, claimed.ids[2:3], 600)
    later = NOW + 61 * SECOND
    assert store.release(keys, now=later).released == 3
    assert store.leases(keys) == []
    publish(store, keys, "a")
    again = store.claim(keys, now=later + 10 * SECOND)
    assert (again.positions, again.attempts) == ([1, 2, 3, 4], [2, 2, 1, 2])
    store.ack(keys, again.ids, now=later)
    assert store.claim(keys, now=later + 20 * SECOND).positions == [5]


def test_a_dead_letter_lets_its_key_go_on(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaa")
    claimed = store.claim(keys, 2)
    store.reject(keys, claimed.ids[:1])
    assert [lease.position for lease in store.leases(keys)] == [2]
    store.ack(keys, claimed.ids[1:])
    assert store.claim(keys).positions == [3]


def test_consumers_of_one_call_share_no_key(store: Store, keys: Keys) -> None:
    publish(store, keys, "ababab c")
    claimed = store.claim(keys, [2, 3, 4], ["one", "two", "three"])
    assert (claimed.positions, claimed.shares) == ([1, 2, 7, 8], [2, 2, 0])
    assert {lease.consumer_id for lease in store.leases(keys)} == {"one", "two"}


def test_metrics_add_up(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaaaabb")
    claimed = store.claim(keys, 3)
    assert store.claim(keys).positions == [7, 8]
    found = store.metrics(keys)
    assert (found.ahead, found.waiting, found.leased, found.dead, found.acked) == (3, 0, 5, 0, 0)
    store.nack(keys, claimed.ids[:2])
    found = store.metrics(keys)
    assert (found.ahead, found.waiting, found.leased, found.dead, found.acked) == (3, 3, 2, 0, 0)
    assert store.explain(keys, 5).is_put_aside
    assert [store.explain(keys, n).state for n in range(1, 9)] == ["waiting"] * 3 + ["ahead"] * 3 + ["leased"] * 2


def test_settling_and_claiming_in_one_call(store: Store, keys: Keys) -> None:
    publish(store, keys, "aab")
    claimed = store.claim(keys, 1)
    assert store.claim(keys).positions == [3]
    outcomes, after = store.settle_and_claim(keys, Settles(acks=(claimed.ids, None)))
    assert (outcomes[0], after.positions) == ([1], [2])


def test_a_seek_forgets_who_was_busy(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaa")
    store.claim(keys, 1)
    store.claim(keys)
    store.seek(keys, "earliest")
    assert busy(store) == []
    assert store.claim(keys).positions == [1, 2, 3]


def test_a_filter(store: Store) -> None:
    keys = store.create(ordered=True, filter='{"n": [1]}')
    payloads = ['{"n": 1}', '{"n": 2}', '{"n": 1}', '{"n": 2}']
    store.publish(keys.topic, payloads, ordering_keys=["a"] * 4)
    first = store.claim(keys, 1)
    assert first.positions == [1]
    assert store.claim(keys).positions == []
    store.ack(keys, first.ids)
    second = store.claim(keys)
    assert second.positions == [3]
    store.ack(keys, second.ids)
    assert busy(store) == []
    assert store.metrics(keys).filtered == 2


def turns(store: Store, keys: Keys) -> list[tuple[int, int, int | None]]:
    query = (
        "select position, last_position, turn from fastpubsub.leases where topic_key = %s and subscription_key = %s "
        "order by position"
    )
    return [(first, last, turn) for first, last, turn in store.rows(query, *keys)]


def test_messages_that_are_all_of_their_key_share_a_lease(store: Store, keys: Keys) -> None:
    publish(store, keys, "ab cdef")
    claimed = store.claim(keys)
    assert turns(store, keys) == [(1, 7, -1)]
    assert busy(store) == []
    publish(store, keys, "cg")
    assert store.claim(keys).positions == [9], "c is busy"
    assert busy(store) == [8]
    assert turns(store, keys) == [(1, 7, 0), (9, 9, -1)], "something is behind one of them"
    store.ack(keys, claimed.ids)
    after = store.claim(keys)
    assert after.positions == [8]
    store.ack(keys, after.ids)
    assert busy(store) == []
    assert turns(store, keys) == [(9, 9, -1)]


def test_what_is_behind_a_lonely_message_is_known_whoever_of_one_claim_has_it(store: Store, keys: Keys) -> None:
    """The second consumer passes a message behind one of the first, and so does a later stretch of the same claim."""
    publish(store, keys, "abca")
    claimed = store.claim(keys, [3, 3], ["one", "two"])
    assert (claimed.positions, claimed.shares) == ([1, 2, 3], [3, 0])
    assert turns(store, keys) == [(1, 3, 0)]
    store.ack(keys, claimed.ids)
    assert store.claim(keys).positions == [4]
    publish(store, keys, "xyxzxv")
    store.claim(keys, 1)
    after = store.claim(keys, 3)
    assert after.positions == [6, 8, 10]
    publish(store, keys, "qwqewr")
    mixed = store.claim(keys, 4)
    assert mixed.positions == [11, 12, 13, 14], "q is a turn of two"
    assert turns(store, keys)[-4:] == [(11, 11, 13), (12, 12, -1), (13, 13, 13), (14, 14, -1)]
    rest = store.claim(keys, 4)
    assert rest.positions == [16]
    store.ack(keys, [mixed.ids[1]])
    assert store.claim(keys, now=NOW + SECOND).positions == [15]


def test_a_stretch_that_comes_back_to_a_lonely_message(store: Store, keys: Keys) -> None:
    """A claim that finds too little looks further, and meets the key of a message that it has taken."""
    publish(store, keys, "a" * 3)
    store.claim(keys, 1)
    publish(store, keys, "b" + "a" * 3 + "cb" + "a" * 60)
    claimed = store.claim(keys, 5)
    assert claimed.positions == [4, 8]
    assert [turn for first, _, turn in turns(store, keys) if first == 4] == [0]
    store.ack(keys, claimed.ids)
    assert store.claim(keys).positions == [9]


def test_a_lease_from_before_is_asked_for_what_is_behind_it(store: Store, keys: Keys) -> None:
    """Servers of the last release write 0 as the turn of lonely messages, whether something is behind them or not."""
    publish(store, keys, "abc")
    claimed = store.claim(keys)
    publish(store, keys, "b")
    assert store.claim(keys).positions == []
    publish(store, keys, "de")
    alone = store.claim(keys)
    store.execute("update fastpubsub.leases set turn = 0 where subscription_key = %s", keys.subscription)
    assert store.ack(keys, claimed.ids + alone.ids) == [1] * 5
    assert store.claim(keys).positions == [4]
    assert busy(store) == [4]


def test_an_ack_of_whole_leases_and_of_parts(store: Store, keys: Keys) -> None:
    """Also of what is gone, of what others hold, of bare ids, and twice."""
    publish(store, keys, "abababcdef")
    first = store.claim(keys, 6)
    assert first.positions == [1, 2, 3, 4, 5, 6]
    other = store.claim(keys)
    assert other.positions == [7, 8, 9, 10]
    stale = [one._replace(token=first.token) for one in other.ids[3:]]
    assert store.ack(keys, first.ids[:2] + other.ids[1:3] + stale) == [1, 1, 1, 1, 2]
    assert store.ack(keys, first.ids[:3] + other.ids[1:2]) == [0, 0, 1, 0]
    assert turns(store, keys) == [(4, 4, 6), (5, 5, 5), (6, 6, 6), (7, 7, -1), (10, 10, -1)]
    assert store.ack(keys, first.ids[3:4] * 2 + first.ids[4:]) == [1, 1, 1, 1]
    bare = [one._replace(token=None, created_at=NOW) for one in other.ids]
    assert store.ack(keys, bare) == [1, 0, 0, 1]
    assert turns(store, keys) == []
    assert busy(store) == []


@pytest.mark.parametrize(("max_bytes", "ttl"), [(1, 60), (250, 60), (1_000_000, 60), (1_000_000, None)])
def test_what_was_put_aside_comes_in_order_whatever_fits(
    store: Store, keys: Keys, max_bytes: int, ttl: int | None
) -> None:
    """Of some keys at once, one after the other, with gaps and without, also when something has expired."""
    letters = "abcdabcdaabbccdd"
    payloads = [f'{{"number": {number}, "text": "{"x" * 80}"}}' for number in range(1, 17)]
    publish(store, keys, letters[:4])
    claimed = store.claim(keys)
    store.publish(
        keys.topic,
        payloads[4:],
        ordering_keys=list(letters[4:]),
        ttls=[None] * 5 + [ttl] + [None] * 6,
    )
    assert store.claim(keys).positions == []
    store.ack(keys, claimed.ids)
    got: dict[str, list[int]] = {}
    now = NOW + 120 * SECOND
    while (after := store.claim(keys, max_bytes=max_bytes, now=now)).positions:
        assert after.payloads == [payloads[position - 1] for position in after.positions]
        assert after.ordering_keys == [letters[position - 1] for position in after.positions]
        assert sum(map(len, after.payloads[:-1])) <= max_bytes
        for position in after.positions:
            got.setdefault(letters[position - 1], []).append(position)
        store.ack(keys, after.ids, now=now)
        now += SECOND
    assert got == {"a": [5, 9] if ttl else [5, 9, 10], "b": [6, 11, 12], "c": [7, 13, 14], "d": [8, 15, 16]}
    assert busy(store) == []


def test_a_part_of_a_lease_of_many_keys(store: Store, keys: Keys) -> None:
    publish(store, keys, "abcd")
    claimed = store.claim(keys)
    publish(store, keys, "abcd")
    assert store.claim(keys).positions == []
    store.ack(keys, claimed.ids[1:2])
    assert turns(store, keys) == [(1, 1, 0), (3, 4, 0)]
    assert store.claim(keys).positions == [6]
    store.nack(keys, claimed.ids[2:3])
    store.reject(keys, claimed.ids[3:])
    assert store.claim(keys, now=NOW + SECOND).positions == [8], "after a dead letter its key goes on"
    again = store.claim(keys, now=NOW + 10 * SECOND)
    assert (again.positions, again.attempts) == ([3, 7], [2, 1])
    store.extend(keys, claimed.ids[:1], 600)
    assert store.claim(keys, now=NOW + 10 * SECOND).positions == []
    store.ack(keys, claimed.ids[:1])
    assert store.claim(keys, now=NOW + 11 * SECOND).positions == [5]


def test_what_no_claim_has_passed_waits_for_a_message_that_failed(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc")
    claimed = store.claim(keys)
    publish(store, keys, "a")
    store.nack(keys, claimed.ids[:1])
    assert busy(store) == [1]
    assert store.claim(keys, now=NOW + SECOND).positions == []
    assert store.claim(keys, now=NOW + 10 * SECOND).positions == [1, 4]


def test_a_lease_of_many_keys_that_expires(store: Store, keys: Keys) -> None:
    publish(store, keys, "ab c")
    store.claim(keys)
    publish(store, keys, "b")
    assert store.claim(keys).positions == []
    later = NOW + 61 * SECOND
    assert store.release(keys, now=later).released == 4
    assert busy(store) == [1, 4, 5]
    publish(store, keys, "a")
    again = store.claim(keys, now=later + 10 * SECOND)
    assert (again.positions, again.attempts) == ([1, 2, 5, 3, 4], [2, 2, 1, 2, 2])
    assert busy(store) == [4, 5, 6]
    store.ack(keys, again.ids, now=later)
    assert store.claim(keys, now=later + 20 * SECOND).positions == [6]


def test_a_key_that_comes_again_further_on_in_the_same_claim(store: Store) -> None:
    """The log is read in stretches, of which each sees whose keys the ones before it took."""
    keys = store.create(ordered=True, filter='{"n": [1]}')
    payloads = ['{"n": 1}' if n in (0, 199) else '{"n": 2}' for n in range(200)]
    names = ["a" if n in (0, 199) else f"b{n}" for n in range(200)]
    store.publish(keys.topic, payloads, ordering_keys=names)
    first = store.claim(keys)
    assert first.positions == [1]
    assert busy(store) == [200]
    store.ack(keys, first.ids)
    assert store.claim(keys).positions == [200]


def test_returned_unseen(store: Store, keys: Keys) -> None:
    publish(store, keys, "ab")
    claimed = store.claim(keys)
    store.give_back(keys, [1], claimed.token)
    again = store.claim(keys, now=NOW + SECOND)
    assert (again.positions, again.attempts) == ([1], [1])
    assert turns(store, keys) == [(1, 1, 1), (2, 2, -1)]
    store.ack(keys, again.ids + claimed.ids[1:])
    assert busy(store) == []


def test_metrics_of_what_is_behind_a_lease_of_many_keys(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc")
    store.claim(keys)
    publish(store, keys, "aabd")
    assert store.claim(keys).positions == [7]
    found = store.metrics(keys)
    assert (found.ahead, found.waiting, found.leased, found.dead, found.acked) == (3, 0, 4, 0, 0)
    assert [n for n in range(1, 8) if store.explain(keys, n).is_put_aside] == [4, 5, 6]


def test_a_long_log_of_busy_keys_is_passed(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc" * 2000 + "d")
    first = store.claim(keys, 6)
    assert first.positions == [1, 2, 3, 4, 5, 6]
    assert store.claim(keys).positions == [6001], "whose key is free, behind those that are busy"
    assert busy(store) == [5998, 5999, 6000]
    store.ack(keys, first.ids)
    assert store.claim(keys, 3).positions == [7, 10, 13], "of one key, which leaves the others to other consumers"


def test_consumers_share_keys_that_have_a_backlog(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc" * 10)
    first = store.claim(keys, 3)
    store.claim(keys)
    store.ack(keys, first.ids)
    shared = store.claim(keys, [5, 5, 5], ["one", "two", "three"])
    assert shared.positions == [*range(4, 19, 3), *range(5, 20, 3), *range(6, 21, 3)]
    assert shared.shares == [5, 5, 5]


def test_keys_that_have_little_fill_a_claim_together(store: Store, keys: Keys) -> None:
    names = [chr(ord("A") + n) for n in range(50)]
    publish(store, keys, "".join(names * 2))
    first = store.claim(keys, 50)
    store.claim(keys)
    store.ack(keys, first.ids)
    assert store.claim(keys, 45).positions == list(range(51, 96))


def test_what_has_no_room_in_an_answer_can_be_had_at_once(store: Store, keys: Keys) -> None:
    publish(store, keys, "aabb")
    first = store.claim(keys, [1, 1, 1], ["one", "two", "three"])
    assert (first.positions, first.shares) == ([1, 3], [1, 1, 0])
    assert first.limited_seconds is None
    store.claim(keys)
    store.ack(keys, first.ids)
    full = store.claim(keys, [1, 1], ["one", "two"], now=NOW + SECOND, max_bytes=1)
    assert (full.positions, full.shares, full.limited_seconds) == ([2], [1, 0], 0)


LATER = NOW + 100 * SECOND
TURNS = 60


@pytest.fixture
def holding(store: Store) -> Keys:
    return store.create(ordered=True, max_attempts=2, backoff_min=0, on_dead_letter="hold")


def bare(claimed: Claimed, *places: int) -> list[Id]:
    return [claimed.ids[place].bare for place in places]


def held(store: Store, keys: Keys) -> int:
    return store.metrics(keys).held_keys


def test_a_dead_letter_holds_its_key_until_it_is_reprocessed(store: Store, holding: Keys) -> None:
    publish(store, holding, "aaab")
    claimed = store.claim(holding)
    store.reject(holding, claimed.ids[1:2])
    assert [lease.position for lease in store.leases(holding)] == [1, 4], "what was leased after it is given back"
    dead = MessageIds(holding.topic, NOW).at(2)
    assert (held(store, holding), store.explain(holding, 2).held_by) == (0, dead)
    store.ack(holding, claimed.ids[:1])
    assert (held(store, holding), store.metrics(holding)[:5]) == (1, (0, 1, 1, 1, 1))
    publish(store, holding, "ab")
    store.ack(holding, claimed.ids[3:])
    assert store.claim(holding, now=LATER).positions == [6], "only of b"
    assert [store.explain(holding, n).state for n in (2, 3, 5)] == ["dead", "waiting", "ahead"]
    assert (store.explain(holding, 2).held_by, store.explain(holding, 5).held_by) == (dead, dead)
    assert store.reprocess(holding, bare(claimed, 1), now=LATER) == [2]
    assert (held(store, holding), store.metrics(holding)[:5]) == (0, (1, 2, 1, 0, 2))
    again = store.claim(holding, now=LATER + SECOND)
    assert (again.positions, again.attempts) == ([2, 3, 5], [1, 1, 1])
    store.ack(holding, again.ids, now=LATER)
    store.ack(holding, store.leased(holding), now=LATER)
    assert busy(store) == []
    assert store.value("select count(*) from fastpubsub.revived") == 0
    assert store.metrics(holding)[:5] == (0, 0, 0, 0, 6)


def test_a_key_goes_on_when_what_held_it_is_purged(store: Store, holding: Keys) -> None:
    publish(store, holding, "aaaa")
    claimed = store.claim(holding, 3)
    store.reject(holding, claimed.ids[:2])
    assert store.claim(holding, now=LATER).positions == []
    assert store.purge(holding, bare(claimed, 0), now=LATER) == [1]
    assert (held(store, holding), store.claim(holding, now=LATER).positions) == (1, []), "the second one holds it, too"
    assert store.purge(holding, bare(claimed, 1), now=LATER) == [2]
    again = store.claim(holding, now=LATER + SECOND)
    assert (held(store, holding), again.positions, again.attempts) == (0, [3, 4], [1, 1])


def test_the_second_dead_letter_of_a_key_waits_behind_the_first(store: Store, holding: Keys) -> None:
    publish(store, holding, "aaa")
    claimed = store.claim(holding)
    store.reject(holding, claimed.ids[:2])
    assert store.reprocess(holding, bare(claimed, 1), now=LATER) == [2]
    assert store.claim(holding, now=LATER + SECOND).positions == []
    assert store.reprocess(holding, bare(claimed, 0), now=LATER) == [1]
    assert store.claim(holding, now=LATER + SECOND).positions == [1, 2, 3]


def test_what_dies_by_its_last_attempt_holds_its_key(store: Store, holding: Keys) -> None:
    """Alone with its key in its claim, and nothing was put aside behind it yet."""
    publish(store, holding, "ab")
    store.claim(holding)
    store.release(holding, now=LATER)
    second = store.claim(holding, now=LATER + SECOND)
    assert second.attempts == [2, 2]
    store.nack(holding, second.ids[:1], now=LATER + SECOND)
    publish(store, holding, "ac")
    assert store.claim(holding, now=LATER + 2 * SECOND).positions == [4]
    assert (held(store, holding), store.explain(holding, 3).is_put_aside) == (1, True)


def test_a_reprocessed_dead_letter_can_hold_its_key_again(store: Store, holding: Keys) -> None:
    publish(store, holding, "aa")
    claimed = store.claim(holding)
    store.reject(holding, claimed.ids[:1])
    for _ in range(2):
        store.reprocess(holding, bare(claimed, 0))
        again = store.claim(holding, 1, now=LATER)
        assert (again.positions, again.attempts) == ([1], [1])
        store.reject(holding, again.ids, now=LATER)
        assert held(store, holding) == 1
        assert store.value("select count(*) from fastpubsub.revived") == 0


def test_seeking_and_purging_everything_let_held_keys_go(store: Store, holding: Keys) -> None:
    publish(store, holding, "aa")
    claimed = store.claim(holding)
    store.reject(holding, claimed.ids[:1])
    store.seek(holding, "earliest")
    assert (held(store, holding), busy(store), store.retries(holding)) == (0, [], [])
    again = store.claim(holding, 1)
    assert again.positions == [1]
    assert store.explain(holding, 1).held_by is None
    assert store.reprocess(holding, bare(claimed, 0)) == [1], "it comes anyway"
    store.reject(holding, again.ids)
    assert held(store, holding) == 1
    assert store.purge_all(holding) == (1, False)
    assert (held(store, holding), busy(store), len(store.dead_letters(holding))) == (0, [], 1)
    publish(store, holding, "a")
    assert store.claim(holding).positions == [3]
    assert store.reprocess(holding, bare(claimed, 0), now=LATER) == [1]
    assert store.claim(holding, now=LATER + SECOND).positions == [1], "outside of the order, as it holds nothing"


def test_what_expires_does_not_hold_its_key(store: Store) -> None:
    keys = store.create(ordered=True, on_expired="dead_letter", on_dead_letter="hold")
    store.publish(keys.topic, ["{}"] * 2, ordering_keys=["a"] * 2, ttls=[1, None])
    assert store.claim(keys, now=LATER).positions == [2]
    assert (len(store.dead_letters(keys)), held(store, keys)) == (1, 0)


def test_what_held_its_key_does_not_expire(store: Store, holding: Keys) -> None:
    store.publish(holding.topic, ["{}"] * 2, ordering_keys=["a"] * 2, ttls=[10, None])
    claimed = store.claim(holding)
    store.reject(holding, claimed.ids[:1])
    store.reprocess(holding, bare(claimed, 0), now=LATER)
    assert store.claim(holding, now=LATER + SECOND).positions == [1, 2]


def test_the_log_keeps_what_a_held_key_has_to_come(store: Store, holding: Keys) -> None:
    publish(store, holding, "abab")
    claimed = store.claim(holding)
    store.reject(holding, claimed.ids[:1])
    store.ack(holding, [claimed.ids[1], claimed.ids[3]])
    assert store.trim(holding.topic, 0, now=LATER) == 0
    store.purge(holding, bare(claimed, 0), now=LATER)
    assert store.trim(holding.topic, 0, now=LATER) == 2


def test_holding_is_for_dead_letters_from_now_on(store: Store, keys: Keys) -> None:
    publish(store, keys, "abab")
    claimed = store.claim(keys, 2)
    store.reject(keys, claimed.ids[:1])
    store.update_subscription("subscription", on_dead_letter="hold")
    assert (held(store, keys), store.claim(keys, now=LATER).positions) == (0, [3])
    store.reject(keys, claimed.ids[1:])
    store.update_subscription("subscription", on_dead_letter="continue")
    assert (held(store, keys), store.claim(keys, now=LATER).positions) == (1, [])


def test_holding_needs_an_order(store: Store, keys: Keys) -> None:
    other = Settings(on_dead_letter="hold")
    with store.refused("FP422"):
        store.create_subscription("other", settings=other)
    store.create_subscription("other")
    with store.refused("FP422"):
        store.update_subscription("other", on_dead_letter="hold")
    with store.refused("FP422"):
        store.fork_subscription("fork", on_dead_letter="hold", ordered=False)
    store.fork_subscription("fork", on_dead_letter="hold")


def test_a_held_key_wakes_nobody(store: Store, holding: Keys) -> None:
    publish(store, holding, "a")
    store.reject(holding, store.claim(holding).ids)
    assert store.ready(holding, now=LATER) == []


def test_redrives_release_held_keys(store: Store, holding: Keys) -> None:
    publish(store, holding, "aabb")
    claimed = store.claim(holding)
    store.reject(holding, [claimed.ids[0], claimed.ids[2]], ["one", "two"])
    assert held(store, holding) == 2
    for action, reason in (("reprocess", "one"), ("purge", "two")):
        created = "select redrive_key from fastpubsub.create_redrive_2(%s, %s, %s, %s, null, null, null, 10, 100, %s)"
        redrive = store.value(created, *holding, action, reason, LATER)
        store.rows("select * from fastpubsub.step_redrive(%s, %s, %s, 100, 100, %s)", *holding, redrive, LATER)
    assert held(store, holding) == 0
    assert sorted(store.claim(holding, now=LATER + SECOND).positions) == [1, 2, 4]


def test_an_old_snapshot_makes_no_held_key_slower(open_store: OpenStore) -> None:
    """All that a dead letter, its reprocessing and its purge delete stays, and none of it is looked at again."""
    snapshot, store = open_store(), open_store()
    keep_autovacuum_away(store, HOT)
    keys = store.create(ordered=True, on_dead_letter="hold")

    def turn(number: int) -> int:
        """Of a key of which a message dies, with one behind it that waits for it and one that is put aside."""
        now, looked_at = NOW + number * SECOND, 0

        def call(made: Callable[[], T]) -> T:
            nonlocal looked_at
            with store.transaction():
                answer, usage = measure(store, made)
            assert usage.sequential == set()
            looked_at += usage.entries
            return answer

        publish(store, keys, "aab")
        claimed = call(lambda: store.claim(keys, now=now))
        assert len(claimed.ids) == 3
        call(lambda: store.reject(keys, claimed.ids[:1], now=now))
        call(lambda: store.ack(keys, claimed.ids[2:], now=now))
        publish(store, keys, "a")
        assert call(lambda: store.claim(keys, now=now)).ids == []
        assert held(store, keys) == 1
        end = store.purge if number % 2 else store.reprocess
        assert call(lambda: end(keys, bare(claimed, 0), now=now)) == [claimed.positions[0]]
        again = call(lambda: store.claim(keys, now=now + SECOND / 2))
        assert len(again.ids) == 2 + (number + 1) % 2
        call(lambda: store.ack(keys, again.ids, now=now))
        return looked_at

    with snapshot.transaction():
        snapshot.execute("set transaction isolation level repeatable read")
        snapshot.rows("select count(*) from fastpubsub.topics")
        assert store.value("select backend_xmin is not null from pg_stat_activity where pid = %s", snapshot.pid)
        looked_at = [turn(number) for number in range(TURNS)]
    # Until something is trimmed, no claim begins further on; then it stays as it is.
    for turns in (looked_at[1::2], looked_at[::2]):
        assert max(turns[-5:]) <= max(turns[-13:-8]) + 20
