"""uvicorn's HTTP/1.1 protocol with bounds on the head of a request, and on how long a request may take to arrive."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

REFUSAL = b"The request line and headers are too long."


class BoundedHttpProtocol(HttpToolsProtocol):
    """A head has at most `max_bytes` and `max_headers` and arrives within `seconds`, a body within `body_seconds`."""

    def __init__(
        self, *args: Any, max_bytes: int, max_headers: int, seconds: float, body_seconds: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_bytes = max_bytes
        self._max_headers = max_headers
        self._seconds = seconds
        self._body_seconds = body_seconds
        self._in_head = True
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer(self._seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            # Unless it has become a WebSocket, the body is still on its way.
            if self._timer is None and self.transport.get_protocol() is self:
                self._start_timer(self._body_seconds)
        elif self._received > self._max_bytes:
            self._refuse()
        elif self._timer is None and self._received:
            self._start_timer(self._seconds)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        # The bytes received may include a body; only when they are many is the head itself measured.
        if len(self.headers) > self._max_headers or (
            self._received > self._max_bytes and self._head_bytes() > self._max_bytes
        ):
            self.app = head_too_large
        self._received = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._stop_timer()
        self._received = 0
        super().on_message_complete()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self) -> None:
        # In the middle of the answer to an earlier request nothing else may be written.
        answering: RequestResponseCycle | None = self.cycle
        if answering is None or answering.response_complete:
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(REFUSAL), REFUSAL)
            )
        self.transport.close()

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._out_of_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _out_of_time(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


async def head_too_large(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(REFUSAL)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": REFUSAL})
