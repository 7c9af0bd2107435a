"""What delayed messages, schedules, times to live, limits and transactions cost: who uses them, and who does not."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import raw
from benchmarks.bench import Bench, messages_per_second, replay
from benchmarks.consume import Consumer
from benchmarks.errors import BenchmarkError
from benchmarks.held import hold_snapshot
from benchmarks.load import Load, Wrk
from benchmarks.pairs import Arm, Spread, ratio
from benchmarks.payloads import SMALL, batch, payload, payload_sql
from benchmarks.results import Measure
from benchmarks.service import Subscription, Topic

BATCH = 100
PULL = 10
"""Messages of a pull: small enough for the highest rate limit that there is."""

CALL_ROWS = 1000
FILL_ROWS = 100_000
DAY_SECONDS = 86400
YEAR_SECONDS = 365 * DAY_SECONDS
FIRING = 100
"""Schedules that publish once a second."""

QUIET = 1000
DUE_PER_SECOND = 10_000
"""Of a round, which fall due at once."""

LIMITS = {"rate_limit": 100_000, "max_in_flight": 1_000_000}
UNUSED, USED = (0.95, 1.0), (0.9, 1.0)


def delayed(bench: Bench) -> list[Measure]:
    waiting = bench.plan.backlog
    with bench.service() as service:
        full, bare = service.create_topic(), service.create_topic()
        for topic in (full, bare):
            topic.subscribe()
        fill(full, waiting)
        beside, alone = bench.rounds(*(publish_by_100(topic) for topic in (full, bare)))
        due, due_alone = bench.rounds(*(due_per_second(topic) for topic in (full, bare)))
        later, at_once = bench.rounds(publish_by_100(bare, delay_seconds=DAY_SECONDS), publish_by_100(bare))
        with hold_snapshot(service):
            held, held_alone = bench.rounds(*(publish_by_100(topic) for topic in (full, bare)))
            held_due, held_due_alone = bench.rounds(*(due_per_second(topic) for topic in (full, bare)))
    name = f"{waiting:,} waiting ÷ none"
    return [
        measure(f"publish by 100, {name}", UNUSED, beside, alone),
        measure(f"messages that fall due, {name}", USED, due, due_alone),
        measure(f"publish by 100 in a held snapshot, {name}", UNUSED, held, held_alone),
        measure(f"messages that fall due in a held snapshot, {name}", USED, held_due, held_due_alone),
        measure("publish by 100, with a delay ÷ without", (0.5, 0.8), later, at_once),
    ]


def fill(topic: Topic, messages: int) -> None:
    """Puts so many where they wait for tomorrow, a millisecond apart, as publishing does it, with one call for many."""
    for start in range(0, messages, FILL_ROWS):
        topic.service.one(
            "with filled as (insert into fastpubsub.delayed_messages (topic_key, due_at, created_at, payload) "  # noqa: S608 - our own
            f"select {topic.key}, clock_timestamp() + make_interval(secs => {DAY_SECONDS} + n / 1000.0), "
            f"clock_timestamp(), {payload_sql('n', SMALL)} "
            f"from generate_series({start}, {min(start + FILL_ROWS, messages) - 1}) as n returning 1) "
            "select count(*) from filled"
        )


def delay(topic: Topic, messages: int, deliver_at: str) -> None:
    """Publishes so many from within the database, which come at a time that is an expression."""
    for start in range(0, messages, CALL_ROWS):
        count = min(CALL_ROWS, messages - start)
        payloads = payload_sql("n", SMALL)
        topic.service.one(
            f"select count(p) from fastpubsub.publish_delayed_messages({topic.key}, "  # noqa: S608 - our own
            f"array(select {payloads} from generate_series({start}, {start + count - 1}) as n), null, null, "
            f"array_fill({deliver_at}, array[{count}]), array_fill(null::integer, array[{count}]), array[{count}], "
            "array[null::text], array[null::text], array['x'::bytea], 3600) as p"
        )


def due_per_second(topic: Topic) -> Arm:
    def arm(seconds: float) -> float:
        """From when they are due until the last one has come."""
        count = round(seconds * DUE_PER_SECOND)
        # What has come can be told by the log, without a look at what a held snapshot keeps of those that were due.
        last = topic.last_position + count
        (due,) = topic.service.one("select clock_timestamp() + make_interval(secs => %s)", 1 + seconds / 2)
        delay(topic, count, f"'{due}'::timestamptz")
        deadline = time.monotonic() + 120
        while topic.last_position < last:
            if time.monotonic() > deadline:
                raise BenchmarkError("messages that are due do not come")
            time.sleep(0.005)
        (took,) = topic.service.one("select extract(epoch from clock_timestamp() - %s)", due)
        return count / float(took)

    return arm


def publish_by_100(topic: Topic, **times: int) -> Arm:
    """With the same members for each message."""
    messages = [{"payload": json.loads(payload(number)), **times} for number in range(BATCH)]
    body = json.dumps({"messages": messages}, separators=(",", ":")).encode()
    run = replay(topic.service.server, topic.service.save(raw.publish(topic.id, body)))
    return messages_per_second(run, BATCH)


def ttl(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        topics = [service.create_topic(), service.create_topic()]
        mortal, immortal = (topic.subscribe() for topic in topics)
        arms = (publish_by_100(topics[0], ttl_seconds=DAY_SECONDS), publish_by_100(topics[1]))
        published, plain = bench.rounds(*arms)
        consumers = Consumer(mortal, BATCH, ttl_seconds=DAY_SECONDS), Consumer(immortal, BATCH)
        consumed, plainly = bench.rounds(*(one.acked_per_second for one in consumers))
    return [
        measure("publish by 100, with a ttl ÷ without", USED, published, plain),
        measure("pull + ack by 100, with a ttl ÷ without", USED, consumed, plainly),
    ]


def schedules(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        arms = []
        for count, interval in ((QUIET, YEAR_SECONDS), (FIRING, 1), (0, 1)):
            topic = service.create_topic()
            topic.subscribe()
            schedule(topic, count, interval)
            arms.append(while_scheduled(topic))
        quiet, firing, none = bench.rounds(*arms)
    return [
        measure(f"single publishes, {QUIET:,} schedules ÷ none", UNUSED, quiet, none),
        measure(f"single publishes, {FIRING} schedules that fire each second ÷ none", USED, firing, none),
    ]


def schedule(topic: Topic, count: int, interval: int) -> None:
    """Paused."""
    topic.service.one(
        "select count(fastpubsub.create_schedule(%s, 's-' || n, '{}', null, null, null, null, %s, 'once', null, 1000)) "
        "from generate_series(1, %s) as n",
        topic.key,
        interval,
        count,
    )


def while_scheduled(topic: Topic) -> Arm:
    """Single publishes, while the schedules of the topic are not paused."""
    publish = replay(topic.service.server, topic.service.save(raw.publish(topic.id, batch(1))))

    def arm(seconds: float) -> float:
        set_next = (
            "with moved as (update fastpubsub.schedules set next_at = clock_timestamp() + {} where topic_key = %s "
            "returning id) select count(*) from moved"
        )
        topic.service.one(set_next.format("make_interval(secs => interval_seconds * random())"), topic.key)
        rate = publish(seconds).rate
        topic.service.one(set_next.format("null"), topic.key)
        return rate

    return arm


def limits(bench: Bench) -> list[Measure]:
    measures = []
    with bench.service() as service:
        topic = service.create_topic()
        plain = Consumer(topic.subscribe(), PULL)
        for name, limit in LIMITS.items():
            limited = Consumer(topic.subscribe(**{name: limit}), PULL)
            used, unused = bench.rounds(limited.acked_per_second, plain.acked_per_second)
            measures.append(measure(f"pull + ack by 10, {name} ÷ none", USED, used, unused))
        # Nobody reads the others, so that the log of both topics is kept.
        other = service.create_topic()
        alike = [other.subscribe() for _ in range(1 + len(LIMITS))]
        beside, alone = bench.rounds(plain.acked_per_second, Consumer(alike[0], PULL).acked_per_second)
    return [*measures, measure("pull + ack by 10, beside subscriptions with limits ÷ without", UNUSED, beside, alone)]


def max_backlog(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        arms = []
        for limit in (10**9, 0):
            topic = service.create_topic()
            topic.subscribe(max_backlog=limit)
            topic.subscribe()
            arms.append(publish_by_100(topic))
        limited, unlimited = bench.rounds(*arms)
    return [measure("publish by 100, max_backlog ÷ none", UNUSED, limited, unlimited)]


def transactions(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        target = service.create_topic()
        subscriptions = [service.create_topic().subscribe() for _ in range(2)]
        together, apart = Mover(subscriptions[0], target, at_once=True), Mover(subscriptions[1], target, at_once=False)
        moved, settled = bench.rounds(together.acked_per_second, apart.acked_per_second)
        topic = service.create_topic()
        busy, other = Consumer(topic.subscribe(), BATCH), topic.subscribe()

        def beside(seconds: float) -> float:
            with open_transaction(other):
                return busy.acked_per_second(seconds)

        open_, none = bench.rounds(beside, busy.acked_per_second)
    return [
        measure("pull, ack and publish by 10, in a transaction ÷ apart", (0.7, 1.0), moved, settled),
        measure("pull + ack by 100, beside an open transaction that acks ÷ without", UNUSED, open_, none),
    ]


@contextmanager
def open_transaction(subscription: Subscription) -> Iterator[None]:
    """Of an application, which has acked a message and not committed."""
    service = subscription.topic.service
    subscription.ensure_ahead(1)
    path = f"/subscriptions/{subscription.id}/messages?consumer_id=application&batch_size=1"
    ack_ids = [one["ack_id"] for one in service.get(path)["data"]]
    with service.cluster.connect(service.database_url) as connection:
        connection.execute("begin")
        connection.execute("select fastpubsub.ack(%s, %s)", [subscription.id, ack_ids])
        yield
        connection.execute("commit")


class Mover(Consumer):
    """Publishes as many messages as it acks."""

    def __init__(self, subscription: Subscription, target: Topic, *, at_once: bool) -> None:
        super().__init__(subscription, PULL)
        service = subscription.topic.service
        body = batch(PULL)
        self._path, self._opening, self._closing = f"/subscriptions/{subscription.id}/acks", '["', '"]'
        self._publish: Path | str = service.save(raw.publish(target.id, body))
        if at_once:
            messages = [{"payload": one} for one in json.loads(body)]
            publishes = json.dumps([{"topic_id": target.id, "messages": messages}], separators=(",", ":"))
            self._path, self._publish = "/transactions", ""
            self._opening = f'{{"publishes":{publishes},"settles":[{{"subscription_id":"{subscription.id}","acks":["'
            self._closing = '"]}]}'

    def run(self, seconds: float) -> Load:
        arguments = (self._pull, self._path, self._opening, self._closing, PULL, self._publish)
        return self.repeat(seconds, lambda: Wrk(self._address, "move.lua", seconds, *arguments))


def measure(name: str, goal: tuple[float, float], above: Spread, below: Spread) -> Measure:
    rates = f"{above.median:,.0f} ÷ {below.median:,.0f} per s"
    return Measure(name, *goal, ratio(above, below), rates)
