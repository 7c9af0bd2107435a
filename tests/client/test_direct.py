"""Connections of our own: what is used again, what is closed, and what goes over httpx instead."""

import asyncio
import gc
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fastpubsub.client import AsyncClient, Client, ConnectionFailed, Policy, TooLarge, direct, requests
from tests.client.test_lying_server import answer

SECONDS = 60.0
ONCE = Policy(attempts=1)
NOT_FOUND = answer(b"{}", 404, connection="keep-alive")
Ask = Callable[[str, Policy], Awaitable[None]]


async def with_tasks(url: str, policy: Policy) -> None:
    async with AsyncClient(url, policy=policy) as client:
        for _ in range(2):
            await client.get_topic("t")


async def with_threads(url: str, policy: Policy) -> None:
    def ask() -> None:
        with Client(url, policy=policy) as client:
            for _ in range(2):
                client.get_topic("t")

    await asyncio.to_thread(ask)


both = pytest.mark.parametrize("ask", [with_tasks, with_threads])
TOPIC = answer(b'{"id":"t","created_at":"2026-01-31T12:00:00Z","retention_seconds":null}', connection="keep-alive")


class Server:
    """Answers each request with the next of `answers`; an empty one is none at all."""

    def __init__(self, *answers: bytes, hang_up_after: int | None = None) -> None:
        self.answers = list(answers)
        self.hang_up_after = hang_up_after
        self.heads: list[bytes] = []
        self.connections = 0
        self.asked: asyncio.Queue[None] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.closed = asyncio.Queue[None]()
        self._tasks: set[asyncio.Task[None] | None] = set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            for _ in range(self.hang_up_after or 1000):
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                self.asked.put_nowait(None)
                writer.write(self.answers.pop(0))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            self.ended.set()
        finally:
            writer.close()
            self.closed.put_nowait(None)

    def hang_up(self) -> None:
        for task in self._tasks:
            if task is not None:
                task.cancel()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", ssl=tls)
        async with server, asyncio.timeout(SECONDS):
            scheme = "http" if tls is None else "https"
            self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self
            self.hang_up()
            await asyncio.wait([task for task in self._tasks if task is not None])


@both
async def test_a_connection_carries_one_request_after_the_other(ask: Ask) -> None:
    async with Server(TOPIC, TOPIC).running() as server:
        await ask(server.url, ONCE)
        assert (server.connections, len(server.heads)) == (1, 2)


@both
@pytest.mark.parametrize(
    "first",
    [
        answer(b'{"id":"t","created_at":"2026-01-31T12:00:00Z","retention_seconds":null}'),  # it says that it closes
        TOPIC + NOT_FOUND,  # it has answered what nobody has asked
        TOPIC + b"\0",
    ],
)
async def test_a_connection_that_must_not_be_used_again(ask: Ask, first: bytes) -> None:
    async with Server(first, TOPIC).running() as server:
        await ask(server.url, ONCE)
        assert (server.connections, len(server.heads)) == (2, 2)


@both
async def test_what_was_idle_for_too_long_is_closed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "IDLE_SECONDS", 0.0)
    async with Server(TOPIC, TOPIC).running() as server:
        await ask(server.url, ONCE)
        assert (server.connections, len(server.heads)) == (2, 2)


async def test_a_connection_that_the_server_has_closed_meanwhile() -> None:
    """Nothing is sent on it, so nothing has to be repeated."""
    async with Server(TOPIC, TOPIC, TOPIC, TOPIC, hang_up_after=1).running() as server:
        async with AsyncClient(server.url, policy=ONCE) as client:
            await client.get_topic("t")
            await server.closed.get()
            await asyncio.sleep(0.05)  # the end of a connection comes without being asked for
            await client.get_topic("t")
        with Client(server.url, policy=ONCE) as threads:
            await server.closed.get()
            await asyncio.to_thread(threads.get_topic, "t")
            await server.closed.get()
            await asyncio.sleep(0.05)
            await asyncio.to_thread(threads.get_topic, "t")
        assert server.connections == 4


@both
async def test_a_server_that_does_not_answer(ask: Ask) -> None:
    async with Server(b"").running() as server:
        with pytest.raises(ConnectionFailed, match="ReadTimeout"):
            await ask(server.url, Policy(attempts=1, attempt_timeout=1))
        await server.ended.wait()


@both
async def test_a_server_that_answers_a_byte_now_and_then(ask: Ask) -> None:
    """An attempt ends at its time, whatever comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\na: ")
        try:
            while True:
                writer.write(b"b")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()
            ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server, asyncio.timeout(SECONDS):
        with pytest.raises(ConnectionFailed, match="ReadTimeout"):
            await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Policy(attempts=1, attempt_timeout=1))
        await ended.wait()


async def test_a_cancelled_call_takes_the_connection_along() -> None:
    async with Server(b"", TOPIC).running() as server, AsyncClient(server.url, policy=ONCE) as client:
        asking = asyncio.create_task(client.get_topic("t"))
        await server.asked.get()
        asking.cancel()
        await asyncio.wait([asking])
        await server.ended.wait()
        await client.get_topic("t")
        assert server.connections == 2


async def test_there_are_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "MAX_CONNECTIONS", 2)
    async with Server(b"", b"", b"").running() as server, AsyncClient(server.url, policy=ONCE) as client:
        waiting = [asyncio.create_task(client.get_topic("t")) for _ in range(2)]
        for _ in waiting:
            await server.asked.get()
        short = Policy(attempts=1, attempt_timeout=0.1)
        with pytest.raises(ConnectionFailed, match="PoolTimeout: all 2 connections are busy"):
            await client.send(requests.get_topic("t"), short)
        server.hang_up()
        await asyncio.wait(waiting)
        assert [type(one.exception()) for one in waiting] == [ConnectionFailed] * 2
        assert server.connections == 2


async def test_threads_wait_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "MAX_CONNECTIONS", 1)
    async with Server(b"").running() as server:
        with Client(server.url, policy=ONCE) as client:
            waiting = asyncio.create_task(asyncio.to_thread(client.get_topic, "t"))
            await server.asked.get()
            short = Policy(attempts=1, attempt_timeout=0.1)
            with pytest.raises(ConnectionFailed, match="PoolTimeout: all 1 connections are busy"):
                await asyncio.to_thread(client.send, requests.get_topic("t"), short)
            server.hang_up()
            await asyncio.wait([waiting])
            assert isinstance(waiting.exception(), ConnectionFailed)


async def test_an_answer_before_the_request_was_read() -> None:
    """As of a server that refuses a body that is too large."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b'{"detail":"too much"}', 413))
        try:
            await writer.drain()
            await is_over.wait()
        finally:
            writer.close()

    is_over = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", limit=1024)
    async with server, asyncio.timeout(SECONDS):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncClient(url, policy=ONCE) as client:
            with pytest.raises(TooLarge, match="too much"):
                await client.publish("t", {"text": "x" * 20_000_000})
        is_over.set()  # from Python 3.12 on, the server waits for its connections


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # with a loop that has ended nothing can be closed
async def test_a_client_in_one_event_loop_after_the_other() -> None:
    async def ask_twice() -> None:
        await client.get_topic("t")
        await client.get_topic("t")

    async with Server(*[TOPIC] * 4).running() as server:
        client = AsyncClient(server.url, policy=ONCE)
        await asyncio.to_thread(asyncio.run, ask_twice())
        await asyncio.to_thread(asyncio.run, ask_twice())
        assert server.connections == 2
        await client.close()
    gc.collect()


async def test_an_event_loop_of_others() -> None:
    async with Server(TOPIC, TOPIC).running() as server:
        await asyncio.to_thread(uvloop.run, with_tasks(server.url, ONCE))
        assert (server.connections, len(server.heads)) == (1, 2)


async def test_a_child_process_does_not_speak_over_the_connections_of_its_parent() -> None:
    def fork() -> int:
        client.get_topic("t")
        child = os.fork()
        if not child:
            client.get_topic("t")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        client.get_topic("t")
        return os.waitstatus_to_exitcode(status)

    async with Server(TOPIC, TOPIC, TOPIC).running() as server:
        with Client(server.url, policy=ONCE) as client:
            assert await asyncio.to_thread(fork) == 0
        assert server.connections == 2


async def test_after_the_end() -> None:
    async with Server(TOPIC, TOPIC).running() as server:
        client, threads = AsyncClient(server.url, policy=ONCE), Client(server.url, policy=ONCE)
        await client.get_topic("t")
        await asyncio.to_thread(threads.get_topic, "t")
        await client.close()
        threads.close()
        with pytest.raises(RuntimeError, match="closed"):
            await client.get_topic("t")
        with pytest.raises(RuntimeError, match="closed"):
            threads.get_topic("t")


@both
async def test_tls_with_a_certificate_of_the_environment(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(_certificate(tmp_path))
    async with Server(TOPIC, TOPIC).running(tls) as server:
        with pytest.raises(ConnectionFailed, match=r"ConnectError: .*CERTIFICATE_VERIFY_FAILED"):
            await ask(server.url, ONCE)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        await ask(server.url, ONCE)
        assert len(server.heads) == 2


@both
async def test_a_proxy_of_the_environment(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(TOPIC, TOPIC).running() as proxy, Server(TOPIC, TOPIC).running() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        await ask("http://bus.example.com", ONCE)
        assert proxy.heads[0].startswith(b"GET http://bus.example.com/topics/t HTTP/1.1\r\n")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await ask(server.url, ONCE)
        assert (len(proxy.heads), len(server.heads)) == (2, 2)


@both
async def test_a_password_in_the_address(ask: Ask) -> None:
    async with Server(TOPIC, TOPIC).running() as server:
        await ask(server.url.replace("//", "//me:secret@"), ONCE)
        assert b"\r\nauthorization: basic bwu6c2vjcmv0\r\n" in server.heads[0].lower()


def test_an_address_without_a_host() -> None:
    for make in (AsyncClient, Client):
        with pytest.raises(ValueError, match="has no host"):
            make("http://:8000")


def _certificate(folder: Path) -> Path:
    """For 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*plain))
    return path
