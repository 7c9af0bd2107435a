"""Publishing from SQL to consumers of the real server."""

import os
import signal
import time
from collections.abc import Callable

import httpx
import psycopg
import pytest

from tests.conftest import StartServer
from tests.harness import Server, libpq

PATIENCE = 60.0


def relayed(connection: psycopg.Connection) -> list[int]:
    """Numbers of all messages in their order, once the outbox is empty."""
    deadline = time.monotonic() + PATIENCE
    while connection.execute("select from fastpubsub.outbox limit 1").rowcount and time.monotonic() < deadline:
        pass
    query = "select array_agg((payload ->> 'n')::int order by position) from fastpubsub.messages"
    row = connection.execute(query).fetchone()
    assert row is not None
    return list(row[0])


def pull(server: Server, wanted: int) -> list[int]:
    """Numbers of the messages as they come, each acknowledged."""
    numbers: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while len(numbers) < wanted and time.monotonic() < deadline:
        url = f"{server.base_url}/subscriptions/s"
        messages = httpx.get(f"{url}/messages", params={"consumer_id": "c", "batch_size": 100}).json()["data"]
        if messages:
            httpx.post(f"{url}/acks", json=[message["ack_id"] for message in messages]).raise_for_status()
        numbers += [message["payload"]["n"] for message in messages]
    return numbers


def create(server: Server) -> None:
    httpx.post(f"{server.base_url}/topics", json={"id": "t"}).raise_for_status()
    httpx.post(f"{server.base_url}/subscriptions", json={"id": "s", "topic_id": "t"}).raise_for_status()


def in_order_within_parts(numbers: list[int], count: int) -> None:
    """Each part is one transaction; a relay that takes over may move a later one first."""
    for part in {number // count for number in numbers}:
        of_part = [number for number in numbers if number // count == part]
        assert of_part == sorted(of_part)


Publish = Callable[[int, int], None]


@pytest.fixture
def publish(database_url: str) -> Publish:
    def rows(first: int, count: int) -> None:
        with psycopg.connect(libpq(database_url)) as connection, connection.cursor() as cursor:
            statement = "select fastpubsub.publish('t', json_build_object('n', %s::int))"
            cursor.executemany(statement, [(number,) for number in range(first, first + count)])

    return rows


def test_a_row_and_its_message_come_together_or_not_at_all(
    server: StartServer, database_url: str, publish: Publish
) -> None:
    started = server(api_num_workers=2)
    create(started)
    with psycopg.connect(libpq(database_url)) as connection:
        connection.execute("create table orders (id integer)")
        connection.commit()
        for number, end in enumerate([connection.commit, connection.rollback, connection.commit]):
            connection.execute("insert into orders values (%s)", [number])
            connection.execute("select fastpubsub.publish('t', json_build_object('n', %s::int))", [number])
            end()
        orders = [number for (number,) in connection.execute("select id from orders order by id")]
    # A server that has just begun looks at everything there is, and may move what is new before that.
    assert sorted(pull(started, 2)) == orders == [0, 2]
    publish(10, 5)
    assert pull(started, 5) == [10, 11, 12, 13, 14]


def test_killing_the_server_in_the_middle_loses_and_doubles_nothing(
    server: StartServer, database_url: str, publish: Publish
) -> None:
    started = server()
    create(started)
    count, parts = 1000, 6
    with psycopg.connect(libpq(database_url), autocommit=True) as watching:
        for part in range(parts):
            publish(part * count, count)
            if part % 2 == 0:
                os.killpg(started.process.pid, signal.SIGKILL)
                started.process.wait()
                started.exit_code = 0
                started = server()
        numbers = relayed(watching)
    assert sorted(numbers) == list(range(parts * count))
    in_order_within_parts(numbers, count)


def test_killing_servers_while_they_refuse_loses_and_doubles_nothing(
    server: StartServer, database_url: str, publish: Publish
) -> None:
    """The schema changes between the parts, so what one refuses another one takes."""
    servers = [server(), server()]
    create(servers[0])
    count, parts = 600, 6
    with psycopg.connect(libpq(database_url), autocommit=True) as watching:
        for part in range(parts):
            schema = {"properties": {"n": {"multipleOf": 2 + part % 2}}}
            httpx.patch(f"{servers[0].base_url}/topics/t", json={"schema": schema}).raise_for_status()
            publish(part * count, count)
            killed = servers.pop()
            os.killpg(killed.process.pid, signal.SIGKILL)
            killed.process.wait()
            killed.exit_code = 0
            servers.insert(0, server())
        numbers = relayed(watching)
        query = "select (payload ->> 'n')::int from fastpubsub.refused_messages"
        refused = [number for (number,) in watching.execute(query)]
    assert sorted(numbers + refused) == list(range(parts * count))
    assert all(number % 2 == 0 or number % 3 == 0 for number in numbers)
    assert all(number % 2 or number % 3 for number in refused)
    in_order_within_parts(numbers, count)


def test_two_servers_at_once(server: StartServer, publish: Publish, database_url: str) -> None:
    servers = [server(), server()]
    create(servers[0])
    for part in range(10):
        publish(part * 100, 100)
    with psycopg.connect(libpq(database_url), autocommit=True) as watching:
        numbers = relayed(watching)
    assert sorted(numbers) == list(range(1000))
    in_order_within_parts(numbers, 100)
