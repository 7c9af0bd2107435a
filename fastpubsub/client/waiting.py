"""Says that a call waits for the server, so that a user knows why nothing happens."""

import asyncio
import logging
import threading
import time
from typing import Any

from fastpubsub.client.errors import BusError
from fastpubsub.client.requests import Request

logger = logging.getLogger("fastpubsub.client")

SILENT_SECONDS = 2.0
"""For so long nothing is said about a request that is not answered, or has to be repeated."""

LOOK_SECONDS = 0.25


class Waiting:
    """A request that is to be answered until the deadline; said once when it takes long, and once when it is over."""

    __slots__ = ("_deadline", "_error", "_is_told", "_request", "_started")

    def __init__(self, request: Request[Any], started: float, deadline: float) -> None:
        self._request = request
        self._started = started
        self._deadline = deadline
        self._error: BusError | None = None
        self._is_told = False

    @property
    def _what(self) -> str:
        return f"{self._request.method} {self._request.path}"

    def failed(self, error: BusError) -> None:
        """It is repeated."""
        self._error = error
        self.look()

    def look(self) -> None:
        now = time.monotonic()
        # What the server takes on purpose is no silence, until something has failed.
        holds = self._request.holds if self._error is None else 0.0
        if not self._is_told and now >= self._started + holds + SILENT_SECONDS:
            self._is_told = True
            logger.warning(
                "still waiting for an answer to %s, for up to %.0f seconds more: %s",
                self._what,
                self._deadline - now,
                self._error or "nothing has come yet",
            )

    def is_over(self) -> None:
        if self._is_told:
            logger.info("the server has answered %s", self._what)


class Watch:
    """All requests of a connection that wait. This one looks only when it is told to."""

    def __init__(self) -> None:
        self._waiting: set[Waiting] = set()

    def begin(self, waiting: Waiting) -> None:
        self._waiting.add(waiting)

    def end(self, waiting: Waiting) -> None:
        self._waiting.discard(waiting)

    def look(self) -> bool:
        """Returns whether anybody waits."""
        for waiting in list(self._waiting):
            waiting.look()
        return bool(self._waiting)


class TaskWatch(Watch):
    """Looks in the event loop, from time to time while anybody waits: a timer for each request would cost more."""

    _loop: asyncio.AbstractEventLoop | None = None
    """That it looks in."""

    def begin(self, waiting: Waiting) -> None:
        super().begin(waiting)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(LOOK_SECONDS, self._look_on, loop)

    def _look_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        if self.look():
            loop.call_later(LOOK_SECONDS, self._look_on, loop)
        else:
            self._loop = None


class ThreadWatch(Watch):
    """Looks in a thread, which ends when nobody waits: whatever a blocking call waits for, it cannot look itself."""

    _thread: threading.Thread | None = None

    def begin(self, waiting: Waiting) -> None:
        if self._thread is not None and not self._thread.is_alive():
            # A child process has no thread of its parent, and does not wait for what its parent waits for.
            self._thread, self._waiting = None, set()
        super().begin(waiting)
        if self._thread is None:
            thread = threading.Thread(target=self._look_on, name="fastpubsub-waiting", daemon=True)
            thread.start()
            self._thread = thread

    def _look_on(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if not self.look():
                self._thread = None
                if not self._waiting:  # whoever began meanwhile may have seen the thread
                    return
                self._thread = threading.current_thread()
