"""Publishing in a transaction of one's own, with every kind of session."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from fastpubsub.client import Client, Outgoing
from fastpubsub.database.urls import normalise
from fastpubsub.integrations.sqlalchemy import publish
from tests.lasting import Last, Lasting
from tests.pages import DOCS, blocks


class Order(BaseModel):
    order_id: int


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server()


@pytest.fixture
def database_url(lasting: Lasting) -> str:
    return lasting.database_url


@pytest.fixture
def bus(lasting: Lasting) -> Iterator[Client]:
    with Client(lasting.base_url) as client:
        client.create_topic("orders")
        client.create_subscription("billing", "orders")
        yield client


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(normalise(database_url))
    with made.begin() as connection:
        connection.execute(text("create table orders (id int primary key)"))
    yield made
    made.dispose()


def received(bus: Client, count: int) -> list[Any]:
    """All that came, once there are so many."""
    found: list[Any] = []
    while len(found) < count:
        found += bus.pull("billing", batch_size=100, wait_seconds=5)
    found += bus.pull("billing", batch_size=100)
    return [(message.payload, message.attributes) for message in found]


@pytest.fixture
def example() -> dict[str, Any]:
    """The names of the block of docs/fastapi.md."""
    (block,) = (one for one in blocks(DOCS / "fastapi.md") if one.text.startswith("# transactions.py"))
    names: dict[str, Any] = {}
    exec(block.text, names)
    return names


async def test_the_example(bus: Client, engine: Engine, database_url: str, example: dict[str, Any]) -> None:
    with Session(engine) as session:
        example["place_order"](session, 1)
        with pytest.raises(IntegrityError):
            example["place_order"](session, 1)
    asynchronous = create_async_engine(normalise(database_url))
    async with AsyncSession(asynchronous) as async_session:
        await example["place_order_asynchronously"](async_session, 2)
    await asynchronous.dispose()
    assert await asyncio.to_thread(received, bus, 2) == [
        ({"order_id": 1, "total": 20}, {"source": "shop"}),
        ({"order_id": 2, "total": 20}, None),
    ]


def test_it_is_stored_exactly_if_it_is_committed(bus: Client, engine: Engine) -> None:
    with Session(engine) as session:
        with session.begin():
            session.execute(text("insert into orders values (1)"))
            publish(session, "orders", Order(order_id=1), Outgoing({"n": 2}, {"a": "b"}), attributes={"source": "shop"})
        publish(session, "orders", {"order_id": 3})
        session.rollback()
        publish(session, "orders", {"order_id": 4})
        session.commit()
    assert received(bus, 3) == [
        ({"order_id": 1}, {"source": "shop"}),
        ({"n": 2}, {"a": "b", "source": "shop"}),
        ({"order_id": 4}, None),
    ]


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(("topic", "payload"), [("nowhere", {}), ("orders", [1]), ("orders", {"n": float("nan")})])
def test_what_cannot_be_published_raises(engine: Engine, topic: str, payload: Any) -> None:
    with Session(engine) as session, pytest.raises(DBAPIError):
        publish(session, topic, payload)


def test_connections_and_scoped_sessions(bus: Client, engine: Engine) -> None:
    with engine.begin() as connection:
        publish(connection, "orders", {"n": 1})
    scoped = scoped_session(sessionmaker(engine))
    publish(scoped, "orders", {"n": 2})
    scoped.commit()
    scoped.remove()
    assert received(bus, 2) == [({"n": 1}, None), ({"n": 2}, None)]


async def test_asynchronous_ones(bus: Client, database_url: str) -> None:
    engine = create_async_engine(normalise(database_url))
    async with engine.begin() as connection:
        await publish(connection, "orders", {"n": 1})
    async with AsyncSession(engine) as session, session.begin():
        await publish(session, "orders", Order(order_id=2), attributes={"a": "b"})
    await engine.dispose()
    assert await asyncio.to_thread(received, bus, 2) == [({"n": 1}, None), ({"order_id": 2}, {"a": "b"})]


def test_messages_that_expire(engine: Engine, bus: Client) -> None:
    past = datetime(2020, 1, 31, tzinfo=UTC)
    with Session(engine) as session, session.begin():
        publish(session, "orders", {"n": 1}, Outgoing({"n": 2}, ttl_seconds=600), expires_at=past)
        publish(session, "orders", {"n": 3}, ttl_seconds=600)
    messages = [bus.pull("billing", wait_seconds=20, batch_size=1)[0] for _ in range(2)]
    assert [message.payload for message in messages] == [{"n": 2}, {"n": 3}]


def test_with_an_ordering_key(engine: Engine, bus: Client) -> None:
    with Session(engine) as session, session.begin():
        publish(session, "orders", {"n": 1}, Outgoing({"n": 2}, ordering_key='"b'), ordering_key="a")
        publish(session, "orders", {"n": 3})
    messages = [bus.pull("billing", wait_seconds=20, batch_size=1)[0] for _ in range(3)]
    assert [message.ordering_key for message in messages] == ["a", '"b', None]
