"""What the load works on: topics, and the subscriptions of each."""

from dataclasses import dataclass
from typing import Any, Literal

from tests.faults.history import Number

DEADLINE_SECONDS = 2
BACKOFF_MIN_SECONDS, BACKOFF_MAX_SECONDS = 1, 2
PUSH_DEADLINE_SECONDS, PUSH_TIMEOUT_SECONDS = 10, 2
MAX_IN_FLIGHT, RATE_LIMIT = 6, 20

TIMED, LIMITED, SHARED, MOVED, TICKS = "timed", "limited", "shared", "moved", "ticks"
"""Topics: the messages of the first have times, the second has the subscriptions with limits, whose acks publish to the
fourth, the messages of the third have tenants, and a schedule publishes to the last one."""

EVERY = "every"
"""The schedule, which fires once a second."""


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
    on_expired: Literal["drop", "dead_letter"] = "drop"
    max_in_flight: int = 0
    rate_limit: int = 0
    fair_by: str = ""
    batch_size: int = 40
    """Of pulls, at most."""
    holds: bool = False
    """A dead letter holds its key, until somebody of the load purges or reprocesses it."""
    acks: Literal["alone", "with publishes", "with rows"] = "alone"
    """In one transaction with messages for MOVED, or with rows of the application."""

    @property
    def name(self) -> str:
        return f"{self.topic}.{self.kind}"

    @property
    def drops(self) -> bool:
        """Messages that expired."""
        return self.topic == TIMED and self.on_expired == "drop"

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
            "on_expired": self.on_expired,
            "max_in_flight": self.max_in_flight,
            "rate_limit": self.rate_limit,
            "on_dead_letter": "hold" if self.holds else "continue",
        }
        more = {"fair_by": self.fair_by} if self.fair_by else {}
        return {**body, **more} if self.parity is None else {**body, **more, "filter": {"parity": [self.parity]}}


@dataclass(frozen=True)
class Plan:
    plain: tuple[str, ...] = ("t0", "t1")
    pushed: bool = False
    """Subscriptions of the first topic are."""
    featured: bool = False
    """Beside plain topics there are those with times, limits, tenants and transactions."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Of publishers."""
        return (*self.plain, TIMED, LIMITED, SHARED) if self.featured else self.plain

    def consumed(self, topic: str) -> float:
        """The least share of its messages that a subscription acks: others it filters, drops or purges."""
        return 0.98 if topic in (LIMITED, SHARED) else 0.5

    @property
    def subscriptions(self) -> list[Subscription]:
        if self.pushed:
            return self._pulled() + self._pushed(self.plain[0])
        return self._pulled() + (FEATURED if self.featured else [])

    def _pushed(self, topic: str) -> list[Subscription]:
        return [
            Subscription(topic, "pushed", pushed=True),
            Subscription(topic, "pushed-poison", max_attempts=2, refuses_poison=True, pushed=True),
            Subscription(topic, "pushed-ordered", ordered=True, pushed=True),
        ]

    def _pulled(self) -> list[Subscription]:
        return [
            subscription
            for topic in self.plain
            for subscription in (
                Subscription(topic, "all"),
                Subscription(topic, "even", parity=0),
                Subscription(topic, "poison", max_attempts=2, refuses_poison=True),
                Subscription(topic, "ordered", ordered=True),
            )
        ]


FEATURED = [
    Subscription(TIMED, "expiring", ordered=True, on_expired="dead_letter"),
    Subscription(TIMED, "dropping"),
    Subscription(LIMITED, "in-flight", max_in_flight=MAX_IN_FLIGHT),
    Subscription(LIMITED, "rate", rate_limit=RATE_LIMIT),
    Subscription(LIMITED, "held", max_attempts=2, refuses_poison=True, ordered=True, holds=True),
    Subscription(LIMITED, "moving", acks="with publishes"),
    Subscription(LIMITED, "booking", acks="with rows"),
    Subscription(SHARED, "fair", fair_by="attributes.tenant", batch_size=10),
    Subscription(MOVED, "all"),
    Subscription(TICKS, "all"),
]
"""MOVED comes after what feeds it: so they are drained."""


def backoff_seconds(attempt: int) -> float:
    return min(BACKOFF_MAX_SECONDS, BACKOFF_MIN_SECONDS * 2.0 ** (attempt - 1))
