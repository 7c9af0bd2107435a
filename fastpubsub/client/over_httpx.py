"""The wire of everything that is not direct: proxies, transports of the application, answers that do not end."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

import httpx

from fastpubsub.client.bodies import Body, WholeBody
from fastpubsub.client.errors import UnexpectedAnswer
from fastpubsub.client.exchange import Answer, Send

EVENT_STREAM = "text/event-stream"


class HttpxWire:
    """For threads."""

    def __init__(self, http: httpx.Client, max_answer_bytes: int) -> None:
        self._http = http
        self._max_answer_bytes = max_answer_bytes

    def send(self, effect: Send) -> Answer:
        with self.stream(effect, effect.timeout) as response:
            return self.answer(response)

    def stream(self, effect: Send, timeout: float) -> AbstractContextManager[httpx.Response]:
        return self._http.stream(**_arguments(effect), timeout=timeout)

    def answer(self, response: httpx.Response) -> Answer:
        body = WholeBody(_encoding(response), self._max_answer_bytes)
        for chunk in _chunks(response):
            body.feed(chunk)
        return head(response, body.content())

    def close(self) -> None:
        self._http.close()


class AsyncHttpxWire:
    """For tasks."""

    def __init__(self, http: httpx.AsyncClient, max_answer_bytes: int) -> None:
        self._http = http
        self._max_answer_bytes = max_answer_bytes

    async def send(self, effect: Send) -> Answer:
        async with self.stream(effect, effect.timeout) as response:
            return await self.answer(response)

    def stream(self, effect: Send, timeout: float | httpx.Timeout) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(**_arguments(effect), timeout=timeout)

    async def answer(self, response: httpx.Response) -> Answer:
        body = WholeBody(_encoding(response), self._max_answer_bytes)
        async for chunk in _chunks_as_they_come(response):
            body.feed(chunk)
        return head(response, body.content())

    async def close(self) -> None:
        await self._http.aclose()


def pieces(response: httpx.Response) -> Iterator[bytes]:
    """Of a stream of events."""
    body = _stream_body(response)
    for chunk in _chunks(response):
        yield from body.feed(chunk)


async def pieces_as_they_come(response: httpx.Response) -> AsyncIterator[bytes]:
    """The same."""
    body = _stream_body(response)
    async for chunk in _chunks_as_they_come(response):
        for piece in body.feed(chunk):
            yield piece


def head(response: httpx.Response, content: bytes = b"") -> Answer:
    return Answer(response.status_code, response.headers, content)


def _arguments(effect: Send) -> dict[str, Any]:
    request = effect.request
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params or None,
        "content": request.content,
        "headers": effect.headers,
    }


def _encoding(response: httpx.Response) -> str:
    return "" if response.is_stream_consumed else str(response.headers.get("content-encoding", ""))


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    """Yields the bytes as they came; an application's own transport has them already."""
    return iter([response.content]) if response.is_stream_consumed else response.iter_raw()


async def _chunks_as_they_come(response: httpx.Response) -> AsyncIterator[bytes]:
    if response.is_stream_consumed:
        yield response.content
    else:
        async for chunk in response.aiter_raw():
            yield chunk


def _stream_body(response: httpx.Response) -> Body:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != EVENT_STREAM:
        raise UnexpectedAnswer(f"the client asked for a stream of events, and the answer is {media_type[:50]!r}")
    return Body(_encoding(response))
