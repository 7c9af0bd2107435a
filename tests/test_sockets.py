"""WebSockets of the real server: deliveries and settling over one connection, and what strangers may send."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from fastpubsub.models import UNDELIVERED_AND_DELAYED
from tests import harness
from tests.attacks import KEY
from tests.conftest import Run, StartServer
from tests.lasting import Last, Lasting
from tests.streams import SOON, Json

NEVER = 3600
HELD = "select coalesce(sum(last_position - position + 1), 0)::int from fastpubsub.leases"


WAITING = {"wake_poll_seconds": NEVER, "stream_heartbeat_seconds": 0.2}


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server(**WAITING)


@pytest.fixture
def database_url(lasting: Lasting) -> str:
    """For servers beside the one that lasts."""
    return lasting.database_url


@pytest.fixture
def started(lasting: Lasting) -> Lasting:
    make(lasting)
    return lasting


def post(server: harness.Server, path: str, body: Any, **options: Any) -> httpx.Response:
    return httpx.post(f"{server.base_url}{path}", json=body, timeout=30, **options).raise_for_status()


def make(server: harness.Server, **options: Any) -> None:
    post(server, "/topics", {"id": "t"}, **options)
    post(server, "/subscriptions", {"id": "s", "topic_id": "t", "backoff_min_seconds": 0}, **options)


def publish(server: harness.Server, *payloads: Json) -> None:
    post(server, "/topics/t/messages", payloads)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def address(server: harness.Server, path: str) -> str:
    return server.base_url.replace("http://", "ws://") + path


@contextmanager
def socket(
    server: harness.Server, parameters: str = "consumer_id=c", path: str = "/subscriptions/s/ws", **options: Any
) -> Iterator[ClientConnection]:
    with connect(address(server, f"{path}?{parameters}"), open_timeout=SOON, close_timeout=1, **options) as opened:
        yield opened


def next_frame(opened: ClientConnection) -> Json:
    return dict(json.loads(opened.recv(SOON)))


def send(opened: ClientConnection, kind: str, ids: list[str], **members: Any) -> None:
    opened.send(json.dumps({"type": kind, "ids": ids, **members}))


def ask(opened: ClientConnection, kind: str, ids: list[str], **members: Any) -> Json:
    """The answer; it may come after messages."""
    send(opened, kind, ids, ref="r", **members)
    while (frame := next_frame(opened))["type"] == "message":
        pass
    assert frame.pop("ref") == "r"
    return frame


def test_deliveries_and_settling(started: harness.Server, query: Callable[[str], Any]) -> None:
    with socket(started, "consumer_id=c&max_in_flight=2") as opened:
        publish(started, *[{"n": n} for n in range(4)])
        first, second = next_frame(opened), next_frame(opened)
        assert first.pop("type") == "message"
        assert first.keys() == {
            "id",
            "subscription_id",
            "payload",
            "delivery_attempts",
            "created_at",
            "ack_id",
            "lease_expires_at",
            "lease_seconds",
        }
        assert (first["payload"], first["subscription_id"]) == ({"n": 0}, "s")
        extended = ask(opened, "extend", [first["ack_id"]], extend_seconds=600)
        assert extended == {"type": "settled", "settled": [first["ack_id"]], "gone": [], "stale": []}
        send(opened, "ack", [first["ack_id"]])
        third = next_frame(opened)
        assert third["payload"] == {"n": 2}
        send(opened, "reject", [second["id"]], reason="bad")
        assert next_frame(opened)["payload"] == {"n": 3}
        assert ask(opened, "ack", [first["id"]])["gone"] == [first["id"]]
        send(opened, "nack", [third["ack_id"]], delay_seconds=0)
        again = next_frame(opened)
        assert (again["id"], again["delivery_attempts"]) == (third["id"], 2)
        assert ask(opened, "ack", [third["ack_id"]])["stale"] == [third["ack_id"]]
    letters = httpx.get(f"{started.base_url}/subscriptions/s/dlq").json()["data"]
    assert [(one["payload"], one["reason"]) for one in letters] == [({"n": 1}, "bad")]
    until(lambda: query(HELD) == 0)
    left = httpx.get(f"{started.base_url}/subscriptions/s/messages?consumer_id=c").json()["data"]
    assert {one["payload"]["n"]: one["delivery_attempts"] for one in left} == {2: 3, 3: 2}


def test_what_is_given_back_undelivered_is_not_counted(started: harness.Server) -> None:
    with socket(started) as opened:
        publish(started, {"n": 1})
        first = next_frame(opened)
        both = ask(opened, "nack", [first["ack_id"]], undelivered=True, delay_seconds=0)
        assert (both["type"], both["status"], both["detail"]) == ("error", 422, UNDELIVERED_AND_DELAYED)
        send(opened, "nack", [first["ack_id"]], undelivered=True)
        again = next_frame(opened)
        assert (again["id"], again["delivery_attempts"]) == (first["id"], 1)
        send(opened, "nack", [again["ack_id"]], undelivered=False)
        assert next_frame(opened)["delivery_attempts"] == 2


HOSTILE: list[str | bytes] = [
    "",
    "null",
    "[]",
    "{}",
    '"ack"',
    "{",
    '{"type": "ack"}',
    '{"type": "ack", "ids": "x"}',
    '{"type": "ack", "ids": [1]}',
    '{"type": "ack", "ids": ["x"]}',
    '{"type": "ack", "ids": ["\\ud800"]}',
    '{"type": "ack", "ids": ["\\u0000"]}',
    '{"type": "ack", "ids": [], "more": 1}',
    '{"type": "ack", "ids": [], "ref": 1}',
    '{"type": "ack", "ids": [], "ref": "' + "r" * 129 + '"}',
    '{"type": "ack", "ids": ["' + "x" * 1_000 + '"]}',
    '{"type": "ack", "ids": [' + ",".join(['"x"'] * 2000) + "]}",
    '{"type": "nack", "ids": [], "delay_seconds": -1}',
    '{"type": "nack", "ids": [], "delay_seconds": 1e400}',
    '{"type": "nack", "ids": [], "undelivered": "true"}',
    '{"type": "ack", "ids": [], "undelivered": true}',
    '{"type": "reject", "ids": [], "reason": ""}',
    '{"type": "reject", "ids": ["550e8400-e29b-41d4-a716-446655440000"], "reason": "\\u0000"}',
    '{"type": "extend", "ids": []}',
    '{"type": "extend", "ids": [], "extend_seconds": 0}',
    '{"type": "message", "ids": []}',
    '{"type": null, "ids": []}',
    '{"type": "subscribe"}',
    "[" * 80_000,
    '{"a":' * 10_000,
    b"\x00\xff",
    b'{"type": "ack", "ids": []}',
]


def test_hostile_frames(started: harness.Server) -> None:
    with socket(started) as opened:
        for frame in HOSTILE:
            opened.send(frame)
            answer = next_frame(opened)
            assert answer["type"] == "error", frame
            assert answer["status"] in (413, 422), answer
            assert len(answer["detail"]) < 1000
        publish(started, {"n": 1})
        assert next_frame(opened)["payload"] == {"n": 1}, "it still works"
    assert "ERROR" not in started.output()


def test_a_frame_that_is_too_long_closes_the_connection(started: harness.Server) -> None:
    with socket(started) as opened:
        opened.send(" " * 80_385)
        with pytest.raises(ConnectionClosed) as closed:
            next_frame(opened)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_frames_that_break_the_connection_break_nothing_else(started: harness.Server) -> None:
    for data in (b"\x81\x02\xff\xff", b"\x83\x00", b"\xff" * 50, b"\x81\xff" + b"\xff" * 8):
        with socket(started) as opened, socket(started, "consumer_id=d") as other:
            opened.socket.sendall(data)
            with pytest.raises(ConnectionClosed):
                next_frame(opened)
            publish(started, {"n": 1})
            ask(other, "ack", [next_frame(other)["id"]])
    with socket(started, max_size=None) as opened:
        with suppress(ConnectionClosed):  # it may be cut before all of it is sent
            opened.send("x" * 2_000_000)
        with pytest.raises(ConnectionClosed):
            next_frame(opened)
    started.wait_until_ready()


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("/", "", 404),
        ("/subscriptions/s/stream", "consumer_id=c", 404),
        ("/subscriptions/s/messages", "consumer_id=c", 404),
        ("/subscriptions//ws", "consumer_id=c", 404),
        ("/subscriptions/s%00/ws", "consumer_id=c", 404),
        ("/subscriptions/unknown/ws", "consumer_id=c", 404),
        ("/subscriptions/s/ws", "", 422),
        ("/subscriptions/s/ws", "consumer_id=%00", 422),
        ("/subscriptions/s/ws", "consumer_id=c&max_in_flight=0", 422),
        ("/topics/t/stream", "", 404),
    ],
)
def test_refusals(started: harness.Server, path: str, parameters: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught, socket(started, parameters, path):
        pass
    response = caught.value.response
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.body is not None
    assert json.loads(response.body)["status"] == status
    until(lambda: started.output().count(f" status={status} ") == 1)
    assert "level=ERROR" not in started.output()


def test_it_is_logged_and_counted_once(server: StartServer) -> None:
    started = server()
    make(started)
    with socket(started, "consumer_id=c&access_token=secret"):
        pass
    line = "method=GET path=/subscriptions/{subscription_id}/ws status=101 "
    until(lambda: line in started.output())
    metrics = httpx.get(f"{started.base_url}/metrics").text
    assert 'http_requests_total{method="GET",path="/subscriptions/{subscription_id}/ws",status="101"} 1.0\n' in metrics
    assert started.stop() == 0
    assert started.output().count(line) == 1
    assert "WebSocket" not in started.output()


def test_nothing_secret_is_logged_in_detail(server: StartServer) -> None:
    started = server(log_level="debug")
    make(started)
    headers = {"Authorization": "Bearer canary-header"}
    with socket(started, "consumer_id=c&access_token=canary-query", additional_headers=headers) as opened:
        publish(started, {"n": "canary-payload"})
        next_frame(opened)
    assert started.stop() == 0
    assert "canary" not in started.output()


def test_pages_of_other_servers_are_refused_without_authentication(started: harness.Server) -> None:
    with pytest.raises(InvalidStatus) as caught, socket(started, origin="https://elsewhere.example"):
        pass
    assert caught.value.response.status_code == 403
    with socket(started, origin=started.base_url):
        pass


def test_a_client_that_leaves_gives_back_what_it_has(started: harness.Server, query: Callable[[str], Any]) -> None:
    publish(started, *[{"n": n} for n in range(10)])
    with socket(started) as opened:
        for _ in range(10):
            next_frame(opened)
        assert query(HELD) == 10
        opened.socket.shutdown(2)
    until(lambda: query(HELD) == 0)


def test_shutdown(server: StartServer, query: Callable[[str], Any]) -> None:
    started = server(**WAITING)
    make(started)

    def last(opened: ClientConnection) -> tuple[Json, int | None]:
        frames = [next_frame(opened)]
        try:
            while True:
                frames.append(next_frame(opened))
        except ConnectionClosed as closed:
            return frames[-1], closed.rcvd.code if closed.rcvd else None

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        opened = [stack.enter_context(socket(started)) for _ in range(30)]
        publish(started, *[{"n": n} for n in range(30)])
        started.process.terminate()
        farewell = {"type": "end", "reason": "the server is shutting down; open the stream again"}
        assert list(pool.map(last, opened)) == [(farewell, 1001)] * 30
        assert started.process.wait(SOON) == 0
    assert query(HELD) == 0
    assert "Traceback" not in started.output()


def test_tokens(server: StartServer, run: Run) -> None:
    started = server(auth_enabled=True, auth_secret_key=KEY)
    admin = {"Authorization": f"Bearer {token(started, *client(run, '*'))}"}
    make(started, headers=admin)
    client_id, secret = client(run, "subscriptions:consume:s")
    good, other = token(started, client_id, secret), token(started, *client(run, "subscriptions:consume:x"))

    def bearer(value: str) -> Json:
        return {"additional_headers": {"Authorization": f"Bearer {value}"}}

    def protocols(*names: str) -> Json:
        return {"subprotocols": [Subprotocol(name) for name in names]}

    refused: list[tuple[Json, int]] = [
        ({}, 401),
        (bearer("bad"), 401),
        (protocols("bearer"), 401),
        (protocols("bearer", "bad"), 401),
        (bearer(other), 403),
        (protocols("bearer", other), 403),
    ]
    for options, status in refused:
        with pytest.raises(InvalidStatus) as caught, socket(started, **options):
            pass
        assert caught.value.response.status_code == status
        assert "www-authenticate" in caught.value.response.headers
    with (
        socket(started, **bearer(good)) as first,
        socket(started, origin="https://elsewhere.example", **protocols("bearer", good)) as second,
        socket(started, f"consumer_id=c&access_token={good}") as third,
    ):
        assert second.subprotocol == "bearer"
        httpx.delete(f"{started.base_url}/clients/{client_id}", headers=admin).raise_for_status()
        for opened in (first, second, third):
            assert "revoked" in next_frame(opened)["reason"]
    assert good not in started.output()


def client(run: Run, scopes: str) -> tuple[str, str]:
    created = run("create_client", "name", scopes, "true").stdout.split()
    return created[0].removeprefix("client_id="), created[1].removeprefix("client_secret=")


def token(server: harness.Server, client_id: str, secret: str) -> str:
    answer = post(server, "/oauth/token", {"client_id": client_id, "client_secret": secret})
    return str(answer.json()["access_token"])
