"""How fast a log is looked through."""

from benchmarks import raw
from benchmarks.bench import replay
from benchmarks.pairs import Arm
from benchmarks.service import Subscription

FILTER = {"kind": ["k07"]}
"""Matches 1 of 100 messages."""

FIRST_FILL = 100_000
_PULL = 100


def looked_at(subscription: Subscription, size: int, first_fill: int = FIRST_FILL) -> Arm:
    """Pulls without settling, from the start of the log in every round; the rate at which its cursor moves."""
    topic = subscription.topic
    service = topic.service
    pull = replay(service.server, service.save(raw.pull(subscription.id, _PULL)))

    def arm(seconds: float) -> float:
        while True:
            if topic.last_position == 0:
                topic.fill(first_fill, size)
                topic.settle_statistics()
            subscription.seek(1)
            done = pull(seconds)
            if subscription.ahead > 0:
                return subscription.position / done.seconds
            topic.fill(topic.last_position, size)
            topic.settle_statistics()

    return arm
