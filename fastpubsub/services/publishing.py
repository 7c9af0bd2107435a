"""Coalesces the publish requests of many clients for a topic into calls of one procedure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.delayed_ids import delayed_id
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.message_ids import MessageIds
from fastpubsub.payloads import Batch
from fastpubsub.services.appends import columns, expiry_columns, more_columns, ordering_keys
from fastpubsub.services.coalescing import make_appends, make_coalescer
from fastpubsub.services.directory import Directory
from fastpubsub.services.topic_schemas import StoreKey, TopicSchemas, split
from fastpubsub.services.wakeups import Wakeups


class Idempotency(NamedTuple):
    client: str
    key: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Published:
    topic_key: int
    first_position: int
    created_at: datetime
    count: int
    delayed_keys: Sequence[int | None] | None = None
    """Of all messages, in their places, those that come later; they are not in `count`."""

    def ids(self) -> list[str]:
        ids = MessageIds(self.topic_key, self.created_at)
        positions = range(self.first_position, self.first_position + self.count)
        if self.delayed_keys is None:
            return [ids.at(position) for position in positions]
        stored = iter(positions)
        return [ids.at(next(stored)) if key is None else delayed_id(key) for key in self.delayed_keys]


class Keyed(NamedTuple):
    batch: Batch
    idempotency: Idempotency


class Later(NamedTuple):
    """A publish of which at least one message comes later."""

    batch: Batch
    idempotency: Idempotency | None

    @property
    def name(self) -> tuple[str | None, ...]:
        """The client and its key."""
        return (None, None) if self.idempotency is None else self.idempotency[:2]


class Publishing:
    def __init__(
        self, database: Database, directory: Directory, settings: Settings, counters: Counters, wakeups: Wakeups
    ) -> None:
        self._database = database
        self._directory = directory
        self._counters = counters
        self._wakeups = wakeups
        self._window_seconds = settings.idempotency_window_seconds
        self._schemas = TopicSchemas(database)
        self._appends = make_appends(settings, database)
        self._plain = make_coalescer(settings, self._call_publish, ready=self._appends.ready)
        self._once = make_coalescer(settings, self._call_publish_once)
        self._later = make_coalescer(settings, self._call_publish_later)

    async def close(self) -> None:
        """Lets what was accepted finish."""
        await self._plain.drain()
        await self._once.drain()
        await self._later.drain()

    async def publish(self, topic_id: str, batch: Batch, idempotency: Idempotency | None = None) -> Published | None:
        """Returns None when there was nothing to publish."""
        if not batch.payloads:
            await self._database.fetch_one("resolve_topic", topic_id)
            return None
        rows = len(batch.payloads)

        async def store(key: StoreKey) -> Published:
            if batch.delays is not None:
                published = await self._later.submit(key, Later(batch, idempotency), rows=rows, size=batch.size)
            elif idempotency is None:
                return await self._plain.submit(key, batch, rows=rows, size=batch.size)
            else:
                published = await self._once.submit(key, Keyed(batch, idempotency), rows=rows, size=batch.size)
            if published is None:
                raise InvalidRequest(
                    "this Idempotency-Key was used with another body; repeat that body, or use a new key"
                )
            return published

        async def publish(topic_key: int) -> Published:
            return await self._schemas.use(topic_key, batch.payloads, store)

        published = await self._directory.topics.use(topic_id, publish)
        self._counters.published(topic_id, published.count)
        return published

    async def _call_publish(self, key: StoreKey, batches: Sequence[Batch]) -> list[Published]:
        topic_key = split(key)[0]
        position, created_at = await self._appends.append(key, batches)
        answers = []
        for batch in batches:
            answers.append(Published(topic_key, position, created_at, len(batch.payloads)))
            position += len(batch.payloads)
        self._wakeups.published(topic_key, position - answers[0].first_position)
        return answers

    async def _call_publish_once(self, key: StoreKey, requests: Sequence[Keyed]) -> list[Published | None]:
        topic_key, *schema_version = split(key)
        batches = [request.batch for request in requests]
        counts = [len(batch.payloads) for batch in batches]
        positions, created_at = await self._database.fetch_one(
            "publish_messages_once",
            topic_key,
            *columns(batches),
            Array("int4", counts),
            Array("text", [request.idempotency.client for request in requests]),
            Array("text", [request.idempotency.key for request in requests]),
            Array("bytea", [request.idempotency.body_hash for request in requests]),
            self._window_seconds,
            *(schema_version or [0]),
            *more_columns(batches),
        )
        self._wakeups.published(topic_key, sum(counts))
        return [
            None if position is None else Published(topic_key, position, time, count)
            for position, time, count in zip(positions, created_at, counts, strict=True)
        ]

    async def _call_publish_later(self, key: StoreKey, requests: Sequence[Later]) -> list[Published | None]:
        topic_key, *schema_version = split(key)
        batches = [request.batch for request in requests]
        delays = [delay for batch in batches for delay in batch.delays or ()]
        clients, keys = zip(*(request.name for request in requests), strict=True)
        payloads, attributes = columns(batches)
        positions, created_at, delayed_keys = await self._database.fetch_one(
            "publish_delayed_messages",
            topic_key,
            payloads,
            attributes,
            ordering_keys(batches),
            Array("timestamptz", [delay.deliver_at for delay in delays]),
            Array("int4", [delay.seconds for delay in delays]),
            Array("int4", [len(batch.payloads) for batch in batches]),
            Array("text", clients),
            Array("text", keys),
            Array("bytea", [None if (one := request.idempotency) is None else one.body_hash for request in requests]),
            self._window_seconds,
            *(schema_version or [0]),
            None,
            *expiry_columns(batches),
        )
        rest = iter(delayed_keys)
        answers: list[Published | None] = []
        for position, time, batch in zip(positions, created_at, batches, strict=True):
            own = list(islice(rest, len(batch.payloads)))
            answers.append(None if position is None else Published(topic_key, position, time, own.count(None), own))
        self._wakeups.published(topic_key, sum(answer.count for answer in answers if answer is not None))
        return answers
