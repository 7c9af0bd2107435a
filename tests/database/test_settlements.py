"""ack, nack and reject in an application's own transaction: both its work and the settle, or neither."""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta

import psycopg
import pytest

from fastpubsub.message_ids import MessageIds, ack_id
from tests.database.conftest import Background, OpenStore
from tests.database.outbox import Relay, waiting
from tests.database.store import NOW, SECOND, Claimed, Id, Keys, Settings, Store, wait_until_blocked

SOME = "019c13cb-6d29-7000-8000-040000000001.0000000000000000"
DEADLINE = timedelta(seconds=61)
CENTURY = timedelta(days=36_500)
"""A commit settles by the clock of the database, whatever the tests say the time is."""
LEVELS = ["read committed", "repeatable read", "serializable"]


def ack_ids(keys: Keys, ids: Sequence[Id]) -> list[str]:
    return [
        ack_id(MessageIds(keys.topic, one.created_at).at(one.position), one.token)
        for one in ids
        if one.created_at is not None and one.token is not None
    ]


def settle(store: Store, keys: Keys, ids: Sequence[Id], how: str = "ack", *more: object) -> None:
    values = ", %s" * len(more)
    store.execute(f"select fastpubsub.{how}('subscription', %s{values})", ack_ids(keys, ids), *more)


def claimed(store: Store, count: int = 3) -> tuple[Keys, Claimed]:
    keys = store.create()
    store.fill(keys.topic, count, now=NOW)
    return keys, store.claim(keys, count)


def leased(store: Store, keys: Keys) -> list[int]:
    return [lease.position for lease in store.leases(keys)]


@pytest.mark.parametrize("level", LEVELS)
def test_both_or_neither(open_store: OpenStore, level: str) -> None:
    store = open_store()
    store.execute("create table work (n int)")
    keys, claim = claimed(store)
    with store.undone():
        store.execute(f"set transaction isolation level {level}")
        store.execute("insert into work values (1)")
        settle(store, keys, claim.ids[:1])
    assert (leased(store, keys), store.value("select count(*) from work")) == ([1, 2, 3], 0)
    with store.transaction():
        store.execute(f"set transaction isolation level {level}")
        store.execute("insert into work values (2)")
        settle(store, keys, claim.ids[1:2])
        assert leased(store, keys) == [1, 2, 3]
    assert (leased(store, keys), store.value("select count(*) from work")) == ([1, 3], 1)
    assert store.value("select count(*) from fastpubsub.settlements") == 0
    assert store.metrics(keys).acked == 1


@pytest.mark.parametrize(
    ("how", "more", "left"),
    [
        ("nack", (None, "the disk is full"), ([(1, "nacked: the disk is full")], [])),
        ("reject", ("bad",), ([], [(1, "bad")])),
    ],
)
def test_a_failure_and_the_work_beside_it_or_neither(
    open_store: OpenStore, how: str, more: tuple[object, ...], left: tuple[list[object], list[object]]
) -> None:
    store = open_store()
    store.execute("create table work (n int)")
    keys, claim = claimed(store)

    def found() -> tuple[list[object], list[object]]:
        return (
            [(retry.position, retry.reason) for retry in store.retries(keys)],
            [(letter.position, letter.reason) for letter in store.dead_letters(keys)],
        )

    with store.undone():
        store.execute("insert into work values (1)")
        settle(store, keys, claim.ids[:1], how, *more)
    assert (leased(store, keys), found(), store.value("select count(*) from work")) == ([1, 2, 3], ([], []), 0)
    with store.transaction():
        store.execute("insert into work values (2)")
        settle(store, keys, claim.ids[:1], how, *more)
        assert (leased(store, keys), found()) == ([1, 2, 3], ([], [])), "it is so at the commit"
    assert (leased(store, keys), found(), store.value("select n from work")) == ([2, 3], left, 2)
    with store.refused("FP410"), store.transaction():
        store.execute("insert into work values (3)")
        settle(store, keys, claim.ids[:1], how, *more)
    assert (found(), store.value("select count(*) from work")) == (left, 1)


def test_all_kinds_of_several_subscriptions_at_once(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store, 6)
    other = store.create_subscription("other")
    store.fill(keys.topic, 2, now=NOW)
    second = store.claim(other, 2)
    with store.transaction():
        store.execute("select fastpubsub.ack('other', %s)", ack_ids(other, second.ids))
        settle(store, keys, [claim.ids[0], claim.ids[2], claim.ids[3]])
        settle(store, keys, claim.ids[1:2], "nack", 10, "the disk is full")
        settle(store, keys, claim.ids[4:5], "reject", "no such customer")
    assert leased(store, keys) == [6]
    assert [(retry.position, retry.reason) for retry in store.retries(keys)] == [(2, "nacked: the disk is full")]
    assert [(letter.position, letter.reason) for letter in store.dead_letters(keys)] == [(5, "no such customer")]
    assert leased(store, other) == []


def settled(store: Store) -> list[tuple[object, ...]]:
    """As the relay takes it out of the outbox: one row for each subscription of a transaction."""
    listed = Relay(store).look()
    assert set(listed.topics) <= {0}
    query = "select * from fastpubsub.take_settled(%s::bigint[], %s::bigint[]) order by subscription_key"
    found = store.rows(query, listed.transactions, listed.ordinals)
    assert waiting(store) == 0
    return found


def test_a_server_can_count_what_was_settled(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create(max_attempts=1)
    other = store.create_subscription("other", settings=Settings(max_attempts=2))
    store.fill(keys.topic, 6, now=NOW)
    first, second = store.claim(keys, 6), store.claim(other, 2)
    for ids, how in (([0, 2], "ack"), ([1], "nack"), ([3], "ack")):
        with store.transaction():
            settle(store, keys, [first.ids[place] for place in ids], how)
            if how == "nack":
                settle(store, keys, first.ids[4:5], "reject")
                store.execute("select fastpubsub.nack('other', %s)", ack_ids(other, second.ids))
    with store.undone():
        settle(store, keys, first.ids[5:])
    assert waiting(store) == 4
    assert settled(store) == [(*keys, "subscription", 3, 1, 1, 2), (*other, "other", None, 2, None, 0)]
    assert settled(store) == []


def test_what_was_settled_in_a_subscription_that_is_gone_has_no_name(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    settle(store, keys, claim.ids)
    store.delete_subscription()
    assert settled(store) == [(*keys, None, 3, None, None, 0)]


def test_a_server_of_the_last_release_drops_no_message_and_counts_itself(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    settle(store, keys, claim.ids[:1])
    listed = Relay(store).look()
    query = "select * from fastpubsub.relay_messages(0, %s::bigint[], %s::bigint[])"
    assert store.row(query, listed.transactions, listed.ordinals) == (None, 0, 0)
    for versions, rows in (("", 0), (", p_schema_versions => '{}'", 1)):
        query = f"""
            select fastpubsub.run_transaction(
                '{{subscription}}', '{{ack}}', '{{1}}', %s, '{{null}}', '{{null}}', '{{}}', '{{}}', '{{}}', '{{}}'
                {versions}
            )
        """
        store.execute(query, ack_ids(keys, claim.ids[1 + rows : 2 + rows]))
        assert waiting(store) == rows


def test_whole_batches_are_one_row(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store, 100)
    with store.transaction():
        settle(store, keys, claim.ids)
        assert store.value("select lengths from fastpubsub.settlements") == [100]
    assert store.leases(keys) == []


def test_a_savepoint_takes_its_settles_back(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    with store.transaction():
        with store.undone():
            settle(store, keys, claim.ids[:2])
        settle(store, keys, claim.ids[2:])
    assert leased(store, keys) == [1, 2]


def test_what_is_not_held_is_refused_at_once(store: Store) -> None:
    keys, claim = claimed(store)
    store.ack(keys, claim.ids[:1])
    with store.refused("FP410"):
        settle(store, keys, claim.ids)
    with store.refused("FP410"):
        settle(store, keys, [claim.ids[1]._replace(token=7)])
    elsewhere = Keys(keys.topic + 1, 0)
    with store.refused("FP410"):
        settle(store, elsewhere, claim.ids[1:2])


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_lost_before_the_commit_rolls_the_work_back(open_store: OpenStore, level: str) -> None:
    store, other = open_store(), open_store()
    store.execute("create table work (n int)")
    keys, claim = claimed(store)
    store.execute("begin")
    store.execute(f"set transaction isolation level {level}")
    store.execute("insert into work values (1)")
    settle(store, keys, claim.ids[:1])
    other.nack(keys, claim.ids[:1])
    with pytest.raises(psycopg.Error) as raised:
        store.execute("commit")
    assert raised.value.sqlstate == ("FP410" if level == LEVELS[0] else "40001")
    assert store.value("select count(*) from work") == 0


def test_twice_in_a_transaction_is_refused_by_the_commit(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    store.execute("begin")
    settle(store, keys, claim.ids[:1])
    settle(store, keys, claim.ids[:1], "nack")
    with pytest.raises(psycopg.Error, match="not held any more"):
        store.execute("commit")
    assert leased(store, keys) == [1, 2, 3]


def test_the_first_of_two_commits_wins(open_store: OpenStore, background: Background) -> None:
    store, other = open_store(), open_store()
    keys, claim = claimed(store)
    other.execute("begin")
    settle(other, keys, claim.ids[:1])
    with store.transaction():
        settle(store, keys, claim.ids[:1])
    with pytest.raises(psycopg.Error, match="not held any more"):
        other.execute("commit")
    assert leased(store, keys) == [2, 3]


def test_an_open_transaction_stops_nobody(open_store: OpenStore) -> None:
    """Each call of the others would wait for a lock for 20 seconds and fail."""
    store, other = open_store(), open_store()
    other.execute("set fastpubsub.lock_timeout = '1ms'")
    keys, claim = claimed(store, 5)
    with store.transaction():
        settle(store, keys, claim.ids[1:2])
        settle(store, keys, claim.ids[3:4], "nack")
        other.fill(keys.topic, 2, now=NOW)
        assert other.claim(keys).positions == [6, 7]
        assert other.ack(keys, claim.ids[:1]) == [1]
        assert other.nack(keys, claim.ids[2:3]) == [1]
        assert other.extend(keys, [claim.ids[1], claim.ids[3], claim.ids[4]], 60) == [1, 1, 1]
    assert leased(store, keys) == [5, 6, 7]


def test_it_keeps_the_message_from_others_for_ten_minutes(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    keys, claim = claimed(store)
    apart = store.fill(keys.topic, 1, now=NOW)
    store.claim(keys)
    with store.transaction():
        settle(store, keys, claim.ids[:1])
        assert other.release(keys, now=NOW + DEADLINE).released == 1
        assert [retry.position for retry in other.retries(keys)] == [apart.first_position]
        assert other.release(keys, now=NOW + DEADLINE + timedelta(minutes=9)).released == 0
    assert leased(store, keys) == [2, 3]
    assert other.release(keys, now=NOW + DEADLINE).released == 2


def test_after_ten_minutes_it_can_only_roll_back(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    keys, claim = claimed(store)
    store.execute("begin")
    settle(store, keys, claim.ids[:1])
    assert other.release(keys, now=NOW + DEADLINE + timedelta(minutes=10)).released == 3
    with pytest.raises(psycopg.Error, match="not held any more"):
        store.execute("commit")


def test_whoever_rolls_back_or_dies_leaves_nothing(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    keys, claim = claimed(store)
    other.execute("begin")
    settle(other, keys, claim.ids[:1])
    store.execute("select pg_terminate_backend(%s, 10000)", other.pid)
    assert store.release(keys, now=NOW + DEADLINE).released == 3
    assert store.value("select count(*) from fastpubsub.settlements") == 0


def test_transactions_settle_in_one_order(open_store: OpenStore, background: Background) -> None:
    """One holds the cursor of the first subscription; who called for the second first waits for the first."""
    store, other, third = open_store(), open_store(), open_store()
    keys, claim = claimed(store)
    more = store.create_subscription("other")
    store.fill(keys.topic, 2, now=NOW)
    second = store.claim(more)
    other.execute("begin")
    other.execute("select fastpubsub.ack('other', %s)", ack_ids(more, second.ids[:1]))
    settle(other, keys, claim.ids[:1])
    with store.transaction():
        store.execute("select fastpubsub.lock_subscription(%s, %s)", *keys)
        committing = background(other.execute, "commit")
        wait_until_blocked(third, other, by=store)
        store.execute("select fastpubsub.lock_subscription(%s, %s)", *more)
    committing.result()
    assert leased(store, keys) == [2, 3]


def test_settings_of_the_caller_stay(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    with store.transaction():
        store.execute("set local lock_timeout = '7s'")
        store.execute("set local synchronous_commit = off")
        settle(store, keys, claim.ids[:1])
        store.execute("set constraints all immediate")
        assert store.value("show lock_timeout") == "7s"
        assert store.value("show synchronous_commit") == "off"
    assert leased(store, keys) == [2, 3]


def test_immediate_constraints_do_not_settle_at_once(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    with store.transaction():
        store.execute("set constraints all immediate")
        settle(store, keys, claim.ids[:1])
        assert leased(store, keys) == [1, 2, 3]
    assert leased(store, keys) == [2, 3]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("how", "what"), [("nack", "a nack"), ("reject", "a reject"), ("ack", "an ack of an ordered")])
@pytest.mark.parametrize("level", LEVELS[1:])
def test_only_an_ack_that_needs_no_order_can_do_with_an_old_snapshot(
    open_store: OpenStore, ordered: bool, how: str, what: str, level: str
) -> None:
    store = open_store()
    keys = store.create(ordered=ordered)
    store.fill(keys.topic, 3, now=NOW)
    claim = store.claim(keys, 3)
    with store.undone():
        store.execute(f"set transaction isolation level {level}")
        if how == "ack" and not ordered:
            settle(store, keys, claim.ids[:1], how)
            return
        with pytest.raises(
            psycopg.Error, match=f"{what}.* needs the isolation level read committed, not {level}"
        ) as it:
            settle(store, keys, claim.ids[:1], how)
        assert it.value.sqlstate == "FP422"
        assert "over HTTP" in str(it.value.diag.message_hint)
    assert leased(store, keys) == [1, 2, 3]


def settle_late(store: Store, keys: Keys, ids: Sequence[Id], level: str, meanwhile: Callable[[], object]) -> None:
    """In a transaction that has taken its snapshot before something happens; over HTTP where that is refused."""
    refused = None
    try:
        with store.transaction():
            store.execute(f"set transaction isolation level {level}")
            store.value("select count(*) from fastpubsub.leases")
            meanwhile()
            settle(store, keys, ids)
    except psycopg.Error as error:
        refused = error.sqlstate
    if refused is not None:
        assert (refused, level in LEVELS[1:]) == ("FP422", True)
        store.ack(keys, ids, now=NOW)


@pytest.mark.parametrize("level", LEVELS)
def test_what_was_put_aside_since_the_snapshot_comes(open_store: OpenStore, level: str) -> None:
    store, other = open_store(), open_store()
    keys = store.create(ordered=True)
    store.publish(keys.topic, ["{}"] * 2, ordering_keys=["a", "b"], now=NOW)
    claim = store.claim(keys)
    store.publish(keys.topic, ["{}"], ordering_keys=["a"], now=NOW)
    assert store.claim(keys).positions == []

    def put_aside() -> None:
        other.publish(keys.topic, ["{}"], ordering_keys=["b"], now=NOW)
        assert other.claim(keys).positions == []

    settle_late(store, keys, claim.ids, level, put_aside)
    last = store.claim(keys, now=NOW + CENTURY)
    assert last.positions == [3, 4]
    store.ack(keys, last.ids, now=NOW + CENTURY)
    assert store.value("select count(*) from fastpubsub.busy_keys") == 0


@pytest.mark.parametrize("level", LEVELS)
def test_what_was_parked_since_the_snapshot_comes(open_store: OpenStore, level: str) -> None:
    store, other = open_store(), open_store()
    keys = store.create(ordered=True)
    store.publish(keys.topic, ["{}"] * 2, ordering_keys=["a", "a"], now=NOW)
    claim = store.claim(keys)
    settle_late(store, keys, claim.ids[:1], level, lambda: other.nack(keys, claim.ids[1:]))
    assert store.claim(keys, now=NOW + CENTURY).positions == [2]


@pytest.mark.parametrize("level", LEVELS)
def test_an_ack_with_an_old_snapshot_leaves_the_limits_of_a_fair_subscription(
    open_store: OpenStore, level: str
) -> None:
    """What was put aside since, what is leased and how many more may be are read by claims, which see everything."""
    store, other = open_store(), open_store()
    keys = store.create(fair_by="ordering_key", max_in_flight=2)
    store.publish(keys.topic, ["{}"] * 4, ordering_keys=[*"aaab"], now=NOW)
    claim = store.claim(keys)
    left = sorted({1, 2, 3, 4} - set(claim.positions))
    assert len(left) == 2

    def put_aside() -> None:
        other.publish(keys.topic, ["{}"] * 2, ordering_keys=[*"ab"], now=NOW)
        assert other.claim(keys).positions == []

    settle_late(store, keys, claim.ids[:1], level, put_aside)
    given = store.claim(keys, now=NOW + SECOND)
    assert len(given.positions) == 1
    store.ack(keys, [*claim.ids[1:], *given.ids], now=NOW + SECOND)
    rest = [store.claim(keys, now=NOW + 2 * SECOND)]
    while rest[-1].positions:
        store.ack(keys, rest[-1].ids, now=NOW + 2 * SECOND)
        rest.append(store.claim(keys, now=NOW + 2 * SECOND))
    assert sorted(given.positions + [place for one in rest for place in one.positions]) == [*left, 5, 6]


def test_a_prepared_transaction_is_refused(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    store.execute("begin")
    settle(store, keys, claim.ids[:1])
    with pytest.raises(psycopg.Error) as raised:
        store.execute("prepare transaction 'held'")
    assert raised.value.sqlstate in ("FP422", "55000")
    assert leased(store, keys) == [1, 2, 3]


@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("fastpubsub.ack('nowhere', array['x'])", "FP404"),
        ("fastpubsub.ack('subscription', null)", "FP422"),
        ("fastpubsub.ack('subscription', '{}')", "FP422"),
        ("fastpubsub.ack('subscription', array[null]::text[])", "FP422"),
        ("fastpubsub.ack('subscription', array['x'])", "FP422"),
        ("fastpubsub.ack('subscription', array['019c13cb-6d29-7000-8000-040000000001'])", "FP422"),
        (
            f"fastpubsub.ack('subscription', array_fill('{SOME}'::text, array[2]))",
            "FP422",
        ),
        ("fastpubsub.ack('subscription', array_fill('x'::text, array[1001]))", "FP422"),
        ("fastpubsub.nack('subscription', array['x'], -1)", "FP422"),
        ("fastpubsub.nack('subscription', array['x'], 604801)", "FP422"),
        ("fastpubsub.nack('subscription', array['x'], null, '')", "FP422"),
        ("fastpubsub.nack('subscription', array['x'], null, repeat('x', 1025))", "FP422"),
        ("fastpubsub.reject('subscription', array['x'], '')", "FP422"),
        ("fastpubsub.reject('subscription', array['x'], null)", "FP422"),
        ("fastpubsub.reject('subscription', array['x'], repeat('x', 1025))", "FP422"),
    ],
)
def test_what_is_refused(store: Store, call: str, sqlstate: str) -> None:
    claimed(store)
    with store.refused(sqlstate):
        store.execute(f"select {call}")


def test_a_role_needs_no_rights_on_tables(open_store: OpenStore) -> None:
    store = open_store()
    keys, claim = claimed(store)
    role = f"consumer_{store.pid}"
    store.execute(f"create role {role}")
    store.execute(f"grant usage on schema fastpubsub to {role}")
    try:
        store.execute(f"set role {role}")
        for how in ("ack", "nack", "reject"):
            with store.refused("42501"):
                settle(store, keys, claim.ids[:1], how)
        for internal in ("add_settlement('subscription', 'ack', '{x}', null, null)", "settle_at_commit()"):
            with store.refused("42501"):
                store.execute(f"select fastpubsub.{internal}")
        store.execute("reset role")
        store.execute(f"grant execute on function fastpubsub.ack, fastpubsub.nack, fastpubsub.reject to {role}")
        store.execute(f"set role {role}")
        with store.transaction():
            settle(store, keys, claim.ids[:1])
            settle(store, keys, claim.ids[1:2], "nack")
            settle(store, keys, claim.ids[2:], "reject")
    finally:
        store.execute("reset role")
        store.execute(f"drop owned by {role}")
        store.execute(f"drop role {role}")
    assert leased(store, keys) == []


def test_the_deadline_is_that_of_the_lease(store: Store) -> None:
    """What is past it is held until somebody ends it."""
    keys, claim = claimed(store)
    settle(store, keys, claim.ids[:1])
    assert store.release(keys, now=NOW + DEADLINE - 2 * SECOND).released == 0


def test_the_message_of_a_refusal_has_no_token(store: Store) -> None:
    keys, claim = claimed(store)
    store.ack(keys, claim.ids)
    with pytest.raises(psycopg.Error) as raised, store.transaction():
        settle(store, keys, claim.ids)
    assert re.search(r"[0-9a-f]{16}", str(raised.value)) is None
