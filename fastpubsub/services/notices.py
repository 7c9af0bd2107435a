"""Sends hints between server processes over LISTEN and NOTIFY; hints may get lost."""

import asyncio
import contextlib
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator

import psycopg

from fastpubsub.config import Settings
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Connector, cut_after
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.surviving import Surviving

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.02
"""Between two notifications of a process."""

MAX_PAYLOAD = 7900
"""PostgreSQL takes payloads of less than 8,000 bytes."""

_QUIET_SECONDS = 30.0
_RECONNECT_SECONDS = 1.0
ANNOUNCE_SECONDS = 5.0
FORGET_SECONDS = 3 * ANNOUNCE_SECONDS
_NOTICE = re.compile(r"(\d{1,18})(?:/(\d{1,18})(?:-([0-9a-f]{16}))?|\*(\d{1,18})|\?)")


class Notices:
    """`12?` announces that a consumer waits here for messages of topic 12. `12*3` tells of three new messages of topic
    12, `12/7` that there is something to look at for its subscription 7, `12/7-` and 16 digits that a consumer of it
    leaves: only to those who announced that they wait.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        published: Callable[[int, int], None],
        changed: Callable[[SubscriptionKey], None],
        left: Callable[[SubscriptionKey, str], None],
        heard_nothing: Callable[[], None],
        awaited: Callable[[], Iterable[int]],
    ) -> None:
        """`heard_nothing` is called when notices may have been missed; `awaited` are the topics to announce."""
        self.enabled = settings.database_pooler != "transaction"
        self._database = database
        self._connector = Connector(settings)
        self._call_timeout = settings.database_call_timeout_seconds
        self._published = published
        self._changed = changed
        self._left = left
        self._heard_nothing = heard_nothing
        self._awaited = awaited
        self._others: dict[int, float] = {}
        self._others_unknown_until = math.inf
        self._announced_at = 0.0
        self._announcing: set[int] = set()
        self._name = secrets.token_hex(8)
        self._topics: dict[int, int] = {}
        self._subscriptions: set[SubscriptionKey] = set()
        self._leaving: set[tuple[SubscriptionKey, str]] = set()
        self._something = asyncio.Event()
        self.is_listening = False

    def publish(self, topic_key: int, messages: int) -> None:
        if self._is_awaited_elsewhere(topic_key):
            self._topics[topic_key] = self._topics.get(topic_key, 0) + messages
            self._something.set()

    def change(self, keys: SubscriptionKey) -> None:
        if self._is_awaited_elsewhere(keys.topic_key):
            self._subscriptions.add(keys)
            self._something.set()

    def leave(self, keys: SubscriptionKey, consumer: str) -> None:
        if self._is_awaited_elsewhere(keys.topic_key):
            self._leaving.add((keys, consumer))
            self._something.set()

    def announce(self, topic_key: int) -> None:
        if self.enabled:
            self._announcing.add(topic_key)
            self._something.set()

    def _is_awaited_elsewhere(self, topic_key: int) -> bool:
        now = time.monotonic()
        return self.enabled and (self._others.get(topic_key, 0.0) > now or self._others_unknown_until > now)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        if self.enabled:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell_forever())
                group.create_task(self._listen_forever())

    async def _tell_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    await self._something.wait()
            self._something.clear()
            if words := self._words():
                await self._tell(words)
            await asyncio.sleep(PAUSE_SECONDS)

    def _words(self) -> list[str]:
        now = time.monotonic()
        if now - self._announced_at >= ANNOUNCE_SECONDS:
            self._announced_at = now
            self._announcing.update(self._awaited())
            self._others = {key: until for key, until in self._others.items() if until > now}
        words = [f"{key}?" for key in self._announcing]
        words += [f"{key}*{count}" for key, count in self._topics.items()]
        words += [f"{topic}/{subscription}" for topic, subscription in self._subscriptions]
        words += [f"{keys.topic_key}/{keys.subscription_key}-{consumer}" for keys, consumer in self._leaving]
        for told in (self._announcing, self._topics, self._subscriptions, self._leaving):
            told.clear()
        return words

    async def _tell(self, words: list[str]) -> None:
        with Surviving(logger, "notifying other servers", logging.DEBUG):
            await self._database.fetch_one("notify_servers", Array("text", list(self._payloads(words))))

    def _payloads(self, words: list[str]) -> Iterator[str]:
        payload = self._name
        for word in words:
            if len(payload) + 1 + len(word) > MAX_PAYLOAD:
                yield payload
                payload = self._name
            payload = f"{payload} {word}"
        yield payload

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError):
                if self.is_listening:
                    logger.warning("this server cannot listen to other servers; waiting consumers are woken later")
            except Exception:
                logger.exception("listening to other servers failed")
            self.is_listening = False
            self._others_unknown_until = math.inf
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await self._connector.connect()
        try:
            while True:
                # Again after a silence: it asks whether the connection still works.
                with cut_after(self._call_timeout, connection):
                    await connection.execute("select from fastpubsub.listen_to_servers()", prepare=False)
                if not self.is_listening:
                    self.is_listening = True
                    self._others_unknown_until = time.monotonic() + FORGET_SECONDS
                    self._heard_nothing()
                async for notice in connection.notifies(timeout=_QUIET_SECONDS):
                    self._hear(notice.payload)
        finally:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()

    def _hear(self, payload: str) -> None:
        name, *words = payload.split(" ")
        if name == self._name:
            return
        for word in words:
            match = _NOTICE.fullmatch(word)
            if match is None:
                continue
            topic_key, subscription_key, consumer, messages = match.groups()
            if messages is not None:
                self._published(int(topic_key), int(messages))
            elif subscription_key is not None:
                keys = SubscriptionKey(int(topic_key), int(subscription_key))
                if consumer is None:
                    self._changed(keys)
                else:
                    self._left(keys, consumer)
            else:
                self._others[int(topic_key)] = time.monotonic() + FORGET_SECONDS
