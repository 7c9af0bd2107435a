"""An endpoint: a server that keeps the requests that it gets, and answers what a test tells it to."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from tests import harness

KEY = "k" * 32
PATIENCE = 60.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Endpoint:
    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port or harness.free_port()
        self._tls = tls
        self.received: list[Received] = []
        self.answers: Callable[[Received], bytes | Speak] = lambda _: OK
        self.connections = 0
        self._changed = asyncio.Event()
        self.speaking: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self.speaking:
            task.cancel()
        await asyncio.gather(*self.speaking, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=1"

    async def until(self, count: int) -> list[Received]:
        """Once so many requests came."""
        async with asyncio.timeout(PATIENCE):
            while len(self.received) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.received

    async def until_posted(self) -> Received:
        """The first message. Before it an endpoint may be asked several times whether it takes events."""
        async with asyncio.timeout(PATIENCE):
            while not (posted := [one for one in self.received if one.method == "POST"]):
                self._changed.clear()
                await self._changed.wait()
        return posted[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.speaking.add(task)
        try:
            while (request := await _read(reader)) is not None:
                self.received.append(request)
                self._changed.set()
                said = self.answers(request)
                if callable(said):
                    await said(reader, writer)
                    return
                writer.write(said)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # asyncio would log that a connection was cancelled
        finally:
            writer.close()
            self.speaking.discard(task)


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)
