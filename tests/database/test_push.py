"""Subscriptions that are pushed: who may claim, and which process pushes."""

import json
from datetime import timedelta

import psycopg
import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Keys, Store, wait_until_blocked

PUSH = {"settings": {"timeout_seconds": 5}, "headers": "aGVhZGVycw==", "secret": "c2VjcmV0"}
HELD = "select subscription_key, holder from fastpubsub.endpoints order by subscription_key"
CHANGE = "select fastpubsub.update_subscription_2('s0', p_change_push => true, p_push => %s)"
PATIENCE = 15 * SECOND
RECORD = "select fastpubsub.record_breakers(1, %s, %s, %s, %s, %s, %s)"


def subscriptions(store: Store, count: int, push: object = PUSH) -> list[Keys]:
    topic = store.value("select topic_key from fastpubsub.create_topic('t')")
    return [subscription(store, topic, f"s{number}", push) for number in range(count)]


def subscription(store: Store, topic: int, name: str, push: object) -> Keys:
    return Keys(
        topic,
        store.value(
            "select subscription_key from fastpubsub.create_subscription"
            "(%s, 't', null, 60, 5, 0, 0, 'latest', null, null, %s)",
            name,
            json.dumps(push) if push else None,
        ),
    )


def hold(store: Store, process: int, now: object = NOW) -> list[int]:
    rows = store.rows("select subscription_key from fastpubsub.hold_endpoints(%s, 15, %s)", process, now)
    return sorted(key for (key,) in rows)


def status(store: Store, keys: Keys, now: object) -> tuple[object, ...]:
    return store.row("select * from fastpubsub.get_push_status(%s, %s, 15, %s)", *keys, now)


def claims(store: Store, keys: Keys, *, is_push: bool) -> int:
    query = (
        "select cardinality(positions) from fastpubsub.claim_messages_2"
        "(%s, %s, '{1}', '{c}', 1000000, 50000, 20, null, %s)"
    )
    return int(store.value(query, *keys, is_push) or 0)


@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize("is_pushed", [True, False])
def test_only_the_right_consumer_claims(store: Store, is_full: bool, is_pushed: bool) -> None:
    (keys,) = subscriptions(store, 1, PUSH if is_pushed else None)
    if is_full:
        store.publish(keys.topic, ["{}"])
    with pytest.raises(psycopg.Error) as refused, store.transaction():
        claims(store, keys, is_push=not is_pushed)
    assert refused.value.sqlstate == "FP409"
    assert claims(store, keys, is_push=is_pushed) == int(is_full)


def test_a_claim_that_waits_for_a_change_is_judged_by_it(open_store: OpenStore, background: Background) -> None:
    """A pull that began before the subscription was pushed, and gets the lock after."""
    one, other = open_store(), open_store()
    (keys,) = subscriptions(one, 1, None)
    one.publish(keys.topic, ["{}"])
    with one.transaction():
        one.execute(CHANGE, json.dumps(PUSH))
        claim = background(claims, other, keys, is_push=False)
        wait_until_blocked(open_store(), other)
    with pytest.raises(psycopg.Error) as refused:
        claim.result()
    assert refused.value.sqlstate == "FP409"


def test_the_timeout_is_below_the_deadline(store: Store) -> None:
    subscriptions(store, 1)
    slow = json.dumps({"settings": {"timeout_seconds": 60}})
    lower = "select fastpubsub.update_subscription_2('s0', p_ack_deadline_seconds => %s)"
    for change, value in ((lower, 5), (CHANGE, slow)):
        with pytest.raises(psycopg.Error) as refused, store.transaction():
            store.execute(change, value)
        assert refused.value.sqlstate == "FP422"


def test_secrets_are_kept_until_push_ends(store: Store) -> None:
    (keys,) = subscriptions(store, 1)
    stored = "select secret from fastpubsub.endpoints"
    another = json.dumps({**PUSH, "secret": "b3RoZXI="})
    assert store.value(CHANGE, another) is False
    assert store.value(stored) == b"secret"
    assert store.value("select fastpubsub.update_subscription_2('s0', p_ack_deadline_seconds => 50)") is False
    assert store.value(stored) == b"secret"
    assert store.value(CHANGE, None) is False
    assert store.rows(stored) == []
    assert claims(store, keys, is_push=False) == 0
    assert store.value(CHANGE, another) is True
    assert store.value(stored) == b"other"


def test_another_kind_of_signature_needs_another_secret(store: Store) -> None:
    subscriptions(store, 1)
    stored = "select secret, old_secret from fastpubsub.endpoints"
    store.value("select fastpubsub.rotate_push_secret('s0', 'new', 60, %s)", NOW)

    def signed_by(signature: str) -> str:
        settings = {"timeout_seconds": 5, "signature": signature}
        return json.dumps({**PUSH, "settings": settings, "secret": "b3RoZXI="})

    assert store.value(CHANGE, signed_by("hmac")) is False
    assert store.row(stored) == (b"new", b"secret")
    assert store.value(CHANGE, signed_by("ed25519")) is True
    assert store.row(stored) == (b"other", None)
    assert store.value(CHANGE, signed_by("ed25519")) is False


def test_rotation(store: Store) -> None:
    subscriptions(store, 1)
    rotate = "select fastpubsub.rotate_push_secret('s0', %s, %s, %s)"
    assert store.value(rotate, b"new", 60, NOW) == NOW + 60 * SECOND
    query = "select secret, old_secret from fastpubsub.list_endpoints(array[{}], array[{}], %s)"
    keys = store.row("select topic_key, subscription_key from fastpubsub.endpoints")
    assert store.row(query.format(*keys), NOW) == (b"new", b"secret")
    assert store.row(query.format(*keys), NOW + 60 * SECOND) == (b"new", None)
    with pytest.raises(psycopg.Error) as refused, store.transaction():
        store.value(rotate, b"newer", 60, NOW + 59 * SECOND)
    assert refused.value.sqlstate == "FP409"
    assert store.value(rotate, b"newer", 0, NOW) is None
    assert store.row(query.format(*keys), NOW) == (b"newer", None)


ROTATE = "select fastpubsub.rotate_push_secret('s0', 'rotated', %s, %s)"
SECRETS = "select secret, old_secret from fastpubsub.endpoints"


def test_a_change_that_waits_for_a_rotation_keeps_its_secret(open_store: OpenStore, background: Background) -> None:
    one, other = open_store(), open_store()
    subscriptions(one, 1)
    with one.transaction():
        one.value(ROTATE, 60, NOW)
        change = background(other.value, CHANGE, json.dumps({**PUSH, "secret": "b3RoZXI="}))
        wait_until_blocked(open_store(), other)
    assert change.result() is False
    assert one.rows(SECRETS) == [(b"rotated", b"secret")]


@pytest.mark.parametrize("before", [CHANGE, ROTATE])
def test_a_rotation_that_waits_for_another_change_finds_what_is_pushed(
    open_store: OpenStore, background: Background, before: str
) -> None:
    one, other = open_store(), open_store()
    subscriptions(one, 1)
    with one.transaction():
        one.value(before, *((0, NOW) if before == ROTATE else (json.dumps(PUSH),)))
        rotation = background(other.value, ROTATE, 60, NOW)
        wait_until_blocked(open_store(), other)
    assert rotation.result() == NOW + 60 * SECOND
    assert one.rows(SECRETS) == [(b"rotated", b"rotated" if before == ROTATE else b"secret")]


def test_what_may_be_sent_by_hand(store: Store) -> None:
    (keys,) = subscriptions(store, 1)
    (pulled,) = [subscription(store, keys.topic, "pulled", None)]
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'])
    store.execute("update fastpubsub.cursors set filter_path = '$ ? (@.a == 1)'")
    by_hand = "select fastpubsub.require_push(%s, %s, %s)"
    for position in (None, 1):
        store.value(by_hand, *keys, position)
    refusals = {"FP409": [(keys, 2), (pulled, 1)], "FP422": [(keys, 3)], "FP404": [(Keys(keys.topic, 99), 1)]}
    for state, calls in refusals.items():
        for of, position in calls:
            with pytest.raises(psycopg.Error) as refused, store.transaction():
                store.value(by_hand, *of, position)
            assert refused.value.sqlstate == state, (of, position)


def test_each_change_has_another_version(store: Store) -> None:
    """Even after push was turned off and on again: a dispatcher that looked away must notice."""
    subscriptions(store, 1)
    versions = []
    for push in (json.dumps(PUSH), None, json.dumps(PUSH), json.dumps(PUSH)):
        store.value(CHANGE, push)
        versions += store.rows("select version from fastpubsub.endpoints")
    assert len(set(versions)) == 3


def test_the_processes_share_evenly(store: Store) -> None:
    every = [keys.subscription for keys in subscriptions(store, 7)]
    assert hold(store, 1) == every
    assert hold(store, 2) == []
    first = hold(store, 1)
    second = hold(store, 2)
    assert (len(first), len(second)) == (4, 3)
    assert sorted(first + second) == every
    assert hold(store, 3) == []
    parts = [hold(store, 1), hold(store, 2), hold(store, 3)]
    assert sorted(map(len, parts)) == [1, 3, 3]
    parts = [hold(store, process) for process in (1, 2, 3)]
    assert sorted(one for part in parts for one in part) == every


def test_what_a_dead_process_held_is_taken_by_others(store: Store) -> None:
    every = [keys.subscription for keys in subscriptions(store, 3)]
    assert hold(store, 1) == every
    assert hold(store, 2, NOW + PATIENCE - timedelta(milliseconds=1)) == []
    assert hold(store, 2, NOW + PATIENCE) == every
    assert hold(store, 1, NOW + PATIENCE) == []


def test_what_a_process_gives_up_is_taken_at_once(store: Store) -> None:
    every = [keys.subscription for keys in subscriptions(store, 3)]
    assert hold(store, 1) == every
    store.execute("select fastpubsub.release_endpoints(1)")
    assert hold(store, 2) == every


def test_two_that_hold_at_once_do_not_wait(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    every = [keys.subscription for keys in subscriptions(one, 4)]
    other.execute("set lock_timeout = '1ms'")
    with one.transaction():
        assert hold(one, 1) == every
        assert hold(other, 2) == []
    assert hold(other, 2) == []
    assert len(hold(one, 1)) == 2


def test_what_breakers_came_to(store: Store) -> None:
    """Only of endpoints that the process holds."""
    first, second = subscriptions(store, 2)
    hold(store, 1)
    store.execute("update fastpubsub.endpoints set holder = 2 where subscription_key = %s", second.subscription)

    def record(failures: int, seconds: float, now: object) -> None:
        keys = [first.topic] * 2, [first.subscription, second.subscription]
        store.execute(RECORD, *keys, [failures] * 2, [seconds] * 2, ["no answer"] * 2, now)

    closed = (True, 0, None, None, None, None, None)
    assert status(store, first, NOW) == closed
    record(5, 4, NOW)
    opened = (True, 5, NOW, NOW + 4 * SECOND, False, "no answer", None)
    assert status(store, first, NOW) == opened
    assert status(store, first, NOW + 4 * SECOND) == (*opened[:4], True, *opened[5:])
    assert status(store, second, NOW) == (False, *closed[1:])
    record(6, 8, NOW + 4 * SECOND)
    assert status(store, first, NOW + 4 * SECOND) == (True, 6, NOW, NOW + 12 * SECOND, False, "no answer", None)
    metrics = "select subscription_id, is_open, is_held from fastpubsub.list_push_metrics(%s, 15, %s)"
    assert store.rows(metrics, 10, NOW) == [("s0", True, True), ("s1", False, False)]
    assert store.rows(metrics, 1, NOW + PATIENCE) == [("s0", True, False)]
    record(0, 0, NOW)
    assert status(store, first, NOW) == closed
    store.execute("delete from fastpubsub.dispatchers")
    assert status(store, first, NOW) == (False, *closed[1:])


def test_what_is_sealed_anew_has_not_changed_meanwhile(store: Store) -> None:
    first, second = subscriptions(store, 2)
    store.value("select fastpubsub.rotate_push_secret('s0', 'old', 60, %s)", NOW)
    listed = "select version from fastpubsub.list_endpoints(array[%s::bigint], array[%s::bigint], %s)"
    versions = [store.value(listed, *keys, NOW) for keys in (first, second)]
    store.value("select fastpubsub.rotate_push_secret('s1', 'stolen', 0, %s)", NOW)
    topics, keys = [first.topic] * 2, [first.subscription, second.subscription]
    reseal = "select fastpubsub.reseal_endpoints(%s, %s, %s, %s::bytea[], %s::bytea[], %s::bytea[])"
    sealed = [[b"h", None], [b"new", b"new"], [b"older", None]]
    assert store.value(reseal, topics, keys, versions, *sealed) == 1
    found = store.rows("select headers, secret, old_secret from fastpubsub.endpoints order by subscription_key")
    assert found == [(b"h", b"new", b"older"), (b"headers", b"stolen", None)]
    assert [
        store.value(listed, *keys, NOW) == version for keys, version in zip((first, second), versions, strict=True)
    ] == [
        True,
        False,
    ]


def test_the_status_of_what_is_not_pushed(store: Store) -> None:
    (keys,) = subscriptions(store, 1, None)
    for of, state in ((keys, "FP409"), (Keys(keys.topic, 99), "FP404")):
        with pytest.raises(psycopg.Error) as refused, store.transaction():
            status(store, of, NOW)
        assert refused.value.sqlstate == state


def test_without_endpoints_nothing_is_written(store: Store) -> None:
    subscriptions(store, 1, None)
    assert hold(store, 1) == []
    assert store.rows("select * from fastpubsub.dispatchers") == []


def test_dispatchers_that_are_gone_are_forgotten(store: Store) -> None:
    subscriptions(store, 1)
    hold(store, 1)
    hold(store, 2, NOW + 61 * SECOND)
    store.execute("select fastpubsub.trim_dispatchers(60, %s)", NOW + 61 * SECOND)
    assert store.rows("select process from fastpubsub.dispatchers") == [(2,)]


@pytest.mark.parametrize("deletion", ["delete_subscription('s0')", "delete_topic('t')"])
def test_a_deleted_subscription_is_not_pushed(store: Store, deletion: str) -> None:
    (keys,) = subscriptions(store, 1)
    store.execute(f"select fastpubsub.{deletion}")
    query = "select * from fastpubsub.list_endpoints(array[%s::bigint], array[%s::bigint])"
    assert store.rows(query, *keys) == []
    while store.value("select fastpubsub.empty_purges()") is not None:
        pass
    assert store.rows(HELD) == []
