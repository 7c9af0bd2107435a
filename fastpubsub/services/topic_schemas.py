"""The schemas of topics: which payloads are stored."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest, SchemaChanged
from fastpubsub.payload_schemas import Misfit, PayloadSchema
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


class Known(NamedTuple):
    version: int
    schema: PayloadSchema


class TopicSchemas:
    """Compiled, by topic. A process may remember an old one, or none: what stores the messages knows which is current.

    So a change holds for every publish that begins after it, in every process, and a topic without a schema costs no
    question.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: Recent[int, Known] = Recent(_REMEMBERED)

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
                await self.look_up(topic_key)
            except InvalidRequest:
                if await self.look_up(topic_key) is known:
                    raise
        raise _restless()

    async def judge(self, topic_key: int, act: Callable[[Known | None], Awaitable[Answer]]) -> Answer:
        """For those who refuse single messages: acts by the schema, None for none, until that is the current one."""
        for _ in range(_ATTEMPTS):
            try:
                return await act(self._known.get(topic_key))
            except SchemaChanged:
                await self.look_up(topic_key)
        raise _restless()

    async def version(self, topic_key: int, payloads: Sequence[bytes]) -> int:
        """The one by which the payloads match, 0 for no schema. SchemaChanged tells that it is another one."""
        known = self._known.get(topic_key)
        if known is None:
            return 0
        try:
            await check(known.schema, payloads)
        except InvalidRequest:
            if await self.look_up(topic_key) is known:
                raise
            return await self.version(topic_key, payloads)
        return known.version

    async def look_up(self, topic_key: int) -> Known | None:
        text, version = await self._database.fetch_one("get_schema", topic_key)
        known = self._known.get(topic_key)
        if text is None:
            self._known.forget(topic_key)
            return None
        if known is None or known.version != version:
            known = Known(version, PayloadSchema(text))
            self._known.put(topic_key, known)
        return known


def _restless() -> SchemaChanged:
    return SchemaChanged("the schema of the topic keeps changing; try again")


async def check(schema: PayloadSchema, payloads: Sequence[bytes]) -> None:
    """Checks in a thread when it may take long; the library lets others run meanwhile."""
    if schema.is_quick(payloads):
        schema.check(payloads)
    else:
        await asyncio.to_thread(schema.check, payloads)


async def misfits(schema: PayloadSchema, payloads: Sequence[bytes]) -> list[Misfit | None]:
    """Of as many from the front as others can wait for."""
    if schema.is_quick(payloads):
        return schema.misfits(payloads)
    return await asyncio.to_thread(schema.misfits, payloads)
