"""A load on topics and subscriptions: how much of it, how far it is, and its end."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tests.faults.callers import PAUSE_SECONDS, Consumer, Publisher
from tests.faults.history import History
from tests.faults.plan import PUSH_TIMEOUT_SECONDS, Plan, Subscription
from tests.faults.receiver import Receiver
from tests.faults.wire import Address, Answer, NoAnswerError, NotSentError, Wire

PUBLISHERS = 3
"""For each topic."""

CONSUMERS = 2
"""For each subscription, and one that is too slow."""

MOST_AHEAD = 600
"""Messages that publishers may be ahead of consumers, so that the end of a run is near."""

DRAIN_SECONDS = 180.0


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
        self.receiver = Receiver(self)
        """Of what is pushed; whoever pushes opens it."""
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
            await self._create(wire, subscription)
        for number in range(PUBLISHERS * len(self.plan.topics)):
            topic = self.plan.topics[number % len(self.plan.topics)]
            self._publishers.append(asyncio.create_task(Publisher(self, f"p{number}", topic, number % 2 == 0).run()))
        for subscription in self.plan.subscriptions:
            if subscription.pushed:
                continue
            names = [f"{subscription.name}.c{number}" for number in range(CONSUMERS)]
            consumers = [Consumer(self, name, subscription) for name in names]
            consumers.append(Consumer(self, f"{subscription.name}.slow", subscription, is_slow=True))
            self._consumers += [asyncio.create_task(consumer.run()) for consumer in consumers]

    async def _create(self, wire: Wire, subscription: Subscription) -> None:
        body = subscription.body()
        if subscription.pushed:
            body["push"] = {"endpoint": self.receiver.endpoint.url, "timeout_seconds": PUSH_TIMEOUT_SECONDS}
        created = expect(await wire.ask("POST", "/subscriptions", body), 201).json()
        if subscription.pushed:
            self.receiver.secrets[subscription.name] = created["push"]["secret"]

    def wire(self, address: Callable[[], Address] | None = None) -> Wire:
        self._wires.append(Wire(address or (lambda: self.addresses[0])))
        return self._wires[-1]

    async def progress(self, messages: int = 30, topics: Iterable[str] = ()) -> None:
        """Returns after so many more messages of these topics, or of all, were confirmed and acked."""
        confirmed, acked = self.confirmed.copy(), self.acked.copy()
        topics = set(topics or self.plan.topics)
        subscriptions = [one for one in self.plan.subscriptions if one.topic in topics]
        while not all(self.confirmed[topic] - confirmed[topic] >= messages for topic in topics) or not all(
            self.acked[one.name] - acked[one.name] >= messages // 2 for one in subscriptions
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
