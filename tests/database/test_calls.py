"""What a caller is told when the database refuses, hangs, dies or is full; and that it works again afterwards."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from fastpubsub.database import connections as module
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.urls import normalise
from fastpubsub.exceptions import (
    AlreadyExists,
    FastpubsubError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Unavailable,
)
from tests import harness, pgbouncer
from tests.conftest import Connect, MakeSettings
from tests.proxy import Proxy

PROCEDURES = """
create function fastpubsub.fail(p_state text, p_message text default 'because') returns void language plpgsql
as $$ begin raise exception using errcode = p_state, message = p_message; end $$;

create function fastpubsub.wait(p_seconds double precision) returns void language sql
as $$ select pg_sleep(p_seconds) $$;

create function fastpubsub.wait_for_admin() returns void language sql
as $$ select pg_advisory_xact_lock_shared(1) $$;

create sequence fastpubsub.attempts;
grant usage on sequence fastpubsub.attempts to public;

create function fastpubsub.fail_at_first(p_times bigint, p_state text) returns bigint language plpgsql
as $$ begin
    if nextval('fastpubsub.attempts') <= p_times then raise exception using errcode = p_state; end if;
    return currval('fastpubsub.attempts');
end $$;

create function fastpubsub.own_pid() returns integer language sql as $$ select pg_backend_pid() $$;

create function fastpubsub.prepared() returns bigint language sql as $$ select count(*) from pg_prepared_statements $$;

create table fastpubsub.pair (id integer primary key, count integer not null);
insert into fastpubsub.pair values (1, 0), (2, 0);
create function fastpubsub.lock_pair(p_first integer, p_second integer) returns void language plpgsql
as $$ begin
    update fastpubsub.pair set count = count + 1 where id = p_first;
    perform pg_sleep(0.1);
    update fastpubsub.pair set count = count + 1 where id = p_second;
end $$;

create function fastpubsub.lock_one() returns void language plpgsql
as $$ begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.pair set count = count + 1 where id = 1;
end $$;
"""

MakeDatabase = Callable[..., Database]


@pytest.fixture
async def admin(connect: Connect) -> psycopg.AsyncConnection:
    connection = await connect()
    await connection.execute(PROCEDURES)
    return connection


@pytest.fixture
async def make_database(admin: psycopg.AsyncConnection, make_settings: MakeSettings) -> AsyncIterator[MakeDatabase]:
    async with AsyncExitStack() as stack:

        def make(**overrides: Any) -> Database:
            made = Database(make_settings(**overrides))
            stack.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
def database(make_database: MakeDatabase) -> Database:
    return make_database()


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url) as opened:
        yield opened


SMALL = {
    "database_pool_size": 1,
    "database_max_overflow": 0,
    "database_pool_timeout_seconds": 2,
    "database_call_timeout_seconds": 2,
    "database_connect_timeout_seconds": 3,
}
"""One connection, so that one which is not given back is missed. A busy machine must do a call in this time."""

SOON = 100.0
"""Seconds; what is not bounded here takes 200 of them, or has no end."""


async def seconds_until(error: type[FastpubsubError], call: Awaitable[object]) -> float:
    started = time.monotonic()
    with pytest.raises(error) as caught:
        await call
    assert caught.type is error
    return time.monotonic() - started


# what the server reports


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("FP403", PermissionDenied),
        ("FP404", NotFound),
        ("FP409", AlreadyExists),
        ("FP422", InvalidRequest),
        ("08000", Unavailable),
        ("08006", Unavailable),
        ("53000", Unavailable),
        ("53100", Unavailable),
        ("53200", Unavailable),
        ("53300", Unavailable),
        ("55P03", Unavailable),
        ("25000", Unavailable),
        ("25006", Unavailable),
        ("40001", Unavailable),
        ("40P01", Unavailable),
        ("3F000", Unavailable),
        ("42P01", Unavailable),
        ("42883", Unavailable),
        ("57014", OutcomeUnknown),
        ("57P01", OutcomeUnknown),
        ("57P02", OutcomeUnknown),
        ("57P03", OutcomeUnknown),
        ("57P05", OutcomeUnknown),
        ("25P04", OutcomeUnknown),
    ],
)
async def test_states(database: Database, state: str, error: type[FastpubsubError]) -> None:
    with pytest.raises(error) as caught:
        await database.fetch_one("fail", state, "because")
    assert caught.type is error
    assert (caught.value.detail == "because") == state.startswith("FP"), "only our own texts are for the caller"
    assert await database.fetch_one("own_pid")


@pytest.mark.parametrize("state", ["XX000", "42501", "22012", "23505", "54000", "P0001", "FP500"])
async def test_what_nobody_expected_stays_what_it_is(database: Database, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        await database.fetch_one("fail", state)
    assert caught.value.sqlstate == state
    assert await database.fetch_one("own_pid")


async def test_a_database_that_is_not_migrated(make_settings: MakeSettings, empty_database_url: str) -> None:
    database = Database(make_settings(database_url=empty_database_url))
    with pytest.raises(Unavailable, match="fastpubsub db-migrate"):
        await database.fetch_one("resolve_topic", "t")
    await database.close()


async def test_json_is_bytes_and_arrays_have_types(database: Database) -> None:
    text = b'{"a": 1e308,"a":[18446744073709551621]}'
    (topic_key, *_) = await database.fetch_one("create_topic", "t")
    await database.fetch_one("create_subscription", "s", "t", '{"a":[1]}', 60, 5, 5, 300, "earliest")
    await database.fetch_one("publish_messages", topic_key, Array("json", [text]), Array("jsonb", [b'{"k":"v"}']))
    rows = await database.fetch_all("list_subscriptions_4", 0, 10, ["s"])
    assert rows[0][2] == b'{"a":[1]}'


@pytest.mark.parametrize("state", ["40P01", "40001"])
async def test_a_deadlock_is_tried_again(database: Database, state: str) -> None:
    assert await database.fetch_one("fail_at_first", 3, state) == (4,)


async def test_a_deadlock_is_not_tried_for_ever(database: Database) -> None:
    await seconds_until(Unavailable, database.fetch_one("fail_at_first", 4, "40P01"))


async def test_a_refusal_is_not_tried_again(database: Database) -> None:
    await seconds_until(NotFound, database.fetch_one("fail_at_first", 1, "FP404"))
    assert await database.fetch_one("fail_at_first", 1, "FP404") == (2,)


async def test_a_real_deadlock(admin: psycopg.AsyncConnection, make_database: MakeDatabase) -> None:
    name = sql.Identifier((await (await admin.execute("select current_database()")).fetchall())[0][0])
    await admin.execute(sql.SQL("alter database {} set deadlock_timeout = '10ms'").format(name))
    database = make_database()
    await asyncio.gather(database.fetch_one("lock_pair", 1, 2), database.fetch_one("lock_pair", 2, 1))
    assert await (await admin.execute("select count from fastpubsub.pair")).fetchall() == [(2,), (2,)]


# a database that hangs


async def test_a_call_that_takes_too_long_is_cut(make_database: MakeDatabase) -> None:
    database = make_database(**SMALL)
    for _ in range(2):
        assert await seconds_until(OutcomeUnknown, database.fetch_one("wait", 200.0)) < SOON
        assert await database.fetch_one("own_pid")


async def test_a_lock_is_waited_for_as_long_as_the_setting_says(
    make_database: MakeDatabase, admin: psycopg.AsyncConnection
) -> None:
    short, long = make_database(database_lock_timeout_seconds=0.2), make_database(database_lock_timeout_seconds=3)
    for database in (short, long):  # to connect may take long
        await database.fetch_one("own_pid")
    async with admin.transaction():
        await admin.execute("select from fastpubsub.pair where id = 1 for update")
        waiting = asyncio.create_task(seconds_until(Unavailable, long.fetch_one("lock_one")))
        assert await seconds_until(Unavailable, short.fetch_one("lock_one")) >= 0.15
        assert not waiting.done()
        assert await waiting >= 2.9
    await short.fetch_one("lock_one")


async def test_a_database_that_goes_silent(make_database: MakeDatabase, proxy: Proxy) -> None:
    database = make_database(**SMALL, database_url=proxy.url)
    await database.fetch_one("own_pid")
    proxy.pause()
    assert await seconds_until(OutcomeUnknown, database.fetch_one("own_pid")) < SOON
    assert await seconds_until(Unavailable, database.fetch_one("own_pid")) < SOON, "a new connection"
    proxy.resume()
    assert await database.fetch_one("own_pid")


@pytest.mark.parametrize("question", [b"version()", b"standard_conforming_strings"])
async def test_a_database_that_goes_silent_while_a_connection_is_set_up(
    make_database: MakeDatabase, proxy: Proxy, question: bytes
) -> None:
    database = make_database(**SMALL, database_url=proxy.url)
    proxy.hang_on = question
    assert await seconds_until(Unavailable, database.fetch_one("own_pid")) < SOON
    proxy.resume()
    assert await database.fetch_one("own_pid")


@pytest.mark.usefixtures("nothing_is_kept")
async def test_a_database_that_went_silent_while_a_connection_idled(
    make_database: MakeDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_database(**SMALL, database_url=proxy.url)
    await database.fetch_one("own_pid")
    monkeypatch.setattr(module, "_IDLE_SECONDS_BEFORE_PING", 0.0)
    proxy.pause()
    assert await seconds_until(Unavailable, database.fetch_one("own_pid")) < SOON
    proxy.resume()
    assert await database.fetch_one("own_pid")


async def test_an_answer_that_is_lost(make_database: MakeDatabase, proxy: Proxy) -> None:
    """The call was done, and its caller cannot know."""
    database = make_database(**SMALL, database_url=proxy.url)
    proxy.swallow = b"stored"  # the argument: the statement is prepared in a round trip of its own
    await seconds_until(OutcomeUnknown, database.fetch_one("create_topic", "stored"))
    assert await database.fetch_one("resolve_topic", "stored")


# a database that is not there


async def test_a_database_that_is_away(make_database: MakeDatabase, proxy: Proxy, database_url: str) -> None:
    database = make_database(**SMALL, database_url=proxy.url)
    await database.fetch_one("own_pid")
    await proxy.close()
    assert await seconds_until(OutcomeUnknown, database.fetch_one("own_pid")) < SOON
    assert await seconds_until(Unavailable, database.fetch_one("own_pid")) < SOON
    async with Proxy(database_url, proxy.port):
        assert await database.fetch_one("own_pid")


async def test_a_backend_that_is_killed_in_a_call(make_database: MakeDatabase, admin: psycopg.AsyncConnection) -> None:
    database = make_database(**SMALL | {"database_call_timeout_seconds": 20})
    (pid,) = await database.fetch_one("own_pid")
    calling = asyncio.create_task(database.fetch_one("wait", 200.0))
    await until_active(admin, pid)
    await admin.execute("select pg_terminate_backend(%s)", [pid])
    assert await seconds_until(OutcomeUnknown, calling) < SOON
    assert await database.fetch_one("own_pid") != (pid,)


@pytest.mark.usefixtures("nothing_is_kept")
async def test_a_backend_that_is_killed_while_it_idles(
    make_database: MakeDatabase, admin: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_database(**SMALL)
    (pid,) = await database.fetch_one("own_pid")
    await kill(admin, pid)
    await seconds_until(OutcomeUnknown, database.fetch_one("own_pid"))
    (pid,) = await database.fetch_one("own_pid")
    await kill(admin, pid)
    monkeypatch.setattr(module, "_IDLE_SECONDS_BEFORE_PING", 0.0)
    assert await database.fetch_one("own_pid"), "a connection that idled for long is tried first"


@pytest.mark.usefixtures("nothing_is_kept")
async def test_one_dead_connection_tells_of_all(
    make_database: MakeDatabase, admin: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_database(database_pool_size=3, database_max_overflow=0)
    await use_at_once(database, admin)
    pids = {(await row)[0] for row in [database.fetch_one("own_pid") for _ in range(3)]}
    everyone = await pids_of(admin)
    assert len(everyone) == 3
    assert pids < everyone, "the one that was used last comes first"
    for pid in everyone:
        await kill(admin, pid)
    monkeypatch.setattr(module, "_IDLE_SECONDS_BEFORE_PING", 0.0)
    await database.fetch_one("own_pid")
    monkeypatch.undo()
    await use_at_once(database, admin)


@pytest.mark.parametrize("kept_seconds", [0.0, 60.0])
async def test_one_dead_connection_is_enough_to_try_the_others(
    make_database: MakeDatabase, admin: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch, kept_seconds: float
) -> None:
    """Whether they wait in the pool or in front of it."""
    monkeypatch.setattr(module, "_KEPT_SECONDS", kept_seconds)
    database = make_database(database_pool_size=3, database_max_overflow=0)
    await use_at_once(database, admin)
    everyone = await pids_of(admin)
    assert len(everyone) == 3
    for pid in everyone:
        await kill(admin, pid)
    await seconds_until(OutcomeUnknown, database.fetch_one("own_pid"))
    await use_at_once(database, admin)
    assert not await pids_of(admin) & everyone


async def use_at_once(database: Database, admin: psycopg.AsyncConnection, connections: int = 3) -> None:
    """All of them, so that they are open afterwards."""
    await admin.execute("select pg_advisory_lock(1)")
    calls = [asyncio.create_task(database.fetch_one("wait_for_admin")) for _ in range(connections)]
    query = """
        select from pg_stat_activity
        where datname = current_database() and application_name = 'fastpubsub' and wait_event = 'advisory'
    """
    async with asyncio.timeout(SOON):
        while len(await (await admin.execute(query)).fetchall()) < connections:
            pass
    await admin.execute("select pg_advisory_unlock(1)")
    await asyncio.gather(*calls)


async def pids_of(admin: psycopg.AsyncConnection) -> set[int]:
    found = await admin.execute(
        "select pid from pg_stat_activity where application_name = 'fastpubsub' and datname = current_database()"
    )
    return {pid for (pid,) in await found.fetchall()}


async def test_a_server_that_became_read_only_is_left(make_database: MakeDatabase) -> None:
    """After a failover a new connection finds the new primary."""
    database = make_database(**SMALL)
    (pid,) = await database.fetch_one("own_pid")
    await seconds_until(InvalidRequest, database.fetch_one("fail", "FP422"))
    assert await database.fetch_one("own_pid") == (pid,)
    await seconds_until(Unavailable, database.fetch_one("fail", "25006"))
    assert await database.fetch_one("own_pid") != (pid,)


async def test_all_connections_busy(make_database: MakeDatabase, admin: psycopg.AsyncConnection) -> None:
    database = make_database(**SMALL | {"database_call_timeout_seconds": 60, "database_pool_timeout_seconds": 0.3})
    (pid,) = await database.fetch_one("own_pid")
    holding = asyncio.create_task(database.fetch_one("wait", 60.0))
    await until_active(admin, pid)
    assert await seconds_until(Unavailable, database.fetch_one("own_pid")) >= 0.2
    assert not holding.done()
    await admin.execute("select pg_cancel_backend(%s)", [pid])
    await seconds_until(OutcomeUnknown, holding)
    assert await database.fetch_one("own_pid") == (pid,)


async def test_too_many_connections(
    make_settings: MakeSettings, admin: psycopg.AsyncConnection, database_url: str
) -> None:
    name = f"{normalise(database_url).database}_user"
    role = sql.Identifier(name)
    database = Database(make_settings(database_url=normalise(database_url).set(username=name).render_as_string(False)))
    await admin.execute(sql.SQL("create role {} login connection limit 0").format(role))
    await admin.execute(sql.SQL("grant usage on schema fastpubsub to {}").format(role))
    try:
        assert await seconds_until(Unavailable, database.fetch_one("own_pid")) < SOON
        await admin.execute(sql.SQL("alter role {} connection limit 5").format(role))
        assert await database.fetch_one("own_pid")
    finally:
        await database.close()
        await admin.execute(sql.SQL("drop owned by {}").format(role))
        await admin.execute(sql.SQL("drop role {}").format(role))


async def test_a_cancelled_call_gives_its_connection_back(
    make_database: MakeDatabase, admin: psycopg.AsyncConnection
) -> None:
    database = make_database(**SMALL | {"database_call_timeout_seconds": 20})
    (pid,) = await database.fetch_one("own_pid")
    calling = asyncio.create_task(database.fetch_one("wait", 200.0))
    await until_active(admin, pid)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await database.fetch_one("own_pid")


async def test_a_call_that_outlives_the_pool_closes_its_connection(
    make_database: MakeDatabase, admin: psycopg.AsyncConnection
) -> None:
    database = make_database(**SMALL | {"database_call_timeout_seconds": 20})
    (pid,) = await database.fetch_one("own_pid")
    await admin.execute("select pg_advisory_lock(1)")
    calling = asyncio.create_task(database.fetch_one("wait_for_admin"))
    await until_active(admin, pid)
    await database.close()
    assert not calling.done()
    await admin.execute("select pg_advisory_unlock(1)")
    await calling
    gc.collect()  # a connection that was forgotten instead warns, which fails tests
    async with asyncio.timeout(SOON):
        while await (await admin.execute("select from pg_stat_activity where pid = %s", [pid])).fetchall():
            pass


async def test_many_calls_share_one_connection(make_database: MakeDatabase) -> None:
    database = make_database(**SMALL | {"database_pool_timeout_seconds": 20, "database_call_timeout_seconds": 20})
    pids = await asyncio.gather(*[database.fetch_one("own_pid") for _ in range(50)])
    assert len(set(pids)) == 1


async def test_a_connection_goes_back_to_the_pool_when_it_is_not_used(
    make_database: MakeDatabase, admin: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 3.0)
    database = make_database(database_pool_size=3, database_max_overflow=0)
    pool: Any = database._connections._engine.pool
    await use_at_once(database, admin)
    assert pool.checkedin() == 0
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.05)
    async with asyncio.timeout(SOON):
        while pool.checkedin() < 3:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert await database.fetch_one("own_pid")


async def until_active(admin: psycopg.AsyncConnection, pid: int) -> None:
    async with asyncio.timeout(SOON):
        while True:
            found = await admin.execute("select from pg_stat_activity where pid = %s and state = 'active'", [pid])
            if await found.fetchall():
                return


async def kill(admin: psycopg.AsyncConnection, pid: int) -> None:
    """Waits until it is gone."""
    found = await admin.execute("select pg_terminate_backend(%s, 20000)", [pid])
    assert await found.fetchall() == [(True,)]


# pings and prepared statements


@pytest.fixture
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection goes back to the pool at once."""
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)


@pytest.mark.usefixtures("nothing_is_kept")
async def test_a_connection_is_tried_only_after_idling(
    make_database: MakeDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_database(**SMALL, database_url=proxy.url)
    for _ in range(3):
        await database.fetch_one("own_pid")
    assert proxy.sent.count(b"select 1") == 0
    monkeypatch.setattr(module, "_IDLE_SECONDS_BEFORE_PING", 0.0)
    await database.fetch_one("own_pid")
    assert proxy.sent.count(b"select 1") == 1


@pytest.mark.usefixtures("nothing_is_kept")
async def test_no_connection_is_tried_where_the_setting_says_so(
    make_database: MakeDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS_BEFORE_PING", 0.0)
    database = make_database(**SMALL, database_url=proxy.url, database_pool_pre_ping=False)
    for _ in range(3):
        await database.fetch_one("own_pid")
    assert proxy.sent.count(b"select 1") == 0


@pytest.mark.parametrize(("pooler", "expected"), [("none", True), ("transaction", False)])
async def test_prepared_statements(make_database: MakeDatabase, pooler: str, expected: bool) -> None:
    database = make_database(**SMALL, database_pooler=pooler)
    counts = [(await database.fetch_one("prepared"))[0] for _ in range(10)]
    assert any(counts) == expected


async def test_a_call_is_one_statement_in_one_round_trip(make_database: MakeDatabase, proxy: Proxy) -> None:
    """Nothing around it: no begin, no commit, no set."""
    database = make_database(**SMALL, database_url=proxy.url)
    await database.fetch_one("own_pid")
    proxy.sent = b""
    await database.fetch_one("own_pid")
    assert proxy.sent.count(b"S\x00\x00\x00\x04") == 1, "one Sync, which ends a round trip"
    assert not [word for word in (b"BEGIN", b"begin", b"COMMIT", b"ROLLBACK", b"set ") if word in proxy.sent]


# behind pgbouncer


if pgbouncer.PROGRAM is not None:

    async def test_behind_pgbouncer(make_settings: MakeSettings, database_url: str) -> None:
        with pgbouncer.running(database_url, pool_size=2) as url:
            async with harness.opened(make_settings(database_url=url, database_pooler="transaction")) as client:
                async with asyncio.timeout(SOON):
                    while (await client.get("/readiness")).json() != {"status": "ready"}:
                        pass
                await client.post("/topics", json={"id": "t"})
                await client.post("/subscriptions", json={"id": "s", "topic_id": "t", "filter": {"a": [1]}})
                rounds = [one_round(client, n) for n in range(20)]
                assert sorted(await asyncio.gather(*rounds)) == sorted(set(range(20)))
                metrics = (await client.get("/subscriptions/s/metrics")).json()
                assert (metrics["available"], metrics["delivered"], metrics["acked"]) == (0, 0, 20)


async def one_round(client: httpx.AsyncClient, number: int) -> int:
    """Publish, pull one, ack it: what the pulled one says."""
    headers = {"Idempotency-Key": f"{number}"}
    published = await client.post("/topics/t/messages", json=[{"a": 1, "n": number}, {"a": 2}], headers=headers)
    assert published.status_code == 204, published.text
    pulled = await client.get("/subscriptions/s/messages", params={"consumer_id": f"{number}", "batch_size": 1})
    (message,) = pulled.json()["data"]
    acked = await client.post(
        "/subscriptions/s/acks", json=[message["ack_id"]], headers={"Prefer": "return=representation"}
    )
    assert acked.json()["settled"] == [message["ack_id"]]
    return int(message["payload"]["n"])
