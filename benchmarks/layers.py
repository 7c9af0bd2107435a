"""`python -m benchmarks.layers`: what each layer around a single publish costs, in µs of CPU time per request.

The application alone, without sockets and with a database that answers at once: CPU time of one process, the least of
many short rounds, so that a busy machine hardly shows. A layer costs what is saved when it is left out.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop
from fastapi import FastAPI

from benchmarks import noop
from benchmarks.payloads import batch
from fastpubsub import logs
from fastpubsub.api import app as application
from fastpubsub.api.middleware import RequestMiddleware
from fastpubsub.api.prometheus import RequestMetrics
from fastpubsub.api.request_log import RequestLog
from fastpubsub.config import Settings
from fastpubsub.payloads import Batch

CLIENTS = 16
ROUNDS = 25
REQUESTS = 2000
CALL_SECONDS = 0.001
PUBLISH = "/topics/t/messages"


class Database:
    """Answers every publish after a millisecond, so that requests coalesce as they do."""

    def __init__(self, _settings: Settings) -> None:
        self._now = datetime.now(UTC)

    async def fetch_one(self, procedure: str, *_arguments: object) -> tuple[Any, ...]:
        if procedure == "publish_messages":
            await asyncio.sleep(CALL_SECONDS)
        return (1, self._now) if procedure == "publish_messages" else (1,)

    async def close(self) -> None:
        pass


def idle(_state: object) -> list[Coroutine[Any, Any, bool]]:
    """What runs in the background would ask the database."""
    return [asyncio.Event().wait()]


async def measure(app: FastAPI, path: str, seen: list[float]) -> None:
    body = batch(1)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "POST",
        "root_path": "",
        "path": path,
    }
    scope |= {"raw_path": path.encode(), "query_string": b""}
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> dict[str, Any]:
        return message

    async def send(_message: Any) -> None:
        pass

    async def client() -> None:
        for _ in range(REQUESTS // CLIENTS):
            await app({**scope, "headers": list(headers), "state": {}}, receive, send)

    started = time.process_time()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    seen.append((time.process_time() - started) / REQUESTS * 1e6)


def nothing(*_arguments: object, **_options: object) -> None:
    pass


async def bare(self: RequestMiddleware, scope: Any, receive: Any, send: Any) -> None:
    scope["state"]["request_id"] = ""
    await self.app(scope, receive, send)


def unchecked(body: bytes, **_limits: int) -> Batch:
    return Batch([body[1:-1]], None, len(body))


LAYERS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "the line in the log": lambda: mock.patch.object(RequestLog, "add", nothing),
    "metrics of requests": lambda: mock.patch.object(RequestMetrics, "finished", nothing),
    "everything around: id, headers, log, metrics": lambda: mock.patch.object(RequestMiddleware, "__call__", bare),
    "checking the body": lambda: mock.patch("fastpubsub.api.routers.topics.parse_batch", unchecked),
}
"""Names, and what leaves them out."""

WHOLE, NOTHING = "a publish, all of it", "a FastAPI route that does nothing"


async def run() -> None:
    settings = Settings(_env_file=None, database_url="postgresql://nowhere/nothing")
    logs.configure(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(application, "open_database", Database))
        stack.enter_context(mock.patch.object(application, "background", idle))
        app, yardstick = application.create_app(settings), noop.make_app()
        seen: dict[str, list[float]] = {name: [] for name in (WHOLE, *LAYERS, NOTHING)}
        async with app.router.lifespan_context(app):
            for _ in range(ROUNDS):
                await measure(app, PUBLISH, seen[WHOLE])
                for name, leave_out in LAYERS.items():
                    with leave_out():
                        await measure(app, PUBLISH, seen[name])
                await measure(yardstick, noop.PATH, seen[NOTHING])
    for name, values in seen.items():
        cost = min(seen[WHOLE]) - min(values) if name in LAYERS else min(values)
        print(f"{cost:6.1f}  {name}")


def main() -> None:
    with Path("/dev/null").open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        uvloop.run(run())


if __name__ == "__main__":
    main()
