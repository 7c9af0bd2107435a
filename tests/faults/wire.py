"""HTTP over a socket of our own: what a fault did to a request must be seen, and a client library would hide it."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

ANSWER_SECONDS = 40.0
PAUSE_SECONDS = 0.05
Address = tuple[str, int]


class NotSentError(Exception):
    """Nobody was there: surely nothing was done."""


class NoAnswerError(Exception):
    """The request was sent, at least in part, and no whole answer came."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def retry_after(self) -> int:
        value = self.headers.get("retry-after", "")
        return int(value) if value.isdecimal() else 0


def request_bytes(method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
    given = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class Wire:
    """One connection, kept as long as the address stays the same and nothing goes wrong; one request at a time."""

    def __init__(self, address: Callable[[], Address]) -> None:
        self._address = address
        self._connected_to: Address | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        await self._connect()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._writer.write(request_bytes(method, path, body, headers))
                await self._writer.drain()
                return await self._answer()
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise NoAnswerError(f"{method} {path}: {error!r}") from error
        except BaseException:
            self.close()
            raise

    async def _connect(self) -> None:
        address = self._address()
        if self._connected_to == address and not self._reader.at_eof():
            return
        self.close()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._reader, self._writer = await asyncio.open_connection(*address)
        except (OSError, TimeoutError) as error:
            raise NotSentError(str(error)) from error
        self._connected_to = address

    async def _answer(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split(" ")[1]), headers, body)

    def close(self) -> None:
        if self._connected_to is not None:
            self._connected_to = None
            with suppress(OSError):
                self._writer.transport.abort()


async def attempt(wire: Wire, method: str, path: str, body: object = None) -> Answer | None:
    """None without an answer."""
    with suppress(NotSentError, NoAnswerError):
        return await wire.ask(method, path, body)
    return None


async def patiently(wire: Wire, method: str, path: str, body: object = None) -> Any:
    """Until it is answered; whoever calls sets a time."""
    while True:
        answer = await attempt(wire, method, path, body)
        if answer is not None and answer.status < 300:
            return answer.json()
        await asyncio.sleep(PAUSE_SECONDS)
