"""An application that settles in the transaction of its work: `settling_process.py WAY once|on URL DATABASE`.

`once`: it takes one batch, and gives up what fails.
"""

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from fastpubsub.client import Client, ConnectionFailed, Delivery, Message, Transaction

BATCH = 3
SETTLED = ("acked", "nacked", "rejected")
"""By the remainder of its number, what becomes of a message."""

AGAIN_SECONDS = 600


def libpq(url: str) -> str:
    return url.replace("+psycopg", "", 1)


@asynccontextmanager
async def with_psycopg(url: str) -> AsyncIterator[Any]:
    with psycopg.connect(libpq(url)) as connection:
        yield connection


@asynccontextmanager
async def with_async_psycopg(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(libpq(url)) as connection:
        yield connection


@asynccontextmanager
async def with_session(url: str) -> AsyncIterator[Any]:
    with Session(create_engine(url, poolclass=NullPool)) as session, session.begin():
        yield session


@asynccontextmanager
async def with_async_session(url: str) -> AsyncIterator[Any]:
    async with AsyncSession(create_async_engine(url, poolclass=NullPool)) as session, session.begin():
        yield session


SESSIONS: dict[str, Callable[[str], AbstractAsyncContextManager[Any]]] = {
    "psycopg": with_psycopg,
    "asynchronous psycopg": with_async_psycopg,
    "SQLAlchemy": with_session,
    "asynchronous SQLAlchemy": with_async_session,
}


async def execute(session: Any, statement: str, **values: object) -> None:
    if isinstance(session, Session | AsyncSession):
        result = session.execute(text(statement.format(**{name: f":{name}" for name in values})), values)
    else:
        result = session.execute(statement.format(**{name: f"%({name})s" for name in values}).encode(), values)
    if inspect.isawaitable(result):
        await result


async def work(session: Any, messages: Sequence[Message]) -> None:
    for message in messages:
        n = message.payload["n"]
        await execute(session, "insert into done values (cast({n} as int), {how})", n=n, how=SETTLED[n % BATCH])
        await settle(session, Delivery.model_validate(message.model_dump()), n)
        await execute(session, "select fastpubsub.publish('billed', json_build_object('n', cast({n} as int)))", n=n)


async def settle(session: Any, delivery: Delivery, n: int) -> None:
    match SETTLED[n % BATCH]:
        case "acked":
            await delivery.ack_in(session)
        case "nacked":
            await delivery.nack_in(session, AGAIN_SECONDS, "not yet")
        case _:
            await delivery.reject_in(session, "no such customer")


def work_over_http(bus: Client, messages: Sequence[Message]) -> None:
    transaction = Transaction()
    for message in messages:
        n = message.payload["n"]
        match SETTLED[n % BATCH]:
            case "acked":
                transaction.ack("billing", message)
            case "nacked":
                transaction.nack("billing", message, delay_seconds=AGAIN_SECONDS, reason="not yet")
            case _:
                transaction.reject("billing", message, reason="no such customer")
        transaction.publish("billed", {"n": n})
    bus.transact(transaction)


async def main(way: str, how_long: str, url: str, database: str) -> None:
    with Client(url) as bus:
        while messages := bus.pull("billing", batch_size=BATCH):
            try:
                if way == "HTTP":
                    work_over_http(bus, messages)
                else:
                    async with SESSIONS[way](database) as session:
                        await work(session, messages)
            except (psycopg.OperationalError, DBAPIError, ConnectionFailed):
                if how_long != "once":
                    raise
            if how_long == "once":
                return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
