"""Loss and duplicates: every message that was answered with 2xx is pulled and acked exactly once."""

import time
from collections import Counter
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.consume import Consumer
from benchmarks.load import Wrk
from benchmarks.payloads import FIRST, payload
from benchmarks.results import Delivery
from benchmarks.service import Service, Subscription, Topic

_DRAIN_SECONDS = 60.0
_POLL_SECONDS = 0.2


def verify(bench: Bench) -> None:
    with bench.service() as service:
        for batch_size in (1, 100):
            bench.results.deliveries.append(_one(service, batch_size, bench.plan.seconds))


def _one(service: Service, batch_size: int, seconds: float) -> Delivery:
    """Publishing and consuming at once; the consumer goes on until all is acked, so that its end cuts nothing off."""
    topic = service.create_topic()
    subscription = topic.subscribe()
    answered, pulled = service.folder / f"answered-{topic.id}", service.folder / f"pulled-{topic.id}"
    publisher = _publish(topic, batch_size, seconds, answered)
    consumer = Consumer(subscription, batch_size).start(seconds + _DRAIN_SECONDS, log=pulled)
    try:
        publisher.finish()
        unsettled = _wait_until_all_is_acked(subscription)
        consumer.interrupt()
        consumer.finish()
    finally:
        publisher.stop()
        consumer.stop()
    never_pulled, twice = compare(answered, pulled)
    name = f"publish, pull and ack by {batch_size} at once, every message compared"
    return Delivery(name, topic.last_position, max(never_pulled, unsettled), twice)


def compare(answered: Path, pulled: Path) -> tuple[int, int]:
    """How many of the ids answered were never pulled; how many came more than once, or were stored twice.

    `pulled` has an id and the number in the payload on each line; the numbers differ, as no payload was sent twice.
    """
    lines = [line.split() for line in pulled.read_text().splitlines()]
    ids, numbers = (Counter(line[column] for line in lines) for column in (0, 1))
    never_pulled = sum(1 for message_id in answered.read_text().split() if message_id not in ids)
    return never_pulled, max(seen.total() - len(seen) for seen in (ids, numbers))


def _publish(topic: Topic, batch_size: int, seconds: float, answered: Path) -> Wrk:
    before, after = payload(0).split(str(FIRST))
    path = f"/topics/{topic.id}/messages"
    address = topic.service.server.address
    return Wrk(address, "publish_unique.lua", seconds, path, batch_size, before, after, answered)


def _wait_until_all_is_acked(subscription: Subscription) -> int:
    """How many are not, in the end."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while True:
        unsettled = subscription.topic.last_position - subscription.metrics()["acked"]
        if unsettled == 0 or time.monotonic() > deadline:
            return unsettled
        time.sleep(_POLL_SECONDS)
