"""Publishers and consumers that write down what they do and what they are told."""

import asyncio
import random
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.faults.history import Kind, Number
from tests.faults.plan import DEADLINE_SECONDS, SHARED, TIMED, Subscription
from tests.faults.wire import PAUSE_SECONDS, Answer, NoAnswerError, NotSentError

if TYPE_CHECKING:
    from tests.faults.load import Load

REPRESENTATION = {"Prefer": "return=representation"}
COPIED = "dead_letter_message_id"
"""The attribute of what is a copy of a dead letter."""

RETURNING = 0.1
"""Of the batches of a consumer, of which half is given back unseen."""


class Caller:
    """Whoever makes calls that are written down."""

    def __init__(self, load: "Load", name: str) -> None:
        self.load = load
        self.name = name
        self.random = random.Random(f"{load.seed} {name}")
        self.wire = load.wire(lambda: self.random.choice(load.addresses))

    async def call(
        self,
        op: str,
        method: str,
        path: str,
        sent: dict[str, Any],
        body: object = None,
        *,
        key: str | None = None,
        final: int = 0,
        media: str = "",
    ) -> Answer | None:
        """None when it was refused, but with the status `final`, or nobody knows what became of it."""
        history = self.load.history
        history.add(self.name, Kind.INVOKE, op, **sent)
        try:
            headers = dict(REPRESENTATION)
            headers |= {} if key is None else {"Idempotency-Key": key}
            headers |= {"Content-Type": media} if media else {}
            answer = await self.wire.ask(method, path, body, headers)
        except NotSentError:
            history.add(self.name, Kind.REFUSED, op)
            await asyncio.sleep(PAUSE_SECONDS)
            return None
        except NoAnswerError:
            history.add(self.name, Kind.UNKNOWN, op)
            return None
        self.load.statuses[answer.status] += 1
        if answer.status >= 300:
            kind = Kind.REFUSED if answer.status < 500 else Kind.UNKNOWN
            history.add(self.name, kind, op, status=answer.status, retry_after=answer.retry_after)
            await asyncio.sleep(PAUSE_SECONDS)
            return answer if answer.status == final else None
        history.add(self.name, Kind.OK, op, **read(op, answer, sent))
        return answer


def read(op: str, answer: Answer, sent: dict[str, Any]) -> dict[str, Any]:
    """What of the answer the checker needs."""
    body = answer.json() or {}
    if op == "transaction":
        body = {"settled": sent["ids"], "gone": [], "stale": []}
    if op == "pull":
        copies = {one["id"]: copied(one) for one in body["data"] if COPIED in one.get("attributes", {})}
        body = {
            **({"copies": copies} if copies else {}),
            "messages": [
                [
                    list(number_of(one)),
                    one["id"],
                    one["ack_id"],
                    one["delivery_attempts"],
                    datetime.fromisoformat(one["lease_expires_at"]).timestamp(),
                ]
                for one in body["data"]
            ],
        }
    return {"status": answer.status, **body}


def copied(message: dict[str, Any]) -> list[Any]:
    """Of which dead letter it is a copy: its subscription, its number, its id, its reason and its attempts."""
    told = message["attributes"]
    names = (COPIED, "dead_letter_reason", "dead_letter_delivery_attempts")
    return [told["dead_letter_subscription_id"], message["payload"]["number"], *(told[name] for name in names)]


def number_of(message: dict[str, Any]) -> Number:
    """Of what a schedule published, the time is a part. Of a copy of a dead letter, whose message may die more than
    once, it is the id.
    """
    if COPIED in message.get("attributes", {}):
        return Number(message["id"], 1, 0)
    number = Number(*message["payload"]["number"])
    if at := message.get("attributes", {}).get("scheduled_at"):
        return number._replace(request=int(datetime.fromisoformat(at).timestamp()))
    return number


class Publisher(Caller):
    """Every second one repeats a request, with its key, until it knows what became of it."""

    media = ""

    def __init__(self, load: "Load", name: str, topic: str, repeats: bool) -> None:
        super().__init__(load, name)
        self.topic = topic
        self.repeats = repeats

    async def run(self) -> None:
        request = 0
        while self.load.is_publishing:
            if self.load.has_room(self.topic):
                await self.publish(request, self.random.choice([1, 2, 3, 5, 8]))
                request += 1
            await asyncio.sleep(self.random.uniform(0.005, 0.05) * self.load.pace * self.load.plan.slowness(self.topic))

    async def publish(self, request: int, count: int) -> None:
        numbers = [Number(self.name, request, place) for place in range(count)]
        sent = {"topic": self.topic, "publisher": self.name, "request": request, "count": count}
        key = f"{self.name}-{request}" if self.repeats else None
        path = f"/topics/{self.topic}/messages"
        body = self.body(numbers)
        while True:
            answer = await self.call("publish", "POST", path, sent, body, key=key, media=self.media)
            if answer is not None:
                self.load.confirmed[self.topic] += count
            if answer is not None or not self.repeats:
                return

    def body(self, numbers: list[Number]) -> object:
        return {
            "messages": [{"payload": one.payload(), "ordering_key": self.name, **self.beside(one)} for one in numbers]
        }

    def beside(self, number: Number) -> dict[str, Any]:
        """What a message of the topic has besides its payload."""
        if self.topic == SHARED:
            return {"attributes": {"tenant": number.tenant}}
        return number.times() if self.topic == TIMED else {}


class Consumer(Caller):
    def __init__(self, load: "Load", name: str, subscription: Subscription, *, is_slow: bool = False) -> None:
        super().__init__(load, name)
        self.subscription = subscription
        self.is_slow = is_slow

    async def run(self) -> None:
        while True:
            pulled = await self.pull(3 if self.is_slow else self.random.randint(1, self.subscription.batch_size))
            if (self.is_slow or self.load.is_slow) and self.load.is_failing:
                longest = 3.5 if self.load.is_slow else 1.6
                await asyncio.sleep(DEADLINE_SECONDS * self.random.uniform(0.8, longest))
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
        return [(number_of(one), one["ack_id"]) for one in answer.json()["data"]]

    async def settle(self, pulled: list[tuple[Number, str]]) -> None:
        """A few come again because nobody settles them, a few because they are nacked, and some unseen, uncounted."""
        acks: dict[str, Number] = {}
        nacks: list[str] = []
        returns: list[str] = []
        returned = 0.5 if self.load.is_failing and self.random.random() < RETURNING else 0.0
        for number, ack_id in pulled:
            fate = self.random.random()
            if self.random.random() < returned:
                returns.append(ack_id)
            elif not (
                (self.subscription.refuses_poison and number.is_poison) or (self.load.is_failing and fate < 0.005)
            ):
                if self.load.is_failing and fate > 0.97:
                    nacks.append(ack_id)
                else:
                    acks[ack_id] = number
        await self.ack(acks)
        await self.tell("nacks", nacks)
        await self.tell("returns", returns)

    async def ack(self, acks: dict[str, Number]) -> None:
        await self.tell("acks", list(acks))

    async def tell(self, op: str, ids: list[str], **more: str) -> None:
        """Until it knows what became of it."""
        sent = {"subscription": self.subscription.name, "ids": ids, **more}
        route = "nacks?undelivered=true" if op == "returns" else op
        body = {"ids": ids, **more} if more else ids
        while ids:
            answer = await self.call(op, "POST", f"/subscriptions/{self.subscription.name}/{route}", sent, body)
            if answer is not None:
                if op == "acks":
                    self.load.acked[self.subscription.name] += len(answer.json()["settled"])
                return
