"""Histories of a queue that exists only here and makes no mistakes, and the mistakes to plant into them."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.faults.history import Event, History, Kind, Number
from tests.faults.plan import DEADLINE_SECONDS, Plan, Subscription, backoff_seconds

PLAN = Plan(("t",))
CALL_SECONDS = 0.01


class Queue:
    """Time passes as calls are made; lots decide who dies, is late, or gets no answer. The first publish succeeds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.events: list[Event] = []
        self.stored: list[Number] = []

    def history(self, requests: int = 12) -> History:
        for request in range(requests):
            self.publish(Number("p", request, 0), self.random.randint(2, 4))
        for subscription in PLAN.subscriptions:
            self.consume(subscription)
        return History(self.events)

    def call(self, op: str, sent: dict[str, Any], outcome: Kind, got: dict[str, Any]) -> None:
        self.events.append(Event(self.now, "w", Kind.INVOKE, op, sent))
        self.now += CALL_SECONDS
        self.events.append(Event(self.now, "w", outcome, op, got))

    def publish(self, first: Number, count: int) -> None:
        numbers = [first._replace(place=place) for place in range(count)]
        sent = {"topic": "t", "publisher": first.publisher, "request": first.request, "count": count}
        outcome = self.random.choices([Kind.OK, Kind.UNKNOWN, Kind.REFUSED], [8, 2, 1])[0] if first.request else Kind.OK
        is_stored = outcome is Kind.OK or (outcome is Kind.UNKNOWN and self.random.random() < 0.5)
        self.stored += numbers if is_stored else []
        ids = [message_id(number) for number in numbers]
        self.call("publish", sent, outcome, {"status": 201, "ids": ids} if outcome is Kind.OK else {})

    def consume(self, subscription: Subscription) -> None:
        numbers = [number for number in self.stored if subscription.takes(number)]
        dead = [number for number in numbers if not self.deliver(subscription, number)]
        metrics = {"available": 0, "delivered": 0, "acked": len(numbers) - len(dead), "dlq": len(dead)}
        value = {"subscription": subscription.name, "dead": dead, "metrics": metrics}
        self.events.append(Event(self.now, "campaign", Kind.NOTE, "end", value))

    def deliver(self, subscription: Subscription, number: Number) -> bool:
        """Again and again; False when it ended as a dead letter."""
        attempt = 1
        while attempt <= subscription.max_attempts:
            ack_id = f"{message_id(number)}.{subscription.name}.{self.random.random()}"
            message = [list(number), message_id(number), ack_id, attempt, self.now + DEADLINE_SECONDS]
            self.call("pull", {"subscription": subscription.name}, Kind.OK, {"status": 200, "messages": [message]})
            fate = self.random.choices(["acks", "nacks", "returns", "dies", "late"], [6, 2, 1, 1, 1])[0]
            if number.is_poison and subscription.refuses_poison:
                fate = "dies"
            if fate == "acks":
                self.settle(subscription, "acks", ack_id, "settled")
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
        return False

    def settle(self, subscription: Subscription, op: str, ack_id: str, outcome: str) -> None:
        got: dict[str, Any] = {"status": 200, "settled": [], "gone": [], "stale": []}
        got[outcome] = [ack_id]
        self.call(op, {"subscription": subscription.name, "ids": [ack_id]}, Kind.OK, got)


def message_id(number: Number) -> str:
    return f"{number.publisher}-{number.request}-{number.place}"


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
        if event.op == "publish" and event.kind is Kind.OK
    }
    return [
        at
        for at in pulls(history)
        if history.events[at].value["messages"][0][0][1] in confirmed
        and history.events[at + 2].op == "acks"
        and history.events[at + 2].value["settled"]
    ]
