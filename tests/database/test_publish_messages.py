"""publish_messages: no position becomes visible before those below it (invariant 1), none is used twice (7)."""

from concurrent.futures import Future
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.database.conftest import Background, OpenStore
from tests.database.store import EXAMPLES, NOW, SECOND, Keys, Published, Settings, Store, wait_until_blocked


def test_positions_are_dense_and_payloads_verbatim(store: Store) -> None:
    keys = store.create()
    payloads = ['{"n": 1e308}', '{"n":18446744073709551621}', '{ "é" : "漢字", "a":1,"a":2 }', "[]", '"x"', "null"]
    assert store.publish(keys.topic, payloads[:4]) == Published(1, NOW)
    assert store.publish(keys.topic, payloads[4:]) == Published(5, NOW)
    claimed = store.claim(keys)
    assert claimed.positions == [1, 2, 3, 4, 5, 6]
    assert claimed.payloads == payloads


def test_attributes_stay_with_their_message(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"], [None, '{"k": "v"}', None])
    store.publish(keys.topic, ["4"])
    claimed = store.claim(keys)
    assert dict(zip(claimed.payloads, claimed.attributes, strict=True)) == {
        "1": None,
        "2": '{"k": "v"}',
        "3": None,
        "4": None,
    }


def test_creation_times_never_fall_and_are_whole_milliseconds(store: Store) -> None:
    topic = store.create_topic()
    times = [NOW + timedelta(microseconds=1999), NOW - SECOND, NOW + timedelta(milliseconds=2)]
    created = [store.publish(topic, ["1"], now=time).created_at for time in times]
    assert created == [
        NOW + timedelta(milliseconds=1),
        NOW + timedelta(milliseconds=1),
        NOW + timedelta(milliseconds=2),
    ]


def test_a_missing_topic(store: Store) -> None:
    with store.refused("FP404"):
        store.publish(12345, ["1"])


def test_nothing_is_stored_when_one_payload_is_no_json(store: Store) -> None:
    topic = store.create_topic()
    with store.refused("22P02"):
        store.publish(topic, ["1", "{"])
    assert store.positions(topic) == []


def test_positions_go_on_after_everything_was_trimmed(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"])
    store.ack(keys, store.claim(keys).ids)
    assert store.trim(keys.topic) == 2
    assert store.positions(keys.topic) == [3]
    assert store.publish(keys.topic, ["4"], now=NOW + SECOND).first_position == 4
    assert store.claim(keys, now=NOW + SECOND).positions == [4]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_old_snapshot_is_refused(open_store: OpenStore, level: str) -> None:
    """It would not see what the last holder of the lock committed."""
    store = open_store()
    keys = store.create()
    store.execute(f"set default_transaction_isolation = '{level}'")
    with store.refused("25000"):
        store.publish(keys.topic, ["1"])
    store.execute("reset default_transaction_isolation")
    store.publish(keys.topic, ["1"])
    store.execute(f"set default_transaction_isolation = '{level}'")
    with store.refused("25000"):
        store.claim(keys)


def test_the_next_publisher_waits_for_the_commit_and_no_claim_sees_more_than_is_committed(
    open_store: OpenStore, background: Background
) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    with first.transaction():
        assert first.publish(keys.topic, ["1", "2"]).first_position == 1
        waiting: Future[Published] = background(second.publish, keys.topic, ["3"])
        wait_until_blocked(watcher, second, by=first)
        assert watcher.claim(keys).positions == []
        assert watcher.positions(keys.topic) == []
    assert waiting.result().first_position == 3
    assert watcher.claim(keys).positions == [1, 2, 3]


def test_who_waited_goes_on_after_a_rollback(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    first.execute("begin")
    first.publish(topic, ["1", "2"])
    waiting = background(second.publish, topic, ["3"])
    wait_until_blocked(watcher, second, by=first)
    first.execute("rollback")
    assert waiting.result().first_position == 1
    assert watcher.positions(topic) == [1]


def test_topics_do_not_wait_for_each_other(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    one, other = first.create_topic("one"), first.create_topic("other")
    with first.transaction():
        first.publish(one, ["1"])
        assert second.publish(other, ["1"]).first_position == 1


class Publisher:
    """One connection that is in one of three states: idle, waiting for the lock, or holding it until its commit."""

    def __init__(self, store: Store, background: Background) -> None:
        self.store = store
        self.background = background
        self.waiting: Future[Published] | None = None
        self.holds = False

    def begin(self, topic: int, payloads: list[str]) -> None:
        self.store.execute("begin")
        self.waiting = self.background(self.store.publish, topic, payloads)

    def end(self, how: str) -> None:
        self.store.execute(how)
        self.holds = False


class Interleaving:
    """Publishers that begin and end in any order, and a consumer in between."""

    def __init__(self, watcher: Store, publishers: list[Publisher], keys: Keys) -> None:
        self.watcher = watcher
        self.publishers = publishers
        self.keys = keys
        self.claimed: list[int] = []
        self.committed = 0

    def step(self, number: int, ending: str, count: int) -> None:
        publisher = self.publishers[number]
        if publisher.holds:
            publisher.end(ending)
            self.committed += len(self.pending) if ending == "commit" else 0
        elif publisher.waiting is None:
            publisher.begin(self.keys.topic, [f"{index}" for index in range(count)])
        self.settle()
        self.claim()

    def settle(self) -> None:
        """Until everybody either holds the lock or waits for who holds it."""
        while True:
            for publisher in self.publishers:
                if publisher.waiting is not None and publisher.waiting.done():
                    published = publisher.waiting.result()
                    assert published.first_position == self.committed + 1
                    self.pending = self.counted(publisher)
                    publisher.waiting = None
                    publisher.holds = True
            waiting = [publisher for publisher in self.publishers if publisher.waiting is not None]
            blocked = "select count(*) from unnest(%s::integer[]) as p where cardinality(pg_blocking_pids(p)) > 0"
            pids = [publisher.store.pid for publisher in waiting]
            holders = [publisher for publisher in self.publishers if publisher.holds]
            if not waiting or (holders and self.watcher.value(blocked, pids) == len(pids)):
                assert len(holders) <= 1
                return

    def counted(self, publisher: Publisher) -> list[int]:
        query = "select position from fastpubsub.messages where topic_key = %s and position > %s"
        return [position for (position,) in publisher.store.rows(query, self.keys.topic, self.committed)]

    def claim(self) -> None:
        self.claimed += self.watcher.claim(self.keys, 3).positions
        assert self.claimed == list(range(1, len(self.claimed) + 1))
        assert len(self.claimed) <= self.committed

    def finish(self) -> None:
        while any(publisher.holds or publisher.waiting for publisher in self.publishers):
            self.settle()
            for publisher in self.publishers:
                if publisher.holds:
                    publisher.end("commit")
                    self.committed += len(self.pending)
        while len(self.claimed) < self.committed:
            self.claim()


STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["commit", "commit", "rollback"]), st.integers(1, 3)))


def test_any_interleaving_of_publishers_and_claims_skips_nothing(open_store: OpenStore, background: Background) -> None:
    watcher = open_store()
    publishers = [Publisher(open_store(), background) for _ in range(3)]
    examples = 0

    @settings(max_examples=EXAMPLES)
    @given(steps=STEPS)
    def check(steps: list[tuple[int, str, int]]) -> None:
        nonlocal examples
        examples += 1
        watcher.create_topic(f"topic-{examples}")
        keys = watcher.create_subscription(f"subscription-{examples}", f"topic-{examples}", Settings())
        interleaving = Interleaving(watcher, publishers, keys)
        try:
            for step in steps:
                interleaving.step(*step)
        finally:
            interleaving.finish()
        assert watcher.positions(keys.topic) == list(range(1, interleaving.committed + 1))
        assert interleaving.claimed == watcher.positions(keys.topic)

    check()
