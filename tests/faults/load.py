"""A load on topics and subscriptions: how much of it, how far it is, and its end."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from tests.faults import features, tending
from tests.faults.callers import Consumer, Publisher, number_of
from tests.faults.features import Warden
from tests.faults.history import History, Number
from tests.faults.plan import EVERY, FAILING, PUSH_TIMEOUT_SECONDS, SCHEMA, SHAPED, TICKS, Plan, Subscription
from tests.faults.receiver import Receiver
from tests.faults.wire import PAUSE_SECONDS, Address, Answer, Wire, patiently

PUBLISHERS = 3
"""For each topic."""

CONSUMERS = 2
"""For each subscription, and one that is too slow."""

MOST_AHEAD = 600
"""Messages that publishers may be ahead of consumers, so that the end of a run is near."""

MOST_AHEAD_OF_LIMITS = 100
"""Where one of these consumers is slowed down."""

DRAIN_SECONDS = 180.0


class Load:
    def __init__(
        self, plan: Plan, addresses: list[Address], seed: int, pace: float = 1.0, database_url: str = ""
    ) -> None:
        self.plan = plan
        self.database_url = database_url
        """For those who settle in SQL."""
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
        self.first_tick = 0
        """The first time of the schedule, in seconds."""
        self._publishing = self._failing = True
        self._publishers: list[asyncio.Task[None]] = []
        self._consumers: list[asyncio.Task[None]] = []
        self._wires: list[Wire] = []

    async def start(self) -> None:
        wire = self.wire()
        for topic in dict.fromkeys((*self.plan.topics, *(one.topic for one in self.plan.subscriptions))):
            expect(await wire.ask("POST", "/topics", {"id": topic, "schema": SCHEMA if topic == SHAPED else None}), 201)
        for subscription in self.plan.subscriptions:
            await self._create(wire, subscription)
        if self.plan.featured:
            await features.query(self, features.BOOKED)
            await self._create_schedule(wire)
        for topic in self.plan.topics:
            self._start_publishers(topic)
        for subscription in self.plan.subscriptions:
            self.start_consumers(subscription)
        if self.plan.kept:
            redriven = [one for one in self.plan.subscriptions if one.redriven]
            tenders: list[tending.Tender] = [tending.Forker(self), tending.Sitter(self)]
            tenders += [tending.Redriver(self, one) for one in redriven]
            self._publishers += [asyncio.create_task(one.run()) for one in tenders]

    def _start_publishers(self, topic: str) -> None:
        """Every second one repeats its requests."""
        place = self.plan.topics.index(topic)
        for number in range(PUBLISHERS):
            make = Publisher
            if topic == SHAPED:
                make = tending.SqlPublisher
            elif topic == FAILING and number == PUBLISHERS - 1:
                make = tending.EventPublisher
            publisher = make(self, f"{topic}.{number}", topic, (place + number) % 2 == 0)
            self._publishers.append(asyncio.create_task(publisher.run()))

    def start_consumers(self, subscription: Subscription) -> None:
        if not subscription.pushed:
            names = [f"{subscription.name}.c{number}" for number in range(CONSUMERS)]
            make = tending.RejectingConsumer if subscription.rejects else features.CONSUMERS[subscription.acks]
            consumers: list[Consumer | Warden] = [make(self, name, subscription) for name in names]
            consumers.append(make(self, f"{subscription.name}.slow", subscription, is_slow=True))
            if subscription.holds:
                consumers.append(Warden(self, subscription.name))
            self._consumers += [asyncio.create_task(consumer.run()) for consumer in consumers]

    async def _create_schedule(self, wire: Wire) -> None:
        payload = {"number": Number(EVERY, 0, 0)}
        body = {"id": EVERY, "interval_seconds": 1, "catch_up": "all", "payload": payload}
        created = expect(await wire.ask("POST", f"/topics/{TICKS}/schedules", body), 201).json()
        self.first_tick = int(datetime.fromisoformat(created["next_at"]).timestamp())

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
            if self.plan.featured:
                await features.pause_schedule(self)
            for subscription in self.plan.subscriptions:
                if self.plan.featured or self.plan.kept:
                    await features.until_all_came(self)
                await self._drained(wire, subscription)
            if self.plan.featured:
                await features.note_booked(self)
            if self.plan.kept:
                await tending.note_refused(self)
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
        while not metrics or metrics["available"] + metrics["delivered"] + metrics["dlq"] * subscription.holds:
            self.fail_early()
            await asyncio.sleep(PAUSE_SECONDS)
            answer = await patiently(wire, "GET", f"/subscriptions/{subscription.name}/metrics")
            names = ("available", "delivered", "acked", "dlq", "ttl_expired", "dropped")
            metrics = {name: answer.get(name, 0) for name in names}
        dead: list[Any] = []
        while len(dead) < metrics["dlq"]:
            page = await patiently(wire, "GET", f"/subscriptions/{subscription.name}/dlq?limit=100&offset={len(dead)}")
            dead += [number_of(letter) for letter in page["data"]]
        self.history.note("end", subscription=subscription.name, metrics=metrics, dead=dead)

    @property
    def is_publishing(self) -> bool:
        return self._publishing

    @property
    def is_failing(self) -> bool:
        return self._failing

    def has_room(self, topic: str) -> bool:
        """Whether publishers are not too far ahead of the slowest subscription, which may get every second message."""
        slowest = min(self.acked[one.name] for one in self.plan.subscriptions if one.topic == topic and one.paces)
        most = MOST_AHEAD if topic in self.plan.plain else MOST_AHEAD_OF_LIMITS
        return self.confirmed[topic] - slowest / self.plan.consumed(topic) < most


def expect(answer: Answer, *statuses: int) -> Answer:
    if answer.status not in statuses:
        raise AssertionError(f"{answer.status} instead of {statuses}: {answer.body.decode(errors='replace')[:500]}")
    return answer


def addresses_of(base_urls: Iterable[str]) -> list[Address]:
    return [(host, int(port)) for host, port in (url.removeprefix("http://").split(":") for url in base_urls)]
