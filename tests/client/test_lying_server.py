"""A server that answers anything at all: every call ends in a `BusError` or a result, and a worker goes on."""

import asyncio
import gzip
import inspect
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from fastpubsub.client import (
    AsyncClient,
    BusError,
    Client,
    ConnectionFailed,
    Policy,
    TopicMessage,
    UnexpectedAnswer,
    Worker,
    pulling,
    requests,
)
from fastpubsub.client.clients import Operation, Operations
from tests.client.conftest import QUICK

SECONDS = 60.0
MAX_BYTES = 1 << 20
ONCE = Policy(attempts=1, max_answer_bytes=MAX_BYTES)
DEEP = b"[" * 200_000


def answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    named = {"content-length": str(len(body)), "connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Because\r\n{lines}\r\n".encode("latin-1") + body


BOMB = gzip.compress(b"[" * (64 << 20), 1)
MESSAGE = {
    "id": "019c13cb-6d29-7000-8000-040000000001",
    "subscription_id": "s",
    "payload": {"n": 1},
    "delivery_attempts": 1,
    "created_at": "2026-01-31T12:00:00Z",
    "ack_id": "019c13cb-6d29-7000-8000-040000000001.5f0c1d9ae2b34c77",
    "lease_expires_at": "2026-01-31T12:01:00Z",
    "lease_seconds": 60,
}


def pulled(**changed: Any) -> bytes:
    return answer(json.dumps({"data": [MESSAGE | changed]}).encode())


TOKEN = {"access_token": "a", "token_type": "Bearer", "expires_in": 1800, "scope": "*"}
LIES = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nconte",
    "half a body": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "lengths that differ": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000,
    "gzip that is junk": answer(b"not gzip", content_encoding="gzip"),
    "gzip that ends early": answer(gzip.compress(b'{"data": []}' * 100)[:-20], content_encoding="gzip"),
    "gzip that is a bomb": answer(BOMB, content_encoding="gzip"),
    "gzip in gzip": answer(gzip.compress(BOMB), content_encoding="gzip, gzip"),
    "brotli": answer(b"\x8b", content_encoding="br"),
    "too large": answer(b" " * (MAX_BYTES + 1)),
    "deep": answer(DEEP),
    "deep, refused": answer(DEEP, 502),
    "no UTF-8": answer(b"\xff\xfe"),
    "half a pair of surrogates": answer(b'{"detail": "\\ud800", "id": "\\udfff"}', 500),
    "a number without end": answer(b'{"detail": ' + b"9" * 10_000 + b"}", 404),
    "a problem of other types": answer(b'{"detail": {}, "errors": [1, null], "request_id": {}}', 422),
    "a list": answer(b"[]", 409),
    "after the last day": answer(b"", 503, retry_after="Fri, 31 Dec 9999 23:59:59 -1200"),
    "before the first day": answer(b"", 429, retry_after="Mon, 01 Jan 0001 00:00:00 +1400"),
    "a date that is none": answer(b"", 503, retry_after="Mon, 99 Foo"),
    "after a billion years": answer(b"", 503, retry_after="9" * 50),
    "digits of others": answer(b"", 503, retry_after="\xb2"),
    "an odd status": answer(b"", 999),
    "moved to nowhere": answer(b"", 307, location="http://[::1"),
    "moved to itself": answer(b"", 308, location="/"),
    "go on": b"HTTP/1.1 100 Continue\r\n\r\n",
    "an odd cookie": answer(b"{}", set_cookie="\xff=;expires=Fri, 31 Dec 9999 23:59:59 -1200;;=;"),
    "an odd charset": answer(b"{}", 500, content_type="application/json; charset=nonsense"),
    "no time zone": pulled(lease_expires_at="2026-01-31T12:01:00"),
    "the first day": pulled(lease_expires_at="0001-01-01T00:00:00+14:00"),
    "a lease without end": pulled(lease_seconds=1e300),
    "a lease that is no number": answer(
        json.dumps({"data": [MESSAGE | {"lease_seconds": float("nan")}]}).encode()
    ),
    "numbers that no decimal is": answer(
        b'{"data": [%b]}' % json.dumps(MESSAGE).encode().replace(b'{"n": 1}', b'{"n": 1e99999999999999999999}')
    ),
    "a token that is none": answer(json.dumps(TOKEN | {"access_token": "\n\u00e9"}).encode(), 201),
    "a token for ever": answer(json.dumps(TOKEN | {"expires_in": 10**400}).encode(), 201),
}  # fmt: skip
ARGUMENTS: dict[str, Any] = {
    "seconds": 10,
    "payloads": {"a": 1},
    "ids": ["019c13cb-6d29-7000-8000-040000000001"],
    "to": "latest",
    "filter": {"a": [1]},
    "which": "old",
    "retention_seconds": 60,
    "transaction": requests.Transaction().ack("x", "019c13cb-6d29-7000-8000-040000000001.5f0c1d9ae2b34c77"),
    "settlement": requests.Settlement().ack("019c13cb-6d29-7000-8000-040000000001"),
}


def calls() -> dict[str, Callable[[Any], Any]]:
    """Every operation of the clients, called with what its parameters need."""

    def call(name: str, build: Callable[..., Any]) -> Callable[[Any], Any]:
        needed = [p for p in inspect.signature(build).parameters.values() if p.default is p.empty]
        args = [ARGUMENTS.get(p.name, "x") for p in needed if p.kind is not p.KEYWORD_ONLY]
        kwargs = {p.name: ARGUMENTS.get(p.name, "x") for p in needed if p.kind is p.KEYWORD_ONLY}
        return lambda client: getattr(client, name)(*args, **kwargs)

    found = {name: one.build for name, one in vars(Operations).items() if isinstance(one, Operation)}
    assert len(found) >= 28
    return {name: call(name, build) for name, build in found.items()}


@asynccontextmanager
async def lying(answers: Iterator[bytes]) -> AsyncIterator[str]:
    """Each request gets the next answer, and the end of the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((h for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), b":0")
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(next(answers))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server, asyncio.timeout(SECONDS):
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def forever(one: bytes) -> Iterator[bytes]:
    while True:
        yield one


async def ends_well(call: Callable[[AsyncClient], Any], client: AsyncClient) -> BusError | None:
    try:
        await call(client)
    except BusError as error:
        str(error)
        return error
    return None


@pytest.mark.parametrize("name", LIES)
async def test_every_operation(name: str) -> None:
    async with lying(forever(LIES[name])) as url, AsyncClient(url, policy=ONCE) as client:
        for call in calls().values():
            await ends_well(call, client)
        with pytest.raises(BusError):
            await client.get_topic("x")


@pytest.mark.parametrize("name", LIES)
async def test_every_operation_that_fetches_a_token(name: str) -> None:
    async with lying(forever(LIES[name])) as url, AsyncClient(url, "id", "secret", policy=ONCE) as client:
        with pytest.raises(BusError):
            await client.get_topic("x")


async def test_the_same_from_threads() -> None:
    def call(url: str) -> None:
        with Client(url, policy=ONCE) as client, pytest.raises(BusError):
            client.get_topic("x")

    for lie in LIES.values():
        async with lying(forever(lie)) as url:
            await asyncio.to_thread(call, url)


async def test_answers_of_our_server_with_a_byte_changed() -> None:
    choose = random.Random(20261128)
    whole = [pulled(), answer(json.dumps(TOKEN).encode(), 201), answer(b'{"ids": ["a"]}', 201), answer(b"", 204)]

    def mutated() -> Iterator[bytes]:
        while True:
            text = bytearray(choose.choice(whole))
            for _ in range(choose.randint(1, 4)):
                text[choose.randrange(len(text))] = choose.randrange(256)
            yield bytes(text)

    policy = Policy(attempts=1, attempt_timeout=0.5, max_answer_bytes=MAX_BYTES)
    async with lying(mutated()) as url, AsyncClient(url, policy=policy) as client:
        for call in list(calls().values()) * 5:
            await ends_well(call, client)


async def test_what_is_said() -> None:
    async def said(name: str) -> BusError:
        async with lying(forever(LIES[name])) as url, AsyncClient(url, policy=ONCE) as client:
            error = await ends_well(lambda client: client.get_topic("x"), client)
            assert error is not None
            return error

    for name in ("gzip that is a bomb", "too large"):
        error = await said(name)
        assert isinstance(error, UnexpectedAnswer)
        assert "more than 1048576 bytes: ask for less at once" in str(error)
    assert "not valid gzip" in str(await said("gzip that is junk"))
    assert len(str(await said("deep, refused"))) < 300
    assert isinstance(await said("half a body"), ConnectionFailed)


async def test_a_publisher_that_gets_too_few_ids() -> None:
    lies = lying(forever(answer(b'{"ids": []}', 201)))
    async with lies as url, AsyncClient(url, policy=ONCE) as client, client.publisher() as publisher:
        with pytest.raises(UnexpectedAnswer, match="1 messages were published, and the answer has 0 ids"):
            await publisher.publish("t", {"n": 1})


async def test_gzip_that_is_right() -> None:
    body = gzip.compress(json.dumps({"data": [MESSAGE]}).encode())
    async with lying(forever(answer(body, content_encoding="gzip"))) as url, AsyncClient(url) as client:
        (message,) = await client.pull("s")
    assert message.payload == {"n": 1}


async def test_a_worker_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "AGAIN", QUICK)
    monkeypatch.setattr(pulling, "LONGEST_SECONDS", 0.01)
    passing = {name: lie for name, lie in LIES.items() if b" 404 " not in lie[:20] and not _refuses(lie)}
    honest, handled = asyncio.Event(), asyncio.Event()

    def answers() -> Iterator[bytes]:
        yield from passing.values()
        honest.set()
        yield from forever(pulled())

    worker = Worker(concurrency=1)

    @worker.subscriber("s")
    async def handle(payload: dict[str, Decimal]) -> None:
        if honest.is_set():
            handled.set()

    async with lying(answers()) as url, AsyncClient(url, policy=ONCE) as client:
        serving = asyncio.create_task(worker.serve(client))
        waiting = asyncio.create_task(handled.wait())
        await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert not serving.done()
        worker.stop(at_once=True)
        await serving


def _refuses(lie: bytes) -> bool:
    """A refusal that no time will change, which ends a worker as it should."""
    status = lie[9:12]
    return status.startswith(b"4") and status != b"429"


STREAMS = {
    "HTML": answer(b"<html>", content_type="text/html"),
    "no message": answer(b"data: {}\n\n", content_type="text/event-stream"),
    "deep": answer(b"data: " + DEEP + b"\n\n", content_type="text/event-stream"),
    "an odd id": answer(b"id: \xff\x01\ndata: 1\n\n", content_type="text/event-stream"),
    "junk": answer(b"junk", content_type="text/event-stream", content_encoding="gzip"),
    "cut": answer(b"data: {", content_type="text/event-stream")[:-1],
}


async def test_following_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "AGAIN", QUICK)
    monkeypatch.setattr(pulling, "LONGEST_SECONDS", 0.01)
    passing = [lie for lie in LIES.values() if not _refuses(lie) and b" 404 " not in lie[:20]]
    one = {"id": MESSAGE["id"], "payload": {"n": 1}, "created_at": MESSAGE["created_at"]}
    good = answer(b"data: " + json.dumps(one).encode() + b"\n\n", content_type="text/event-stream")

    def answers() -> Iterator[bytes]:
        yield from passing
        yield from STREAMS.values()
        yield from forever(good)

    async with lying(answers()) as url, AsyncClient(url, policy=ONCE) as client, aclosing(client.follow("t")) as found:
        message = await anext(found)
    assert isinstance(message, TopicMessage)
    assert message.payload == {"n": 1}


async def test_a_gap_is_told_though_a_heartbeat_comes_between() -> None:
    one = {"id": MESSAGE["id"], "payload": {"n": 1}, "created_at": MESSAGE["created_at"]}
    data = b"data: " + json.dumps(one).encode() + b"\n\n"
    stream = answer(b"event: gap\ndata: {}\n\n:\n\n" + data + b":\n\n" + data, content_type="text/event-stream")
    async with lying(forever(stream)) as url, AsyncClient(url) as client, aclosing(client.follow("t")) as messages:
        assert [(await anext(messages)).missed for _ in range(2)] == [True, False]
