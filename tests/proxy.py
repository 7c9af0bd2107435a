"""A TCP proxy in front of PostgreSQL that can go silent, cut connections, and swallow an answer."""

import asyncio
from contextlib import suppress
from typing import Self

from sqlalchemy import URL

from fastpubsub.urls import normalise

CHUNK = 1 << 16


class Proxy:
    """`async with Proxy(url) as proxy`: connect to `proxy.url` instead of `url`."""

    def __init__(self, url: str, port: int = 0) -> None:
        self.target: URL = normalise(url)
        self.port = port
        self.sent = b""
        """What clients have sent so far."""
        self.hang_on: bytes | None = None
        """When a client sends this, the proxy goes silent before it forwards it."""
        self.swallow: bytes | None = None
        """When a client sends this, the proxy forwards it, and cuts the connection instead of giving the answer."""
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
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

    async def close(self) -> None:
        """Refuses new connections, too."""
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        self._writers |= {writer, to_server}
        swallowing = asyncio.Event()
        for source, sink, is_client in ((reader, to_server, True), (server, writer, False)):
            pump = asyncio.create_task(self._pump(source, sink, is_client, swallowing))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_client: bool, swallowing: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(CHUNK):
                if is_client:
                    self._look(data, swallowing)
                await self._open.wait()
                if swallowing.is_set() and not is_client:
                    self.cut()
                    return
                sink.write(data)
                await sink.drain()
        sink.close()

    def _look(self, data: bytes, swallowing: asyncio.Event) -> None:
        self.sent += data
        if self.hang_on is not None and self.hang_on in data:
            self.pause()
        if self.swallow is not None and self.swallow in data:
            self.swallow = None
            swallowing.set()
