"""Deliveries that are settled in the transaction of the handler's own work."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from fastpubsub.client import AsyncClient, Client, Delivery, Worker
from fastpubsub.database.urls import normalise
from fastpubsub.testing import InMemoryBus
from fastpubsub.testing.fixtures import memory_bus
from tests import harness, warm
from tests.client.settling_process import BATCH, SETTLED
from tests.harness import libpq
from tests.lasting import Last, Lasting
from tests.pages import ROOT
from tests.striking import Striker

__all__ = ["memory_bus"]

SECONDS = 60.0
ORDERS = 8


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server(outbox_poll_interval_seconds=0.05, lease_expiry_interval_seconds=0.2)


@pytest.fixture
def bus(lasting: Lasting) -> Iterator[Client]:
    with Client(lasting.base_url) as client:
        client.create_topic("orders")
        client.create_topic("billed")
        client.create_subscription(
            "billing",
            "orders",
            backoff_min_seconds=0,
            backoff_max_seconds=0,
            max_delivery_attempts=50,
        )
        client.create_subscription("shipping", "billed")
        with psycopg.connect(libpq(lasting.database_url)) as connection:
            connection.execute("create table bills (order_id int)")
        yield client


def bills(lasting: Lasting) -> list[int]:
    with psycopg.connect(libpq(lasting.database_url)) as connection:
        return [order for (order,) in connection.execute("select order_id from bills order by 1")]


async def work(lasting: Lasting, worker: Worker, bus: Client, acked: int) -> None:
    async with AsyncClient(lasting.base_url) as client, asyncio.timeout(SECONDS):
        task = asyncio.create_task(worker.serve(client))
        while (await client.metrics("billing")).acked < acked:  # noqa: ASYNC110 - it asks the server
            await asyncio.sleep(0.05)
        worker.stop()
        await task


async def test_every_kind_of_session(lasting: Lasting, bus: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "fastpubsub.client")
    url = normalise(lasting.database_url)
    engine, asynchronous = create_engine(url), create_async_engine(url)
    insert = "insert into bills values ({})"

    async def with_psycopg(n: int, delivery: Delivery) -> None:
        with psycopg.connect(libpq(lasting.database_url)) as connection:
            connection.execute(insert.format(n).encode())
            await delivery.ack_in(connection)

    async def with_async_psycopg(n: int, delivery: Delivery) -> None:
        async with await psycopg.AsyncConnection.connect(libpq(lasting.database_url)) as connection:
            await connection.execute(insert.format(n).encode())
            await delivery.ack_in(connection)

    async def with_session(n: int, delivery: Delivery) -> None:
        with Session(engine) as session, session.begin():
            session.execute(text(insert.format(n)))
            delivery.ack_in(session)

    async def with_async_session(n: int, delivery: Delivery) -> None:
        async with AsyncSession(asynchronous) as session, session.begin():
            await session.execute(text(insert.format(n)))
            await delivery.ack_in(session)

    kinds = [with_psycopg, with_async_psycopg, with_session, with_async_session]
    worker = Worker()

    @worker.subscriber("billing", concurrency=4)
    async def bill(payload: dict[str, Any], delivery: Delivery) -> None:
        await kinds[payload["n"] % 4](payload["n"], delivery)

    bus.publish("orders", *({"n": n} for n in range(ORDERS)))
    await work(lasting, worker, bus, ORDERS)
    engine.dispose()
    await asynchronous.dispose()
    assert bills(lasting) == list(range(ORDERS))
    assert caplog.messages == []


async def test_what_fails_before_the_commit_comes_again(lasting: Lasting, bus: Client) -> None:
    worker = Worker()
    attempts: list[int] = []

    @worker.subscriber("billing")
    async def bill(payload: dict[str, Any], delivery: Delivery) -> None:
        attempts.append(delivery.delivery_attempts)
        async with await psycopg.AsyncConnection.connect(libpq(lasting.database_url)) as connection:
            await connection.execute("insert into bills values (1)")
            await delivery.ack_in(connection)
            if len(attempts) == 1:
                raise OSError("the disk is full")

    bus.publish("orders", {"n": 1})
    await work(lasting, worker, bus, 1)
    assert (attempts, bills(lasting)) == ([1, 2], [1])


async def test_nacks_and_rejects(lasting: Lasting, bus: Client) -> None:
    async with AsyncClient(lasting.base_url) as client:
        bus.publish("orders", {"n": 1}, {"n": 2})
        messages = client.messages("billing", prefetch=2)
        async with await psycopg.AsyncConnection.connect(libpq(lasting.database_url)) as connection:
            first = await anext(messages)
            async with first, connection.transaction():
                await first.nack_in(connection, 600)
            second = await anext(messages)
            async with second, connection.transaction():
                await second.reject_in(connection, "no such customer")
            await messages.aclose()
    metrics = bus.metrics("billing")
    assert (metrics.available, metrics.delivered, metrics.acked, metrics.dlq) == (1, 0, 0, 1)
    assert [letter.reason for letter in bus.list_dead_letters("billing")] == ["no such customer"]


async def test_what_is_not_held_any_more_raises(lasting: Lasting, bus: Client) -> None:
    bus.publish("orders", {"n": 1})
    (message,) = bus.pull("billing")
    bus.ack("billing", [message.ack_id])
    engine = create_engine(normalise(lasting.database_url))
    with Session(engine) as session, pytest.raises(DBAPIError) as raised:
        Delivery.model_validate(message.model_dump()).ack_in(session)
    engine.dispose()
    assert "are not held any more" in str(raised.value)


def test_another_object_is_refused() -> None:
    delivery = Delivery(
        id="019c13cb-6d29-7000-8000-040000000001",
        subscription_id="billing",
        payload={},
        delivery_attempts=1,
        created_at="2026-01-31T12:00:00Z",
        ack_id="x",
        lease_expires_at="2026-01-31T12:00:00Z",
        lease_seconds=1,
    )
    with pytest.raises(TypeError, match="a session or a connection of SQLAlchemy or psycopg is needed, not int"):
        delivery.ack_in(1)


WALKS = [
    ("psycopg", "process"),
    ("HTTP", "process"),
    ("HTTP", "connection"),
    pytest.param("psycopg", "connection", marks=pytest.mark.long),
    pytest.param("asynchronous psycopg", "process", marks=pytest.mark.long),
    pytest.param("SQLAlchemy", "process", marks=pytest.mark.long),
    pytest.param("SQLAlchemy", "connection", marks=pytest.mark.long),
    pytest.param("asynchronous SQLAlchemy", "process", marks=pytest.mark.long),
]
LONGEST_WALK = 200


@pytest.mark.parametrize(("way", "victim"), WALKS)
def test_killed_between_every_two_statements(lasting: Lasting, bus: Client, way: str, victim: str) -> None:
    """Before the other side hears a statement, and before the answer is heard, as long as there are any: what the
    others and the last one do is in the end done once.
    """
    with psycopg.connect(libpq(lasting.database_url)) as connection:
        connection.execute("create table done (n int, how text)")
    count = turn = kills = 0
    has_struck = True
    while has_struck:
        turn += 1
        assert turn < LONGEST_WALK
        bus.publish("orders", *({"n": count + n} for n in range(BATCH)))
        count += BATCH
        has_struck, code = consume_until(lasting, way, victim, turn)
        assert code in (0, -signal.SIGKILL if has_struck and victim == "process" else 0)
        kills += code != 0
    # Between begin and commit a batch has a row, a settle and a publish of each message; over HTTP there are two calls.
    least = 4 if way == "HTTP" else 2 * (1 + 3 * BATCH + 1)
    assert turn > least
    assert kills >= (least if victim == "process" else 0)
    expire_leases(lasting, bus)
    database = normalise(lasting.database_url).render_as_string(hide_password=False)
    assert start_consumer(way, "on", lasting.base_url, database).wait(SECONDS) == 0
    assert shipped(lasting, bus, count) == list(range(count))
    metrics, each = bus.metrics("billing"), count // BATCH
    assert (metrics.available, metrics.delivered, metrics.acked, metrics.dlq) == (each, 0, each, each)
    with psycopg.connect(libpq(lasting.database_url)) as connection:
        reasons = connection.execute(
            "select reason, count(*) from fastpubsub.failures where cause = 'nacked' group by 1"
        )
        assert reasons.fetchall() == [("not yet", each)]
        if way != "HTTP":
            rows = connection.execute("select n, how from done order by n, how").fetchall()
            assert rows == [(n, SETTLED[n % BATCH]) for n in range(count)]


def consume_until(lasting: Lasting, way: str, victim: str, turn: int) -> tuple[bool, int]:
    """Of a consumer of one batch, that is ended at this turn of its conversation: whether it had one, and its code."""
    pid: Future[int] = Future()

    def strike() -> None:
        if victim == "process":
            with suppress(ProcessLookupError):  # it has just said goodbye
                os.kill(pid.result(SECONDS), signal.SIGKILL)

    url, database = lasting.base_url, normalise(lasting.database_url)
    with Striker(partial(connect, url if way == "HTTP" else lasting.database_url), turn, strike) as striker:
        if way == "HTTP":
            url = f"http://127.0.0.1:{striker.port}"
        else:
            database = database.set(host="127.0.0.1", port=striker.port, query={"sslmode": "disable"})
        process = start_consumer(way, "once", url, database.render_as_string(hide_password=False))
        try:
            pid.set_result(process.pid)
            code = process.wait(SECONDS)
        finally:
            process.kill()
        return striker.has_struck, code


def start_consumer(*arguments: str) -> warm.Process:
    command = ["-m", "tests.client.settling_process", *arguments]
    return warm.Process(command, cwd=ROOT, env=harness.environment({}), command="python")


def connect(url: str) -> socket.socket:
    """To a server, or to PostgreSQL."""
    target = make_url(url)
    host, port = str(target.query.get("host") or target.host), int(str(target.query.get("port") or target.port or 5432))
    if host.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{host}/.s.PGSQL.{port}")
        return connection
    return socket.create_connection((host, port))


def shipped(lasting: Lasting, bus: Client, last: int) -> list[int]:
    """What was published, but for the last one, which comes from here."""
    with psycopg.connect(libpq(lasting.database_url)) as connection:
        connection.execute("select fastpubsub.publish('billed', json_build_object('n', %s::int))", [last])
    numbers: list[int] = []
    while last not in numbers:
        messages = bus.pull("shipping", batch_size=100, wait_seconds=20)
        if messages:
            bus.ack("shipping", messages)
        numbers += [message.payload["n"] for message in messages]
    numbers.remove(last)
    return sorted(numbers)


def expire_leases(lasting: Lasting, bus: Client) -> None:
    with psycopg.connect(libpq(lasting.database_url)) as connection:
        connection.execute("update fastpubsub.leases set expires_at = clock_timestamp()")
    deadline = time.monotonic() + SECONDS
    while bus.metrics("billing").delivered:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_the_bus_in_memory_settles_at_the_end(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders", max_delivery_attempts=2)
    worker = Worker()
    session = object()

    @worker.subscriber("billing")
    async def bill(payload: dict[str, Any], delivery: Delivery) -> None:
        if payload["n"] == 3:
            await delivery.reject_in(session, "no such customer")
        elif payload["n"] == 2:
            await delivery.nack_in(session, 600)
        else:
            await delivery.ack_in(session)
        if payload["n"] == 1:
            raise OSError("the transaction is rolled back")

    with memory_bus.client() as client:
        client.publish("orders", *({"n": n} for n in range(4)))
        await memory_bus.drain(worker)
        assert [letter.reason for letter in client.list_dead_letters("billing")] == ["no such customer"]
        metrics = client.metrics("billing")
        assert (metrics.available, metrics.acked) == (2, 1)
