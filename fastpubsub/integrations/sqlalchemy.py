"""Publishes from your own transaction in fastpubsub's database: messages are stored exactly if you commit.

    with Session(engine) as session, session.begin():
        session.add(order)
        publish(session, "orders", {"order_id": order.id})

The role of the application needs `execute` on the function `fastpubsub.publish`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from datetime import datetime
from typing import Any, overload

from sqlalchemy import Column, Connection, DateTime, Engine, MetaData, String, Table, func, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from fastpubsub.client.options import Once
from fastpubsub.client.requests import Encoded, Outgoing, Payload, address, encode
from fastpubsub.client.topics import AnyTopic
from fastpubsub.models import Message

Synchronous = Connection | Session | scoped_session[Any]
Asynchronous = AsyncConnection | AsyncSession | async_scoped_session[Any]

_PUBLISH = text(
    "select fastpubsub.publish(:topic, cast(:payload as json), cast(:attributes as jsonb), cast(:ordering_key as text),"
    " coalesce(cast(:deliver_at as timestamptz), clock_timestamp() + make_interval(secs => cast(:delay as integer))),"
    " cast(:ttl_seconds as integer), cast(:expires_at as timestamptz))"
)


@overload
def publish(
    session: Synchronous,
    topic_id: AnyTopic,
    *payloads: Payload | Outgoing,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str | None = None,
    deliver_at: datetime | None = None,
    delay_seconds: int | None = None,
    ttl_seconds: int | None = None,
    expires_at: datetime | None = None,
) -> None: ...
@overload
def publish(
    session: Asynchronous,
    topic_id: AnyTopic,
    *payloads: Payload | Outgoing,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str | None = None,
    deliver_at: datetime | None = None,
    delay_seconds: int | None = None,
    ttl_seconds: int | None = None,
    expires_at: datetime | None = None,
) -> Coroutine[Any, Any, None]: ...
def publish(
    session: Synchronous | Asynchronous,
    topic_id: AnyTopic,
    *payloads: Payload | Outgoing,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str | None = None,
    deliver_at: datetime | None = None,
    delay_seconds: int | None = None,
    ttl_seconds: int | None = None,
    expires_at: datetime | None = None,
) -> Coroutine[Any, Any, None] | None:
    """Publishes with a session or a connection of SQLAlchemy; await it if that is asynchronous.

    Subscribers see the messages after the commit, and not before `deliver_at`, or `delay_seconds` from now; those that
    nobody has taken by `expires_at`, or for `ttl_seconds`, are not delivered any more. A message that cannot be
    published, such as to an unknown topic, raises here and leaves your transaction failed. A payload of another type
    than that of a `Topic` raises `TypeError` before.
    """
    id_ = address(topic_id, *payloads)
    common = (attributes, ordering_key, deliver_at, delay_seconds, ttl_seconds, expires_at)
    rows = [_row(id_, encode(payload, *common)) for payload in payloads]
    if isinstance(session, AsyncConnection | AsyncSession | async_scoped_session):
        return _execute(session, rows)
    for row in rows:
        session.execute(_PUBLISH, row)
    return None


async def _execute(session: Asynchronous, rows: list[dict[str, str | int | None]]) -> None:
    for row in rows:
        await session.execute(_PUBLISH, row)


def _row(topic_id: str, message: Encoded) -> dict[str, str | int | None]:
    return {
        "topic": topic_id,
        "payload": message.payload.decode(),
        "attributes": None if message.attributes is None else message.attributes.decode(),
        "ordering_key": None if message.ordering_key is None else json.loads(message.ordering_key),
        "deliver_at": None if message.deliver_at is None else json.loads(message.deliver_at),
        "delay": None if message.delay_seconds is None else json.loads(message.delay_seconds),
        "ttl_seconds": None if message.ttl_seconds is None else json.loads(message.ttl_seconds),
        "expires_at": None if message.expires_at is None else json.loads(message.expires_at),
    }


_REMEMBER = text(
    "insert into fastpubsub_done (subscription_id, message_id) values (:subscription_id, :message_id) "
    "on conflict do nothing"
)


def done_table(metadata: MetaData) -> Table:
    """The table of `once`, for your migrations. Delete rows that are so old that their messages cannot come again."""
    return Table(
        "fastpubsub_done",
        metadata,
        Column("subscription_id", String(128), primary_key=True),
        Column("message_id", String(36), primary_key=True),
        Column("done_at", DateTime(timezone=True), server_default=func.now(), nullable=False, index=True),
    )


def transaction(
    source: Engine | sessionmaker[Any] | AsyncEngine | async_sessionmaker[Any],
) -> Callable[[], Iterator[Any] | AsyncIterator[Any]]:
    """Returns a dependency: a connection of an engine, or a session of a maker, in a transaction of its own.

    The transaction is committed when the function that takes it returns, and rolled back when that raises. A route of
    FastAPI takes it with `Depends(…, scope="function")`: otherwise the answer comes before the commit.
    """

    def plain() -> Iterator[Any]:
        with source.begin() as begun:  # type: ignore[union-attr]
            yield begun

    async def asynchronous() -> AsyncIterator[Any]:
        async with source.begin() as begun:  # type: ignore[union-attr]
            yield begun

    return asynchronous if isinstance(source, AsyncEngine | async_sessionmaker) else plain


def once(get_session: Callable[..., Any]) -> Once:
    """Lets a subscriber process each message once: `@bus.subscriber("billing", once=once(get_session))`.

    `get_session` is the dependency that gives the handler its session or connection of SQLAlchemy, and commits when it
    is closed, such as `transaction(engine)`. The id of the message is remembered in `fastpubsub_done` in the same
    transaction, of a database of your own.
    """
    return Once(get_session, _is_first)


async def _is_first(session: Synchronous | Asynchronous, message: Message) -> bool:
    row = {"subscription_id": message.subscription_id, "message_id": str(message.id)}
    if isinstance(session, AsyncConnection | AsyncSession | async_scoped_session):
        result: Any = await session.execute(_REMEMBER, row)
    else:
        result = await asyncio.to_thread(session.execute, _REMEMBER, row)
    return bool(result.rowcount == 1)
