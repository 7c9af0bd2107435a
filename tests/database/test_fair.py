"""Fair subscriptions: keys that wait get equally many messages, whatever else of a key waits."""

import json
import random
from datetime import timedelta

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Id, Keys, Settings, Store, wait_until_blocked
from tests.database.usage import HOT, keep_autovacuum_away, measure

MOMENT = timedelta(milliseconds=1)


@pytest.fixture(params=["ordering_key", "attributes.tenant"])
def keys(request: pytest.FixtureRequest, store: Store) -> Keys:
    return store.create(fair_by=request.param, max_attempts=3)


def publish(store: Store, keys: Keys, letters: str) -> None:
    """A message for each letter, which is its key and its tenant; without either for a space."""
    names = [None if letter == " " else letter for letter in letters]
    attributes = [json.dumps({"tenant": name} if name else {}) for name in names]
    store.publish(keys.topic, ["{}"] * len(letters), attributes, ordering_keys=names)


def claims(store: Store, keys: Keys, *limits: int, start: int = 1) -> list[list[int]]:
    """The positions of one claim after the other."""
    return [store.claim(keys, limit, now=NOW + n * MOMENT).positions for n, limit in enumerate(limits, start)]


def rows(store: Store, *tables: str) -> list[int]:
    """Of keys in line, and of those that are busy."""
    tables = tables or ("retries", "busy_keys")
    return [store.value(f"select count(*) from fastpubsub.{table}") for table in tables]


def test_one_key_has_everything_as_long_as_no_other_waits(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaaaa")
    assert sorted(store.claim(keys, 5).positions) == [1, 2, 3, 4, 5]
    assert rows(store) == [1, 1]
    assert claims(store, keys, 5, 5) == [[6], []]
    assert rows(store) == [0, 0]


def test_keys_that_wait_get_equally_many(store: Store, keys: Keys) -> None:
    publish(store, keys, "a" * 20 + "b" * 10 + "ccc")
    taken = store.claim(keys, 9).positions
    assert sorted(taken) == [1, 2, 3, 21, 22, 23, 31, 32, 33]
    assert sorted(claims(store, keys, 6)[0]) == [4, 5, 6, 24, 25, 26]
    assert [len(one) for one in claims(store, keys, 100, 100, start=2)] == [18, 0]
    assert rows(store) == [0, 0]


def test_a_backlog_of_one_key_is_no_rows_and_holds_up_nobody(store: Store, keys: Keys) -> None:
    publish(store, keys, "a" * 5000 + "b" * 10)
    found = claims(store, keys, 10, 10)
    assert [sum(position > 5000 for position in one) for one in found] == [5, 5]
    assert rows(store) == [1, 1]
    assert store.metrics(keys)[:5] == (4990, 0, 20, 0, 0)
    publish(store, keys, "b")
    (following,) = claims(store, keys, 10, start=3)
    assert 5011 in following


def test_a_long_backlog_of_a_few_keys_is_passed_at_once(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc" * 7000 + "d" + "abc" * 100)
    with store.transaction():
        claimed, usage = measure(store, lambda: store.claim(keys, 8))
    assert sorted(claimed.positions) == [1, 2, 3, 4, 5, 6, 7, 21001]
    assert usage.blocks < 8000
    assert rows(store) == [3, 3]
    assert store.metrics(keys, 30_000).ahead == 21_301 - 8
    assert sorted(store.claim(keys, 6, now=NOW + SECOND).positions) == [8, 9, 10, 11, 12, 13]


def test_messages_without_a_key_are_keys_of_their_own(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaa    ")
    assert sorted(store.claim(keys, 5).positions) == [1, 5, 6, 7, 8]
    assert claims(store, keys, 5) == [[2, 3, 4]]


def test_an_attribute_is_another_than_the_ordering_key(store: Store) -> None:
    keys = store.create(fair_by="attributes.tenant")
    attributes = ['{"tenant": "x"}'] * 4 + ['{"tenant": "y", "region": "z"}'] * 2 + ['{"region": "x"}', None, None]
    store.publish(keys.topic, ["{}"] * 9, attributes, ordering_keys=list("abcdabaaa"))
    assert store.claim(keys, 5).positions == [1, 5, 7, 8, 9]
    assert claims(store, keys, 2, 2) == [[2, 6], [3, 4]]


@pytest.mark.parametrize("tenant", ["", "ä" * 50_000, "'\"\\ ordering_key", "null"])
def test_any_value_of_an_attribute_is_a_key(store: Store, tenant: str) -> None:
    keys = store.create(fair_by="attributes.a.b $c")
    names = [tenant, tenant, tenant, tenant + "x"]
    store.publish(keys.topic, ["{}"] * 4, [json.dumps({"a.b $c": name}) for name in names])
    assert store.claim(keys, 2).positions == [1, 4]
    assert claims(store, keys, 9) == [[2, 3]]


def test_a_backlog_is_shared_by_a_fork(store: Store) -> None:
    """Whoever publishes need not know."""
    keys = store.create()
    publish(store, keys, "a" * 3000 + "b" * 5)
    store.ack(keys, store.claim(keys, 10).ids)
    fork = store.fork_subscription("fork", fair_by="attributes.tenant")
    assert [sum(position > 3000 for position in one) for one in claims(store, fork, 10)] == [5]
    assert store.metrics(fork).ahead == 2985


def test_what_was_put_aside_leaves_with_its_messages(store: Store, keys: Keys) -> None:
    publish(store, keys, "ab" * 3000 + "c")
    for number in range(13):
        store.ack(keys, store.claim(keys, 500, now=NOW + number * MOMENT).ids)
    assert rows(store) == [0, 0]
    assert rows(store, "bundles") > [2]
    while store.trim(keys.topic, 0, now=NOW + 9 * SECOND):
        pass
    assert rows(store, "messages", "bundles") == [1, 0]


def test_one_at_a_time_comes_from_those_in_line_and_from_new_keys(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaa")
    found = claims(store, keys, 1)
    publish(store, keys, "bcdefg")
    found += claims(store, keys, *[1] * 9, start=2)
    positions = [position for one in found for position in one]
    assert sorted(positions) == list(range(1, 11))
    assert max(positions.index(position) for position in (2, 3, 4)) <= 7, "new keys do not hold up those in line"
    assert positions.index(5) <= 2, "nor those in line new keys"


def test_those_in_line_keep_a_place_each_when_many_keys_are_new(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaabbb")
    assert sorted(store.claim(keys, 2).positions) == [1, 4]
    publish(store, keys, "cdefghijkl")
    (found,) = claims(store, keys, 6)
    assert len({position for position in found if position > 6}) == 4
    assert {2, 5} <= set(found)


def test_what_comes_again_is_in_line_too(store: Store, keys: Keys) -> None:
    publish(store, keys, "aab")
    claimed = store.claim(keys)
    store.nack(keys, claimed.ids[:1], [0])
    publish(store, keys, "aaab")
    again = store.claim(keys, now=NOW + SECOND)
    assert sorted(zip(again.positions, again.attempts, strict=True)) == [(1, 2), (4, 1), (5, 1), (6, 1), (7, 1)]
    store.nack(keys, store.leased(keys), [0] * 7, now=NOW + SECOND)
    assert store.metrics(keys)[:3] == (0, 7, 0)


def test_acks_and_deadlines_need_nothing_of_the_line(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaabb")
    claimed = store.claim(keys, 4)
    assert store.rows("select turn from fastpubsub.leases where turn is not null") == []
    store.ack(keys, claimed.ids[:2])
    assert store.release(keys, now=NOW + 61 * SECOND).released == 2
    assert sorted(store.claim(keys, now=NOW + 80 * SECOND).positions) == sorted(
        {1, 2, 3, 4, 5, 6} - {one.position for one in claimed.ids[:2]}
    )


def test_bytes(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaabb")
    assert [len(one) for one in [store.claim(keys, max_bytes=1).positions, *claims(store, keys, 9)]] == [1, 4]


def test_a_filter_judges_what_was_put_aside_when_its_turn_comes(store: Store) -> None:
    keys = store.create(fair_by="ordering_key", filter='{"a": [1]}')
    names = ["x"] * 6
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'] * 3, ordering_keys=names)
    assert store.claim(keys, 1).positions == [1]
    assert store.metrics(keys).ahead == 2
    store.update_subscription("subscription", change_filter=True, filter='{"a": [2]}')
    assert store.metrics(keys).ahead == 3
    assert claims(store, keys, 9) == [[2, 4, 6]]
    metrics = store.metrics(keys)
    assert (metrics.ahead, metrics.leased, metrics.filtered) == (0, 4, 2)


def test_messages_that_expire_in_line(store: Store, keys: Keys) -> None:
    store.publish(keys.topic, ["{}"] * 4, ordering_keys=["a"] * 4, ttls=[None, 5, None, 5])
    assert store.claim(keys, 1).positions == [1]
    late = store.claim(keys, now=NOW + 6 * SECOND)
    assert (late.positions, late.ttl_expired) == ([3], 2)
    metrics = store.metrics(keys)
    assert (metrics.ahead, metrics.leased, metrics.ttl_expired) == (0, 2, 2)


@pytest.mark.parametrize("condition", [None, '{"a": [{"exists": false}]}'])
def test_a_message_in_line_that_is_gone_is_an_error(store: Store, condition: str | None) -> None:
    """Nothing deletes one; a claim must not look for it for ever."""
    keys = store.create(fair_by="ordering_key", filter=condition)
    publish(store, keys, "aaa")
    assert store.claim(keys, 1).positions == [1]
    store.execute("delete from fastpubsub.messages where topic_key = %s and position = 3", keys.topic)
    store.execute("set local statement_timeout = '60s'")
    with store.refused("FP500"):
        store.claim(keys, 9, now=NOW + SECOND)


@pytest.mark.parametrize("what", ["seek", "purge", "delete"])
def test_what_was_put_aside_goes(store: Store, keys: Keys, what: str) -> None:
    publish(store, keys, "aaabbb")
    store.claim(keys, 2)
    assert rows(store) == [2, 2]
    if what == "seek":
        store.seek(keys, "earliest")
        assert rows(store, "bundles") == [0]
        assert sorted(store.claim(keys, now=NOW + SECOND).positions) == [1, 2, 3, 4, 5, 6]
    elif what == "purge":
        assert store.purge_all(keys) == (6, False)
        assert store.claim(keys, now=NOW + SECOND).positions == []
        assert rows(store, "bundles") == [0]
    else:
        store.delete_subscription()
        while store.empty_purges() is not None:
            pass
        assert rows(store, "bundles") == [0]
    assert rows(store) == [0, 0]


def test_trimming_a_fork_and_an_explanation_know_what_was_put_aside(store: Store, keys: Keys) -> None:
    publish(store, keys, "abaaab")
    claimed = store.claim(keys, 2)
    assert sorted(claimed.positions) == [1, 2]
    store.ack(keys, claimed.ids)
    assert store.trim(keys.topic, 0, now=NOW + SECOND) == 2
    assert [store.explain(keys, position).is_put_aside for position in (3, 6)] == [True, True]
    fork = store.fork_subscription("fork")
    assert sorted(store.claim(fork).positions) == [3, 4, 5, 6]
    query = "select count(distinct fair_by) from fastpubsub.cursors"
    assert store.value(query) == 1
    store.reject(keys, store.claim(keys, 1, now=NOW + SECOND).ids, ["broken"])
    assert store.reprocess(keys, [Id(3, None, NOW)], now=NOW + SECOND) == [3]
    assert sorted(store.claim(keys, now=NOW + 2 * SECOND).positions) == [3, 4, 5, 6]


def test_limits(store: Store) -> None:
    keys = store.create(fair_by="ordering_key", max_in_flight=3)
    publish(store, keys, "aaab")
    first = store.claim(keys, 100)
    assert sorted(first.positions) == [1, 2, 4]
    assert (store.claim(keys, now=NOW + SECOND).positions, store.metrics(keys).ahead) == ([], 1)
    store.ack(keys, first.ids[:1])
    assert store.claim(keys, now=NOW + SECOND).positions == [3]


def test_it_excludes_order_and_what_would_drop(store: Store) -> None:
    store.create_topic()
    for settings in (
        Settings(fair_by="ordering_key", ordered=True),
        Settings(fair_by="ordering_key", on_full="drop_oldest"),
    ):
        with store.refused("FP422"):
            store.create_subscription(settings=settings)
    store.create_subscription(settings=Settings(fair_by="ordering_key"))
    with store.refused("FP422"):
        store.update_subscription("subscription", on_full="drop_oldest")
    with store.refused("FP422"):
        store.fork_subscription("fork", ordered=True)
    store.fork_subscription("fork", ordered=True, fair_by="")


def test_a_claim_waits_for_another_and_sees_its_line(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(fair_by="ordering_key")
    publish(watcher, keys, "aaaabb")
    with first.transaction():
        assert sorted(first.claim(keys, 2).positions) == [1, 5]
        waiting = background(second.claim, keys, now=NOW + SECOND)
        wait_until_blocked(watcher, second, by=first)
    assert sorted(waiting.result().positions) == [2, 3, 4, 6]


def test_claims_settles_and_publishes_at_once(open_store: OpenStore, background: Background) -> None:
    """Each message is acked once, whatever fails meanwhile, and nothing is left."""
    stores = [open_store() for _ in range(4)]
    keys = stores[0].create(fair_by="ordering_key", max_attempts=1000, backoff_min=0)

    def produce(store: Store) -> list[int]:
        for n in range(40):
            publish(store, keys, "aaaaaaab " + chr(ord("c") + n % 20))
        return []

    def consume(store: Store, draw: random.Random) -> list[int]:
        acked = []
        while store.value("select count(*) from fastpubsub.messages") < 400 or store.metrics(keys).acked < 400:
            ids = store.claim(keys, 7, now=None).ids
            failed = [one for one in ids if draw.random() < 0.2]
            store.nack(keys, failed, [0] * len(failed), now=None)
            done = [one for one in ids if one not in failed]
            assert store.ack(keys, done, now=None) == [1] * len(done)
            acked += [one.position for one in done]
        return acked

    futures = [background(produce, stores[0])]
    futures += [background(consume, store, random.Random(n)) for n, store in enumerate(stores[1:])]
    assert sorted(position for future in futures for position in future.result()) == list(range(1, 401))
    assert rows(stores[0]) == [0, 0]
    assert stores[0].rows("select * from fastpubsub.list_stranded_retries()") == []


def test_an_old_snapshot_makes_no_claim_slower(open_store: OpenStore) -> None:
    """All that claims and acks delete stays, and none of it is looked at again."""
    holding, store = open_store(), open_store()
    keep_autovacuum_away(store, HOT)
    keys = store.create(fair_by="ordering_key")
    publish(store, keys, "aab" * 600)

    def claim(number: int) -> int:
        with store.transaction():
            claimed, usage = measure(store, lambda: store.claim(keys, 10, now=NOW + number * MOMENT))
        store.ack(keys, claimed.ids)
        assert (len(claimed.ids), usage.sequential) == (10, set())
        return usage.entries

    with holding.transaction():
        holding.execute("set transaction isolation level repeatable read")
        holding.rows("select count(*) from fastpubsub.topics")
        query = "select backend_xmin is not null from pg_stat_activity where pid = %s"
        assert store.value(query, holding.pid)
        looked_at = [claim(number) for number in range(100)]
    assert max(looked_at[-10:]) <= max(looked_at[2:12]) + 20
