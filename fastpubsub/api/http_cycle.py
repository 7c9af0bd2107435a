"""uvicorn's cycle of a request and its answer, for clients that close early, half or not at all."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HALF_CLOSE_SECONDS = 1.0
"""A client that closes its half later than this after its request has given up waiting."""


class Cycle(RequestResponseCycle):
    """A client that only closed its half gets its answer, unless somebody watches whether it is still there."""

    is_delivered = is_watched = is_half_closed = has_left = False

    answered_early: Callable[[], None]

    async def run_asgi(self, app: Any) -> None:
        try:
            # Once all of the request is here, no answer can be early: most requests are spared the look.
            await app(self.scope, self.receive, self.send_early if self.more_body else self.send)
        except asyncio.CancelledError:
            # The server does not wait any longer. Nobody knows what was done: no answer is better than a wrong one.
            self.disconnected = True
            self.transport.abort()
        except BaseException as error:  # noqa: BLE001 - uvicorn logs it, and answers
            await super().run_asgi(_raising(error))
        else:
            if not self.response_complete and not self.disconnected:
                await super().run_asgi(_returning)
        finally:
            self.on_response = _nothing

    def send_early(self, message: Any) -> Coroutine[Any, Any, None]:
        if self.more_body and not self.keep_alive and message["type"] == "http.response.body":
            self._end_early(message)
        return self.send(message)

    def _end_early(self, message: Any) -> None:
        if not message.get("more_body", False):
            # uvicorn would close the connection at once.
            self.keep_alive = True
            self.on_response = self.answered_early

    async def receive(self) -> Any:
        if self.is_delivered:
            await self._watch()
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self.has_left:
            self.disconnected = True
            self.transport.close()
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        self.is_delivered = not self.more_body
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def half_closed(self, seconds: float) -> None:
        """The client closed its half `seconds` after its request."""
        self.is_half_closed = True
        if self.is_watched or seconds > HALF_CLOSE_SECONDS:
            self._leave()

    async def _watch(self) -> None:
        """The half may have been closed together with the request, before anybody watched."""
        self.is_watched = True
        if self.is_half_closed:
            await asyncio.sleep(0)  # a caller that does not wait is cancelled here
            self._leave()

    def _leave(self) -> None:
        self.has_left = True
        self.message_event.set()


class CycleUntilClose(Cycle):
    """A cycle of HTTP/1.0, which has no chunks: a body without a length ends with the connection."""

    is_unframed = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.is_unframed = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if self.is_unframed:
                self.chunked_encoding = False
        elif self.is_unframed:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def _nothing() -> None:
    pass


def _raising(error: BaseException) -> Any:
    async def app(*_: Any) -> None:
        raise error

    return app


async def _returning(*_: Any) -> None:
    """uvicorn answers for an application that returns without having answered."""
