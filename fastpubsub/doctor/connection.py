"""The database as the doctor sees it: questions that read, each with a deadline."""

import asyncio
import contextlib
from typing import Any

import psycopg

from fastpubsub.config import Settings
from fastpubsub.database.connections import Connector, Row, cut_after

QUESTION = "5s"
"""After it the server gives the question up."""

CUT_SECONDS = 6.0
"""After it the connection is cut, should the server not have answered at all."""

LIMIT = """
select
    pg_catalog.set_config('statement_timeout', %s, true),
    pg_catalog.set_config('jit', 'off', true),
    pg_catalog.set_config('datestyle', 'ISO', true),
    pg_catalog.set_config('timezone', 'UTC', true)
"""


class DoctorConnection:
    """Keeps one connection; a question that gets no answer costs it, and the next makes another, if it can be had."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._is_gone = False

    async def connection(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            if self._is_gone:
                raise psycopg.OperationalError("the database no longer answers")
            self._is_gone = self._connection is not None
            self._connection = await self.connect()
            self._is_gone = False
        return self._connection

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """Opens another connection, beside that of `ask`."""
        connection = await Connector(self.settings).connect()
        await connection.set_read_only(True)
        return connection

    async def ask(
        self, query: str, *arguments: object, connection: psycopg.AsyncConnection[Any] | None = None
    ) -> list[Row]:
        asked = connection or await self.connection()
        # A transaction also behind a pooler, which has no start-up options.
        with cut_after(CUT_SECONDS, asked):
            async with asked.transaction():
                await asked.execute(LIMIT, [QUESTION], prepare=False)
                cursor = await asked.execute(query.encode(), arguments, prepare=False)
                return await cursor.fetchall()

    async def call(self, procedure: str, *arguments: object) -> list[Row]:
        """Procedures are named by this program only."""
        marks = ", ".join(["%s"] * len(arguments))
        return await self.ask(f"select * from fastpubsub.{procedure}({marks})", *arguments)  # noqa: S608

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await hang_up(connection)


async def hang_up(connection: psycopg.AsyncConnection[Any]) -> None:
    with contextlib.suppress(psycopg.Error, OSError):
        await connection.close()


def reason(error: BaseException) -> str:
    """Returns the first line of the error, which has no password."""
    if isinstance(error, asyncio.TimeoutError | TimeoutError):
        return "no answer in time"
    return str(error).strip().partition("\n")[0] or type(error).__name__
