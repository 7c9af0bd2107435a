"""Histories of a queue that exists only here and makes no mistakes, and the mistakes to plant into them."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastpubsub.message_ids import MessageIds
from tests.faults.history import Event, History, Kind, Number
from tests.faults.plan import DEADLINE_SECONDS, EVERY, MOVED, TICKS, TIMED, Plan, Subscription, backoff_seconds

PLAN = Plan(("t",), featured=True)
CALL_SECONDS = 0.05
TICK_SECONDS = 12


class Queue:
    """Time passes as calls are made; lots decide who dies, is late, or gets no answer. The first publish succeeds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.events: list[Event] = []
        self.stored: dict[str, dict[Number, float]] = {topic: {} for topic in (*PLAN.topics, MOVED, TICKS)}
        """When each came."""
        self.booked: list[Number] = []

    def history(self, requests: int = 8) -> History:
        for topic in sorted(PLAN.topics, key=lambda one: one == TIMED):
            for request in range(requests):
                self.publish(topic, Number(f"p.{topic}", request, 0), self.random.randint(2, 4))
        first = int(self.now) + 1
        self.stored[TICKS] = {Number(EVERY, first + second, 0): first + second for second in range(TICK_SECONDS)}
        # Those of TIMED at once, before they expire.
        for subscription in sorted(PLAN.subscriptions, key=lambda one: one.topic != TIMED):
            self.consume(subscription)
        self.note("fired", first=first, count=TICK_SECONDS)
        self.note("booked", numbers=self.booked)
        return History(self.events)

    def note(self, op: str, **value: Any) -> None:
        self.events.append(Event(self.now, "campaign", Kind.NOTE, op, value))

    def call(self, op: str, sent: dict[str, Any], outcome: Kind, got: dict[str, Any]) -> None:
        self.events.append(Event(self.now, "w", Kind.INVOKE, op, sent))
        self.now += CALL_SECONDS
        self.events.append(Event(self.now, "w", outcome, op, got))

    def publish(self, topic: str, first: Number, count: int) -> None:
        numbers = [first._replace(place=place) for place in range(count)]
        sent = {"topic": topic, "publisher": first.publisher, "request": first.request, "count": count}
        outcome = self.random.choices([Kind.OK, Kind.UNKNOWN, Kind.REFUSED], [8, 2, 1])[0] if first.request else Kind.OK
        is_stored = outcome is Kind.OK or (outcome is Kind.UNKNOWN and self.random.random() < 0.5)
        delays = [number.delay_seconds or 0 if topic == TIMED else 0 for number in numbers]
        if is_stored:
            self.stored[topic] |= {number: self.now + delay for number, delay in zip(numbers, delays, strict=True)}
        ids = [
            f"delayed-{number.place}" if delay else self.message_id(topic, number, self.now)
            for number, delay in zip(numbers, delays, strict=True)
        ]
        self.call("publish", sent, outcome, {"status": 201, "ids": ids} if outcome is Kind.OK else {})

    def consume(self, subscription: Subscription) -> None:
        times = self.stored[subscription.topic]
        numbers = sorted((number for number in times if subscription.takes(number)), key=lambda one: (times[one], one))
        dead = [number for number in numbers if not self.deliver(subscription, number)]
        acked = len(numbers) - len(dead)
        dropped = len(dead) if subscription.drops else 0
        if subscription.drops or subscription.holds:
            dead = []
        metrics = {"available": 0, "delivered": 0, "acked": acked, "dlq": len(dead), "ttl_expired": dropped}
        self.note("end", subscription=subscription.name, dead=dead, metrics=metrics)

    def deliver(self, subscription: Subscription, number: Number) -> bool:
        """Again and again; False when it ended as a dead letter, or expired."""
        attempt = 1
        came = self.stored[subscription.topic][number]
        expires = came + number.ttl_seconds if subscription.topic == TIMED and number.ttl_seconds else float("inf")
        self.now = max(self.now, came)
        while attempt <= subscription.max_attempts and self.now < expires:
            id_ = self.message_id(subscription.topic, number, came)
            ack_id = f"{id_}.{subscription.name}.{self.random.random()}"
            message = [list(number), id_, ack_id, attempt, self.now + DEADLINE_SECONDS]
            self.call("pull", {"subscription": subscription.name}, Kind.OK, {"status": 200, "messages": [message]})
            fate = self.random.choices(["acks", "nacks", "returns", "dies", "late"], [6, 2, 1, 1, 1])[0]
            if number.is_poison and subscription.refuses_poison:
                fate = "dies"
            if fate == "acks":
                self.ack(subscription, number, ack_id)
                return True
            if fate == "returns":
                self.settle(subscription, "returns", ack_id, "settled")
                continue
            attempt += 1
            if fate == "nacks":
                self.settle(subscription, "nacks", ack_id, "settled")
                self.now += backoff_seconds(attempt - 1)
            else:
                self.now += DEADLINE_SECONDS
                if fate == "late":
                    self.settle(subscription, "acks", ack_id, "gone")
        if subscription.holds:
            self.call("purge", {"subscription": subscription.name, "numbers": [number], "revives": False}, Kind.OK, {})
        return False

    def ack(self, subscription: Subscription, number: Number, ack_id: str) -> None:
        if subscription.acks == "with publishes":
            self.settle(subscription, "transaction", ack_id, "settled", publishes=[number])
            self.stored[MOVED][number] = self.now
        else:
            self.settle(subscription, "acks", ack_id, "settled")
            self.booked += [number] if subscription.acks == "with rows" else []

    def settle(self, subscription: Subscription, op: str, ack_id: str, outcome: str, **more: Any) -> None:
        got: dict[str, Any] = {"status": 200, "settled": [], "gone": [], "stale": []}
        got[outcome] = [ack_id]
        self.call(op, {"subscription": subscription.name, "ids": [ack_id], **more}, Kind.OK, got)

    def message_id(self, topic: str, number: Number, came: float) -> str:
        """Positions in the order of times and numbers."""
        position = round(came * 1000) << 12 | number.request % 256 << 4 | number.place
        return MessageIds([*self.stored].index(topic), datetime.fromtimestamp(came, UTC)).at(position)


Plant = Callable[[History, random.Random], None]


def pulls(history: History, subscription: str = "t.all") -> list[int]:
    """Where the answers to its pulls are."""
    begun = [event.value.get("subscription") for event in history.events]
    return [
        index
        for index, event in enumerate(history.events)
        if event.op == "pull" and event.kind is Kind.OK and begun[index - 1] == subscription
    ]


def pull_again(history: History, at: int, **changes: Any) -> None:
    """The same message once more, in a call of its own at the end of the time."""
    (message,) = history.events[at].value["messages"]
    number, message_id_, ack_id, attempt, _ = message
    late = history.events[-1].time + 100
    message = [number, message_id_, f"{ack_id}x", attempt + 1, late + DEADLINE_SECONDS]
    for name, value in changes.items():
        message[("number", "message_id", "ack_id", "attempt", "expires").index(name)] = value
    sent = {"subscription": history.events[at - 1].value["subscription"]}
    begun = min(message[4] - DEADLINE_SECONDS, late)
    history.events += [
        Event(begun, "w2", Kind.INVOKE, "pull", sent),
        Event(begun + CALL_SECONDS, "w2", Kind.OK, "pull", {"status": 200, "messages": [message]}),
    ]


def change(history: History, at: int, **value: Any) -> None:
    event = history.events[at]
    history.events[at] = replace(event, value={**event.value, **value})


def acked(history: History) -> list[int]:
    """Where the pulls of `t.all` are whose message was confirmed, and was acked right after."""
    confirmed = {
        history.events[at - 1].value["request"]
        for at, event in enumerate(history.events)
        if event.op == "publish" and event.kind is Kind.OK and history.events[at - 1].value["topic"] == "t"
    }
    return [
        at
        for at in pulls(history)
        if history.events[at].value["messages"][0][0][1] in confirmed
        and history.events[at + 2].op == "acks"
        and history.events[at + 2].value["settled"]
    ]
