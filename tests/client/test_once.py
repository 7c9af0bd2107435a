"""Handlers that do each message once, with the transactions of an application's own database."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastpubsub.client import Depends, Message, Retry, Worker
from fastpubsub.integrations.sqlalchemy import done_table, once, transaction
from fastpubsub.testing import InMemoryBus


def dying(attempts: list[int]) -> Any:
    """After the commit and before the ack, twice."""

    async def die(message: Message, call_next: Callable[[], Awaitable[Any]]) -> None:
        await call_next()
        attempts.append(message.delivery_attempts)
        if message.delivery_attempts < 3:
            raise Retry(after=0)

    return die


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_message_is_done_once(empty_database_url: str, *, is_async: bool) -> None:
    """It comes again after its commit, as when a worker dies before it has acknowledged the message."""
    metadata = MetaData()
    done_table(metadata)
    plain, asynchronous = create_engine(empty_database_url), create_async_engine(empty_database_url)
    with plain.begin() as connection:
        metadata.create_all(connection)
        connection.execute(text("create table bills (n integer)"))

    get_async_session, get_session = transaction(async_sessionmaker(asynchronous)), transaction(sessionmaker(plain))
    attempts: list[int] = []
    calls: list[int] = []
    memory, worker = InMemoryBus(), Worker()
    memory.subscription("billing", "orders", backoff_min_seconds=0)

    worker.middleware(dying(attempts))

    def bill_with(session: Session, n: int) -> None:
        calls.append(n)
        session.execute(text("insert into bills values (:n)"), {"n": n})
        if len(calls) == 1:
            raise ValueError("the first transaction is undone, and remembers nothing")

    async def bill(order: dict[str, int], session: Annotated[AsyncSession, Depends(get_async_session)]) -> None:
        await session.run_sync(bill_with, order["n"])

    def bill_plainly(order: dict[str, int], session: Annotated[Session, Depends(get_session)]) -> None:
        bill_with(session, order["n"])

    dependency = get_async_session if is_async else get_session
    worker.subscriber("billing", once=once(dependency))(bill if is_async else bill_plainly)
    with memory.client() as client:
        client.publish("orders", {"n": 7})
        await memory.drain(worker)
        assert client.metrics("billing").acked == 1
    with plain.connect() as connection:
        assert connection.execute(text("select n from bills")).all() == [(7,)]
        assert connection.execute(text("select subscription_id from fastpubsub_done")).all() == [("billing",)]
    assert (calls, attempts) == ([7, 7], [2, 3])
    plain.dispose()
    await asynchronous.dispose()
