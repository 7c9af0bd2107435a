"""The jitter of the backoff: waits that are shorter by chance, at few instants, which SQL and Python draw alike."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpubsub.testing.store.failing import EPOCH, INSTANTS, TOGETHER, draw_due_at
from tests.database.store import EXAMPLES, MICROSECOND, NOW, SECOND, Keys, Settings, Store

COUNT = 2000
LATER = NOW + timedelta(days=1)


def dues(store: Store, keys: Keys) -> dict[int, datetime]:
    return {retry.position: retry.due_at for retry in store.retries(keys)}


def failed(store: Store, keys: Keys, count: int = 100, now: datetime = NOW) -> dict[int, datetime]:
    """When what fails now comes again."""
    store.nack(keys, store.claim(keys, count, now=now).ids, now=now)
    return dues(store, keys)


@pytest.mark.parametrize("jitter", [0.01, 0.5, 0.75, 1])
def test_a_wait_is_shorter_by_up_to_its_part(store: Store, jitter: float) -> None:
    keys = store.create(backoff_min=100, backoff_jitter=jitter)
    store.fill(keys.topic, COUNT)
    due = failed(store, keys, COUNT).values()
    longest, part = NOW + 100 * SECOND, 100 * jitter * SECOND
    assert longest - part < min(due) <= max(due) <= longest
    instants = Counter(due)
    assert len(instants) == INSTANTS
    assert {later - earlier for earlier, later in pairwise(sorted(instants))} == {part / INSTANTS}
    # Evenly, as far as a draw is even: ten times as many as for another instant would be no chance.
    assert max(instants.values()) < 10 * min(instants.values())


def test_without_it_nothing_changes(store: Store) -> None:
    for number, jitter in enumerate((None, 0)):
        name = str(number)
        store.create_topic(name)
        given = Settings(backoff_min=100, backoff_jitter=jitter)
        keys = store.create_subscription(name, name, given)
        store.fill(keys.topic, 50)
        assert set(failed(store, keys).values()) == {NOW + 100 * SECOND}


def test_who_sits_together_comes_together(store: Store) -> None:
    """So a lease of what comes again is a run of messages, and its ack one row."""
    keys = store.create(backoff_min=400, backoff_jitter=1)
    store.fill(keys.topic, COUNT)
    due = failed(store, keys, COUNT)
    assert all(due[position] == due[position - position % TOGETHER] for position in range(TOGETHER, COUNT + 1))
    came = [position for now in sorted(set(due.values())) for position in store.claim(keys, COUNT, now=now).positions]
    assert sorted(came) == list(range(1, COUNT + 1))
    leases = store.value("select count(*) from fastpubsub.leases where attempts = 2")
    assert leases <= COUNT / TOGETHER + 1


def test_what_fails_within_a_sixteenth_comes_at_the_same_instants(store: Store) -> None:
    """However many calls it fails in: claims take what is due together."""
    keys = store.create(backoff_min=160, backoff_jitter=1)
    store.fill(keys.topic, COUNT)
    claimed = [store.claim(keys) for _ in range(20)]
    for number, one in enumerate(claimed):
        store.nack(keys, one.ids, now=NOW + number * SECOND / 2)
    assert len(set(dues(store, keys).values())) <= INSTANTS + 1


def test_each_attempt_draws_anew(store: Store) -> None:
    keys = store.create(backoff_min=100, backoff_max=100, backoff_jitter=1, max_attempts=9)
    store.fill(keys.topic, 10 * TOGETHER)
    moments = [failed(store, keys, 1000, NOW + timedelta(seconds=1000 * attempt)) for attempt in range(4)]
    orders = [sorted(one, key=lambda position: (one[position], position)) for one in moments]
    assert all(one != other for one, other in pairwise(orders))


def test_a_deadline_that_passes_draws_too(store: Store) -> None:
    keys = store.create(ack_deadline=60, backoff_min=100, backoff_jitter=0.5)
    store.fill(keys.topic, 200)
    store.claim(keys, 200)
    now = NOW + 60 * SECOND
    assert store.release(keys, now=now).released == 200
    due = dues(store, keys)
    assert len(set(due.values())) > 4
    assert all(now + 50 * SECOND < one <= now + 100 * SECOND for one in due.values())
    assert {position: draw_due_at(now + 100 * SECOND, 50, position, 1) for position in due} == due


def test_a_wait_that_somebody_names_is_not_drawn(store: Store) -> None:
    keys = store.create(backoff_min=100, backoff_jitter=1)
    store.fill(keys.topic, 100)
    ids = store.claim(keys).ids
    store.nack(keys, ids[:40], [70] * 40)
    store.nack(keys, ids[40:60], [0] * 20)
    store.give_back(keys, [one.position for one in ids[60:]], ids[0].token)
    due = dues(store, keys)
    assert {due[position] for position in range(1, 41)} == {NOW + 70 * SECOND}
    assert {due[position] for position in range(41, 101)} == {NOW}


def test_no_wait_stays_none(store: Store) -> None:
    keys = store.create(backoff_min=0, backoff_jitter=1)
    store.fill(keys.topic, 30)
    assert set(failed(store, keys).values()) == {NOW}
    assert len(store.claim(keys).positions) == 30


def test_a_change_counts_for_the_next_failure(store: Store) -> None:
    keys = store.create(backoff_min=100)
    store.fill(keys.topic, 200)
    ids = store.claim(keys, 200).ids
    store.nack(keys, ids[:100])
    store.update_subscription("subscription", backoff_jitter=1)
    store.nack(keys, ids[100:])
    due = dues(store, keys)
    assert {due[position] for position in range(1, 101)} == {NOW + 100 * SECOND}
    assert len({due[position] for position in range(101, 201)}) > 2
    store.update_subscription("subscription", backoff_jitter=0)
    assert set(failed(store, keys, 200, LATER).values()) == {LATER + 200 * SECOND}


def test_the_mark_of_the_retries_strands_nobody(store: Store) -> None:
    """What is drawn before what a claim took already comes just after it (invariant 6)."""
    keys = store.create(backoff_min=100, backoff_jitter=1)
    store.fill(keys.topic, 200)
    ids = store.claim(keys, 200).ids
    store.nack(keys, ids[:1], [90])
    taken = NOW + 90 * SECOND
    assert store.claim(keys, now=taken).positions == [1]
    store.nack(keys, ids[1:])
    due = dues(store, keys).values()
    assert min(due) == taken + MICROSECOND
    assert store.rows("select * from fastpubsub.list_stranded_retries()") == []
    assert len(store.claim(keys, 300, now=LATER).positions) == 199


def test_keys_keep_their_order(store: Store) -> None:
    """What of a key fails together comes again together, and nothing of it before."""
    keys = store.create(backoff_min=100, backoff_jitter=1, ordered=True)
    names = [f"k{number // 20}" for number in range(160)]
    store.publish(keys.topic, ["{}"] * 160, ordering_keys=names)
    first = store.claim(keys, 160)
    assert len(first.positions) == 160
    store.nack(keys, first.ids)
    assert len(set(dues(store, keys).values())) > 2
    came: list[int] = []
    for step in range(101):
        now = NOW + step * SECOND
        while positions := store.claim(keys, 1000, now=now).positions:
            assert {names[position - 1]: 20 for position in positions} == Counter(
                names[position - 1] for position in positions
            )
            came += positions
    for name in set(names):
        of_key = [position for position in came if names[position - 1] == name]
        assert of_key == [position for position in range(1, 161) if names[position - 1] == name]


def test_an_explanation_says_when_it_comes(store: Store) -> None:
    keys = store.create(backoff_min=100, backoff_jitter=1)
    store.fill(keys.topic, 100)
    due = failed(store, keys)
    position = min(due, key=lambda one: due[one])
    explained = store.explain(keys, position)
    assert (explained.state, explained.until) == ("waiting", due[position])
    assert position not in store.claim(keys, now=due[position] - MICROSECOND).positions
    assert position in store.claim(keys, now=due[position]).positions


def test_a_fork_takes_it_over(store: Store) -> None:
    store.create(backoff_jitter=0.5)
    store.fork_subscription("same")
    store.fork_subscription("other", backoff_jitter=0.25)
    store.fork_subscription("none", backoff_jitter=0)
    found = store.rows("select id, backoff_jitter from fastpubsub.list_subscriptions_4(0, 9)")
    assert dict(found) == {"subscription": 0.5, "same": 0.5, "other": 0.25, "none": None}


@pytest.mark.parametrize("wrong", [-1, 0.001, 1.5])
def test_what_it_cannot_be(store: Store, wrong: float) -> None:
    with store.refused("23514"):
        store.create(backoff_jitter=wrong)


def test_python_draws_the_same(store: Store) -> None:
    times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    waits = st.one_of(st.integers(1, 10), st.integers(1, 604_800))
    jitters = st.one_of(st.sampled_from([0.01, 0.1, 0.5, 1.0]), st.floats(0.01, 1))

    @settings(max_examples=EXAMPLES * 10, deadline=None)
    @given(due_at=times, wait=waits, jitter=jitters, position=st.integers(1, 1 << 62), attempts=st.integers(0, 1000))
    def both(due_at: datetime, wait: int, jitter: float, position: int, attempts: int) -> None:
        seconds = wait * jitter
        drawn = store.value(
            "select fastpubsub.draw_due_at(%s, %s::double precision, %s, %s)", due_at, seconds, position, attempts
        )
        assert drawn == draw_due_at(due_at, seconds, position, attempts)
        step = timedelta(microseconds=round(seconds / INSTANTS * 1_000_000))
        assert due_at - step * INSTANTS < drawn <= due_at
        assert (drawn - EPOCH) % step == timedelta()

    both()
