"""Probes and figures of workers over HTTP: `/live`, `/ready` and `/metrics`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TypeAlias

from fastpubsub.client.measuring import exposition
from fastpubsub.client.worker import Worker

STUCK_SECONDS = 600.0
"""A handler that runs for longer makes its process not ready. Give it a time limit, or more processes."""

REQUEST_SECONDS = 5.0
TEXT = "text/plain; version=0.0.4; charset=utf-8"

Answer: TypeAlias = tuple[HTTPStatus, str]


@asynccontextmanager
async def answering(workers: Sequence[Worker], host: str, port: int) -> AsyncIterator[int]:
    """Answers while it is open; gives the port, which is a free one for 0."""
    health = Health(workers)
    server = await asyncio.start_server(health.connected, host, port, limit=8192)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Health:
    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._paths: dict[str, Callable[[], Answer]] = {
            "/live": self._live,
            "/ready": self._ready,
            "/metrics": self._metrics,
        }

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request: probes and Prometheus come seldom, and may well come with a new connection."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode(errors="replace")
        status, text = self._answer(method, path)
        body = text.encode()
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {TEXT}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == b"HEAD" else body)

    def _answer(self, method: bytes, path: str) -> Answer:
        if path not in self._paths:
            return HTTPStatus.NOT_FOUND, "there are /live, /ready and /metrics\n"
        if method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "this path takes GET and HEAD\n"
        return self._paths[path]()

    def _live(self) -> Answer:
        return HTTPStatus.OK, "alive\n"

    def _ready(self) -> Answer:
        now = asyncio.get_running_loop().time()
        for worker in self._workers:
            if not worker.is_answered:
                return HTTPStatus.SERVICE_UNAVAILABLE, "the server does not answer the pulls of a worker\n"
            for one in worker.measured:
                if one.longest_seconds(now) > STUCK_SECONDS:
                    stuck = f"a handler of {one.subscription_id} has run for more than {STUCK_SECONDS:g} seconds\n"
                    return HTTPStatus.SERVICE_UNAVAILABLE, stuck
        return HTTPStatus.OK, "ready\n"

    def _metrics(self) -> Answer:
        return HTTPStatus.OK, exposition(one for worker in self._workers for one in worker.measured)
