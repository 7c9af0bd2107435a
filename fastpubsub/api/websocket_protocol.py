"""uvicorn's WebSockets with bounds on what a client may cost that sends and does not read."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from fastpubsub.api.framing import bad_request

MAX_FRAGMENTS = 1000
"""Of a message; each may be empty, and then no bound on bytes sees it."""

FAREWELL_SECONDS = 1.0
UNREADABLE = bad_request("This is not a request to open a WebSocket, or one of its lines has more than 8192 bytes.")


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """Reads nothing while the client does not take what was written, so that nobody can pile up answers to pings."""

    async def run_asgi(self) -> None:
        app = self.app

        async def run(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                self._cut()

        self.app = run
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(UNREADABLE.written)
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_as_allowed()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_as_allowed()

    async def receive(self) -> Any:
        message = await super().receive()
        self._read_as_allowed()
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # Refused, which uvicorn does not take for the end of a handshake.
            self.handshake_complete = True

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is None:
            # Frames that came before the connection was open: there is no other way to say it.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE})
            self._cut()
        else:
            super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        # Closing waits for the rest of the buffer, which a client that reads nothing never takes.
        self.loop.call_later(FAREWELL_SECONDS, self.transport.abort)

    def _cut(self) -> None:
        self.handshake_complete = self.disconnected = True
        self.transport.abort()

    def _read_as_allowed(self) -> None:
        if self.transport.is_closing():
            return
        if self.read_paused or not self.writable.is_set():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
