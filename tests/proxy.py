"""A TCP proxy in front of PostgreSQL that can go silent, cut connections, and end a call at any stage of it."""

import asyncio
from contextlib import suppress
from enum import Enum, auto
from typing import NamedTuple, Self

from sqlalchemy import URL

from fastpubsub.database.urls import normalise
from tests import harness
from tests.protocol import FLUSH, ClientStream, ServerStream, Statements

CHUNK = 1 << 16


class Stage(Enum):
    """Where a call is cut."""

    UNSENT = auto()
    """Before the server sees anything of it."""
    UNCOMMITTED = auto()
    """When the server has run it, and before it may commit."""
    UNANSWERED = auto()
    """When the server has committed it and says so, before the client hears of it."""


class Cut(NamedTuple):
    procedure: bytes
    stage: Stage
    done: asyncio.Event


class Proxy:
    """`async with Proxy(url) as proxy`: connect to `proxy.url` instead of `url`."""

    def __init__(self, url: str, port: int = 0) -> None:
        self.target: URL = normalise(url)
        self.port = port or harness.free_port()
        self.sent = b""
        """What clients have sent so far, if it is remembered."""
        self.remembers = True
        self.hang_on: bytes | None = None
        """When a client sends this, the proxy goes silent before it forwards it."""
        self.swallow: bytes | None = None
        """When a client sends this, the proxy forwards it, and cuts the connection instead of giving the answer."""
        self.next_cut: Cut | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._is_closed = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        address = self.target.set(host="127.0.0.1", port=self.port, query={})
        return address.render_as_string(hide_password=False)

    def pause(self) -> None:
        """Connections stay open and nothing passes, as with a database that hangs."""
        self._open.clear()

    def resume(self) -> None:
        self.hang_on = None
        self._open.set()

    def cut(self) -> None:
        """Ends the connections that there are; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut_call(self, procedure: str, stage: Stage) -> asyncio.Event:
        """Ends the connection of the next call of it, at that stage; the event tells that it was done."""
        self.next_cut = Cut(f"fastpubsub.{procedure}(".encode(), stage, asyncio.Event())
        return self.next_cut.done

    async def close(self) -> None:
        """Refuses new connections, too."""
        self._is_closed = True
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        await asyncio.sleep(0)  # transports that were aborted close in the next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        host = str(self.target.query.get("host") or self.target.host or "127.0.0.1")
        port = int(str(self.target.query.get("port") or self.target.port or 5432))
        try:
            if host.startswith("/"):
                server, to_server = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                server, to_server = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        if self._is_closed:  # meanwhile
            to_server.transport.abort()
            return
        self._writers.add(to_server)
        session = Session(self, writer, to_server)
        for source, sink, is_client in ((reader, to_server, True), (server, writer, False)):
            pump = asyncio.create_task(self._pump(source, sink, is_client, session))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_client: bool, session: "Session"
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(CHUNK):
                if is_client:
                    self._look(data, session)
                await self._open.wait()
                if session.is_swallowing and not is_client:
                    self.cut()
                    return
                sink.write(session.from_client(data) if is_client else session.from_server(data))
                await sink.drain()
        sink.close()

    def _look(self, data: bytes, session: "Session") -> None:
        if self.remembers:
            self.sent += data
        if self.hang_on is not None and self.hang_on in data:
            self.pause()
        if self.swallow is not None and self.swallow in data:
            self.swallow = None
            session.is_swallowing = True


class Session:
    """One connection, and how far the call on it is that is to be cut."""

    def __init__(self, proxy: Proxy, *writers: asyncio.StreamWriter) -> None:
        self.is_swallowing = False
        self._proxy = proxy
        self._writers = writers
        self._client = ClientStream()
        self._server = ServerStream(self._client)
        self._statements = Statements()
        self._cut: Cut | None = None

    def from_client(self, data: bytes) -> bytes:
        """What of it goes on."""
        forwarded = b""
        for message in self._client.feed(data):
            query = self._statements.query(message)
            wanted = self._proxy.next_cut
            if query is not None and wanted is not None and wanted.procedure in query:
                self._cut, self._proxy.next_cut = wanted, None
            if self._cut is not None and self._cut.stage is Stage.UNSENT:
                self._end()
                return forwarded
            is_sync = self._cut is not None and self._cut.stage is Stage.UNCOMMITTED and message[:1] == b"S"
            forwarded += FLUSH if is_sync else message
        return forwarded

    def from_server(self, data: bytes) -> bytes:
        forwarded = b""
        for message in self._server.feed(data):
            if self._cut is None:
                forwarded += message
            elif message[:1] == (b"C" if self._cut.stage is Stage.UNCOMMITTED else b"Z") or message[:1] == b"E":
                self._end()
        return forwarded

    def _end(self) -> None:
        assert self._cut is not None
        for writer in self._writers:
            writer.transport.abort()
        self._cut.done.set()
