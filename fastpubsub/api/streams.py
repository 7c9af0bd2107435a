"""Shared by all streams: a place, a token that must stay valid, and an end with a reason."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.types import Message, Receive, Send

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.exceptions import FastpubsubError, Overloaded, Unauthenticated, Unavailable
from fastpubsub.services.authenticator import Authenticator
from fastpubsub.services.surviving import Surviving

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
STUCK_SECONDS = 60.0
"""A client that takes nothing for so long is given up."""

FAREWELL_SECONDS = 1.0
LEFT = "the client disconnected"
STUCK = "the client does not read"
STOPPING = "the server is shutting down; open the stream again"


class Stream:
    """One that is open. `end` cancels the block that `Streams.hold` is the head of."""

    def __init__(self, task: asyncio.Task[Any], send: Send, token: bytes | None) -> None:
        self.token = token
        self.reason: str | None = None
        self._task = task
        self._send = send
        self._sending_since: float | None = None

    def end(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    async def send(self, message: Message) -> None:
        """Waits until the client has taken most of what was sent before."""
        self._sending_since = time.monotonic()
        await self._send(message)
        self._sending_since = None

    @property
    def is_sending(self) -> bool:
        return self._sending_since is not None

    def is_stuck(self, now: float) -> bool:
        return self._sending_since is not None and now - self._sending_since > STUCK_SECONDS


Beside = Callable[[Stream], Coroutine[Any, Any, None]]


class Streams:
    """All that are open in this process."""

    def __init__(self, settings: Settings, authenticator: Authenticator, counters: Counters) -> None:
        self.heartbeat_seconds = settings.stream_heartbeat_seconds
        self._max_open = settings.stream_max_open
        self._authenticator = authenticator
        self._counters = counters
        self._open: set[Stream] = set()
        self._is_stopping = False

    def require_room(self) -> None:
        """Refuses before the answer has begun."""
        if self._is_stopping:
            raise Unavailable(STOPPING)
        if len(self._open) >= self._max_open:
            raise Overloaded("too many streams are open at this server; try again later, or use another server")

    @contextlib.asynccontextmanager
    async def hold(self, send: Send, token: bytes | None, *beside: Beside) -> AsyncIterator[Stream]:
        """Swallows the cancellation of `end`. `beside` run as long as the block."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task to cancel")
        stream = Stream(task, send, token)
        self._open.add(stream)
        tasks = [asyncio.create_task(one(stream)) for one in beside]
        try:
            if self._is_stopping:
                stream.end(STOPPING)
            with self._counters.streams.track_inprogress():
                yield stream
        except asyncio.CancelledError:
            if stream.reason is None or task.uncancel() > 0:
                raise
        finally:
            self._open.discard(stream)
            for one in tasks:
                one.cancel()

    async def look_again(self, stream: Stream) -> None:
        """Checks the token before anything is handed out, because `run` checks only now and then."""
        await self._authenticator.look_again(stream.token)

    def stop(self) -> None:
        self._is_stopping = True
        for stream in list(self._open):
            stream.end(STOPPING)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with Surviving(logger, "checking the open streams"):
                await self._check()

    async def _check(self) -> None:
        verdicts: dict[bytes, str | None] = {}
        for stream in list(self._open):
            token = stream.token
            if token is not None and token not in verdicts:
                verdicts[token] = await self._verdict(token)
            if stream.is_stuck(time.monotonic()):
                stream.end(STUCK)
            elif token is not None and (reason := verdicts[token]) is not None:
                stream.end(reason)

    async def _verdict(self, token: bytes) -> str | None:
        try:
            await self._authenticator.authenticate(token)
        except Unauthenticated as error:
            return error.detail
        except FastpubsubError:
            return None  # nobody can say at the moment, nor is there anything to deliver
        return None


async def finish(reason: str | None, receive: Receive, send: Send, *messages: Message) -> None:
    """Sends the last messages of a stream. A client that does not read must not delay the server's shutdown."""
    if reason == LEFT:
        return
    if reason == STUCK:
        await _give_up(receive)
        return
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            for message in messages:
                await send(message)
    except TimeoutError:
        await _give_up(receive)
    asyncio.get_running_loop().call_later(FAREWELL_SECONDS, abort, receive)


async def _give_up(receive: Receive) -> None:
    """Ends a connection on which a client takes nothing; closing would wait for what is left in its buffer."""
    abort(receive)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            while not (await receive())["type"].endswith("disconnect"):
                pass


def abort(receive: Receive) -> None:
    # ASGI has no word for it; this is uvicorn's.
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
