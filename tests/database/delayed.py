"""Delayed messages: publishing them, and publishing what is due as a server does."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tests.database.store import EVERYTHING, NOW, Row, Store

MAX_OVERDUE = 6 * 3600
MARK = 30
WINDOW = 3600


class Request(NamedTuple):
    """`delays`: of each payload the seconds, a time, or None for now."""

    payloads: Sequence[str]
    delays: Sequence[int | datetime | None]
    key: str | None = None
    body: bytes = b"body"
    ttls: Sequence[int | None] | None = None
    ordering_keys: Sequence[str | None] | None = None
    attributes: Sequence[str | None] | None = None

    def column(self, given: Sequence[Any] | None) -> Sequence[Any]:
        return given or [None] * len(self.payloads)


class Answer(NamedTuple):
    position: int | None
    created_at: datetime
    delayed_keys: list[int | None]


class Waiting(NamedTuple):
    key: int
    due_at: datetime
    payload: str


def publish(
    store: Store, topic: int, *requests: Request, schema_version: int = 0, now: datetime | None = NOW
) -> list[Answer]:
    delays = [delay for request in requests for delay in request.delays]
    positions, times, keys = store.row(
        """
        select * from fastpubsub.publish_delayed_messages(
            %s, %s::json[], %s::jsonb[], %s::text[], %s::timestamptz[], %s::integer[], %s::integer[], %s::text[],
            %s::text[], %s::bytea[], %s, %s, %s, %s::integer[]
        )
        """,
        topic,
        [payload for request in requests for payload in request.payloads],
        [one for request in requests for one in request.column(request.attributes)],
        [one for request in requests for one in request.column(request.ordering_keys)],
        [delay if isinstance(delay, datetime) else None for delay in delays],
        [delay if isinstance(delay, int) else None for delay in delays],
        [len(request.payloads) for request in requests],
        [None if request.key is None else "client" for request in requests],
        [request.key for request in requests],
        [request.body for request in requests],
        WINDOW,
        schema_version,
        now,
        [ttl for request in requests for ttl in request.column(request.ttls)],
    )
    answers = []
    for request, position, time in zip(requests, positions, times, strict=True):
        answers.append(Answer(position, time, keys[: len(request.payloads)]))
        keys = keys[len(request.payloads) :]
    return answers


def delay(store: Store, topic: int, *delays: int | datetime, now: datetime | None = NOW) -> list[int]:
    """Messages whose payload says which one it is; their keys."""
    payloads = [f'{{"n": {index}}}' for index in range(len(delays))]
    (answer,) = publish(store, topic, Request(payloads, delays), now=now)
    return [key for key in answer.delayed_keys if key is not None]


class Due(NamedTuple):
    topic_id: str | None
    published: int
    more: bool


def publish_due(
    store: Store,
    topic: int,
    *,
    now: datetime | None = NOW,
    limit: int = 1000,
    max_bytes: int = EVERYTHING,
    max_overdue: int = MAX_OVERDUE,
    mark: int = MARK,
) -> Due:
    query = "select * from fastpubsub.publish_due_messages(%s, %s, %s, %s, %s, %s)"
    return Due(*store.row(query, topic, limit, max_bytes, max_overdue, mark, now))


def due_topics(store: Store, now: datetime | None = NOW) -> tuple[list[int], float | None]:
    topics, seconds, _ = store.row("select * from fastpubsub.list_due_topics(%s, null, %s)", MARK, now)
    return topics or [], seconds


def listed(store: Store, topic: int, *, held: bool = False, limit: int = 1000) -> list[Waiting]:
    query = "select * from fastpubsub.list_delayed_messages(%s, %s, null, null, %s, %s)"
    return [Waiting(row[0], row[1], row[3]) for row in store.rows(query, topic, held, limit, EVERYTHING)]


def get(store: Store, topic: int, key: int) -> Row:
    """State, when it is due, its position."""
    row = store.row("select * from fastpubsub.get_delayed_message(%s, %s)", topic, key)
    return row[0], row[1], row[6]


def move(
    store: Store,
    topic: int,
    key: int,
    to: datetime | None = None,
    seconds: int | None = None,
    *,
    now: datetime | None = NOW,
) -> Row:
    """When it is due then, and whether it was published before."""
    return store.row("select * from fastpubsub.move_delayed_message(%s, %s, %s, %s, %s)", topic, key, to, seconds, now)


def cancel(store: Store, topic: int, key: int) -> Row:
    """Whether it was cancelled, and whether it was published before."""
    return store.row("select * from fastpubsub.cancel_delayed_message(%s, %s)", topic, key)


def release(store: Store, topic: int, limit: int = 1000, *, now: datetime | None = NOW) -> int:
    return int(store.value("select fastpubsub.release_delayed_messages(%s, %s, %s)", topic, limit, now))


def inspect(store: Store, now: datetime | None = NOW, limit: int = 1000) -> Row:
    """Waiting, held, and for how many seconds the first one is overdue."""
    return store.row("select * from fastpubsub.inspect_delayed(%s, %s)", limit, now)


def floor(store: Store, topic: int) -> Row:
    query = """
        select due_at, delayed_key, position from fastpubsub.fired_messages where topic_key = %s
        order by due_at desc, delayed_key desc limit 1
    """
    return store.row(query, topic)
