"""Streams of the real server, over sockets."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests import harness
from tests.attacks import KEY
from tests.conftest import Run, StartServer
from tests.lasting import Last, Lasting
from tests.streams import SOON, Events, Json, stream, tail

NEVER = 3600
LONG_GRACE = {"api_shutdown_grace_seconds": 3600}
"""What requests in flight are given at most; streams take none of it, however slow the machine is."""
HELD = "select coalesce(sum(last_position - position + 1), 0)::int from fastpubsub.leases"
AUTHENTICATED = {"auth_enabled": True, "auth_secret_key": KEY}


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    """Nothing is found by polling."""
    return lasting_server(wake_poll_seconds=NEVER, stream_heartbeat_seconds=0.2)


@pytest.fixture
def database_url(lasting: Lasting) -> str:
    """For servers of other settings beside the one that lasts."""
    return lasting.database_url


@pytest.fixture
def started(lasting: Lasting) -> harness.Server:
    make(lasting)
    return lasting


def post(server: harness.Server, path: str, body: Any, **options: Any) -> httpx.Response:
    return httpx.post(f"{server.base_url}{path}", json=body, timeout=30, **options).raise_for_status()


def make(server: harness.Server, **settings: Any) -> None:
    post(server, "/topics", {"id": "t"})
    post(server, "/subscriptions", {"id": "s", "topic_id": "t", "backoff_min_seconds": 0, **settings})


def publish(server: harness.Server, *payloads: Json) -> list[str]:
    headers = {"Prefer": "return=representation"}
    return list(post(server, "/topics/t/messages", payloads, headers=headers).json()["ids"])


def numbers(count: int, start: int = 0) -> list[Json]:
    return [{"n": n} for n in range(start, start + count)]


def payloads(messages: list[Json]) -> list[Json]:
    return [message["payload"] for message in messages]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# topics


def test_a_tail_starts_now(started: harness.Server) -> None:
    publish(started, {"n": 0})
    with tail(started) as first, tail(started) as second:
        ids = publish(started, *numbers(3, 1))
        for events in (first, second):
            messages = events.messages(3)
            assert payloads(messages) == numbers(3, 1)
            assert [message["id"] for message in messages] == ids
            assert messages[0].keys() == {"id", "payload", "created_at"}
    assert httpx.get(f"{started.base_url}/subscriptions/s/metrics").json()["available"] == 4, "a tail takes nothing"


def test_a_tail_goes_on_after_the_last_event(started: harness.Server) -> None:
    ids = publish(started, *numbers(5))
    with tail(started, headers={"Last-Event-ID": ids[1]}) as late, tail(started) as live:
        assert payloads(late.messages(3)) == numbers(3, 2)
        publish(started, {"n": 5})
        assert late.message()["payload"] == live.message()["payload"] == {"n": 5}


def test_a_tail_with_the_recent_messages(started: harness.Server, query: Callable[[str], Any]) -> None:
    with tail(started, recent=5) as events:
        ids = publish(started, *numbers(10))
        assert payloads(events.messages(10)) == numbers(10), "of an empty topic there are none"
    with tail(started, recent=3) as late, tail(started, recent=1000) as all_of_it:
        publish(started, {"n": 10})
        assert payloads(late.messages(4)) == numbers(4, 7)
        assert payloads(all_of_it.messages(11)) == numbers(11)
    with tail(started, recent=3, headers={"Last-Event-ID": ids[8]}) as again:
        assert payloads(again.messages(2)) == numbers(2, 9)
    query("delete from fastpubsub.messages where position <= 9 returning 1")
    with tail(started, recent=5) as events:
        assert payloads(events.messages(2)) == numbers(2, 9), "what was deleted before is no gap"
    query("delete from fastpubsub.messages returning 1")
    with tail(started, recent=5) as events:
        publish(started, {"n": 11})
        assert payloads(events.messages(1)) == numbers(1, 11)


def test_a_tail_that_is_lost_before_its_first_message(started: harness.Server) -> None:
    for published in (0, 5):
        publish(started, *numbers(published))
        with tail(started) as events:
            place = events.next_id()
        publish(started, *numbers(3))
        with tail(started, headers={"Last-Event-ID": place}) as again:
            assert payloads(again.messages(3)) == numbers(3)


@pytest.mark.parametrize("recent", ["-1", "1001", "x", "", "1.5", "9" * 5000])
def test_no_number_of_recent_messages(started: harness.Server, recent: str) -> None:
    with tail(started, recent=recent) as events:
        assert events.response.status_code == 422


def test_a_tail_of_much(started: harness.Server) -> None:
    """More than one reading, while more is published."""
    first = publish(started, {"n": 0})[0]
    for start in range(1, 2001, 1000):
        publish(started, *numbers(1000, start))
    with tail(started, headers={"Last-Event-ID": first}) as late:
        publish(started, *numbers(500, 2001))
        assert payloads(late.messages(2500)) == numbers(2500, 1)


def test_attributes_and_ends_of_lines(started: harness.Server) -> None:
    body = b'{"messages": [{"payload": {\n"a":\r\n "x"\r}, "attributes": {"k": "v"}}]}'
    with tail(started) as events, stream(started) as deliveries:
        headers = {"Content-Type": "application/json"}
        httpx.post(f"{started.base_url}/topics/t/messages", content=body, headers=headers).raise_for_status()
        for message in (events.message(), deliveries.message()):
            assert (message["payload"], message["attributes"]) == ({"a": "x"}, {"k": "v"})


def test_what_was_deleted_meanwhile_is_a_gap(started: harness.Server, query: Callable[[str], Any]) -> None:
    ids = publish(started, *numbers(10))
    query("delete from fastpubsub.messages where position <= 5 returning 1")
    with tail(started, headers={"Last-Event-ID": ids[2]}) as events:
        assert events.next().kind == "gap"
        assert payloads(events.messages(5)) == numbers(5, 5)
    with tail(started, headers={"Last-Event-ID": ids[4]}) as events:
        assert payloads(events.messages(5)) == numbers(5, 5)


def test_an_id_of_a_topic_that_had_the_name_before(started: harness.Server) -> None:
    ids = publish(started, {"n": 1})
    httpx.delete(f"{started.base_url}/topics/t").raise_for_status()
    make(started)
    publish(started, {"n": 2})
    with tail(started, headers={"Last-Event-ID": ids[0]}) as events:
        assert events.next().kind == "gap"
        publish(started, {"n": 3})
        assert events.message()["payload"] == {"n": 3}


@pytest.mark.parametrize("value", ["1", "x" * 1000, "00000000-0000-0000-0000-000000000000"])
def test_no_message_id(started: harness.Server, value: str) -> None:
    with tail(started, headers={"Last-Event-ID": value}) as events:
        assert events.response.status_code == 422
    with tail(started, headers={"Last-Event-ID": ""}) as events:
        assert events.response.status_code == 200


def test_an_unknown_topic_and_one_that_is_deleted(started: harness.Server, server: StartServer) -> None:
    with tail(started, "unknown") as events:
        assert events.response.status_code == 404
        assert events.response.json()["detail"] == 'topic "unknown" does not exist'
    polling = server(wake_poll_seconds=0.1)
    with tail(polling) as events:
        httpx.delete(f"{started.base_url}/topics/t").raise_for_status()
        assert events.end() == "the topic was deleted"


def test_a_tail_hears_what_another_process_publishes(started: harness.Server, server: StartServer) -> None:
    other = server(wake_poll_seconds=NEVER)
    with tail(other) as events:
        for number in numbers(20):
            publish(started, number)
            assert events.message()["payload"] == number


def test_a_slow_listener_slows_only_itself(server: StartServer, query: Callable[[str], Any]) -> None:
    started = server(stream_max_buffer_bytes=10_000)
    make(started)
    text = "x" * 10_000
    with raw(started, "/topics/t/stream") as slow, tail(started) as quick:
        for start in range(0, 1000, 100):
            publish(started, *[{"n": n, "text": text} for n in range(start, start + 100)])
            assert [message["payload"]["n"] for message in quick.messages(100)] == list(range(start, start + 100))
        read = b""
        while b'{"n":999,' not in read.replace(b" ", b"")[-30_000:]:
            read += slow.recv(1 << 20)
    assert read.count(b"event: message") == 1000
    assert b"event: gap" not in read


class raw:  # noqa: N801 - used like a function
    """A connection that sends a request and reads only when told."""

    def __init__(self, server: harness.Server, path: str) -> None:
        host, port = server.base_url.removeprefix("http://").split(":")
        self.address = (host, int(port))
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def __enter__(self) -> socket.socket:
        self.connection = socket.socket()
        self.connection.settimeout(SOON)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # so that not much is under way
        self.connection.connect(self.address)
        self.connection.sendall(self.request)
        head = b""
        while b"retry" not in head:
            head += self.connection.recv(1)
        return self.connection

    def __exit__(self, *_: object) -> None:
        self.connection.close()


# subscriptions


def test_deliveries_as_they_come(started: harness.Server) -> None:
    publish(started, {"n": 0})
    with stream(started) as events:
        assert events.message()["payload"] == {"n": 0}
        for number in numbers(10, 1):
            publish(started, number)
            message = events.message()
            assert (message["payload"], message["subscription_id"], message["delivery_attempts"]) == (number, "s", 1)
            settled = post(
                started, "/subscriptions/s/acks", [message["ack_id"]], headers={"Prefer": "return=representation"}
            )
            assert settled.json()["settled"] == [message["ack_id"]]


def test_only_so_many_are_in_flight(started: harness.Server) -> None:
    publish(started, *numbers(100))
    with stream(started, max_in_flight=3) as events:
        messages = events.messages(3)
        for number in range(3, 20):
            assert events.is_quiet()
            verb = ("acks", "nacks?delay_seconds=60", "rejects")[number % 3]
            ids = [messages.pop(0)["ack_id"]]
            post(started, f"/subscriptions/s/{verb}", {"ids": ids} if verb == "rejects" else ids)
            messages.append(events.message())
            assert messages[-1]["payload"] == {"n": number}


def test_a_settle_in_another_process_frees_a_place(started: harness.Server, server: StartServer) -> None:
    other = server()
    publish(started, *numbers(10))
    with stream(started, max_in_flight=1) as events:
        for number in numbers(10):
            message = events.message()
            assert message["payload"] == number
            post(other, "/subscriptions/s/acks", [message["id"]])


def test_a_nack_comes_again(started: harness.Server) -> None:
    publish(started, {"n": 1})
    with stream(started, max_in_flight=1) as events:
        for attempt in range(1, 5):
            message = events.message()
            assert message["delivery_attempts"] == attempt
            post(started, "/subscriptions/s/nacks?delay_seconds=0", [message["ack_id"]])


def test_what_a_stream_holds_goes_back_when_it_leaves(started: harness.Server, query: Callable[[str], Any]) -> None:
    publish(started, *numbers(10))
    with stream(started, consumer="first") as first, stream(started, consumer="second") as second:
        seen = first.messages(10)
        post(started, "/subscriptions/s/acks", [message["ack_id"] for message in seen[:4]])
        assert second.is_quiet()
        first.leave()
        again = second.messages(6)
        assert payloads(again) == numbers(6, 4)
        assert {message["delivery_attempts"] for message in again} == {2}, "the first consumer has seen them"
    until(lambda: query(HELD) == 0)


def test_a_stream_that_is_not_read_holds_up_nobody(started: harness.Server) -> None:
    """What it was given and did not take comes back, without an attempt where no byte of it was sent."""
    text = "x" * 100_000
    with raw(started, "/subscriptions/s/stream?consumer_id=slow&max_in_flight=1000") as slow:
        for start in (0, 90):
            publish(started, *[{"n": n, "text": text} for n in range(start, start + 90)])
        with stream(started, consumer="quick", max_in_flight=1000) as quick:
            got = quick.messages(20)
            slow.close()
            while len({message["payload"]["n"] for message in got}) < 180:
                got.append(quick.message())
    assert {message["delivery_attempts"] for message in got} == {1, 2}


def test_streams_share(started: harness.Server) -> None:
    with stream(started, consumer="a") as first, stream(started, consumer="b") as second:
        publish(started, *numbers(50))
        got = payloads(first.messages(25)) + payloads(second.messages(25))
        assert sorted(one["n"] for one in got) == list(range(50))


def test_a_deleted_subscription_ends_its_streams(started: harness.Server, server: StartServer) -> None:
    with stream(started, "unknown") as events:
        assert events.response.status_code == 404
    polling = server(wake_poll_seconds=0.1)
    with stream(polling) as events:
        httpx.delete(f"{started.base_url}/subscriptions/s").raise_for_status()
        assert events.end() == 'subscription "s" does not exist'


@pytest.mark.parametrize("parameters", [{}, {"max_in_flight": 0}, {"max_in_flight": 1001}, {"max_in_flight": "x"}])
def test_parameters_that_cannot_be(started: harness.Server, parameters: dict[str, Any]) -> None:
    query: dict[str, Any] = {"consumer_id": "c", **parameters} if parameters else {}
    assert httpx.get(f"{started.base_url}/subscriptions/s/stream", params=query).status_code == 422


def test_a_stream_of_a_topic_with_a_filter(started: harness.Server) -> None:
    def messages(*of: Json) -> Json:
        return {"messages": [{"payload": {"n": 1}, "attributes": one} for one in of]}

    url = f"{started.base_url}/topics/t/messages"
    query = {"filter": '{"n": [{"numeric": [">", 0.5]}], "$attributes": {"user": ["42"]}}'}
    with tail(started, **query) as events:
        httpx.post(url, json=messages({"user": "7"}, {"user": "42"}, {"user": "421"}))
        assert events.message()["attributes"] == {"user": "42"}
    for wrong in (
        "",
        "{",
        "[]",
        "0",
        "false",
        '""',
        "[1]",
        '{"n": 1}',
        '{"n": [NaN]}',
        '{"n": [1], "n": [2]}',
        "[" * 4000,
        '{"n": ["\\ud800"]',
    ):
        refused = httpx.get(f"{started.base_url}/topics/t/stream", params={"filter": wrong})
        assert (wrong, refused.status_code) == (wrong, 422)
        assert "filter" in refused.json()["detail"]


# all streams


def test_heartbeats(started: harness.Server) -> None:
    with tail(started) as quiet, stream(started) as also_quiet:
        until(lambda: quiet.comments > 2 and also_quiet.comments > 2)


def test_too_many_streams(server: StartServer) -> None:
    started = server(stream_max_open=2)
    make(started)
    with stream(started) as first, tail(started):
        refused = httpx.get(f"{started.base_url}/topics/t/stream")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        first.leave()
        until(lambda: opens(started))


def opens(server: harness.Server) -> bool:
    with tail(server) as events:
        return events.response.status_code == httpx.codes.OK


def test_shutdown_ends_a_hundred_streams(server: StartServer, query: Callable[[str], Any]) -> None:
    started = server(api_num_workers=2, **LONG_GRACE)
    make(started)
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        opened = [stack.enter_context(tail(started)) for _ in range(50)]
        opened += [stack.enter_context(stream(started)) for _ in range(50)]
        stack.enter_context(raw(started, "/topics/t/stream"))  # one that does not read
        publish(started, *numbers(100))
        for events in opened[:50]:
            events.messages(100)
        started.process.terminate()
        assert set(pool.map(Events.end, opened)) == {"the server is shutting down; open the stream again"}
        assert started.process.wait(SOON) == 0
    assert query(HELD) == 0
    assert "Traceback" not in started.output()


def test_a_client_that_takes_nothing_does_not_hold_up_the_shutdown(server: StartServer) -> None:
    started = server(wake_poll_seconds=NEVER, **LONG_GRACE)
    make(started)
    text = "x" * 1_000_000
    with raw(started, "/topics/t/stream"), raw(started, "/subscriptions/s/stream?consumer_id=c"):
        for _ in range(2):
            publish(started, *[{"text": text} for _ in range(8)])
        started.process.terminate()
        assert started.process.wait(SOON) == 0
    assert "Traceback" not in started.output()


def test_tokens(server: StartServer, run: Run) -> None:
    started = server(**AUTHENTICATED)
    admin = client(run, "*")
    bearer = {"Authorization": f"Bearer {token(started, *admin)}"}
    for path, body in (("/topics", {"id": "t"}), ("/subscriptions", {"id": "s", "topic_id": "t"})):
        post(started, path, body, headers=bearer)
    reader = client(run, "topics:consume:t subscriptions:consume:s")
    headers = {"Authorization": f"Bearer {token(started, *reader)}"}
    other = {"Authorization": f"Bearer {token(started, *client(run, 'topics:publish topics:consume:u'))}"}
    for path in ("/topics/t/stream", "/subscriptions/s/stream?consumer_id=c"):
        assert httpx.get(f"{started.base_url}{path}").status_code == 401
        assert httpx.get(f"{started.base_url}{path}", headers=other).status_code == 403
    with tail(started, headers=headers) as events, stream(started, headers=headers) as deliveries:
        post(started, "/topics/t/messages", [{"n": 1}], headers=bearer)
        assert events.message()["payload"] == deliveries.message()["payload"] == {"n": 1}
        httpx.delete(f"{started.base_url}/clients/{reader[0]}", headers=bearer).raise_for_status()
        for one in (events, deliveries):
            assert "revoked" in one.end()


def client(run: Run, scopes: str) -> tuple[str, str]:
    created = run("create_client", "name", scopes, "true").stdout.split()
    return created[0].removeprefix("client_id="), created[1].removeprefix("client_secret=")


def token(server: harness.Server, client_id: str, secret: str) -> str:
    answer = post(server, "/oauth/token", {"client_id": client_id, "client_secret": secret})
    return str(answer.json()["access_token"])
