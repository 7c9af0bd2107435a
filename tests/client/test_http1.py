"""Requests as bytes, and answers from bytes, without any socket."""

import gzip
from typing import Any

import httpx
import pytest

from fastpubsub.client import UnexpectedAnswer, requests
from fastpubsub.client.exchange import Answer, Send
from fastpubsub.client.http1 import MAX_HEAD_BYTES, AnswerReader, RequestWriter

MAX_BYTES = 1000
WRITER = RequestWriter(httpx.URL("http://[::1]:8000/prefix/"), {"Accept": "application/json"})


def written(request: requests.Request[Any], token: str | None = None) -> list[str]:
    return WRITER.write(Send(request, token, 1.0)).decode().split("\r\n")


def read(*pieces: bytes) -> tuple[Answer, bool]:
    """The answer, and whether the connection can be used again."""
    reader = AnswerReader(MAX_BYTES)
    assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return reader.answer(), reader.is_reusable


def test_a_request_with_a_body() -> None:
    line, *headers, end, body = written(requests.publish("a b/c", {"n": 1}, idempotency_key="key"), "token")
    assert line == "POST /prefix/topics/a%20b%2Fc/messages HTTP/1.1"
    assert headers == [
        "Host: [::1]:8000",
        "Accept: application/json",
        "Prefer: return=representation",
        "Idempotency-Key: key",
        "Content-Type: application/json",
        "Authorization: Bearer token",
        "Content-Length: 9",
    ]
    assert (end, body) == ("", '[{"n":1}]')


def test_a_request_without_one() -> None:
    line, *headers, end, body = written(requests.pull("s", consumer_id="me & you", wait_seconds=1))
    assert line == "GET /prefix/subscriptions/s/messages?consumer_id=me+%26+you&batch_size=10&wait_seconds=1 HTTP/1.1"
    assert headers == ["Host: [::1]:8000", "Accept: application/json"]
    assert (end, body) == ("", "")


@pytest.mark.parametrize("key", ["a\r\nX: y", "a\nb", "\0", "ä", "\x7f"])
def test_a_header_that_would_be_another_request(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent as a header"):
        written(requests.publish("t", {}, idempotency_key=key))


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWER = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nRetry-After: 1\r\n\r\n{}"


def test_an_answer_byte_by_byte() -> None:
    answer, is_reusable = read(*(ANSWER[place : place + 1] for place in range(len(ANSWER))))
    assert (answer.status, answer.content, answer.headers["retry-after"]) == (201, b"{}", "1")
    assert is_reusable


@pytest.mark.parametrize(
    ("whole", "content", "is_reusable"),
    [
        (b"HTTP/1.1 204 No\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", b"{}", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"{}", False),
        (CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\nretry-after: 9\r\n\r\n", b"{}", True),
        (b"HTTP/1.1 100 Continue\r\nretry-after: 9\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"{}", True),
        (ANSWER.replace(b"Retry-After: 1\r\n", b"") * 2, b"{}", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}junk", b"{}", False),
    ],
)  # fmt: skip
def test_where_an_answer_ends(whole: bytes, content: bytes, is_reusable: bool) -> None:
    answer, reusable = read(whole)
    assert (answer.content, reusable) == (content, is_reusable)
    assert "retry-after" not in answer.headers  # of a trailer, or of the answer before


def test_an_answer_that_ends_with_its_connection() -> None:
    reader = AnswerReader(MAX_BYTES)
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\n{}")
    reader.end()
    assert (reader.answer().content, reader.is_reusable) == (b"{}", False)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"])
def test_an_answer_that_ends_early(sent: bytes) -> None:
    reader = AnswerReader(MAX_BYTES)
    assert not reader.feed(sent)
    with pytest.raises(httpx.RemoteProtocolError, match="the server closed the connection"):
        reader.end()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n c\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ],
)
def test_what_is_no_answer(head: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="not HTTP"):
        AnswerReader(MAX_BYTES).feed(head)


@pytest.mark.parametrize("endless", [b"a: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_head_is_bounded(endless: bytes) -> None:
    reader = AnswerReader(MAX_BYTES)
    reader.feed(endless if endless.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n" + endless)
    with pytest.raises(httpx.RemoteProtocolError, match=f"more than {MAX_HEAD_BYTES} bytes"):
        reader.feed(endless * (MAX_HEAD_BYTES // len(endless)))


def test_a_body_is_bounded() -> None:
    body = gzip.compress(b"a" * (MAX_BYTES + 1))
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    with pytest.raises(UnexpectedAnswer, match=f"more than {MAX_BYTES} bytes"):
        AnswerReader(MAX_BYTES).feed(head + body)
