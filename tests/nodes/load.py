"""Publishers that repeat a request until it is confirmed, and consumers that ack what they get."""

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx

SECONDS = 120.0
PAUSE_SECONDS = 0.05
RETRIED = (httpx.codes.SERVICE_UNAVAILABLE,)
TOPICS = [f"t{number}" for number in range(8)]
CALM = {"database_pool_timeout_seconds": 30, "lease_expiry_interval_seconds": 0.2, "log_requests": False}


@dataclass
class Load:
    """On topics that have one subscription each, of the same name. `away` collects what other answers there were."""

    client: httpx.AsyncClient
    topics: list[str]
    ack_deadline_seconds: int = 600
    confirmed: Counter[tuple[str, int]] = field(default_factory=Counter)
    received: Counter[tuple[str, int]] = field(default_factory=Counter)
    acked: set[tuple[str, int]] = field(default_factory=set)
    again: list[tuple[str, int]] = field(default_factory=list)
    """What came although its ack had been confirmed."""

    refused: Counter[str] = field(default_factory=Counter)
    """503s by topic."""

    slowest: float = 0.0
    stops: asyncio.Event = field(default_factory=asyncio.Event)
    publishing: set[str] = field(default_factory=set)

    async def create(self) -> None:
        for topic in self.topics:
            (await self.client.post("/topics", json={"id": topic})).raise_for_status()
            body = {"id": topic, "topic_id": topic, "ack_deadline_seconds": self.ack_deadline_seconds}
            (await self.client.post("/subscriptions", json=body)).raise_for_status()

    async def publish(self, topic: str) -> None:
        self.publishing.add(topic)
        number = 0
        while not self.stops.is_set():
            number += 1
            key = {"Idempotency-Key": uuid.uuid4().hex}
            await self._until_done(topic, "POST", f"/topics/{topic}/messages", json=[{"n": number}], headers=key)
            self.confirmed[topic, number] += 1
            await asyncio.sleep(PAUSE_SECONDS / 5)
        self.publishing.remove(topic)

    async def consume(self, topic: str) -> None:
        path = f"/subscriptions/{topic}/messages?consumer_id=c&batch_size=100"
        while not (self.stops.is_set() and topic not in self.publishing and self.is_done(topic)):
            found = (await self._until_done(topic, "GET", path)).json()["data"]
            come = [(topic, one["payload"]["n"]) for one in found]
            self.received.update(come)
            self.again += self.acked.intersection(come)
            if found:
                ids = [one["ack_id"] for one in found]
                await self._until_done(topic, "POST", f"/subscriptions/{topic}/acks", json=ids)
                self.acked.update(come)
            else:
                await asyncio.sleep(PAUSE_SECONDS)

    def is_done(self, topic: str) -> bool:
        return all(self.received[one] for one in self.confirmed if one[0] == topic)

    async def _until_done(self, topic: str, method: str, path: str, **options: Any) -> httpx.Response:
        while True:
            started = monotonic()
            answer = await self.client.request(method, path, **options)
            self.slowest = max(self.slowest, monotonic() - started)
            if answer.status_code not in RETRIED:
                return answer.raise_for_status()
            assert "Retry-After" in answer.headers
            self.refused[topic] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def run(self, *during: Any) -> None:
        """Until all that is to happen `during` it is over, and everything confirmed has arrived."""
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            for topic in self.topics:
                group.create_task(self.publish(topic))
                group.create_task(self.consume(topic))
            for one in during:
                await one
            self.stops.set()

    async def until_refused(self, topics: set[str]) -> None:
        while not topics <= set(self.refused):  # noqa: ASYNC110 - of several topics
            await asyncio.sleep(PAUSE_SECONDS)

    def told(self) -> str:
        many = f"{len(self.confirmed)} messages to {len(self.topics)} topics"
        return f"{many}, {self.refused.total()} answers 503, slowest call {self.slowest:.1f} s"

    def confirmed_of(self, topics: set[str]) -> list[tuple[str, int]]:
        return [one for one in self.confirmed if one[0] in topics]

    def check(self, *, may_come_again: bool = False) -> None:
        """`may_come_again`: what was claimed and not yet acked, as a claim may be lost with the node that made it."""
        assert len(self.confirmed) > len(self.topics)
        assert [one for one in self.confirmed if not self.received[one]] == []
        assert self.again == []
        assert may_come_again or [one for one, times in self.received.items() if times > 1] == []
