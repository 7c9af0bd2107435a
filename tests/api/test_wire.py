"""Bytes that are hardly HTTP: refused, or one answer for one request; never an answer to what was hidden in another."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests import harness
from tests.conftest import StartServer

SECONDS = 30.0
HEAD = b"POST /topics/t/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HIDDEN = b"DELETE /topics/t HTTP/1.1\r\nHost: x\r\n\r\n"
END = b"GET /liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def vectors() -> dict[str, bytes]:
    """What must be refused with 400, or closed without an answer."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n"
    return {
        "both lengths": chunked + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
        "both lengths, the other way": HEAD
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + HIDDEN,
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
        "a negative chunk": chunked + b"\r\n-1\r\n[]\r\n0\r\n\r\n",
        "a chunk that is no number": chunked + b"\r\nzz\r\n[]\r\n0\r\n\r\n",
        "a chunk longer than it says": chunked + b"\r\n1\r\n[]\r\n0\r\n\r\n",
        "a huge chunk": chunked + b"\r\nffffffffffffffffff\r\n[]",
        "a space before the colon": HEAD + b"Content-Length : 2\r\n\r\n[]",
        "a folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
        "no colon": HEAD + b"nonsense\r\n\r\n",
        "no name": HEAD + b": value\r\n\r\n",
        "NUL in a name": HEAD + b"X\x00: y\r\n\r\n",
        "NUL in a value": HEAD + b"X: y\x00\r\nContent-Length: 2\r\n\r\n[]",
        "CR in a value": HEAD + b"X: y\rContent-Length: 50\r\n\r\n[]",
        "a space in the path": b"GET /topics /t HTTP/1.1\r\nHost: x\r\n\r\n",
        "two spaces": b"GET  /topics HTTP/1.1\r\nHost: x\r\n\r\n",
        "no version": b"GET /topics\r\nHost: x\r\n\r\n",
        "version 9": b"GET /topics HTTP/9.9\r\nHost: x\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(range(128)),
        "another protocol": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        "nothing but line ends": b"\r\n" * 200 + b"\x00",
    }


TOLERATED = {"two spaces": b"200", "no version": b"200"}
"""What the parser reads all the same, in the only way that it can be meant."""


def answers(server: harness.Server, *parts: bytes) -> bytes:
    """All of them, until the server closes or says nothing more."""
    host, port = server.base_url.removeprefix("http://").split(":")
    received = b""
    connection = socket.create_connection((host, int(port)), timeout=SECONDS)
    with connection, suppress(ConnectionError, TimeoutError):
        for part in parts:
            connection.sendall(part)
        while data := connection.recv(65536):
            received += data
    return received


@pytest.fixture
def started(server: StartServer) -> Iterator[harness.Server]:
    one = server(api_header_timeout_seconds=1, api_body_timeout_seconds=1, api_keep_alive_seconds=1)
    # No connection is kept: the server may close it at the moment when it is used again.
    httpx.post(f"{one.base_url}/topics", json={"id": "t"}).raise_for_status()
    yield one
    assert httpx.get(f"{one.base_url}/topics/t").status_code == 200, "what was hidden in another request was done"
    assert "Traceback" not in one.output()


def test_malformed_requests_are_refused(started: harness.Server) -> None:
    for name, request in vectors().items():
        answered = answers(started, request + b"\r\n")
        statuses = [part[:3] for part in answered.split(b"HTTP/1.1 ")[1:]]
        assert statuses in ([], [TOLERATED.get(name, b"400")]), (name, answered[:300])
        assert b"fastpubsub/" not in answered


def test_what_was_not_read_is_no_request(started: harness.Server) -> None:
    """A refusal before the body: the rest of it must not be taken for the next request."""
    for refused in (
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        b"PUT /topics/t HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        b"GET /topics HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        HEAD + b"Content-Length: 99999999\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    ):
        answered = answers(started, refused, END)
        statuses = [part[:3] for part in answered.split(b"HTTP/1.1 ")[1:]]
        assert statuses in ([statuses[0], b"200"], [statuses[0]]), (refused[:60], answered[:300])
        assert b"204" not in statuses


def test_a_body_that_is_too_large_is_not_read_to_its_end(started: harness.Server) -> None:
    """Chunked, so that its length is not said: the answer comes while most of it is still to be sent."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answered = answers(started, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 400)
    assert answered.startswith(b"HTTP/1.1 413 ") or answered == b"", answered[:100]


def test_chunk_extensions_and_trailers_are_bounded_by_time(started: harness.Server) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for body in (
        b"2;" + b"x" * 1_000_000 + b"\r\n[]\r\n0\r\n\r\n",
        b"2\r\n[]\r\n0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ):
        answered = answers(started, chunked + body)
        assert answered[:12] in (b"HTTP/1.1 204", b"HTTP/1.1 400", b"HTTP/1.1 431", b""), answered[:100]
