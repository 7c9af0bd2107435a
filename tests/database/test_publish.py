"""publish: what an application's own transaction may say, and that it is there exactly if it commits."""

import json
from collections.abc import Iterator
from contextlib import nullcontext

import psycopg
import pytest
from hypothesis import example, given
from psycopg import sql

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.payloads import parse_batch
from tests.database.conftest import OpenStore
from tests.database.outbox import Relay, publish, waiting
from tests.database.store import Store, connect
from tests.harness import libpq
from tests.test_payloads import fuzz, payloads

MORE_THAN_TEN_MIB = '{"a": "' + "x" * 10485760 + '"}'


def test_what_was_committed_arrives_once_and_verbatim(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    texts = ['{"n": 1e308}', '{"n":18446744073709551621}', '{ "é" : "漢字", "a":1,"a":2 }']
    with store.transaction():
        for text in texts:
            publish(store, text)
    publish(store, "{}", '{"k": "v"}')
    relay = Relay(store)
    assert relay.everything() == 4
    assert relay.everything() == 0
    claimed = store.claim(keys, now=None)
    assert claimed.payloads == [*texts, "{}"]
    assert claimed.attributes == [None, None, None, '{"k": "v"}']
    assert waiting(store) == 0


def test_nothing_is_left_of_a_rollback(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    with store.undone():
        publish(store, "{}")
    assert Relay(store).everything() == 0
    assert store.positions(keys.topic) == []


def test_the_order_within_a_transaction_is_kept_across_savepoints(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    with store.transaction():
        publish(store, '{"n": 1}')
        with store.undone():
            publish(store, '{"n": -1}')
        with store.transaction():
            publish(store, '{"n": 2}')
            with store.undone():
                publish(store, '{"n": -2}')
            publish(store, '{"n": 3}')
        publish(store, '{"n": 4}')
    Relay(store).everything()
    assert store.claim(keys, now=None).payloads == [f'{{"n": {n}}}' for n in (1, 2, 3, 4)]


def test_a_transaction_publishes_to_several_topics(open_store: OpenStore) -> None:
    store = open_store()
    topics = [store.create_topic(name) for name in ("a", "b")]
    with store.transaction():
        for n in range(5):
            publish(store, f'{{"n": {n}}}', topic="a")
            publish(store, f'{{"n": {n}}}', topic="b")
    assert Relay(store, limit=3).everything() == 10
    query = "select array_agg((payload ->> 'n')::int order by position) from fastpubsub.messages where topic_key = %s"
    assert [store.value(query, topic) for topic in topics] == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_every_isolation_may_publish(open_store: OpenStore, level: str) -> None:
    store = open_store()
    keys = store.create()
    store.execute(f"begin isolation level {level}")
    publish(store, "{}")
    store.execute("commit")
    assert Relay(store).everything() == 1
    assert store.positions(keys.topic) == [1]


def test_serializable_transactions_that_publish_do_not_fail_each_other(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(3)]
    stores[0].create()
    for store in stores:
        store.execute("begin isolation level serializable")
        publish(store, "{}")
    for store in stores:
        store.execute("commit")
    assert Relay(stores[0]).everything() == 3


def test_a_prepared_transaction_arrives_when_it_is_committed(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    if store.value("show max_prepared_transactions") == "0":
        pytest.fail("the PostgreSQL of the tests allows no prepared transactions")
    relay = Relay(store)
    store.execute("begin")
    publish(store, '{"n": 1}')
    store.execute("prepare transaction 'tests'")
    publish(store, '{"n": 2}')
    assert relay.new() == 1
    store.execute("commit prepared 'tests'")
    assert relay.new() == 1
    assert store.claim(keys, now=None).payloads == ['{"n": 2}', '{"n": 1}']


def test_it_waits_for_nobody_and_nobody_waits_for_it(open_store: OpenStore) -> None:
    """Not for who publishes to the topic by HTTP, changes it, or deletes it."""
    first, second, relaying = open_store(), open_store(), open_store()
    keys = first.create()
    for store in (first, second, relaying):
        store.execute("set lock_timeout = '5s'")
    with first.transaction():
        publish(first, '{"n": 1}')
        with second.transaction():
            second.publish(keys.topic, ["2"])
            publish(second, '{"n": 3}')
            publish(first, '{"n": 4}')
        relaying.execute("select fastpubsub.update_topic('topic', 60)")
        assert Relay(relaying).everything() == 1
        relaying.delete_topic()


def test_the_settings_of_the_caller_stay(store: Store) -> None:
    store.create()
    names = ("lock_timeout", "synchronous_commit", "search_path", "enable_seqscan")
    store.execute("set local synchronous_commit = off")
    before = [store.value(f"show {name}") for name in names]
    publish(store, "{}")
    assert [store.value(f"show {name}") for name in names] == before


REFUSED = {
    "unknown topic": ("FP404", "nope", "{}", None),
    "no topic": ("FP404", None, "{}", None),
    "no payload": ("FP422", "topic", None, None),
    "list": ("FP422", "topic", "[]", None),
    "text": ("FP422", "topic", '"{}"', None),
    "NUL": ("FP422", "topic", r'{"a": "\u0000"}', None),
    "NUL in a name": ("FP422", "topic", r'{"\u0000": 1}', None),
    "lone surrogate": ("FP422", "topic", r'{"a": "\ud800"}', None),
    "65 levels": ("FP422", "topic", '{"a":' * 65 + "1" + "}" * 65, None),
    "65 levels under a name that comes twice": ("FP422", "topic", f'{{"a": {"[" * 64}{"]" * 64}, "a": 1}}', None),
    "1,001 digits": ("FP422", "topic", f'{{"a": {"7" * 1001}}}', None),
    "exponent": ("FP422", "topic", '{"a": 1e1001}', None),
    "large": ("FP422", "topic", MORE_THAN_TEN_MIB, None),
    "attributes that are a list": ("FP422", "topic", "{}", "[]"),
    "attribute that is a number": ("FP422", "topic", "{}", '{"a": 1}'),
    "attribute that is null": ("FP422", "topic", "{}", '{"a": null}'),
    "attribute without a name": ("FP422", "topic", "{}", '{"": "1"}'),
    "long name of an attribute": ("FP422", "topic", "{}", json.dumps({"a" * 257: "1"})),
    "long attribute": ("FP422", "topic", "{}", json.dumps({"a": "é" * 1025})),
    "101 attributes": ("FP422", "topic", "{}", json.dumps({f"a{n}": "" for n in range(101)})),
}


@pytest.mark.parametrize(("sqlstate", "topic", "payload", "attributes"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_raised_to_the_caller(
    store: Store, sqlstate: str, topic: str | None, payload: str | None, attributes: str | None
) -> None:
    store.create()
    with store.refused(sqlstate):
        store.execute("select fastpubsub.publish(%s, %s, %s)", topic, payload, attributes)
    assert waiting(store) == 0


ACCEPTED = {
    "empty": ("{}", None),
    "no attributes": ("{}", "{}"),
    "null for attributes": ("{}", "null"),
    "most attributes": ("{}", json.dumps({f"{n:03}" + "a" * 253: "é" * 1024 for n in range(100)})),
    "backslash before u0000": (r'{"a": "\\u0000"}', None),
    "pair of surrogates": (r'{"a": "\ud83d\ude00"}', None),
    "64 levels": ('{"a":' * 64 + "1" + "}" * 64, None),
    "brackets in a string": (json.dumps({"a": "[" * 100 + '"\\' + "{" * 100}), None),
    "1,000 digits": (f'{{"a": {"7" * 1000}}}', None),
    "digits in a string": (f'{{"a": "{"7" * 5000}e9999"}}', None),
    "exponent": ('{"a": [1e1000, 1E-01000]}', None),
}


@pytest.mark.parametrize(("payload", "attributes"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_accepted(store: Store, payload: str, attributes: str | None) -> None:
    store.create()
    publish(store, payload, attributes)
    assert waiting(store) == 1


@pytest.fixture(scope="module")
def judging(shared_database_url: str) -> Iterator[Store]:
    opened = connect(libpq(shared_database_url), autocommit=True)
    opened.execute("set standard_conforming_strings = off")
    yield opened
    opened.connection.close()


@fuzz
@given(payload=payloads())
@example(payload=b'{"a": "\\\\", "b": 1e1001}')
@example(payload=b'{"a": 1.' + b"0" * 1000 + b"}")
def test_sql_and_http_accept_the_same(judging: Store, payload: bytes) -> None:
    """Of what is JSON to both."""
    try:
        text = payload.decode()
        judging.value("select %s::json::text", text)
    except (UnicodeDecodeError, psycopg.Error):
        return
    try:
        parse_batch(b"[" + payload + b"]", max_messages=1, max_depth=64)
        accepted = True
    except InvalidRequest:
        accepted = False
    with nullcontext() if accepted else judging.refused("FP422"):
        judging.value("select fastpubsub.check_payload(%s)::text", text)


@pytest.fixture
def application(open_store: OpenStore, database_url: str) -> Iterator[Store]:
    """A role that may do nothing but publish."""
    owner = open_store()
    role = sql.Identifier(f"app_{owner.value('select current_database()')}")
    for statement in (
        "create role {} login password 'application'",
        "grant usage on schema fastpubsub to {}",
        "grant execute on function fastpubsub.publish to {}",
    ):
        owner.connection.execute(sql.SQL(statement).format(role))
    owner.connection.execute(sql.SQL("set role {}").format(role))
    yield owner
    owner.execute("reset role")
    owner.connection.execute(sql.SQL("drop owned by {}").format(role))
    owner.connection.execute(sql.SQL("drop role {}").format(role))


def test_a_role_needs_two_grants_and_can_do_nothing_else(application: Store, open_store: OpenStore) -> None:
    owner = open_store()
    keys = owner.create()
    publish(application, '{"n": 1}')
    assert Relay(owner).everything() == 1
    assert owner.positions(keys.topic) == [1]
    for statement in (
        "select * from fastpubsub.outbox",
        "delete from fastpubsub.messages",
        "insert into fastpubsub.outbox values (pg_current_xact_id(), default, 1, '{}')",
        "select fastpubsub.delete_topic('topic')",
        "select * from fastpubsub.list_outbox(null, 0, 0, 1, 1)",
        "select fastpubsub.publish_messages(1, '{}')",
    ):
        with application.refused("42501"):
            application.execute(statement)


def test_nobody_may_publish_without_a_grant(application: Store, open_store: OpenStore) -> None:
    owner = open_store()
    owner.create()
    application.execute("reset role")
    application.execute("revoke execute on function fastpubsub.publish from public, current_user")
    assert not owner.value(
        "select exists (select from aclexplode((select proacl from pg_proc"
        " where oid = 'fastpubsub.publish'::regproc)) where grantee = 0)"
    )


def test_a_hostile_search_path_changes_nothing(application: Store, open_store: OpenStore) -> None:
    owner = open_store()
    owner.create()
    owner.execute("create schema hostile")
    owner.execute("grant all on schema hostile to public")
    for statement in (
        "create function hostile.json_typeof(json) returns text language sql as $$ select 'hostile' $$",
        "create function hostile.pg_current_xact_id() returns xid8 language sql as $$ select '1'::xid8 $$",
        "create temporary table topics (topic_key bigint, id text)",
        "set search_path = hostile, pg_temp, pg_catalog",
    ):
        application.execute(statement)
    publish(application, "{}")
    assert owner.value("select transaction_id > '1' from fastpubsub.outbox")


def test_from_a_trigger(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    store.execute("create table orders (number integer, total numeric)")
    store.execute(
        "create function announce() returns trigger language plpgsql as $$ begin"
        " perform fastpubsub.publish('topic', row_to_json(new), jsonb_build_object('type', tg_op)); return null; end $$"
    )
    store.execute("create trigger announce after insert on orders for each row execute function announce()")
    store.execute("insert into orders values (1, 99.90), (2, 1)")
    Relay(store).everything()
    claimed = store.claim(keys, now=None)
    assert claimed.payloads == ['{"number":1,"total":99.90}', '{"number":2,"total":1}']
    assert claimed.attributes == ['{"type": "INSERT"}'] * 2
