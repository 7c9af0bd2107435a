"""A server that says nothing: whoever waits for it is told so after a while, whatever it is that hangs."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from fastpubsub.client import AsyncClient, Client, Worker, requests, waiting
from fastpubsub.client.connections import AsyncConnection, Connection
from fastpubsub.client.errors import ConnectionFailed
from fastpubsub.client.exchange import Policy

PATIENCE = 60.0
TOPIC = b'{"id":"t","created_at":"2026-01-31T12:00:00Z","retention_seconds":null}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(TOPIC), TOPIC)
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\n\r\n"
TOLD = "still waiting for an answer to GET /topics/t, for up to "
WIRES = ["direct", "over httpx"]


class Heard(logging.Handler):
    """What the client logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def until(self, part: str, count: int = 1) -> str:
        """The last of so many lines that have this part."""

        def found() -> list[str]:
            return [line for line in self.lines if part in line][count - 1 :]

        with self._changed:
            lines = self._changed.wait_for(found, PATIENCE)
        assert lines, self.lines
        return lines[0]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.01)
    heard, logger = Heard(), logging.getLogger("fastpubsub.client")
    level = logger.level
    logger.setLevel(logging.INFO)  # which forgets what was not enabled before; setting the attribute would not
    logger.addHandler(heard)
    yield heard
    logger.removeHandler(heard)
    logger.setLevel(level)


class Silent:
    """Accepts connections, and answers none before it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answers: list[bytes] = []
        self._may = threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def answer(self, *answers: bytes) -> None:
        self._answers += answers
        self._may.release(len(answers))

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._speak, args=(self._listener.accept()[0],), daemon=True).start()

    def _speak(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(65536):
                self._may.acquire()
                connection.sendall(self._answers.pop(0))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


@contextmanager
def full() -> Iterator[str]:
    """The address of a server that does not even accept connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as one, socket.socket() as two:
        for connecting in (one, two):
            connecting.setblocking(False)
            connecting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def client(url: str, wire: str) -> Connection:
    return Connection(url, transport=None if wire == "direct" else httpx.HTTPTransport())


def async_client(url: str, wire: str) -> AsyncConnection:
    return AsyncConnection(url, transport=None if wire == "direct" else httpx.AsyncHTTPTransport())


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_says_what_it_waits_for(heard: Heard, silent: Silent, wire: str) -> None:
    def ask() -> None:
        with client(silent.url, wire) as opened:
            assert opened.send(requests.get_topic("t")).id == "t"

    asking = threading.Thread(target=ask)
    asking.start()
    assert heard.until(TOLD).endswith("seconds more: nothing has come yet")
    silent.answer(ANSWER)
    asking.join()
    assert heard.lines[1:] == ["the server has answered GET /topics/t"]


@pytest.mark.parametrize("wire", WIRES)
async def test_an_asynchronous_client_does(heard: Heard, silent: Silent, wire: str) -> None:
    async with async_client(silent.url, wire) as opened:
        asking = asyncio.create_task(opened.send(requests.get_topic("t")))
        assert (await asyncio.to_thread(heard.until, TOLD)).endswith("seconds more: nothing has come yet")
        silent.answer(ANSWER)
        assert (await asking).id == "t"
    assert heard.lines[1:] == ["the server has answered GET /topics/t"]


async def test_a_server_that_does_not_accept(heard: Heard) -> None:
    once = Policy(attempts=1, attempt_timeout=PATIENCE)
    with full() as url, client(url, "direct") as opened:
        asking = asyncio.create_task(asyncio.to_thread(opened.send, requests.get_topic("t"), once))
        await asyncio.to_thread(heard.until, TOLD)
        async with async_client(url, "direct") as opened_too:
            asking_too = asyncio.create_task(opened_too.send(requests.get_topic("t"), once))
            await asyncio.to_thread(heard.until, TOLD, 2)
            asking_too.cancel()
            await asyncio.wait({asking_too})
    with pytest.raises(ConnectionFailed):  # nobody listens there any more
        await asking


async def test_a_pause_that_the_server_asks_for(heard: Heard, silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 2.5)  # the pause is longer, and the answer comes sooner
    silent.answer(BUSY % 3, ANSWER, BUSY % 3, ANSWER)
    with client(silent.url, "direct") as opened:
        await asyncio.to_thread(opened.send, requests.get_topic("t"))
    async with async_client(silent.url, "direct") as opened_too:
        await opened_too.send(requests.get_topic("t"))
    assert [line.rpartition(": ")[2] for line in heard.lines[::2]] == ["the server gave no reason"] * 2
    assert heard.lines[1::2] == ["the server has answered GET /topics/t"] * 2


async def test_a_token(heard: Heard, silent: Silent) -> None:
    async with AsyncClient(silent.url, "id", "secret") as opened:
        asking = asyncio.create_task(opened.get_topic("t"))
        await asyncio.to_thread(heard.until, "still waiting for an answer to POST /oauth/token")
        asking.cancel()
        await asyncio.wait({asking})
    with Client(silent.url, "id", "secret") as opened_too:
        asking_too = threading.Thread(target=_ignore, args=(opened_too,))
        asking_too.start()
        await asyncio.to_thread(heard.until, "/oauth/token", 2)
        silent.answer(*[b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"] * 9)
        await asyncio.to_thread(asking_too.join)


def _ignore(opened: Client) -> None:
    with suppress(Exception):
        opened.get_topic("t")


async def test_a_worker(heard: Heard, silent: Silent) -> None:
    worker = Worker(silent.url)

    @worker.subscriber("s")
    async def handle(message: dict[str, int]) -> None:
        pass

    serving = asyncio.create_task(worker.serve())
    await asyncio.to_thread(heard.until, "still waiting for an answer to GET /subscriptions/s/messages")
    serving.cancel()
    await asyncio.wait({serving})


async def test_what_the_server_takes_on_purpose_is_no_silence(heard: Heard, silent: Silent) -> None:
    with client(silent.url, "direct") as opened:
        pulling = threading.Thread(target=_pull, args=(opened,))
        pulling.start()
        asking = asyncio.create_task(asyncio.to_thread(opened.send, requests.get_topic("t")))
        await asyncio.to_thread(heard.until, TOLD)
        silent.answer(ANSWER, ANSWER)
        await asking
        await asyncio.to_thread(pulling.join)
    assert len(heard.lines) == 2


def _pull(opened: Connection) -> None:
    with suppress(Exception):
        opened.send(requests.pull("s", wait_seconds=20))


async def test_what_was_cancelled_is_not_waited_for(heard: Heard, silent: Silent) -> None:
    async with async_client(silent.url, "direct") as opened:
        kept = []
        for _ in range(2):
            asking = asyncio.create_task(opened.send(requests.get_topic("t")))
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await asking
            kept.append(cancelled)
        assert not opened._watch.look()


async def test_nothing_looks_while_nobody_waits(heard: Heard, silent: Silent) -> None:
    """And again when somebody does, in another event loop, too."""
    silent.answer(*[ANSWER] * 2)
    with client(silent.url, "direct") as opened:
        for _ in range(2):
            await asyncio.to_thread(opened.send, requests.get_topic("t"))
            watch = opened._watch
            assert isinstance(watch, waiting.ThreadWatch)
            if (thread := watch._thread) is not None:
                await asyncio.to_thread(thread.join)
            assert watch._thread is None
    opened_too = async_client(silent.url, "direct")

    async def ask(count: int) -> None:
        asking = asyncio.create_task(opened_too.send(requests.get_topic("t")))
        await asyncio.to_thread(heard.until, TOLD, count)
        asking.cancel()
        await asyncio.wait({asking})

    for count in (1, 2):
        await asyncio.to_thread(asyncio.run, ask(count))


def test_a_child_process_waits_for_nothing_of_its_parent() -> None:
    """Of its parent's threads it only has the objects."""
    watch = waiting.ThreadWatch()
    of_parent, of_child = (waiting.Waiting(requests.get_topic("t"), 0, 0) for _ in range(2))
    watch._waiting.add(of_parent)
    watch._thread = threading.Thread()
    watch.begin(of_child)
    watch.end(of_child)
    thread = watch._thread
    assert thread is not None
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not watch._waiting
