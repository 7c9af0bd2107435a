"""Consuming in order beside consuming the same messages without: few keys, one, and many of which one is stuck."""

import time
from collections.abc import Callable

from psycopg.errors import SerializationFailure

from benchmarks import raw
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.load import Load, Wrk, finish
from benchmarks.pairs import ratio
from benchmarks.results import Measure
from benchmarks.service import Subscription, Topic

BATCH = 100
WAIT_SECONDS = 1
"""A consumer whose keys are busy waits, as workers do, instead of asking again and again."""

FIRST_FILL = 200_000
_ATTEMPTS = 5
_RESERVE = 2

KEYS = {"16 keys": "n % 16", "one key": "0", "a million keys, one stuck": "hashint4(n) % 1000000"}
GOALS = {"16 keys": (0.5, 0.8), "one key": (0.3, 0.5), "a million keys, one stuck": (0.5, 0.8)}
STUCK = "stuck"
STUCK_SHARE = 1000
"""One message of so many has the key that is stuck."""


class InOrder:
    """Consumers that settle what they have got before they ask for more, from a log that `refill` makes longer."""

    def __init__(self, subscription: Subscription, refill: Callable[[int], None]) -> None:
        service = subscription.topic.service
        self._subscription = subscription
        self._refill = refill
        self._address = service.server.address
        self._pull = service.save(raw.pull(subscription.id, BATCH, WAIT_SECONDS))
        self._rate = 0.0
        """Messages per second, the most that was seen so far."""

    def run(self, seconds: float) -> Load:
        path = f"/subscriptions/{self._subscription.id}/acks"
        return finish(Wrk(self._address, "consume.lua", seconds, self._pull, path, BATCH, 0, "", "all"))

    def acked_per_second(self, seconds: float) -> float:
        """Of a round that has not come to the end of the log: there consumers wait for what nobody publishes."""
        for _ in range(_ATTEMPTS):
            give_back(self._subscription)
            self._ensure_available(round(self._rate * seconds * _RESERVE))
            done = self.run(seconds)
            rate = done.counts["acked"] / done.seconds
            if self._subscription.metrics()["available"]:
                self._rate = max(self._rate, rate)
                return rate
            self._rate = 2 * max(self._rate, rate, FIRST_FILL)
        raise BenchmarkError("the subscription ran empty again and again, so its consumers could not be measured")

    def _ensure_available(self, messages: int) -> None:
        missing = messages - self._subscription.metrics()["available"]
        if missing > 0:
            self._refill(missing)


def stick(subscription: Subscription) -> None:
    """A consumer takes the first message, and keeps it."""
    topic = subscription.topic
    topic.service.one(
        "select count(*) from fastpubsub.claim_messages_2(%s, %s, '{1}', '{stuck}', 1000000)",
        topic.key,
        subscription.key,
    )


def give_back(subscription: Subscription) -> None:
    """What the end of a round cut off would keep its keys busy until a deadline."""
    while not _is_given_back(subscription):
        time.sleep(0.01)


def _is_given_back(subscription: Subscription) -> bool:
    """Not while the server still settles what a round sent last."""
    keys = subscription.topic.key, subscription.key
    try:
        subscription.topic.service.one(
            "select count(*) from fastpubsub.return_leases(%s, %s, "
            "array(select p from fastpubsub.leases as l, generate_series(l.position, l.last_position) as p "
            "where l.subscription_key = %s and l.consumer_id <> 'stuck' order by p), "
            "array(select l.token from fastpubsub.leases as l, generate_series(l.position, l.last_position) as p "
            "where l.subscription_key = %s and l.consumer_id <> 'stuck' order by p), null)",
            *keys,
            subscription.key,
            subscription.key,
        )
    except SerializationFailure:
        return False
    return True


def refills(topic: Topic, **expressions: str) -> Callable[[int], None]:
    """Fills the log with messages whose keys or tenants are so, as `Topic.fill` does."""

    def refill(messages: int) -> None:
        topic.fill(messages, **expressions)  # type: ignore[arg-type]
        topic.settle_statistics()

    return refill


def key_of(name: str) -> str:
    key = f"({KEYS[name]})::text"
    return f"(case when n % {STUCK_SHARE} = 0 then '{STUCK}' else {key} end)" if "stuck" in name else key


def ordered(bench: Bench) -> list[Measure]:
    measures: list[Measure] = []
    for name, (must, aim) in GOALS.items():
        with bench.service() as service:
            topic = service.create_topic(keep=True)
            refill = refills(topic, keys=key_of(name))
            refill(min(FIRST_FILL, bench.plan.backlog))
            subscriptions = [topic.subscribe(ordered=is_ordered) for is_ordered in (True, False)]
            if "stuck" in name:
                stick(subscriptions[0])
            arms = [InOrder(one, refill) for one in subscriptions]
            in_order, unordered = bench.rounds(*(arm.acked_per_second for arm in arms))
        rates = f"{in_order.median:,.0f} ÷ {unordered.median:,.0f} per s"
        measures.append(
            Measure(f"pull + ack in order, {name} ÷ without order", must, aim, ratio(in_order, unordered), rates)
        )
    return measures
