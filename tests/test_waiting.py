"""Consumers that wait, at the real server and over sockets: other processes, clients that leave, shutdown."""

import re
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from tests import harness
from tests.conftest import StartServer

SOON = 60.0
SOONER = 15.0
"""Than those who wait would be answered anyway."""
NEVER = 3600
LISTENING = "select pid from pg_stat_activity where datname = current_database() and query like '%listen_to_servers%'"

Json = dict[str, Any]


@pytest.fixture
def threads() -> Any:
    with ThreadPoolExecutor(120) as pool:
        yield pool


def post(server: harness.Server, path: str, body: Any) -> None:
    httpx.post(f"{server.base_url}{path}", json=body, timeout=SOON).raise_for_status()


def publish(server: harness.Server, *payloads: Json) -> None:
    post(server, "/topics/t/messages", payloads)


def make(server: harness.Server, **settings: Any) -> None:
    post(server, "/topics", {"id": "t"})
    post(server, "/subscriptions", {"id": "s", "topic_id": "t", **settings})


def pull(server: harness.Server, wait: int = 20) -> list[Json]:
    query: dict[str, str | int] = {"consumer_id": "c", "wait_seconds": wait}
    response = httpx.get(f"{server.base_url}/subscriptions/s/messages", params=query, timeout=60)
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


def waiting(server: harness.Server) -> int:
    scraped = httpx.get(f"{server.base_url}/metrics", timeout=SOON).text
    found = re.search(r"^fastpubsub_waiting_consumers (\d+)", scraped, re.MULTILINE)
    assert found is not None
    return int(found[1])


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_waiting(server: harness.Server, count: int) -> None:
    until(lambda: waiting(server) == count)


def listeners(database_url: str) -> list[int]:
    with psycopg.connect(harness.libpq(database_url), autocommit=True) as connection:
        return [pid for (pid,) in connection.execute(LISTENING).fetchall() if pid != connection.info.backend_pid]


@pytest.fixture
def two(server: StartServer, database_url: str) -> tuple[harness.Server, harness.Server]:
    """Of one database; they are woken by what they tell each other, and by nothing else."""
    pair = server(wake_poll_seconds=NEVER), server(wake_poll_seconds=NEVER)
    until(lambda: len(listeners(database_url)) == 2)
    return pair


def test_what_another_process_does_wakes(
    two: tuple[harness.Server, harness.Server], threads: ThreadPoolExecutor
) -> None:
    here, there = two
    make(here, backoff_min_seconds=1)

    def woken_by(act: Callable[[], object]) -> Json:
        pulling: Future[list[Json]] = threads.submit(pull, there)
        until_waiting(there, 1)
        act()
        (message,) = pulling.result(SOON)
        return message

    first = woken_by(lambda: publish(here, {"n": 1}))
    again = woken_by(lambda: post(here, "/subscriptions/s/nacks", [first["ack_id"]]))
    assert (again["id"], again["delivery_attempts"]) == (first["id"], 2)
    post(here, "/subscriptions/s/rejects", {"ids": [again["ack_id"]]})
    revived = woken_by(lambda: post(here, "/subscriptions/s/dlq/reprocess", [first["id"]]))
    assert revived["id"] == first["id"]
    sought = woken_by(lambda: post(here, "/subscriptions/s/seek", {"to": "earliest"}))
    assert sought["id"] == first["id"]


def test_a_process_that_lost_its_listening_connection_listens_again(
    two: tuple[harness.Server, harness.Server], threads: ThreadPoolExecutor, database_url: str
) -> None:
    here, there = two
    make(here)
    pulling = threads.submit(pull, there)
    until_waiting(there, 1)
    before = listeners(database_url)
    with psycopg.connect(harness.libpq(database_url), autocommit=True) as connection:
        for pid in before:
            connection.execute("select pg_terminate_backend(%s)", [pid])
    publish(here, {"n": 1})
    assert [message["payload"] for message in pulling.result(SOON)] == [{"n": 1}]
    until(lambda: len(set(listeners(database_url)) - set(before)) == 2)


def test_behind_a_pooler_nobody_listens_and_the_poll_wakes(
    server: StartServer, threads: ThreadPoolExecutor, database_url: str
) -> None:
    here, there = (server(database_pooler="transaction", wake_poll_seconds=NEVER) for _ in range(2))
    make(here)
    pulling = threads.submit(pull, there)
    until_waiting(there, 1)
    publish(here, {"n": 1})
    assert [message["payload"] for message in pulling.result(SOON)] == [{"n": 1}]
    assert listeners(database_url) == []


def test_who_leaves_while_waiting_holds_nothing(server: StartServer) -> None:
    started = server(wake_poll_seconds=NEVER)
    make(started)
    host, port = started.base_url.removeprefix("http://").split(":")
    request = b"GET /subscriptions/s/messages?consumer_id=gone&wait_seconds=20 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for round_ in range(5):
        connections = [socket.create_connection((host, int(port)), timeout=SOON) for _ in range(20)]
        for connection in connections:
            connection.sendall(request)
        until_waiting(started, 20)
        for connection in connections:
            connection.close()
        publish(started, {"n": round_})  # may meet those that are just leaving
        until_waiting(started, 0)
        (message,) = pull(started, wait=10)
        assert (message["payload"], message["delivery_attempts"]) == ({"n": round_}, 1)
        post(started, "/subscriptions/s/acks", [message["ack_id"]])
    assert started.stop() == 0
    assert "ERROR" not in started.output()
    assert "status=499" in started.output()


def test_who_leaves_at_once_is_not_waited_for(server: StartServer) -> None:
    """The end of the connection comes with the request, before anybody watches for it."""
    started = server(wake_poll_seconds=NEVER)
    make(started)
    host, port = started.base_url.removeprefix("http://").split(":")
    request = b"GET /subscriptions/s/messages?consumer_id=gone&wait_seconds=20 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=SOON) as connection:
            connection.sendall(request)
    until(lambda: started.output().count("status=499") == 20)
    assert waiting(started) == 0
    publish(started, {"n": 1})
    (message,) = pull(started)
    assert (message["payload"], message["delivery_attempts"]) == ({"n": 1}, 1)


def test_shutdown_answers_those_who_wait(server: StartServer, threads: ThreadPoolExecutor) -> None:
    started = server(api_num_workers=2)
    make(started)
    pulls = [threads.submit(pull, started) for _ in range(50)]
    until_waiting(started, 50)
    started.process.send_signal(signal.SIGTERM)
    assert [one.result(SOONER) for one in pulls] == [[]] * 50
    assert started.process.wait(SOON) == 0
    assert "Traceback" not in started.output()
