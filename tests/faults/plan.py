"""What the load works on: topics, and the subscriptions of each."""

from dataclasses import dataclass
from typing import Any

from tests.faults.history import Number

DEADLINE_SECONDS = 2
BACKOFF_MIN_SECONDS, BACKOFF_MAX_SECONDS = 1, 2
PUSH_DEADLINE_SECONDS, PUSH_TIMEOUT_SECONDS = 10, 2


@dataclass(frozen=True)
class Subscription:
    topic: str
    kind: str
    max_attempts: int = 20
    parity: int | None = None
    """None takes all."""
    refuses_poison: bool = False
    """Its consumers die of it."""
    ordered: bool = False
    """By publisher, whose name is the ordering key."""
    pushed: bool = False
    """To the service of the load; nobody pulls it."""

    @property
    def name(self) -> str:
        return f"{self.topic}.{self.kind}"

    def takes(self, number: Number) -> bool:
        return self.parity is None or number.parity == self.parity

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": self.name,
            "topic_id": self.topic,
            "max_delivery_attempts": self.max_attempts,
            "ack_deadline_seconds": PUSH_DEADLINE_SECONDS if self.pushed else DEADLINE_SECONDS,
            "backoff_min_seconds": BACKOFF_MIN_SECONDS,
            "backoff_max_seconds": BACKOFF_MAX_SECONDS,
            "ordered": self.ordered,
        }
        return body if self.parity is None else {**body, "filter": {"parity": [self.parity]}}


@dataclass(frozen=True)
class Plan:
    topics: tuple[str, ...] = ("t0", "t1")
    pushed: bool = False
    """Subscriptions of the first topic are."""

    @property
    def subscriptions(self) -> list[Subscription]:
        first = self.topics[0]
        pushed = [
            Subscription(first, "pushed", pushed=True),
            Subscription(first, "pushed-poison", max_attempts=2, refuses_poison=True, pushed=True),
            Subscription(first, "pushed-ordered", ordered=True, pushed=True),
        ]
        pulled = [
            subscription
            for topic in self.topics
            for subscription in (
                Subscription(topic, "all"),
                Subscription(topic, "even", parity=0),
                Subscription(topic, "poison", max_attempts=2, refuses_poison=True),
                Subscription(topic, "ordered", ordered=True),
            )
        ]
        return pulled + pushed if self.pushed else pulled


def backoff_seconds(attempt: int) -> float:
    return min(BACKOFF_MAX_SECONDS, BACKOFF_MIN_SECONDS * 2.0 ** (attempt - 1))
