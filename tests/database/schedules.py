"""Schedules: making them, and firing what is due as a server does."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from tests.database.store import NOW, SECOND, Row, Store

SOON = NOW + 10 * SECOND
NEXT = NOW + 20 * SECOND


def create(
    store: Store,
    topic: int,
    id_: str = "tick",
    *,
    payload: str = '{"n": 1}',
    attributes: str | None = None,
    ordering_key: str | None = None,
    next_at: datetime = SOON,
    limit: int = 1000,
    schema_version: int = 0,
    now: datetime | None = NOW,
) -> datetime:
    created_at: datetime = store.value(
        "select fastpubsub.create_schedule(%s, %s, %s, %s, %s, null, null, 10, 'once', %s, %s, %s, %s)",
        topic,
        id_,
        payload,
        attributes,
        ordering_key,
        next_at,
        limit,
        schema_version,
        now,
    )
    return created_at


class Scheduled(NamedTuple):
    id: str
    revision: int
    payload: str
    next_at: datetime | None
    paused_at: datetime | None
    last_fired_at: datetime | None
    last_position: int | None
    fired: int
    missed: int
    problem: str | None


def listed(store: Store, topic: int, id_: str | None = None, after: str | None = None) -> list[Scheduled]:
    columns = "id, revision, payload::text, next_at, paused_at, last_fired_at, last_position, fired, missed, problem"
    query = f"select {columns} from fastpubsub.list_schedules(%s, %s, %s, 100)"
    return [Scheduled(*row) for row in store.rows(query, topic, id_, after)]


def get(store: Store, topic: int, id_: str = "tick") -> Scheduled:
    (found,) = listed(store, topic, id_)
    return found


def due(store: Store, now: datetime, *, look_back: float | None = None, limit: int = 100) -> list[Row]:
    """Ids with the time at which each was due."""
    query = "select topic_id, id, revision, next_at from fastpubsub.list_due_schedules(%s, %s, %s)"
    return store.rows(query, limit, look_back, now)


class Fired(NamedTuple):
    messages: int | None
    first_position: int | None
    created_at: datetime | None


def fire(
    store: Store,
    topic: int,
    id_: str = "tick",
    *,
    revision: int | None = 1,
    due_at: datetime | None = SOON,
    times: Sequence[datetime] = (SOON,),
    missed: int = 0,
    next_at: datetime | None = NEXT,
    problem: str | None = None,
    schema_version: int = 0,
    now: datetime | None = SOON,
) -> Fired:
    query = "select * from fastpubsub.fire_schedule(%s, %s, %s, %s, %s::timestamptz[], %s, %s, %s, %s, %s)"
    return Fired(
        *store.row(query, topic, id_, revision, due_at, list(times), missed, next_at, problem, schema_version, now)
    )


def fire_by_hand(store: Store, topic: int, id_: str = "tick", *, now: datetime | None = SOON) -> Fired:
    return fire(store, topic, id_, revision=None, due_at=None, times=(), next_at=None, now=now)


def update(
    store: Store,
    topic: int,
    id_: str = "tick",
    *,
    revision: int = 1,
    payload: str = '{"n": 2}',
    next_at: datetime | None = None,
    schema_version: int = 0,
) -> int:
    return store.execute(
        "select fastpubsub.update_schedule(%s, %s, %s, %s, null, null, null, null, 60, 'all', %s, %s)",
        topic,
        id_,
        revision,
        payload,
        next_at,
        schema_version,
    )


def pause(
    store: Store, topic: int, id_: str = "tick", *, revision: int | None = None, resume_at: datetime | None = None
) -> int:
    query = "select fastpubsub.pause_schedule(%s, %s, %s, %s, %s)"
    return store.execute(query, topic, id_, revision, resume_at, NOW)


def delete(store: Store, topic: int, id_: str = "tick") -> int:
    return store.execute("select fastpubsub.delete_schedule(%s, %s)", topic, id_)


def inspect(store: Store, now: datetime) -> Row:
    """Active, paused, failing, and for how many seconds the first one is overdue."""
    return store.row("select * from fastpubsub.inspect_schedules(%s)", now)
