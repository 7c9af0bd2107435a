"""The way to PostgreSQL: one engine with a steady pool, one helper that calls a procedure, SQLSTATE → exception."""

import asyncio
import contextlib
import functools
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util.concurrency import greenlet_spawn

from fastpubsub.arrays import Array, ArrayDumper
from fastpubsub.config import Settings
from fastpubsub.exceptions import (
    AlreadyExists,
    FastpubsubError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    SchemaChanged,
    Unavailable,
)
from fastpubsub.urls import normalise

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]

_REFUSALS: dict[str, type[FastpubsubError]] = {
    "FP403": PermissionDenied,
    "FP404": NotFound,
    "FP409": AlreadyExists,
    "FP422": InvalidRequest,
    "FP428": SchemaChanged,
}
# Reported before the commit, so nothing was stored, and about what was sent: with less of it the call may succeed. Not
# 40 and 55P03, for each repetition would wait for the same lock, nor FP404, which is about all of it.
_ABOUT_ARGUMENTS = ("22", "23", "54", "FP422")
_RETRIED = ("40001", "40P01")
# Missing schema, table or function: not migrated yet.
_UNMIGRATED = ("3F000", "42P01", "42883")
_TROUBLE = ("08", "53", "55P03", "25006", *_RETRIED, *_UNMIGRATED)
# The server gave up the call or the session, for whatever timeout or shutdown.
_UNKNOWN = ("57014", "57P", "25P")
_ATTEMPTS = 4
_IDLE_SECONDS_BEFORE_PING = 5.0
_SETUP, _USED_AT = "setup", "used_at"


class Database:
    """Calls procedures of the schema `fastpubsub`, each as one statement in its own transaction.

    A call waits at most `database_call_timeout_seconds` for its answer; then its connection is cut, and nobody knows
    whether it was done.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("Database needs settings with a database_url")
        self._timeout = settings.database_call_timeout_seconds
        self._connect_timeout = settings.database_connect_timeout_seconds
        self._ping_timeout = settings.database_pool_timeout_seconds
        self._prepare = settings.database_pooler != "transaction"
        self._echo = settings.database_echo
        self._is_closed = False
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
        await self._engine.dispose()

    async def fetch_one(self, procedure: str, *arguments: object) -> Row:
        """The only row of `fastpubsub.<procedure>(…)`."""
        rows = await self.fetch_all(procedure, *arguments)
        return rows[0]

    async def fetch_all(self, procedure: str, *arguments: object) -> list[Row]:
        query = _query(procedure, len(arguments))
        if self._echo:
            logger.info("%s", query.decode())
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._execute(query, arguments)
            except psycopg.Error as error:
                if error.sqlstate in _RETRIED and attempt < _ATTEMPTS:
                    await asyncio.sleep(0.01 * attempt)
                    continue
                refusal = translate(error)
                if refusal is None:
                    raise
                raise refusal from error
        raise AssertionError("unreachable")

    async def _execute(self, query: bytes, arguments: Sequence[object]) -> list[Row]:
        async with self._connection() as connection:
            with cut_after(self._timeout, connection):
                cursor = await connection.execute(query, arguments, prepare=self._prepare, binary=True)
                return await cursor.fetchall()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        try:
            pooled = await self._engine.raw_connection()
        except PoolTimeout as error:
            raise Unavailable("all database connections are busy; try again") from error
        except (DBAPIError, psycopg.Error, OSError) as error:
            raise Unavailable("the database cannot be reached; try again") from error
        connection: Any = pooled.driver_connection
        usable = True
        try:
            yield connection
        except psycopg.errors.ReadOnlySqlTransaction:
            # After a failover this is the old primary; the next connection looks for the new one.
            usable = False
            raise
        finally:
            idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            if not usable or connection.closed or not idle or self._is_closed:
                await greenlet_spawn(pooled.invalidate)
            await greenlet_spawn(pooled.close)

    def _begin_setup(self, adapted: Any, record: Any) -> None:
        """SQLAlchemy asks the server some questions, which it may never answer."""
        record.info[_SETUP] = setup = contextlib.ExitStack()
        setup.enter_context(cut_after(self._connect_timeout, adapted.driver_connection))

    def _ping_after_idling(self, adapted: Any, record: Any, _proxy: object) -> None:
        if time.monotonic() - record.info.get(_USED_AT, time.monotonic()) < _IDLE_SECONDS_BEFORE_PING:
            return
        cursor = adapted.cursor()
        try:
            with cut_after(self._ping_timeout, adapted.driver_connection):
                cursor.execute("select 1")
        except psycopg.Error as error:
            raise InvalidatePoolError from error
        finally:
            cursor.close()


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


def translate(error: psycopg.Error) -> FastpubsubError | None:
    """What the caller of a procedure is told, or None for what nobody expected."""
    state = error.sqlstate
    if state in _REFUSALS:
        return _REFUSALS[state](error.diag.message_primary or "the request was refused")
    if state is None or state.startswith(_UNKNOWN):
        return OutcomeUnknown("the connection to the database was lost before it answered; try again")
    if state in _UNMIGRATED:
        return Unavailable("the database has no fastpubsub schema of this version; run `fastpubsub db-migrate`")
    if state.startswith(_TROUBLE):
        return Unavailable("the database cannot do this at the moment; try again")
    return None


def blames_arguments(error: BaseException) -> bool:
    """Whether the server stored nothing because of something that was sent to it."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    return (
        isinstance(cause, psycopg.Error) and cause.sqlstate is not None and cause.sqlstate.startswith(_ABOUT_ARGUMENTS)
    )


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


@functools.cache
def _query(procedure: str, arguments: int) -> bytes:
    # Procedures are named by this program only.
    return f"select * from fastpubsub.{procedure}({', '.join(['%s'] * arguments)})".encode()  # noqa: S608


def connect_arguments(settings: Settings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "application_name": "fastpubsub",
        "connect_timeout": settings.database_connect_timeout_seconds,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "prepare_threshold": 5 if settings.database_pooler != "transaction" else None,
    }
    if settings.database_pooler != "transaction":
        # A transaction pooler refuses start-up options; there the setting belongs to the role or the database.
        milliseconds = int(settings.database_lock_timeout_seconds * 1000)
        arguments["options"] = f"-c fastpubsub.lock_timeout={milliseconds}ms"
    return arguments
