"""The schemas of topics: which payloads are stored."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest, SchemaChanged
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.services.recent import Recent

_REMEMBERED = 1000
_ATTEMPTS = 5

Answer = TypeVar("Answer")


class Checked(NamedTuple):
    """A topic, and the version of the schema by which the payloads were checked."""

    topic_key: int
    schema_version: int


StoreKey = int | Checked
"""Payloads for a topic without a schema go by its key alone."""


def split(key: StoreKey) -> tuple[int, ...]:
    return (key,) if isinstance(key, int) else key


class _Known(NamedTuple):
    version: int
    schema: PayloadSchema


class TopicSchemas:
    """Compiled, by topic. A process may remember an old one, or none: what stores the messages knows which is current.

    So a change holds for every publish that begins after it, in every process, and a topic without a schema costs no
    question.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: Recent[int, _Known] = Recent(_REMEMBERED)

    async def use(
        self, topic_key: int, payloads: Sequence[bytes], store: Callable[[StoreKey], Awaitable[Answer]]
    ) -> Answer:
        """Checks and stores; once more by the schema that is current when it turns out to be another one."""
        for _ in range(_ATTEMPTS):
            known = self._known.get(topic_key)
            try:
                if known is None:
                    return await store(topic_key)
                await check(known.schema, payloads)
                return await store(Checked(topic_key, known.version))
            except SchemaChanged:
                await self._look_up(topic_key)
            except InvalidRequest:
                if await self._look_up(topic_key) is known:
                    raise
        raise SchemaChanged("the schema of the topic keeps changing; try again")

    async def _look_up(self, topic_key: int) -> _Known | None:
        text, version = await self._database.fetch_one("get_schema", topic_key)
        known = self._known.get(topic_key)
        if text is None:
            self._known.forget(topic_key)
            return None
        if known is None or known.version != version:
            known = _Known(version, PayloadSchema(text))
            self._known.put(topic_key, known)
        return known


async def check(schema: PayloadSchema, payloads: Sequence[bytes]) -> None:
    """Checks in a thread when it may take long; the library lets others run meanwhile."""
    if schema.is_quick(payloads):
        schema.check(payloads)
    else:
        await asyncio.to_thread(schema.check, payloads)
