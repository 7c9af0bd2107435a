"""The connection leads to the address that was looked up and judged, and takes little of what comes back."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from fastpubsub.addresses import parse_networks
from fastpubsub.push.answers import MAX_HEAD_BYTES, MAX_REST_BYTES, PushAnswer
from fastpubsub.push.failures import PushFailed, Refused, Unreachable
from fastpubsub.push.resolver import LOOKING_UP, Resolver
from fastpubsub.push.tls import Tls
from fastpubsub.push.wire import Origin, Wire
from tests.push.endpoint import OK, PATIENCE, Endpoint, Received, Speak, answer

REQUEST = b"POST /hook HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
LOCAL = parse_networks("127.0.0.0/8")
SECONDS = 9.0
SHORT = 1.0


def wire_to(endpoint: Endpoint, find: Callable[[str], Sequence[str]] = lambda _: ["127.0.0.1"]) -> Wire:
    origin = Origin("hook.example", endpoint.port, is_secure=False)
    return Wire(origin, Resolver(LOCAL, find), Tls())


def speaks(*parts: bytes, pause: float = 0.0, resets: bool = False) -> Speak:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if resets:
            writer.transport.abort()

    return speak


def always(said: bytes | Speak) -> Callable[[Received], bytes | Speak]:
    return lambda _: said


async def test_a_name_is_looked_up_once(endpoint: Endpoint) -> None:
    """By a resolver that changes its mind: what it says at a second look would be refused, or worse."""
    said: list[str] = []

    def find(host: str) -> Sequence[str]:
        said.append(host)
        return ["127.0.0.1"] if len(said) == 1 else ["10.0.0.1"]

    wire = wire_to(endpoint, find)
    endpoint.answers = always(answer(200, Connection="close"))
    for _ in range(3):
        assert (await wire.send(REQUEST, SECONDS)).status == 200
    assert said == ["hook.example"]
    assert endpoint.connections == 3


@pytest.mark.parametrize("found", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["8.8.8.8", "::1"], ["::ffff:10.0.0.1"]])
async def test_one_forbidden_address_is_enough(endpoint: Endpoint, found: Sequence[str]) -> None:
    with pytest.raises(Refused):
        await wire_to(endpoint, lambda _: found).send(REQUEST, SECONDS)
    assert endpoint.connections == 0


@pytest.mark.parametrize("found", [[], ["nonsense"]])
async def test_a_name_without_an_address(endpoint: Endpoint, found: Sequence[str]) -> None:
    with pytest.raises(Unreachable):
        await wire_to(endpoint, lambda _: found).send(REQUEST, SECONDS)


async def test_another_address_when_the_first_does_not_answer(endpoint: Endpoint) -> None:
    assert (await wire_to(endpoint, lambda _: ["127.0.0.2", "127.0.0.1"]).send(REQUEST, SECONDS)).status == 200


async def test_a_redirect_is_an_answer(endpoint: Endpoint) -> None:
    endpoint.answers = always(answer(307, Location=endpoint.url))
    assert (await wire_to(endpoint).send(REQUEST, SECONDS)).status == 307
    assert len(endpoint.received) == 1


async def test_proxies_of_the_environment_are_not_asked(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await wire_to(endpoint).send(REQUEST, SECONDS)).status == 200


async def test_a_connection_is_used_again(endpoint: Endpoint) -> None:
    wire = wire_to(endpoint)
    for _ in range(3):
        assert await wire.send(REQUEST, SECONDS) == PushAnswer(200, {}, b"ok")
    assert endpoint.connections == 1
    wire.close()


async def test_a_connection_that_was_closed_meanwhile(endpoint: Endpoint) -> None:
    async def answer_and_close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()

    endpoint.answers = always(answer_and_close)
    wire = wire_to(endpoint)
    for _ in range(3):
        assert (await wire.send(REQUEST, SECONDS)).status == 200
    assert len(endpoint.received) == 3


STATUS_COUNTS = {
    "a body without an end": speaks(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 9000] * 20, pause=0),
    "more than it said": speaks(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"),
    "less than it said": speaks(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok"),
    "a reset in the body": speaks(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok", pause=0.1, resets=True),
    "chunks that are none": speaks(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense"),
    "two lengths of a body": speaks(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
    "a hint before": speaks(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK),
    "a trailer without an end": speaks(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", *[b"a" * 9000] * 20, pause=0
    ),
    "a chunk that is never named": speaks(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=", *[b"a" * 9000] * 20, pause=0
    ),
    "HTTP/1.0": speaks(b"HTTP/1.0 200 OK\r\n\r\nok"),
    "two answers": speaks(OK + b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"),
    "no length": speaks(b"HTTP/1.1 200 OK\r\n\r\nok"),
    "a body byte by byte": speaks(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 99, pause=0.05),
}


@pytest.mark.parametrize("case", STATUS_COUNTS)
async def test_the_status_counts_whatever_follows(endpoint: Endpoint, case: str) -> None:
    endpoint.answers = always(STATUS_COUNTS[case])
    wire = wire_to(endpoint)
    assert (await wire.send(REQUEST, 2 * SHORT)).status == 200
    assert (await wire.send(REQUEST, 2 * SHORT)).status == 200


NO_ANSWERS = {
    "nothing": speaks(),
    "a reset": speaks(resets=True),
    "half of a head": speaks(b"HTTP/1.1 200 OK\r\nContent-"),
    "another protocol": speaks(b"SSH-2.0-OpenSSH\r\n"),
    "an endless head": speaks(b"HTTP/1.1 200 OK\r\n", *[b"X-A: " + b"a" * 999 + b"\r\n"] * 40),
    "an endless line": speaks(b"HTTP/1.1 200 " + b"a" * 2 * MAX_HEAD_BYTES),
    "hints without an end": speaks(*[b"HTTP/1.1 103 X\r\n\r\n"] * MAX_HEAD_BYTES),
    "an upgrade": speaks(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx"),
    "silence": speaks(b"", pause=99.0),
    "a head byte by byte": speaks(*[bytes([byte]) for byte in OK], pause=0.05),
}


@pytest.mark.parametrize("case", NO_ANSWERS)
async def test_without_a_status_it_has_failed(endpoint: Endpoint, case: str) -> None:
    endpoint.answers = always(NO_ANSWERS[case])
    with pytest.raises(PushFailed) as failed:
        await wire_to(endpoint).send(REQUEST, SHORT)
    assert not isinstance(failed.value, Unreachable)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        ("Content-Length: 10000000000\r\n\r\n", 1024),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", 0),
        ("Transfer-Encoding: chunked\r\n\r\n5;a=", 0),
    ],
    ids=["in the body", "in a trailer", "beside a chunk"],
)
async def test_ten_gigabytes_are_not_read(endpoint: Endpoint, head: str, kept: int) -> None:
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\n{head}".encode())
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    endpoint.answers = always(pour)
    assert len((await wire_to(endpoint).send(REQUEST, SECONDS)).start) == kept
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*endpoint.speaking, return_exceptions=True)
    assert sent < 100 * MAX_REST_BYTES


async def test_nobody_listens() -> None:
    async with Endpoint() as gone:
        wire = wire_to(gone)
    with pytest.raises(Unreachable):
        await wire.send(REQUEST, SECONDS)


async def test_a_connection_that_nobody_uses_is_closed(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that endpoints that get nothing cost no connections, even where they keep them open."""
    monkeypatch.setattr("fastpubsub.push.wire.IDLE_SECONDS", 0.01)
    assert (await wire_to(endpoint).send(REQUEST, SECONDS)).status == 200
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*endpoint.speaking)


@pytest.fixture
def patient_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpubsub.push.resolver.LOOK_UP_SECONDS", PATIENCE)


async def test_a_name_is_looked_up_by_one_for_all(endpoint: Endpoint, patient_look_ups: None) -> None:
    said: list[str] = []
    go_on = threading.Event()

    def find(host: str) -> Sequence[str]:
        said.append(host)
        assert go_on.wait(PATIENCE)
        return ["127.0.0.1"]

    wire = wire_to(endpoint, find)
    sending = [asyncio.create_task(wire.send(REQUEST, PATIENCE)) for _ in range(3)]
    await asyncio.sleep(0)
    go_on.set()
    assert [one.status for one in await asyncio.gather(*sending)] == [200] * 3
    assert said == ["hook.example"]


async def test_names_that_nobody_answers_for_hold_up_only_strangers(
    monkeypatch: pytest.MonkeyPatch, patient_look_ups: None
) -> None:
    """What was found before is looked up again at once."""
    monkeypatch.setattr("fastpubsub.push.resolver.REMEMBERED_SECONDS", 0.0)
    monkeypatch.setattr("fastpubsub.push.resolver.MAX_WAITING", 2 * LOOKING_UP)
    go_on = threading.Event()

    def find(host: str) -> Sequence[str]:
        assert host == "known.example" or go_on.wait(PATIENCE)
        return ["127.0.0.1"]

    resolver = Resolver(LOCAL, find)
    known = await resolver.addresses("known.example")
    slow = [asyncio.create_task(resolver.addresses(f"{number}.example")) for number in range(2 * LOOKING_UP)]
    await asyncio.sleep(0)
    assert await resolver.addresses("known.example") == known
    with pytest.raises(Unreachable):
        await resolver.addresses("one.more.example")
    go_on.set()
    assert await asyncio.gather(*slow) == [known] * len(slow)


async def test_a_name_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpubsub.push.resolver.LOOK_UP_SECONDS", 0.01)
    go_on = threading.Event()

    def find(_: str) -> Sequence[str]:
        assert go_on.wait(PATIENCE)
        return ["127.0.0.1"]

    with pytest.raises(Unreachable):
        await Resolver(LOCAL, find).addresses("slow.example")
    go_on.set()


async def test_a_certificate_of_somebody_else(endpoint: Endpoint) -> None:
    """What speaks no TLS at all is the simplest of them."""
    wire = Wire(
        Origin("hook.example", endpoint.port, is_secure=True),
        Resolver(LOCAL, lambda _: ["127.0.0.1"]),
        Tls(),
    )
    with pytest.raises(Unreachable):
        await wire.send(REQUEST, SECONDS)
    assert endpoint.received == []
