"""From the ids that people use to the keys that the hot tables know, remembered."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from fastpubsub.database import Database
from fastpubsub.exceptions import NotFound

_REMEMBERED = 10_000

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class SubscriptionKey(NamedTuple):
    topic_key: int
    subscription_key: int


class Names(Generic[Key]):
    """Ids of one kind. Keys are never reused, so a stale one is found out by the procedure that gets it."""

    def __init__(self, kind: str, look_up: Callable[[str], Awaitable[Key]]) -> None:
        self._kind = kind
        self._look_up = look_up
        self._keys: OrderedDict[str, Key] = OrderedDict()

    async def key(self, name: str) -> Key:
        if name in self._keys:
            return self._keys[name]
        key = self._keys[name] = await self._look_up(name)
        if len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)
        return key

    async def use(self, name: str, action: Callable[[Key], Awaitable[Answer]]) -> Answer:
        """Runs `action` with the key; once more with a fresh one when the remembered one is gone."""
        key = self._keys.get(name)
        if key is None:
            key = await self.key(name)
        try:
            return await action(key)
        except NotFound:
            self._keys.pop(name, None)
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
