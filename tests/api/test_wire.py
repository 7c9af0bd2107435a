"""Bytes that are hardly HTTP: refused, or one answer for one request; never an answer to what was hidden in another."""

import itertools
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random

import httpx
import psutil
import psycopg
import pytest
from websockets.frames import Frame, Opcode

from fastpubsub.api.http_protocol import LINGER_BYTES
from tests import harness
from tests.api.good import GOOD, Good
from tests.conftest import StartServer
from tests.lasting import Last

SECONDS = 60.0
HEAD = b"POST /topics/t/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HIDDEN = b"DELETE /topics/t HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOCKET = (
    b"GET /subscriptions/s/ws?consumer_id=c HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
GOOD_HEAD = b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n"
END = b"GET /liveness HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
REFUSED = {
    "both lengths": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "both lengths, the other way": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 50\r\n\r\n[]" + HIDDEN,
    "two equal lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n[]",
    "a list of lengths": HEAD + b"Content-Length: 2, 50\r\n\r\n[]" + HIDDEN,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n[]",
    "a length with a sign": HEAD + b"Content-Length: +2\r\n\r\n[]",
    "a hexadecimal length": HEAD + b"Content-Length: 0x2\r\n\r\n[]",
    "a length of many digits": HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n[]",
    "no digit": HEAD + b"Content-Length: two\r\n\r\n[]",
    "a space in the length": HEAD + b"Content-Length: 1 2\r\n\r\n[]",
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked is not the last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"\r\n-1\r\n[]\r\n0\r\n\r\n",
    "a chunk that is no number": CHUNKED + b"\r\nzz\r\n[]\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"\r\n1\r\n[]\r\n0\r\n\r\n",
    "a huge chunk": CHUNKED + b"\r\nffffffffffffffffff\r\n[]",
    "a space before the colon": HEAD + b"Content-Length : 2\r\n\r\n[]",
    "a folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "no colon": HEAD + b"nonsense\r\n\r\n",
    "no name": HEAD + b": value\r\n\r\n",
    "NUL in a name": HEAD + b"X\x00: y\r\n\r\n",
    "NUL in a value": HEAD + b"X: y\x00\r\nContent-Length: 2\r\n\r\n[]",
    "CR in a value": HEAD + b"X: y\rContent-Length: 50\r\n\r\n[]",
    "a space in the path": b"GET /topics /t HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two spaces": b"GET  /topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no version": b"GET /topics\r\nHost: localhost\r\n\r\n",
    "version 9": b"GET /topics HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(range(128)),
    "another protocol": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "nothing but line ends": b"\r\n" * 200 + b"\x00",
    "no Host": b"GET /topics HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /topics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "two Hosts of a body": HEAD + b"host: y\r\nContent-Length: 2\r\n\r\n[]",
    "two Hosts of a WebSocket": SOCKET + b"Host: y\r\n\r\n",
    "no Host of a WebSocket": SOCKET.replace(b"Host: localhost\r\n", b"") + b"\r\n",
    "a Host that is none": b"GET /topics HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a Host with a path": b"GET /topics HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "a Host with a user": b"GET /topics HTTP/1.1\r\nHost: y@x\r\n\r\n",
    "another Host in the address": b"GET http://y/topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a user in the address": b"GET http://x@y/topics HTTP/1.1\r\nHost: x\r\n\r\n",
    "another scheme": b"GET ftp://x/topics HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path in the address": b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + HIDDEN,
    "compressed and chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "compressed and chunked, on two lines": HEAD
    + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": HEAD + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice, on one line": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked with a control character": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "an empty coding": HEAD + b"Transfer-Encoding:\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "chunked in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length among the trailers": CHUNKED + b"\r\n2\r\n[]\r\n0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
    "lines that end with LF": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n[]",
    "a header that ends with LF": HEAD + b"X: y\nContent-Length: 2\r\n\r\n[]",
    "chunks that end with LF": CHUNKED + b"\r\n2\n[]\n0\n\n",
    "a space behind the size of a chunk": CHUNKED + b"\r\n2 \r\n[]\r\n0\r\n\r\n",
    "LF in the extension of a chunk": CHUNKED + b"\r\n2;a\nb\r\n[]\r\n0\r\n\r\n",
    "a WebSocket that posts": SOCKET.replace(b"GET", b"POST") + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a WebSocket with a long line": SOCKET + b"Cookie: " + b"c" * 9000 + b"\r\n\r\n",
}
"""What must be refused with 400."""

OTHERWISE = {
    "two spaces": b"200",
    "no version": b"200",
    "unknown coding": b"501",
    "compressed and chunked": b"501",
    "compressed and chunked, on two lines": b"501",
    "chunked with a parameter": b"501",
}
"""What the parser reads all the same, in the only way that it can be meant; and codings that nobody knows here."""


def connected(server: harness.Server) -> socket.socket:
    host, port = server.base_url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def answers(server: harness.Server, *parts: bytes, half: bool = False) -> bytes:
    """All of them, until the server closes or says nothing more; `half`: to a client that closes its half."""
    received = b""
    with connected(server) as connection, suppress(ConnectionError, TimeoutError):
        for part in parts:
            connection.sendall(part)
        if half:
            connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    return received


@pytest.fixture
def started(lasting_server: Last) -> Iterator[harness.Server]:
    one = lasting_server(api_header_timeout_seconds=20, api_body_timeout_seconds=20, api_keep_alive_seconds=3)
    # No connection is kept: the server may close it at the moment when it is used again.
    httpx.post(f"{one.base_url}/topics", json={"id": "t"}).raise_for_status()
    yield one
    assert httpx.get(f"{one.base_url}/topics/t").status_code == 200, "what was hidden in another request was done"
    assert "Traceback" not in one.output()


def test_malformed_requests_are_refused(started: harness.Server) -> None:
    wrong = {}
    for name, request in REFUSED.items():
        answered = answers(started, request + b"\r\n")
        if statuses(answered) != [OTHERWISE.get(name, b"400")]:
            wrong[name] = answered[:300]
        assert b"fastpubsub/" not in answered
    assert wrong == {}


def test_what_was_not_read_is_no_request(started: harness.Server) -> None:
    """A refusal before the body: the rest of it must not be taken for the next request."""
    for refused in (
        b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        b"PUT /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        HEAD + b"Content-Length: 99999999\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    ):
        answered = answers(started, refused, END)
        first, *others = statuses(answered)
        assert others in ([b"200"], []), (refused[:60], answered[:300])
        assert first != b"204"


def test_a_body_that_is_too_large_is_not_read_to_its_end(started: harness.Server) -> None:
    """Chunked, so that its length is not said: the answer comes while most of it is still to be sent."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answered = answers(started, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 400)
    assert answered.startswith(b"HTTP/1.1 413 ") or answered == b"", answered[:100]


def test_a_client_that_only_writes_before_it_reads_gets_the_answer(started: harness.Server) -> None:
    """As urllib does it: the answer must survive what the client has still to send."""
    body = b" " * 11_000_000
    chunked = b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 200
    length = b"Content-Length: %d\r\n\r\n" % len(body) + body
    for head, status in (
        (HEAD, b"413"),
        (HEAD.replace(b"1.1", b"1.0"), b"413"),
        (HEAD.replace(b"topics/t/", b"nowhere/"), b"404"),
        (HEAD.replace(b"json", b"xml"), b"415"),
        (HEAD + b"Host: y\r\n", b"400"),
    ):
        for rest in (length, chunked) if b"1.0" not in head else (length,):
            with connected(started) as connection:
                connection.sendall(head + b"Connection: close\r\n" + rest)
                received = b""
                while data := connection.recv(65536):
                    received += data
            assert statuses(received) in ([status], [b"413"]), (head, received[:300])


def test_a_client_that_writes_without_an_end_is_cut(started: harness.Server, lasting_server: Last) -> None:
    length = HEAD + b"Content-Length: 1000000000\r\n\r\n"
    assert LINGER_BYTES < taken(started, length, b" " * 100_000, 200_000_000, SECONDS) < LINGER_BYTES + BUFFERS
    with connected(lasting_server(api_body_timeout_seconds=1)) as connection:
        connection.sendall(length)
        answered = b""
        while data := connection.recv(65536):
            answered += data
        assert statuses(answered) == [b"413"]
        with pytest.raises(ConnectionError):  # after the second in which a body must come
            write_on(connection)


LATER = {
    "two Hosts": GOOD_HEAD + b"Host: localhost\r\n\r\n",
    "no Host": b"GET /liveness HTTP/1.1\r\n\r\n",
    "another Host in the address": b"GET http://y/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", LATER)
def test_each_request_of_a_connection_is_judged(started: harness.Server, name: str) -> None:
    with connected(started) as connection:
        connection.sendall((GOOD_HEAD + b"\r\n") * 2 + LATER[name] + GOOD_HEAD + b"\r\n")
        answered = b""
        while data := connection.recv(65536):
            answered += data
    assert statuses(answered) == [b"200", b"200", b"400"]


def write_on(connection: socket.socket) -> None:
    for _ in range(int(SECONDS / 0.1)):
        connection.sendall(b" ")
        time.sleep(0.1)


def statuses(answered: bytes) -> list[bytes]:
    return [part[:3] for part in answered.split(b"HTTP/1.1 ")[1:]]


def taken(server: harness.Server, start: bytes, piece: bytes, limit: int = 40_000_000, seconds: float = 3.0) -> int:
    """How many bytes of pieces the server takes after the start, to a client that reads nothing.

    It takes no more when it has taken none for so many seconds.
    """
    sent = 0
    with connected(server) as connection, suppress(ConnectionError, TimeoutError):
        connection.settimeout(seconds)
        connection.sendall(start)
        while sent < limit:
            sent += connection.send(piece)
    return sent


FRAMING = {
    "the extension of a chunk": (CHUNKED + b"\r\n2;", b"x" * 100_000),
    "a trailer": (CHUNKED + b"\r\n2\r\n[]\r\n0\r\nX: ", b"x" * 100_000),
    "the name of a trailer": (CHUNKED + b"\r\n2\r\n[]\r\n0\r\n", b"x" * 100_000),
    "many trailers": (CHUNKED + b"\r\n2\r\n[]\r\n0\r\n", b"a: b\r\n" * 10_000),
    "the length of a chunk": (CHUNKED + b"\r\n", b"0" * 100_000),
}
BUFFERS = 16_000_000
"""What both kernels may hold between them."""


@pytest.mark.parametrize("name", FRAMING)
def test_what_frames_a_body_has_the_bounds_of_a_head(started: harness.Server, name: str) -> None:
    assert taken(started, *FRAMING[name], limit=100_000_000) < LINGER_BYTES + BUFFERS


def test_trailers_are_counted_and_dropped(started: harness.Server) -> None:
    body = CHUNKED + b"\r\n2\r\n[]\r\n0\r\n%b\r\n" + END
    trailers = b"Prefer: return=representation\r\nContent-Type: text/plain\r\n"
    assert statuses(answers(started, body % trailers)) == [b"204", b"200"]
    assert statuses(answers(started, body % (b"a: b\r\n" * 100))) == [b"204", b"200"]
    for too_much in (b"a: b\r\n" * 101, b"a: " + b"b" * 33_000 + b"\r\n", b"a: " + b"b" * 500_000 + b"\r\n"):
        assert statuses(answers(started, body % too_much)) in ([b"431"], [])


def test_a_wish_to_upgrade_is_ignored(started: harness.Server) -> None:
    """HttpClient of Java wishes for HTTP/2 by default, and its bodies must not get lost."""
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
    body = b'[{"a": 1}]'
    post = HEAD + wish + b"Content-Length: %d\r\n\r\n" % len(body)
    get = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n" + wish + b"\r\n"
    assert statuses(answers(started, post + body + END)) == [b"204", b"200"]
    assert statuses(answers(started, post, body, get, END)) == [b"204", b"200", b"200"]


AROUND = [
    (GOOD_HEAD + b"\r\n", b"200"),
    (HEAD + b'Content-Length: 10\r\n\r\n[{"a": 1}]', b"204"),
    (CHUNKED + b'\r\n5\r\n[{"a"\r\n5\r\n: 1}]\r\n0\r\nX: y\r\n\r\n', b"204"),
    (HEAD + b"Content-Length: 2\r\n\r\n{]", b"422"),
    (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
]


@pytest.mark.parametrize("seed", range(3))
def test_malformed_requests_after_any_others(started: harness.Server, seed: int) -> None:
    """However they are cut: an answer for each of the others, and one refusal."""
    random = Random(seed)
    for name in sorted(REFUSED.keys() - OTHERWISE.keys()):
        before = random.choices(AROUND, k=random.randint(1, 5))
        data = b"".join(one for one, _ in before) + REFUSED[name] + b"\r\n"
        cuts = sorted(random.sample(range(1, len(data)), 3))
        parts = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]
        answered = answers(started, *parts, half=random.random() < 0.3)
        assert statuses(answered) == [*(status for _, status in before), b"400"], (name, parts)


def test_what_comes_before_is_answered_first(started: harness.Server) -> None:
    """Then what cannot be read is refused as it would be alone, also for a client that has closed its half."""
    first = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for name, follows, expected in (
        ("garbage", b"nonsense\r\n\r\n", [b"200", b"400"]),
        ("garbage after another", first + b"nonsense\r\n\r\n", [b"200", b"200", b"400"]),
        ("a long head", first[:-2] + b"X: " + b"x" * 600_000, [b"200", b"431"]),
        ("two Hosts", first[:-2] + b"Host: y\r\n\r\n", [b"200", b"400"]),
        ("a bad chunk", CHUNKED + b"\r\nzz\r\n", [b"200", b"400"]),
        ("a WebSocket", SOCKET + b"\r\n", [b"200", b"400"]),
        ("another", first + END, [b"200", b"200", b"200"]),
    ):
        for half in (False, True):
            assert statuses(answers(started, first + follows, half=half)) == expected, (name, half)
    *many, last = statuses(answers(started, first * 5000))
    assert 100 <= len(many) <= 102
    assert (set(many), last) == ({b"200"}, b"429")


def test_what_comes_before_is_answered_however_late_the_rest_comes(server: StartServer) -> None:
    """The time for a head or a body begins with the answer before it: until then perhaps nothing of it was read."""
    seconds = 2
    names = ("api_header_timeout_seconds", "api_body_timeout_seconds", "api_keep_alive_seconds")
    started = server(**dict.fromkeys(names, seconds))
    subscription = {"id": "s", "topic_id": "q"}
    for path, made in (("topics", {"id": "t"}), ("topics", {"id": "q"}), ("subscriptions", subscription)):
        httpx.post(f"{started.base_url}/{path}", json=made).raise_for_status()
    pull = b"GET /subscriptions/s/messages?consumer_id=c&batch_size=1&wait_seconds=20 HTTP/1.1\r\nHost: [::1]\r\n\r\n"
    post = HEAD + b"Connection: close\r\nContent-Length: 10\r\n\r\n"
    asked = [
        (END[:20], END[20:], [b"200", b"200"]),
        (post, b'[{"a": 1}]', [b"200", b"204"]),
        (GOOD_HEAD + b"\r\n" + post, b'[{"a": 1}]', [b"200", b"200", b"204"]),
        (END[:20], b"", [b"200"]),
        (post, b"", [b"200"]),
    ]

    def rest(connection: socket.socket, rest: bytes) -> list[bytes]:
        received = connection.recv(65536)
        connection.sendall(rest)
        while data := connection.recv(65536):
            received += data
        connection.close()
        return statuses(received)

    connections = []
    for _ in asked:
        connections.append(connected(started))
        connections[-1].sendall(pull)
    while f"fastpubsub_waiting_consumers {len(asked)}.0\n" not in httpx.get(f"{started.base_url}/metrics").text:
        pass
    for connection, (start, _, _) in zip(connections, asked, strict=True):
        connection.sendall(start)
    time.sleep(seconds + 1)
    with ThreadPoolExecutor(len(asked)) as pool:
        answered = pool.map(rest, connections, [rest for _, rest, _ in asked])
        httpx.post(f"{started.base_url}/topics/q/messages", json=[{}] * len(asked)).raise_for_status()
    assert list(answered) == [expected for _, _, expected in asked]


def request(good: Good, version: str) -> bytes:
    body = b"" if good.body is None else json.dumps(good.body).encode()
    head = [f"{good.method} {good.path}?{good.query} HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "Content-Type: application/json", "", ""]).encode() + body


TABLES = "topics, subscriptions, clients, heads, cursors, messages"


def test_a_client_that_closes_its_half_gets_every_answer(server: StartServer, database_url: str) -> None:
    started = server()
    for path, body in (("/topics", {"id": "t"}), ("/subscriptions", {"id": "s", "topic_id": "t"})):
        httpx.post(started.base_url + path, json=body).raise_for_status()
    with psycopg.connect(harness.libpq(database_url)) as blocker, ThreadPoolExecutor(len(GOOD)) as pool:
        blocker.execute(f"lock table {', '.join(f'fastpubsub.{name}' for name in TABLES.split(', '))}".encode())
        asked = {good.route: pool.submit(answers, started, request(good, "1.1"), half=True) for good in GOOD}
        with psycopg.connect(harness.libpq(database_url), autocommit=True) as observer:
            waiting = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            deadline = time.monotonic() + SECONDS
            while (observer.execute(waiting).fetchone() or (0,)) < (3,):
                assert time.monotonic() < deadline
        blocker.rollback()
    for route, answered in asked.items():
        assert len(statuses(answered.result())) == 1, (route, answered.result())


def test_a_client_that_closes_its_half_in_the_middle_gets_none(started: harness.Server) -> None:
    assert answers(started, HEAD + b"Content-Length: 10\r\n\r\n[{}", half=True) == b""
    assert answers(started, HEAD, half=True) == b""
    assert statuses(answers(started, b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, half=True)) == [b"200"] * 3


def test_http_1_0_has_no_chunks(started: harness.Server) -> None:
    for good in GOOD:
        head, _, body = answers(started, request(good, "1.0")).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head, good.route
        assert b"connection: close" in head, good.route
        length = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
        assert not length or int(length[0][16:]) == len(body), good.route
    with connected(started) as connection:
        connection.sendall(b"GET /topics/t/stream HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
        received = b""
        while b"\n\n" not in received.partition(b"\r\n\r\n")[2]:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert body.startswith(b"retry: ")


def test_pings_of_a_client_that_reads_nothing(server: StartServer) -> None:
    started = server()
    for path, body in (("/topics", {"id": "t"}), ("/subscriptions", {"id": "s", "topic_id": "t"})):
        httpx.post(started.base_url + path, json=body).raise_for_status()
    (worker,) = psutil.Process(started.process.pid).children()
    before = worker.memory_info().rss
    ping = Frame(Opcode.PING, b"x" * 100).serialize(mask=True)
    assert taken(started, SOCKET + b"\r\n", ping * 1000) < BUFFERS
    assert worker.memory_info().rss - before < BUFFERS


def test_a_message_in_very_many_pieces(started: harness.Server) -> None:
    httpx.post(f"{started.base_url}/subscriptions", json={"id": "s", "topic_id": "t"}).raise_for_status()
    pieces = Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
    pieces += Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 2000
    with connected(started) as connection:
        connection.sendall(SOCKET + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
        connection.sendall(pieces)
        received = b""
        while data := connection.recv(65536):
            received += data
    assert b"too many fragments" in received
    assert b"fragments" not in answers(started, SOCKET + b"\r\n" + pieces), "there is no WebSocket yet"
