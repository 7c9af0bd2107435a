"""Connections to PostgreSQL: SQLAlchemy's pool, and in front of it those that have just been used."""

import asyncio
import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import ConnStatus, Format, TransactionStatus
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import PoolProxiedConnection, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util.concurrency import greenlet_spawn

from fastpubsub.config import Settings
from fastpubsub.database.arrays import TIMES_OID, Array, ArrayDumper, TimesLoader
from fastpubsub.database.sessions import SESSION
from fastpubsub.database.urls import normalise
from fastpubsub.exceptions import Unavailable
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]

_KEPT_SECONDS = 0.5
_IDLE_SECONDS_BEFORE_PING = 5.0
_SETUP, _USED_AT = "setup", "used_at"


class Borrowed:
    """A connection of the pool, in use or kept for the next call."""

    __slots__ = ("connection", "kept_at", "pooled")

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        self.pooled = pooled
        self.connection: psycopg.AsyncConnection[Row] = pooled.driver_connection  # type: ignore[assignment]
        self.kept_at = 0.0


class Connections:
    """A pool of up to `database_pool_size + database_max_overflow` connections.

    To check a connection out of the pool and in again costs as much as a small call. So a connection goes back to the
    pool only when somebody waits for one there, or when it was not used for half a second.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("Connections needs settings with a database_url")
        self._connect_timeout = settings.database_connect_timeout_seconds
        self._ping_timeout = settings.database_pool_timeout_seconds
        self._kept: list[Borrowed] = []
        self._asking = 0
        self._is_closed = False
        self._died_at = -math.inf
        self._sweep: asyncio.TimerHandle | None = None
        self._returning = Tasks()
        self._engine = create_async_engine(
            normalise(settings.database_url.get_secret_value()),
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=settings.database_pool_size + settings.database_max_overflow,
            max_overflow=0,
            # The connection used last knows the prepared statements, and the others may idle.
            pool_use_lifo=True,
            pool_timeout=settings.database_pool_timeout_seconds,
            connect_args=connect_arguments(settings),
            use_native_hstore=False,
        )
        event.listen(self._engine.sync_engine, "connect", self._begin_setup, insert=True)
        event.listen(self._engine.sync_engine, "connect", _end_setup)
        if settings.database_pool_pre_ping:
            event.listen(self._engine.sync_engine, "checkin", _mark_used)
            event.listen(self._engine.sync_engine, "checkout", self._ping_after_idling)

    async def close(self) -> None:
        """Calls that are on their way end, and close their connections themselves."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._kept:
            await _return(self._kept.pop())
        await self._returning.finish()
        await self._engine.dispose()

    async def borrow(self) -> Borrowed:
        if self._kept and time.monotonic() - self._kept[-1].kept_at < _KEPT_SECONDS:
            return self._kept.pop()
        self._asking += 1
        try:
            return Borrowed(await self._engine.raw_connection())
        except PoolTimeout as error:
            raise Unavailable("all database connections are busy; try again") from error
        except (DBAPIError, psycopg.Error, OSError) as error:
            raise Unavailable("the database cannot be reached; try again") from error
        finally:
            self._asking -= 1

    async def give_back(self, borrowed: Borrowed, usable: bool) -> None:
        pgconn = borrowed.connection.pgconn
        if not usable or self._is_closed or pgconn.transaction_status != TransactionStatus.IDLE:
            if pgconn.status == ConnStatus.BAD:
                self._distrust_all()
            await _discard(borrowed)
        elif self._asking:
            await _return(borrowed)
        else:
            self._keep(borrowed)

    def _distrust_all(self) -> None:
        """One dead connection tells of others: those kept are closed, those in the pool tried before they are used."""
        self._died_at = time.monotonic()
        while self._kept:
            self._take_away(_discard(self._kept.pop()))

    def _keep(self, borrowed: Borrowed) -> None:
        borrowed.kept_at = time.monotonic()
        self._kept.append(borrowed)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._return_unused)

    def _return_unused(self) -> None:
        self._sweep = None
        limit = time.monotonic() - _KEPT_SECONDS
        for borrowed in [one for one in self._kept if one.kept_at <= limit]:
            self._kept.remove(borrowed)
            self._take_away(_return(borrowed))
        if self._kept:
            self._sweep = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._return_unused)

    def _take_away(self, returning: Coroutine[Any, Any, None]) -> None:
        """Runs as a separate task: no caller waits for it, and a cancelled one does not leave it half done."""
        self._returning.start(returning)

    def _begin_setup(self, adapted: Any, record: Any) -> None:
        """SQLAlchemy asks the server some questions, which it may never answer."""
        record.info[_SETUP] = setup = contextlib.ExitStack()
        setup.enter_context(cut_after(self._connect_timeout, adapted.driver_connection))

    def _ping_after_idling(self, adapted: Any, record: Any, _proxy: object) -> None:
        used_at = record.info.get(_USED_AT, math.inf)
        if used_at > max(self._died_at, time.monotonic() - _IDLE_SECONDS_BEFORE_PING):
            return
        cursor = adapted.cursor()
        try:
            with cut_after(self._ping_timeout, adapted.driver_connection):
                cursor.execute("select 1")
        except psycopg.Error as error:
            raise InvalidatePoolError from error
        finally:
            cursor.close()


async def _return(borrowed: Borrowed) -> None:
    await greenlet_spawn(borrowed.pooled.close)


async def _discard(borrowed: Borrowed) -> None:
    await greenlet_spawn(borrowed.pooled.invalidate)
    await _return(borrowed)


class Connector:
    """Makes connections beside the pool."""

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("Connector needs settings with a database_url")
        url = normalise(settings.database_url.get_secret_value())
        positional, keywords = url.get_dialect()().create_connect_args(url)
        self._positional = positional
        self._keywords: dict[str, Any] = {**keywords, **connect_arguments(settings)}

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(*self._positional, **self._keywords, autocommit=True)


class _JsonbBinaryLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)[1:]


def _mark_used(_connection: object, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()


def _end_setup(adapted: Any, record: Any) -> None:
    record.info.pop(_SETUP).close()
    adapters = adapted.driver_connection.adapters
    adapters.register_loader("json", ByteaBinaryLoader)
    adapters.register_loader("jsonb", _JsonbBinaryLoader)
    adapters.register_loader(TIMES_OID, TimesLoader)
    adapters.register_dumper(Array, ArrayDumper)


@contextlib.contextmanager
def cut_after(seconds: float, connection: psycopg.AsyncConnection[Any]) -> Iterator[None]:
    deadline = asyncio.get_running_loop().call_later(seconds, cut, connection)
    try:
        yield
    finally:
        deadline.cancel()


def cut(connection: psycopg.AsyncConnection[Row]) -> None:
    """Ends a call that takes too long: the read sees the end of the stream. A cancel request could hang as well."""
    if connection.closed:
        return
    logger.warning("a database call got no answer in time: its connection is cut")
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def connect_arguments(settings: Settings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "application_name": "fastpubsub",
        "connect_timeout": settings.database_connect_timeout_seconds,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "prepare_threshold": 5,
        **SESSION,
    }
    if settings.database_pooler == "transaction":
        # It refuses start-up options, those of PGOPTIONS too; there settings belong to the role or the database.
        return arguments | {"prepare_threshold": None, "options": ""}
    milliseconds = int(settings.database_lock_timeout_seconds * 1000)
    return arguments | {"options": f"{SESSION['options']} -c fastpubsub.lock_timeout={milliseconds}ms"}
