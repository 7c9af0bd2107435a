"""list_outbox and relay_messages: once into the log, in order, however late a transaction commits."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.database.conftest import Background, OpenStore
from tests.database.outbox import Relay, publish, waiting
from tests.database.store import EXAMPLES, SECOND, Keys, Store, wait_until_blocked
from tests.database.usage import HOT, measure

MANY = 5000
TABLES = (*HOT, "outbox")


def numbers(store: Store, keys: Keys) -> list[int]:
    query = "select (payload ->> 'n')::int from fastpubsub.messages where topic_key = %s order by position"
    return [number for (number,) in store.rows(query, keys.topic)]


def publish_many(store: Store, count: int, first: int = 0) -> None:
    query = """
        select count(fastpubsub.publish('topic', json_build_object('n', i)))
        from generate_series(%s::int, %s::int) as i
    """
    store.value(query, first, first + count - 1)


def test_who_commits_late_is_found_after_higher_transactions_were_moved(open_store: OpenStore) -> None:
    early, store = open_store(), open_store()
    keys = store.create()
    relay = Relay(store)
    with early.transaction():
        publish(early, '{"n": 1}')
        for n in (2, 3):
            publish(store, f'{{"n": {n}}}')
            assert relay.new() == 1
        assert relay.new() == 0
        publish(early, '{"n": 4}')
    assert relay.new() == 2
    assert relay.new() == 0
    assert numbers(store, keys) == [2, 3, 1, 4]


def test_who_commits_while_a_pass_is_on_its_way_belongs_to_the_next(open_store: OpenStore) -> None:
    early, store = open_store(), open_store()
    keys = store.create()
    relay = Relay(store, limit=2)
    with early.transaction():
        publish(early, '{"n": 0}')
        publish_many(store, 4, 1)
        first = relay.look()
        assert first.more
    second = relay.look(None, (first.transactions[-1], first.ordinals[-1]))
    for listed in (first, second):
        relay.move(keys.topic, listed.transactions, listed.ordinals)
    relay.seen = first.seen
    assert relay.new() == 1
    assert numbers(store, keys) == [1, 2, 3, 4, 0]


def test_many_rows_of_one_transaction_move_in_parts_and_in_order(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    with store.transaction():
        publish_many(store, MANY)
    assert Relay(store, limit=700).everything() == MANY
    assert numbers(store, keys) == list(range(MANY))


def test_a_part_is_bounded_by_bytes_and_never_empty(open_store: OpenStore) -> None:
    store = open_store()
    store.create()
    for _ in range(4):
        publish(store, '{"a": "' + "x" * 10_000 + '"}')
    relay = Relay(store, max_bytes=25_000)
    assert (len(relay.look().ordinals), relay.look().more) == (3, True)
    relay.max_bytes = 1
    assert (len(relay.look().ordinals), relay.look().more) == (1, True)
    assert relay.everything() == 4


def test_a_crash_between_listing_and_moving_loses_nothing(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    publish_many(store, 3)
    relay = Relay(store)
    listed = relay.look()
    with store.undone():
        assert relay.move(keys.topic, listed.transactions, listed.ordinals) == ("topic", 3, 0)
    assert Relay(store).everything() == 3
    assert numbers(store, keys) == [0, 1, 2]


def test_two_relays_move_each_row_once(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    keys = one.create()
    publish_many(one, 10)
    listed = Relay(one).look()
    same = Relay(other).look()
    assert Relay(one).move(keys.topic, listed.transactions, listed.ordinals) == ("topic", 10, 0)
    assert Relay(other).move(keys.topic, same.transactions, same.ordinals) == ("topic", 0, 0)
    assert numbers(one, keys) == list(range(10))


def test_only_one_moves_at_a_time_and_the_other_does_not_wait(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    keys = one.create()
    publish_many(one, 2)
    listed = Relay(one).look()
    with one.transaction():
        Relay(one).move(keys.topic, listed.transactions[:1], listed.ordinals[:1])
        assert Relay(other).move(keys.topic, listed.transactions[1:], listed.ordinals[1:]) == (None, None, None)
    assert Relay(other).everything() == 1
    assert numbers(one, keys) == [0, 1]


def test_a_publisher_and_the_relay_take_turns(open_store: OpenStore, background: Background) -> None:
    publishing, relaying, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    publish_many(watcher, 2, 1)
    with publishing.transaction():
        publishing.publish(keys.topic, ['{"n": 0}'])
        moving = background(Relay(relaying).everything)
        wait_until_blocked(watcher, relaying, by=publishing)
    assert moving.result() == 2
    assert numbers(watcher, keys) == [0, 1, 2]


def test_messages_of_a_deleted_topic_are_dropped_and_counted(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    with store.transaction():
        publish_many(store, 3)
        store.delete_topic()
    store.create_topic()
    relay = Relay(store)
    listed = relay.look()
    assert relay.move(keys.topic, listed.transactions, listed.ordinals) == (None, 0, 3)
    assert waiting(store) == 0
    assert store.value("select count(*) from fastpubsub.messages") == 0


def test_rows_of_another_topic_stay(open_store: OpenStore) -> None:
    store = open_store()
    store.create()
    other = store.create_topic("other")
    publish_many(store, 2)
    relay = Relay(store)
    listed = relay.look()
    assert relay.move(other, listed.transactions, listed.ordinals) == ("other", 0, 0)
    assert relay.everything() == 2


@pytest.mark.parametrize("transaction", [3, 1 << 40, (1 << 63) - 1])
def test_rows_from_another_cluster_are_found(open_store: OpenStore, transaction: int) -> None:
    """pg_restore brings transaction ids that mean nothing here: from long ago, or far ahead."""
    store = open_store()
    keys = store.create()
    query = "insert into fastpubsub.outbox (transaction_id, topic_key, payload) select %s::text::xid8, %s, '{\"n\": 7}'"
    store.execute(query, transaction, keys.topic)
    assert Relay(store).everything() == 1
    relay = Relay(store)
    assert relay.new() == 0
    publish_many(store, 1)
    assert relay.new() == 1
    assert numbers(store, keys) == [7, 0]


def test_a_snapshot_from_the_future_counts_as_none(open_store: OpenStore) -> None:
    """After a failover to a server that has not got all."""
    store = open_store()
    store.create()
    publish_many(store, 1)
    relay = Relay(store, seen=f"{(1 << 40) + 3}:{(1 << 40) + 3}:")
    assert relay.new() == 1


def test_creation_times_never_fall(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    later = store.value("select clock_timestamp()") + 3600 * SECOND
    store.publish(keys.topic, ["{}"], now=later)
    publish_many(store, 1)
    Relay(store).everything()
    first, second = store.rows("select created_at from fastpubsub.messages order by position")
    assert first == second


def test_looking_writes_nothing(open_store: OpenStore) -> None:
    store = open_store()
    store.create()
    relay = Relay(store)
    for rows in (0, 1):
        publish_many(store, rows)
        with store.transaction():
            assert len(relay.look().ordinals) == rows
            assert store.value("select pg_current_xact_id_if_assigned() is null")


def test_one_process_holds_the_job(store: Store) -> None:
    relay = Relay(store)
    assert not relay.look().held
    store.execute("select fastpubsub.hold_job('relay_messages', 'tests')")
    assert relay.look().held
    store.execute("select fastpubsub.hold_job('relay_messages', 'another')")
    assert not relay.look().held


@contextmanager
def old_transaction(store: Store) -> Iterator[None]:
    """It has a snapshot, so that nothing can be vacuumed, and a transaction id below all that follow."""
    store.execute("begin isolation level repeatable read")
    store.value("select pg_current_xact_id()::text")
    yield
    store.execute("rollback")


def test_looking_walks_over_nothing_that_was_moved(open_store: OpenStore) -> None:
    holding, store = open_store(), open_store()
    store.create()
    store.execute("alter table fastpubsub.outbox set (autovacuum_enabled = off)")
    relay = Relay(store)
    with old_transaction(holding):
        publish(holding, "{}")
        publish_many(store, MANY)
        assert relay.new() == MANY
        assert relay.new() == 0
        with store.transaction():
            _, usage = measure(store, relay.new, TABLES)
            publish_many(store, 10)
        assert usage.indexes <= {"outbox_pkey"}
        assert not usage.sequential
        assert usage.entries < 10
        assert relay.new() == 10


def test_moving_reads_by_key(open_store: OpenStore) -> None:
    holding, store = open_store(), open_store()
    keys = store.create()
    store.execute("alter table fastpubsub.outbox set (autovacuum_enabled = off)")
    relay = Relay(store)
    with old_transaction(holding):
        publish_many(store, MANY)
        relay.new()
        publish_many(store, 10)
        listed = relay.look(relay.seen)
        with store.transaction():
            moved, usage = measure(store, lambda: relay.move(keys.topic, listed.transactions, listed.ordinals), TABLES)
    assert moved == ("topic", 10, 0)
    assert not usage.sequential
    assert usage.entries < 100


class Application:
    """One connection of an application, in a transaction or not."""

    def __init__(self, number: int, topic: str, store: Store) -> None:
        self.number = number
        self.topic = topic
        self.store = store
        self.open: list[str] = []
        self.count = 0

    def step(self, action: str) -> list[str]:
        """What this step committed."""
        if action == "publish":
            if not self.open:
                self.store.execute("begin")
            text = f'{{"who": {self.number}, "n": {self.count}}}'
            self.count += 1
            publish(self.store, text, topic=self.topic)
            self.open.append(text)
        elif action == "publish in vain" and self.open:
            with self.store.undone():
                publish(self.store, '{"who": "nobody"}', topic=self.topic)
        elif action in ("commit", "rollback") and self.open:
            self.store.execute(action)
            done, self.open = self.open, []
            return done if action == "commit" else []
        return []


actions = st.tuples(st.integers(0, 2), st.sampled_from(["publish"] * 3 + ["publish in vain", "commit", "rollback"]))
relays = st.tuples(st.integers(0, 1), st.sampled_from(["relay", "relay", "start again"]))


@settings(max_examples=EXAMPLES)
@given(steps=st.lists(st.one_of(actions, relays), max_size=60))
def test_whoever_commits_and_relays_when(open_store: OpenStore, steps: list[tuple[int, str]]) -> None:
    """Every committed message arrives exactly once, those of one transaction in their order."""
    stores = [open_store() for _ in range(5)]
    store = stores[0]
    name = uuid.uuid4().hex
    topic = store.create_topic(name)
    applications = [Application(number, name, one) for number, one in enumerate(stores[:3])]
    relaying = [Relay(one, limit=2) for one in stores[3:]]
    transactions: list[list[str]] = []
    for number, action in [*steps, *((number, "rollback") for number in range(3)), (0, "relay")]:
        if action == "relay":
            relaying[number].new()
        elif action == "start again":
            relaying[number].everything()
        elif done := applications[number].step(action):
            transactions.append(done)
    query = "select payload from fastpubsub.messages where topic_key = %s order by position"
    stored = [payload for (payload,) in store.rows(query, topic)]
    assert sorted(stored) == sorted(text for texts in transactions for text in texts)
    for texts in transactions:
        assert [text for text in stored if text in texts] == texts
    for one in stores:
        one.connection.close()
