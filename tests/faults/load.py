"""Publishers and consumers that write down what they do and what they are told."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from tests.faults.history import History, Kind, Number
from tests.faults.plan import DEADLINE_SECONDS, Plan, Subscription
from tests.faults.wire import Address, Answer, NoAnswerError, NotSentError, Wire

PUBLISHERS = 3
"""For each topic."""

CONSUMERS = 2
"""For each subscription, and one that is too slow."""

MOST_AHEAD = 600
"""Messages that publishers may be ahead of consumers, so that the end of a run is near."""

REPRESENTATION = {"Prefer": "return=representation"}
DRAIN_SECONDS = 90.0
PAUSE_SECONDS = 0.05


class Load:
    def __init__(self, plan: Plan, addresses: list[Address], seed: int, pace: float = 1.0) -> None:
        self.plan = plan
        self.pace = pace
        """How much longer everybody waits between calls."""
        self.history = History()
        self.addresses = addresses
        """Those that take requests; whoever wants to may change it."""
        self.seed = seed
        self.confirmed: Counter[str] = Counter()
        """Messages by topic, so far."""
        self.acked: Counter[str] = Counter()
        """By subscription."""
        self.statuses: Counter[int] = Counter()
        self.is_slow = False
        """Consumers take longer than their leases last."""
        self._publishing = self._failing = True
        self._publishers: list[asyncio.Task[None]] = []
        self._consumers: list[asyncio.Task[None]] = []
        self._wires: list[Wire] = []

    async def start(self) -> None:
        wire = self.wire()
        for topic in self.plan.topics:
            expect(await wire.ask("POST", "/topics", {"id": topic}), 201)
        for subscription in self.plan.subscriptions:
            expect(await wire.ask("POST", "/subscriptions", subscription.body()), 201)
        for number in range(PUBLISHERS * len(self.plan.topics)):
            topic = self.plan.topics[number % len(self.plan.topics)]
            self._publishers.append(asyncio.create_task(Publisher(self, f"p{number}", topic, number % 2 == 0).run()))
        for subscription in self.plan.subscriptions:
            names = [f"{subscription.name}.c{number}" for number in range(CONSUMERS)]
            consumers = [Consumer(self, name, subscription) for name in names]
            consumers.append(Consumer(self, f"{subscription.name}.slow", subscription, is_slow=True))
            self._consumers += [asyncio.create_task(consumer.run()) for consumer in consumers]

    def wire(self, address: Callable[[], Address] | None = None) -> Wire:
        self._wires.append(Wire(address or (lambda: self.addresses[0])))
        return self._wires[-1]

    async def progress(self, messages: int = 30) -> None:
        """Returns after so many more messages of every topic were confirmed and acked."""
        confirmed, acked = self.confirmed.copy(), self.acked.copy()
        while not all(self.confirmed[topic] - confirmed[topic] >= messages for topic in self.plan.topics) or not all(
            self.acked[one.name] - acked[one.name] >= messages // 2 for one in self.plan.subscriptions
        ):
            self.fail_early()
            await asyncio.sleep(PAUSE_SECONDS)

    def fail_early(self) -> None:
        """A bug in the load itself must not look like a load that waits."""
        for task in (*self._publishers, *self._consumers):
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def drain(self) -> None:
        """Everything that was stored is consumed, by consumers that make no mistakes any more."""
        self._publishing = self._failing = self.is_slow = False
        async with asyncio.timeout(DRAIN_SECONDS):
            await asyncio.gather(*self._publishers)
            wire = self.wire()
            for subscription in self.plan.subscriptions:
                await self._drained(wire, subscription)
        await self.stop()

    async def stop(self) -> None:
        everybody = [*self._publishers, *self._consumers]
        for task in everybody:
            task.cancel()
        await asyncio.gather(*everybody, return_exceptions=True)
        for wire in self._wires:
            wire.close()
        await asyncio.sleep(0)  # sockets close in the next turn

    async def _drained(self, wire: Wire, subscription: Subscription) -> None:
        metrics: dict[str, int] = {}
        while not metrics or metrics["available"] + metrics["delivered"]:
            self.fail_early()
            await asyncio.sleep(PAUSE_SECONDS)
            answer = await patiently(wire, "GET", f"/subscriptions/{subscription.name}/metrics")
            metrics = {name: answer[name] for name in ("available", "delivered", "acked", "dlq")}
        dead: list[Any] = []
        while len(dead) < metrics["dlq"]:
            page = await patiently(wire, "GET", f"/subscriptions/{subscription.name}/dlq?limit=100&offset={len(dead)}")
            dead += [letter["payload"]["number"] for letter in page["data"]]
        self.history.note("end", subscription=subscription.name, metrics=metrics, dead=dead)

    @property
    def is_publishing(self) -> bool:
        return self._publishing

    @property
    def is_failing(self) -> bool:
        return self._failing

    def has_room(self, topic: str) -> bool:
        """Whether publishers are not too far ahead of the slowest subscription, which may get every second message."""
        slowest = min(self.acked[one.name] for one in self.plan.subscriptions if one.topic == topic)
        return self.confirmed[topic] - 2 * slowest < MOST_AHEAD


class Caller:
    """Whoever makes calls that are written down."""

    def __init__(self, load: Load, name: str) -> None:
        self.load = load
        self.name = name
        self.random = random.Random(f"{load.seed} {name}")
        self.wire = load.wire(lambda: self.random.choice(load.addresses))

    async def call(
        self, op: str, method: str, path: str, sent: dict[str, Any], body: object = None, **headers: str
    ) -> Answer | None:
        """None when nobody knows what became of it."""
        history = self.load.history
        history.add(self.name, Kind.INVOKE, op, **sent)
        try:
            answer = await self.wire.ask(method, path, body, {**REPRESENTATION, **headers})
        except NotSentError:
            history.add(self.name, Kind.REFUSED, op)
            await asyncio.sleep(PAUSE_SECONDS)
            return None
        except NoAnswerError:
            history.add(self.name, Kind.UNKNOWN, op)
            return None
        self.load.statuses[answer.status] += 1
        if answer.status >= 300:
            kind = Kind.REFUSED if answer.status < 500 and answer.status != 429 else Kind.UNKNOWN
            history.add(self.name, kind, op, status=answer.status, retry_after=answer.retry_after)
            await asyncio.sleep(PAUSE_SECONDS)
            return None
        history.add(self.name, Kind.OK, op, **read(op, answer))
        return answer


def read(op: str, answer: Answer) -> dict[str, Any]:
    """What of the answer the checker needs."""
    body = answer.json() or {}
    if op == "pull":
        body = {
            "messages": [
                [
                    one["payload"]["number"],
                    one["id"],
                    one["ack_id"],
                    one["delivery_attempts"],
                    datetime.fromisoformat(one["lease_expires_at"]).timestamp(),
                ]
                for one in body["data"]
            ]
        }
    return {"status": answer.status, **body}


class Publisher(Caller):
    """Every second one repeats a request, with its key, until it knows what became of it."""

    def __init__(self, load: Load, name: str, topic: str, repeats: bool) -> None:
        super().__init__(load, name)
        self.topic = topic
        self.repeats = repeats

    async def run(self) -> None:
        request = 0
        while self.load.is_publishing:
            if self.load.has_room(self.topic):
                await self.publish(request, self.random.choice([1, 2, 3, 5, 8]))
                request += 1
            await asyncio.sleep(self.random.uniform(0.005, 0.05) * self.load.pace)

    async def publish(self, request: int, count: int) -> None:
        numbers = [Number(self.name, request, place) for place in range(count)]
        sent = {"topic": self.topic, "publisher": self.name, "request": request, "count": count}
        headers = {"Idempotency-Key": f"{self.name}-{request}"} if self.repeats else {}
        body = [number.payload() for number in numbers]
        path = f"/topics/{self.topic}/messages"
        while True:
            answer = await self.call("publish", "POST", path, sent, body, **headers)
            if answer is not None:
                self.load.confirmed[self.topic] += count
            if answer is not None or not self.repeats:
                return


class Consumer(Caller):
    def __init__(self, load: Load, name: str, subscription: Subscription, *, is_slow: bool = False) -> None:
        super().__init__(load, name)
        self.subscription = subscription
        self.is_slow = is_slow

    async def run(self) -> None:
        while True:
            pulled = await self.pull(3 if self.is_slow else self.random.randint(1, 40))
            if (self.is_slow or self.load.is_slow) and self.load.is_failing:
                await asyncio.sleep(DEADLINE_SECONDS * self.random.uniform(0.8, 2.5))
            await self.settle(pulled)
            pause = self.random.uniform(0.005, 0.02) if pulled else PAUSE_SECONDS
            await asyncio.sleep(pause * self.load.pace)

    async def pull(self, batch_size: int) -> list[tuple[Number, str]]:
        """Numbers and ack ids."""
        path = (
            f"/subscriptions/{self.subscription.name}/messages?consumer_id={quote(self.name)}&batch_size={batch_size}"
        )
        answer = await self.call("pull", "GET", path, {"subscription": self.subscription.name})
        if answer is None:
            return []
        return [(Number(*one["payload"]["number"]), one["ack_id"]) for one in answer.json()["data"]]

    async def settle(self, pulled: list[tuple[Number, str]]) -> None:
        """A few come again because nobody settles them, and a few because they are nacked."""
        acks: list[str] = []
        nacks: list[str] = []
        for number, ack_id in pulled:
            fate = self.random.random()
            if (self.subscription.refuses_poison and number.is_poison) or (self.load.is_failing and fate < 0.005):
                continue
            (nacks if self.load.is_failing and fate > 0.97 else acks).append(ack_id)
        await self.tell("acks", acks)
        await self.tell("nacks", nacks)

    async def tell(self, op: str, ids: list[str]) -> None:
        """Until it knows what became of it."""
        sent = {"subscription": self.subscription.name, "ids": ids}
        while ids:
            answer = await self.call(op, "POST", f"/subscriptions/{self.subscription.name}/{op}", sent, ids)
            if answer is not None:
                if op == "acks":
                    self.load.acked[self.subscription.name] += len(answer.json()["settled"])
                return


async def patiently(wire: Wire, method: str, path: str, body: object = None) -> Any:
    """Until it is answered; whoever calls sets a time."""
    while True:
        try:
            answer = await wire.ask(method, path, body)
        except (NotSentError, NoAnswerError):
            answer = None
        if answer is not None and answer.status < 300:
            return answer.json()
        await asyncio.sleep(PAUSE_SECONDS)


def expect(answer: Answer, *statuses: int) -> Answer:
    if answer.status not in statuses:
        raise AssertionError(f"{answer.status} instead of {statuses}: {answer.body.decode(errors='replace')[:500]}")
    return answer


def addresses_of(base_urls: Iterable[str]) -> list[Address]:
    return [(host, int(port)) for host, port in (url.removeprefix("http://").split(":") for url in base_urls)]
