"""A quarter of an hour of the shop of `fastpubsub dev --demo`, always the same: the procedures are told the time."""

import json
import math
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fastpubsub import demo
from fastpubsub.models import Message
from tests.database.store import Id, Keys, Settings, Store

MINUTES = 15
STEP = 5
"""Seconds, as in the history."""
ORDERS = 12
"""In a step, more or less."""
PULLED, PULLED_LAST = 40, 7
COUNTED = ("delivered", "acked", "nacked", "rejected", "expired", "dead_lettered", "filtered")
LONG = 600
"""Seconds that leases and retries last at the end, so that they are seen."""


@dataclass
class Shop:
    """It is the bus of its own consumers, too: what they publish is stored when the step ends."""

    store: Store
    end: datetime
    minutes: int = MINUTES
    luck: random.Random = field(default_factory=lambda: random.Random(7))
    order: int = 1000

    def __post_init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.keys: dict[str, Keys] = {}
        self.topics: dict[str, int] = {}
        self.versions: dict[str, int] = {}
        self.filtered: Counter[str] = Counter()

    async def play(self) -> None:
        steps = self.minutes * 60 // STEP
        began = self.end - timedelta(seconds=steps * STEP)
        self._open(began - timedelta(days=3))
        for step in range(steps):
            await self._step(began + timedelta(seconds=step * STEP), step, is_last=step == steps - 1)

    async def publish(self, topic_id: str, payload: dict[str, Any]) -> None:
        self.published.append((topic_id, payload))

    def _open(self, now: datetime) -> None:
        for topic_id, schema in demo.TOPICS.items():
            text = None if schema is None else json.dumps(schema)
            create = "select topic_key from fastpubsub.create_topic(%s, null, %s::json, %s)"
            self.topics[topic_id] = self.store.value(create, topic_id, text, now)
            self.versions[topic_id] = self.store.value("select fastpubsub.schema_version(%s::json)", text)
        for wanted in demo.SUBSCRIPTIONS:
            settings = Settings(
                filter=json.dumps(wanted["filter"]) if "filter" in wanted else None,
                ack_deadline=wanted.get("ack_deadline_seconds", 60),
                max_attempts=wanted.get("max_delivery_attempts", 5),
                backoff_min=wanted.get("backoff_min_seconds", 10),
            )
            made = self.store.create_subscription(wanted["id"], wanted["topic_id"], settings, now=now)
            self.keys[wanted["id"]] = made

    async def _step(self, now: datetime, step: int, *, is_last: bool) -> None:
        counts: dict[str, Counter[str]] = {subscription_id: Counter() for subscription_id in self.keys}
        published: Counter[str] = Counter()
        for index, (topic_id, payload) in enumerate(self._sold(step)):
            at = now + timedelta(seconds=STEP * min(index / 60, 0.99))
            attributes = [json.dumps({"source": self.luck.choice(["web", "app"])})] if topic_id == "orders" else None
            version = self.versions[topic_id]
            text = [json.dumps(payload)]
            self.store.publish(self.topics[topic_id], text, attributes, schema_version=version, now=at)
            published[topic_id] += 1
        later = now + timedelta(seconds=STEP)
        for subscription_id, consumer_id, work, _ in demo.CONSUMERS:
            await self._consume(subscription_id, consumer_id, work, counts[subscription_id], later, is_last)
        columns = [[counts[one][name] for one in self.keys] for name in COUNTED]
        record = f"select fastpubsub.record_history(%s, %s, %s{', %s' * len(COUNTED)}, %s)"
        self.store.execute(record, list(published), list(published.values()), list(self.keys), *columns, now)

    def _sold(self, step: int) -> Iterator[tuple[str, dict[str, Any]]]:
        wave = 1 + 0.35 * math.sin(step / 14) + 0.15 * math.sin(step / 3)
        for _ in range(round(ORDERS * wave * self.luck.uniform(0.7, 1.3))):
            self.order += 1
            yield "orders", demo.order(self.order, self.luck)
        yield from self.published
        self.published.clear()

    async def _consume(
        self, subscription_id: str, consumer_id: str, work: Any, count: Counter[str], now: datetime, is_last: bool
    ) -> None:
        keys = self.keys[subscription_id]
        released = self.store.release(keys, now=now)
        count["expired"] += released.released
        claimed = self.store.claim(keys, PULLED_LAST if is_last else PULLED, [consumer_id], now=now)
        count["delivered"] += len(claimed.positions)
        count["filtered"] += claimed.filtered or 0
        if not claimed.positions or self.luck.random() < 0.005:
            return
        kept, late = (claimed.ids[-4:], claimed.ids[:2]) if is_last else ([], [])
        done, failed, refused = [], [], []
        for id_, payload in zip(claimed.ids, claimed.payloads, strict=True):
            reason = await work(self, _message(subscription_id, payload), self.luck)
            if id_ in kept:
                continue
            if id_ in late:
                failed.append(id_)
            elif reason is None:
                done.append(id_)
            elif self.luck.random() < 0.5:
                refused.append((id_, reason))
            else:
                failed.append(id_)
        self._settle(keys, count, done, failed, refused, now, is_last)
        if kept:
            self.store.extend(keys, kept, LONG, now=now)

    def _settle(
        self,
        keys: Keys,
        count: Counter[str],
        done: list[Id],
        failed: list[Id],
        refused: list[tuple[Id, str]],
        now: datetime,
        is_last: bool,
    ) -> None:
        if done:
            self.store.ack(keys, done)
        if failed:
            self.store.nack(keys, failed, [LONG if is_last else None] * len(failed), now=now)
        if refused:
            self.store.reject(keys, [id_ for id_, _ in refused], [reason for _, reason in refused], now=now)
        count.update(acked=len(done), nacked=len(failed), rejected=len(refused), dead_lettered=len(refused))


def _message(subscription_id: str, payload: str) -> Message:
    now = datetime.now(UTC)
    return Message(
        id=uuid.UUID(int=0),
        subscription_id=subscription_id,
        payload=json.loads(payload),
        delivery_attempts=1,
        created_at=now,
        ack_id="",
        lease_expires_at=now,
        lease_seconds=60,
    )
