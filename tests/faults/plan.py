"""What the load works on: topics, and the subscriptions of each."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tests.faults.history import Number

DEADLINE_SECONDS = 2
BACKOFF_MIN_SECONDS, BACKOFF_MAX_SECONDS = 1, 2
PUSH_DEADLINE_SECONDS, PUSH_TIMEOUT_SECONDS = 10, 2
MAX_IN_FLIGHT, RATE_LIMIT = 6, 20

TIMED, LIMITED, SHARED, MOVED, TICKS = "timed", "limited", "shared", "moved", "ticks"
"""Topics: the messages of the first have times, the second has the subscriptions with limits, whose acks publish to the
fourth, the messages of the third have tenants, and a schedule publishes to the last one."""

FULL, CROWDED, FAILING, SHAPED, GRAVES = "full", "crowded", "failing", "shaped", "graves"
"""Topics: the first has a subscription that takes no more when its backlog is full, the second those that drop or bury
what is too much, the messages of the third are rejected now and then, the fourth has a schema and gets messages from
SQL, and the last one gets copies of dead letters."""

MAX_BACKLOG, MAX_CROWD, CROWD_RATE = 40, 10, 10
REASONS = ("broken", "unknown", "late")
"""Of those who reject."""

BURIED = "backlog full"
IDLE = "failing.idle"
"""A subscription that nobody uses, and that expires after so many seconds."""

IDLE_SECONDS = 61
SCHEMA = {"type": "object", "properties": {"parity": {"type": "integer"}}}
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
    max_backlog: int = 0
    on_full: Literal["reject", "drop_oldest", "dead_letter"] = "reject"
    jitter: float = 0.0
    """Of the backoff."""
    key: str = ""
    """Its filter takes the messages with this ordering key, if there is one."""
    rejects: bool = False
    """Its consumers make dead letters of some messages."""
    dead_letter_topic: str = ""
    redriven: bool = False
    """Somebody reprocesses or purges what matches of its dead letters."""
    original: str = ""
    """It is a fork of this one."""
    expire_after_seconds: int = 0

    @property
    def name(self) -> str:
        return f"{self.topic}.{self.kind}"

    @property
    def drops(self) -> bool:
        """Messages that expired."""
        return self.topic == TIMED and self.on_expired == "drop"

    @property
    def paces(self) -> bool:
        """Publishers wait for it."""
        return self.on_full == "reject" and not self.original and not self.key

    def takes(self, number: Number) -> bool:
        is_fit = self.topic != SHAPED or not number.is_misfit
        return is_fit and self.parity in (None, number.parity) and self.key in ("", number.publisher)

    def body(self) -> dict[str, Any]:
        if self.original:
            return {"id": self.name, "topic_id": self.topic, "fork_of": self.original, "ordered": self.ordered}
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
        more = {
            "fair_by": self.fair_by,
            "max_backlog": self.max_backlog,
            "backoff_jitter": self.jitter,
            "dead_letter_topic": self.dead_letter_topic,
            "expire_after_seconds": self.expire_after_seconds,
            "filter": self.filter(),
        }
        body |= {"on_full": self.on_full} if self.max_backlog else {}
        return {**body, **{name: value for name, value in more.items() if value}}

    def filter(self) -> dict[str, Any]:
        parity = {} if self.parity is None else {"parity": [self.parity]}
        return {**parity, **({"$message": [{"ordering_key": [self.key]}]} if self.key else {})}


@dataclass(frozen=True)
class Plan:
    plain: tuple[str, ...] = ("t0", "t1")
    pushed: bool = False
    """Subscriptions of the first topic are."""
    featured: bool = False
    """Beside plain topics there are those with times, limits, tenants and transactions."""
    kept: bool = False
    """Beside plain topics there are those with backlogs, dead letters, a schema and forks."""
    forks: list[Subscription] = field(default_factory=list)
    """That somebody has made."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Of publishers."""
        featured = (TIMED, LIMITED, SHARED) if self.featured else ()
        return (*self.plain, *featured, *((FULL, CROWDED, FAILING, SHAPED) if self.kept else ()))

    def consumed(self, topic: str) -> float:
        """The least share of its messages that a subscription acks: others it filters, drops, refuses or purges."""
        return 0.98 if topic in (LIMITED, SHARED, FULL, CROWDED) else 0.5

    def slowness(self, topic: str) -> float:
        """Of its publishers."""
        return {CROWDED: 12.0, SHAPED: 4.0}.get(topic, 1.0)

    @property
    def subscriptions(self) -> list[Subscription]:
        if self.pushed:
            return self._pulled() + self._pushed(self.plain[0])
        return self._pulled() + (FEATURED if self.featured else []) + (KEPT if self.kept else []) + self.forks

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

KEPT = [
    Subscription(FULL, "rejecting", max_backlog=MAX_BACKLOG, rate_limit=RATE_LIMIT, batch_size=5),
    Subscription(FULL, "all", jitter=0.5),
    Subscription(
        CROWDED, "dropping", max_backlog=MAX_CROWD, on_full="drop_oldest", rate_limit=CROWD_RATE, batch_size=5
    ),
    Subscription(
        CROWDED,
        "burying",
        max_backlog=MAX_CROWD,
        on_full="dead_letter",
        rate_limit=CROWD_RATE,
        batch_size=5,
        dead_letter_topic=GRAVES,
        redriven=True,
    ),
    Subscription(CROWDED, "all"),
    Subscription(
        FAILING,
        "rejecting",
        max_attempts=100,
        rejects=True,
        dead_letter_topic=GRAVES,
        redriven=True,
        expire_after_seconds=60,
    ),
    Subscription(FAILING, "keyed", key=f"{FAILING}.0"),
    Subscription(FAILING, "even", parity=0, ordered=True, jitter=0.5),
    Subscription(SHAPED, "ordered", ordered=True),
    Subscription(SHAPED, "all", jitter=1.0),
    Subscription(GRAVES, "all"),
    Subscription(GRAVES, "rejecting", rejects=True, dead_letter_topic=FAILING),
]
"""FAILING.even is what somebody makes forks of. The copies of dead letters come after what they are copies of."""


def backoff_seconds(attempt: int) -> float:
    return min(BACKOFF_MAX_SECONDS, BACKOFF_MIN_SECONDS * 2.0 ** (attempt - 1))
