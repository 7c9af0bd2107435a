"""Calls of the message path plan nothing once a session knows them: to plan a statement takes longer than to run it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.database.store import Claimed, Keys, Settings, Settles, Store

LEARNING = 8
"""Calls after which PostgreSQL has decided on each plan; it decides after five."""

Call = Callable[[Store, Keys, int], None]


def publish(store: Store, keys: Keys, number: int) -> None:
    store.publish(keys.topic, [f'{{"n": {number}}}'] * 3)


def _claim(store: Store, keys: Keys, number: int, count: int = 10) -> Claimed:
    publish(store, keys, number)
    store.fill(keys.topic, count, '{"n": 1}')
    return store.claim(keys, count)


def ack(store: Store, keys: Keys, number: int) -> None:
    store.ack(keys, _claim(store, keys, number).ids)


def ack_some(store: Store, keys: Keys, number: int) -> None:
    """Which cuts a lease."""
    store.ack(keys, _claim(store, keys, number).ids[2:5])


def nack(store: Store, keys: Keys, number: int) -> None:
    store.nack(keys, _claim(store, keys, number).ids, [3600] * 10)


def extend(store: Store, keys: Keys, number: int) -> None:
    store.extend(keys, _claim(store, keys, number).ids, 60)


def give_back(store: Store, keys: Keys, number: int) -> None:
    claimed = _claim(store, keys, number)
    store.give_back(keys, claimed.positions, claimed.token)
    store.ack(keys, store.claim(keys, 10).ids)


def exchange(store: Store, keys: Keys, number: int) -> None:
    """By two consumers at once."""
    ids = _claim(store, keys, number, 20).ids
    store.fill(keys.topic, 20, '{"n": 1}')
    settles = Settles(acks=(ids, None))
    store.settle_and_claim(keys, settles, (10, 10), ("one", "other"))


CALLS: dict[str, Call] = {call.__name__: call for call in (publish, ack, ack_some, nack, extend, give_back, exchange)}
SUBSCRIPTIONS = {
    "plain": Settings(start="earliest"),
    "filtered": Settings(start="earliest", filter='{"n": [1]}'),
    "limited": Settings(start="earliest", max_in_flight=100_000, rate_limit=10_000.0),
    "ordered": Settings(start="earliest", ordered=True),
    "fair": Settings(start="earliest", fair_by="ordering_key"),
}


@pytest.mark.parametrize("kind", SUBSCRIPTIONS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_known_plans_nothing(store: Store, name: str, kind: str) -> None:
    keys = store.create(**vars(SUBSCRIPTIONS[kind]))
    for number in range(LEARNING):
        CALLS[name](store, keys, number)
    with planned(store) as places:
        CALLS[name](store, keys, LEARNING)
    assert places == []


def test_what_is_planned_is_seen(store: Store) -> None:
    with planned(store) as places:
        store.execute("do $$ begin perform 1 from fastpubsub.topics; end $$")
    assert len(places) == 1


@contextmanager
def planned(store: Store) -> Iterator[list[str]]:
    """Fills in where procedures have planned something; what the test itself sends does not count."""
    places: list[str] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.message_primary == "PLANNER STATISTICS" and diagnostic.context:
            places.append(diagnostic.context.splitlines()[0])

    store.connection.add_notice_handler(notice)
    store.execute("set local log_planner_stats = on")
    store.execute("set local client_min_messages = log")
    yield places
    store.execute("set local client_min_messages = warning")
    store.connection.remove_notice_handler(notice)
