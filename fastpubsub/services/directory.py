"""Resolves public ids to the keys of the hot tables, and caches them."""

from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from fastpubsub.database.calls import Database
from fastpubsub.exceptions import NotFound
from fastpubsub.services.recent import Recent

_REMEMBERED = 10_000

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class SubscriptionKey(NamedTuple):
    topic_key: int
    subscription_key: int


class Names(Generic[Key]):
    """Caches ids of one kind. Keys are never reused, so a procedure detects a stale one."""

    def __init__(self, kind: str, look_up: Callable[[str], Awaitable[Key]]) -> None:
        self._kind = kind
        self._look_up = look_up
        self._keys: Recent[str, Key] = Recent(_REMEMBERED)

    async def key(self, name: str) -> Key:
        key = self._keys.get(name)
        if key is None:
            key = await self._look_up(name)
            self._keys.put(name, key)
        return key

    async def use(self, name: str, action: Callable[[Key], Awaitable[Answer]]) -> Answer:
        """Runs `action` with the key; once more with a fresh one when the remembered one is gone."""
        key = self._keys.get(name)
        if key is None:
            key = await self.key(name)
        try:
            return await action(key)
        except NotFound:
            self._keys.forget(name)
        fresh = await self.key(name)
        if fresh == key:
            raise NotFound(f'{self._kind} "{name}" does not exist')
        return await action(fresh)


class Directory:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.topics = Names("topic", self._topic)
        self.subscriptions = Names("subscription", self._subscription)

    async def _topic(self, topic_id: str) -> int:
        (topic_key,) = await self._database.fetch_one("resolve_topic", topic_id)
        return int(topic_key)

    async def _subscription(self, subscription_id: str) -> SubscriptionKey:
        return SubscriptionKey(*await self._database.fetch_one("resolve_subscription", subscription_id))
