"""Schedules: messages that are published again and again, by a cron expression or an interval."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.exceptions import InvalidRequest, NotFound
from fastpubsub.message_ids import MessageIds
from fastpubsub.models import ChangedSchedule, NewSchedule
from fastpubsub.services.directory import Directory
from fastpubsub.services.topic_schemas import StoreKey, TopicSchemas, split
from fastpubsub.services.wakeups import Wakeups
from fastpubsub.timetables import Timetable

MAX_SCHEDULES = 1000
"""Of a topic."""

UPCOMING = 5


class Content(NamedTuple):
    """What a schedule publishes, as JSON."""

    payload: bytes
    attributes: bytes | None
    ordering_key: str | None

    @property
    def texts(self) -> tuple[str, str | None, str | None]:
        return self.payload.decode(), None if self.attributes is None else self.attributes.decode(), self.ordering_key


class Times(NamedTuple):
    cron: str | None
    time_zone: str | None
    interval_seconds: int | None


class StoredSchedule(NamedTuple):
    topic_id: str
    id: str
    revision: int
    content: Content
    times: Times
    catch_up: str
    created_at: datetime
    paused_at: datetime | None
    next_at: datetime | None
    last_fired_at: datetime | None
    last_message_id: str | None
    fired: int
    missed: int
    problem: str | None

    def upcoming(self) -> list[datetime]:
        if self.next_at is None:
            return []
        return Timetable(*self.times).upcoming(self.next_at, UPCOMING)


class Schedules:
    """Creating, listing, changing, pausing and deleting schedules, and firing one by hand."""

    def __init__(self, database: Database, directory: Directory, counters: Counters, wakeups: Wakeups) -> None:
        self._database = database
        self._topics = directory.topics
        self._counters = counters
        self._wakeups = wakeups
        self._schemas = TopicSchemas(database)

    async def list_(self, topic_id: str, *, after: str | None, limit: int) -> list[StoredSchedule]:
        """Ordered by id, after an id."""

        async def list_(topic_key: int) -> list[StoredSchedule]:
            return await self._find(topic_id, topic_key, None, after, limit)

        return await self._topics.use(topic_id, list_)

    async def get(self, topic_id: str, id_: str) -> StoredSchedule:
        async def get(topic_key: int) -> StoredSchedule | None:
            found = await self._find(topic_id, topic_key, id_, None, 1)
            return found[0] if found else None

        found = await self._topics.use(topic_id, get)
        if found is None:
            raise NotFound(f'topic "{topic_id}" has no schedule "{id_}"')
        return found

    async def create(
        self, topic_id: str, new: NewSchedule, content: Content, change: Change | None = None
    ) -> StoredSchedule:
        """Raises AlreadyExists; InvalidRequest, also when the payload does not match the schema of the topic."""
        times = Times(new.cron, (new.time_zone or "UTC") if new.cron else None, new.interval_seconds)
        next_at = await self._next(times)
        settings = (*content.texts, *times, new.catch_up, next_at, MAX_SCHEDULES)
        await self._store(topic_id, content, "create_schedule", new.id, *settings, change=change)
        return await self.get(topic_id, new.id)

    async def update(
        self,
        topic_id: str,
        id_: str,
        changed: ChangedSchedule,
        content: Callable[[Content], Content],
        change: Change | None = None,
    ) -> StoredSchedule:
        """`content` makes the new content of the present one. Raises AlreadyExists when another change came between."""
        there = await self.get(topic_id, id_)
        times, new = _changed_times(there.times, changed), content(there.content)
        next_at = None if times == there.times else await self._next(times)
        settings = (*new.texts, *times, changed.catch_up or there.catch_up, next_at)
        await self._store(topic_id, new, "update_schedule", id_, there.revision, *settings, change=change)
        return await self.get(topic_id, id_)

    async def pause(self, topic_id: str, id_: str, *, is_paused: bool, change: Change | None = None) -> StoredSchedule:
        """A schedule that is resumed goes on from now: what would have come meanwhile was not missed."""
        there = await self.get(topic_id, id_)
        next_at = None if is_paused else await self._next(there.times)

        async def pause(topic_key: int) -> None:
            await self._database.fetch_one("pause_schedule", topic_key, id_, there.revision, next_at, change=change)

        await self._topics.use(topic_id, pause)
        return await self.get(topic_id, id_)

    async def delete(self, topic_id: str, id_: str, change: Change | None = None) -> None:
        async def delete(topic_key: int) -> None:
            await self._database.fetch_one("delete_schedule", topic_key, id_, change=change)

        await self._of_schedule(topic_id, id_, delete)

    async def fire(self, topic_id: str, id_: str, change: Change | None = None) -> StoredSchedule:
        """Publishes its message now, besides the times at which it would come."""
        there = await self.get(topic_id, id_)

        async def fire(topic_key: int) -> None:
            firing = Firing(topic_key, id_, None, None)
            await fire_schedule(self._database, self._schemas, firing, there.content.payload, NOW, change)
            self._counters.published(topic_id, 1)
            self._counters.fired(topic_id, 1)
            self._wakeups.published(topic_key, 1)

        await self._of_schedule(topic_id, id_, fire)
        return await self.get(topic_id, id_)

    async def _of_schedule(self, topic_id: str, id_: str, action: Callable[[int], Awaitable[None]]) -> None:
        try:
            await self._topics.use(topic_id, action)
        except NotFound:
            await self.get(topic_id, id_)  # which says what is not there
            raise

    async def _store(
        self, topic_id: str, content: Content, procedure: str, *arguments: object, change: Change | None
    ) -> None:
        async def use(topic_key: int) -> None:
            async def store(key: StoreKey) -> None:
                _, *version = split(key)
                await self._database.fetch_one(procedure, topic_key, *arguments, *version, change=change)

            await self._schemas.use(topic_key, [content.payload], store)

        await self._topics.use(topic_id, use)

    async def _next(self, times: Times) -> datetime | None:
        """By the clock of the database."""
        timetable = Timetable(*times)
        (now,) = await self._database.fetch_one("read_clock")
        return timetable.after(now, now)

    async def _find(
        self, topic_id: str, topic_key: int, id_: str | None, after: str | None, limit: int
    ) -> list[StoredSchedule]:
        rows = await self._database.fetch_all("list_schedules", topic_key, id_, after, limit)
        return [_schedule(topic_id, topic_key, *row) for row in rows]


class Firing(NamedTuple):
    """A time of a schedule; without `due_at` it is fired by hand."""

    topic_key: int
    id: str
    revision: int | None
    due_at: datetime | None


class Plan(NamedTuple):
    """The times that are published, how many are given up, and when the schedule fires next."""

    times: list[datetime]
    missed: int
    next_at: datetime | None


NOW = Plan([], 0, None)
"""Of a schedule that is fired by hand."""


async def fire_schedule(
    database: Database,
    schemas: TopicSchemas,
    firing: Firing,
    payload: bytes,
    plan: Plan,
    change: Change | None = None,
) -> int | None:
    """Returns how many messages were published; None when another process has done it.

    Raises InvalidRequest when the payload does not match the schema that the topic has by now.
    """

    async def store(key: StoreKey) -> int | None:
        _, *version = split(key)
        times = Array("timestamptz", plan.times)
        arguments = (*firing, times, plan.missed, plan.next_at, None, *version)
        fired, _, _ = await database.fetch_one("fire_schedule", *arguments, change=change)
        return None if fired is None else int(fired)

    return await schemas.use(firing.topic_key, [payload], store)


def _changed_times(there: Times, changed: ChangedSchedule) -> Times:
    if changed.interval_seconds is not None:
        return Times(None, None, changed.interval_seconds)
    cron = changed.cron or there.cron
    if cron is None:
        if changed.time_zone is not None:
            raise InvalidRequest("`time_zone` belongs to `cron`, and this schedule has an interval; give both")
        return there
    return Times(cron, changed.time_zone or there.time_zone or "UTC", None)


def _schedule(topic_id: str, topic_key: int, *row: Any) -> StoredSchedule:
    id_, revision, payload, attributes, ordering_key, cron, time_zone, interval_seconds, catch_up, *rest = row
    created_at, paused_at, next_at, last_fired_at, last_position, fired, missed, problem = rest
    last = None if last_position is None else MessageIds(topic_key, last_fired_at).at(last_position)
    return StoredSchedule(
        topic_id,
        id_,
        revision,
        Content(payload, attributes, ordering_key),
        Times(cron, time_zone, interval_seconds),
        catch_up,
        created_at,
        paused_at,
        next_at,
        last_fired_at,
        last,
        fired,
        missed,
        problem,
    )
