"""uvicorn's HTTP/1.1 protocol, strict about where a request begins and ends, and with bounds on what one may cost."""

import asyncio
import functools
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fastpubsub.api.framing import MAX_PIPELINED, NOT_ALONE, TOO_LARGE, TOO_MANY, Refusal, bad_request, judge
from fastpubsub.api.http_cycle import Cycle, CycleUntilClose

LINGER_BYTES = 32 << 20
"""Of a request that is refused already, dropped: a client that is still writing would never read the answer."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """A head has at most `max_bytes` and `max_headers` and arrives within `seconds`, a body within `body_seconds`.

    What frames a body has the bounds of a head too: the extensions of a chunk, and the trailers, which are dropped.
    """

    # uvicorn's own attributes are as many as an object can have in its fast form: ours would make all of them slow.
    __slots__ = (
        "_accepted",
        "_body_seconds",
        "_completed",
        "_deciding",
        "_dropped",
        "_has_cycle",
        "_in_head",
        "_is_half_closed",
        "_is_ignored",
        "_is_refused",
        "_max_bytes",
        "_max_headers",
        "_received",
        "_refusal",
        "_running",
        "_seconds",
        "_timer",
        "_trailers",
    )

    def __init__(
        self, *args: Any, max_bytes: int, max_headers: int, seconds: float, body_seconds: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_bytes = max_bytes
        self._max_headers = max_headers
        self._seconds = seconds
        self._body_seconds = body_seconds
        self._in_head = True
        self._is_ignored = self._has_cycle = False
        self._received = 0  # since the last step of the request: its head, a chunk, a piece of its body
        self._deciding: list[tuple[bytes, bytes]] = []
        self._accepted: list[tuple[bytes, bytes]] | None = None
        self._trailers: list[int] = []
        self._completed = 0.0
        self._running: Cycle | None = None
        self._refusal: Refusal | None = None  # of this request, and of all that follow it
        self._is_refused = self._is_half_closed = False
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer(self._seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            self._drop(data)
        else:
            self._received += len(data)
            if self.timeout_keep_alive_task is not None:
                self._unset_keepalive_if_required()
            self._feed(data)
            if self._received or not self._in_head:
                self._bound()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Returns whether the connection stays open, for requests that are still to be answered."""
        answering = self._answering
        if answering is None or not (self._is_refused or (self._in_head and not self._received)):
            return False
        self._is_half_closed = True
        if not self._is_refused:
            self.cycle.keep_alive = False
        answering.half_closed(self.loop.time() - self._completed)
        return True

    def on_message_begin(self) -> None:
        self._in_head = True
        self._is_ignored = self._has_cycle = False
        self._deciding = []
        self._trailers = []
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            # As uvicorn does it, without the call: this is the most frequent one.
            name = name.lower()
            self.headers.append((name, value))
            if name == b"host" or name == b"transfer-encoding":
                self._deciding.append((name, value))
            elif name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            return
        self._trailers.append(len(name) + len(value) + 4)
        if len(self._trailers) > self._max_headers or sum(self._trailers) > self._max_bytes:
            self._fail(TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        version = self.parser.get_http_version()
        self.scope["method"] = self.parser.get_method().decode("ascii")
        if self._refusal is None:
            self._refusal = self._judge(version)
        if self._refusal is None and self.parser.should_upgrade():
            if not self._should_upgrade():
                self._is_ignored = True
                return
        else:
            self._make_cycle(version)
        self._received = 0
        self._in_head = False

    def _make_cycle(self, version: str) -> None:
        """As uvicorn does it, which makes cycles of its own class."""
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fail(TOO_MANY)
        is_current = version == "1.1"
        if not is_current:
            self.scope["http_version"] = version
        target = httptools.parse_url(self.url)
        path = target.path.decode("ascii")
        self.scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        self.scope["raw_path"] = self.root_path.encode("ascii") + target.path
        self.scope["query_string"] = target.query or b""
        cycle = (Cycle if is_current else CycleUntilClose)(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=is_current and self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        before: Any = self.cycle
        self.cycle = cycle
        self._has_cycle = True
        app: Any = self.app if self._refusal is None else self._refusal
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def on_chunk_header(self) -> None:
        self._received = 0

    def on_body(self, body: bytes) -> None:
        self._received = 0
        if self._has_cycle and not self.cycle.response_complete:
            self.cycle.body += body
            if len(self.cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._is_ignored:
            return
        self._in_head = True
        self._stop_timer()
        self._received = 0
        if self._has_cycle and not self.cycle.response_complete:
            self._completed = self.loop.time()
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _bound(self) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        if self._received > self._max_bytes:
            self._refuse(TOO_LARGE)
        elif not self._in_head:
            # Unless it has become a WebSocket, the body is still on its way.
            if self._timer is None and self.transport.get_protocol() is self:
                self._start_timer(self._body_seconds)
        elif self._timer is None and self._received:
            self._start_timer(self._seconds)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._refusal is None:
                self.logger.warning("Invalid HTTP request received.")
            self._refuse(self._refusal or bad_request("Invalid HTTP request received."))

    def _upgrade(self, rest: bytes) -> None:
        if self._is_ignored:
            self._feed_again(rest)
        elif self._should_upgrade():
            self.handle_websocket_upgrade()
            if rest and not self.transport.is_closing():
                cast(asyncio.Protocol, self.transport.get_protocol()).data_received(rest)

    def _feed_again(self, rest: bytes) -> None:
        """The parser knows no body of a request to upgrade, such as Java's to HTTP/2; to ignore its wish is allowed."""
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(b"".join([*head, b"\r\n", rest]))

    def _judge(self, version: str) -> Refusal | None:
        # The bytes received may include a body; only when they are many is the head itself measured.
        if len(self.headers) > self._max_headers or (
            self._received > self._max_bytes and self._head_bytes() > self._max_bytes
        ):
            return TOO_LARGE
        # Most requests of a connection have the same Host.
        if self._deciding == self._accepted and version == "1.1" and self.url[:1] == b"/":
            refusal = None
        elif (refusal := judge(version, self.url, self._deciding)) is None and version == "1.1":
            self._accepted = self._deciding
        if refusal is None and self.parser.should_upgrade() and self._answering is not None and self._should_upgrade():
            return NOT_ALONE
        return refusal

    def _should_upgrade(self) -> bool:
        return self._refusal is None and super()._should_upgrade()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.answered_early = self._answered_early
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    @property
    def _answering(self) -> Cycle | None:
        return None if self._running is None or self._running.response_complete else self._running

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _fail(self, refusal: Refusal) -> None:
        """Ends the parsing from within, in `_feed`."""
        self._refusal = refusal
        raise ValueError(refusal.text)

    def _refuse(self, refusal: Refusal) -> None:
        """Refuses malformed input after the requests before it, and never in the middle of an answer."""
        self._is_refused = True
        self._stop_timer()
        if self._in_head and self._answering is not None:
            self.cycle.on_response = functools.partial(self._answered_last, refusal)
        elif self.pipeline:
            self.pipeline[0] = self.cycle, cast(Any, refusal)
        else:
            if self._in_head or not self.cycle.response_started:
                self.transport.write(refusal.written)
            self._disconnect()
            self._linger()

    def _disconnect(self) -> None:
        """Nothing more is written into the answer."""
        if (answering := self._answering) is not None:
            answering.disconnected = True
            answering.message_event.set()

    def _answered_last(self, refusal: Refusal) -> None:
        """Before what could not be read."""
        self.on_response_complete()
        if not self.transport.is_closing():
            self.transport.write(refusal.written)
            self._linger()

    def _answered_early(self) -> None:
        self.on_response_complete()
        self._linger()

    def _linger(self) -> None:
        """Until the client has closed too, for so long as a body may take."""
        self._is_refused = True
        self._unset_keepalive_if_required()
        self._stop_timer()
        if self._is_half_closed:
            self.transport.close()
        elif not self.transport.is_closing():
            self._start_timer(self._body_seconds)
            self.transport.write_eof()

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > LINGER_BYTES:
            self.transport.close()

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._out_of_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _out_of_time(self) -> None:
        self._timer = None
        if (before := self._before) is not None:
            before.on_response = self._answered_late
        elif not self.transport.is_closing():
            self.transport.close()

    @property
    def _before(self) -> Cycle | None:
        """The last request before the one that is not complete, as long as it is not answered."""
        if self._answering is None:
            return None
        if self._in_head:
            return cast(Cycle, self.cycle)
        earlier = [cycle for cycle, _ in self.pipeline if cycle is not self.cycle]
        return cast(Cycle, earlier[0]) if earlier else self._running if self.pipeline else None

    def _answered_late(self) -> None:
        """Only now has the next request the time to be completed: perhaps nothing of it was read meanwhile."""
        self.on_response_complete()
        self._bound()
