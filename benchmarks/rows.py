"""The rows of the table, a function for each. They say what is measured; README.md says why so."""

import time
from collections.abc import Callable

from benchmarks import (
    features,
    held,
    latency,
    listening,
    load,
    ordering,
    pushing,
    python_client,
    raw,
    sharing,
    unused,
    wal,
    worker,
)
from benchmarks.bench import Bench, Run, messages_per_second, replay, requests_per_second
from benchmarks.consume import Consumer
from benchmarks.filters import FILTER, FIRST_FILL, looked_at
from benchmarks.floor import Floor
from benchmarks.load import Load
from benchmarks.meter import Meter
from benchmarks.pairs import Arm, Spread, ratio
from benchmarks.payloads import SMALL, batch
from benchmarks.results import Measure
from benchmarks.service import Subscription
from benchmarks.stack import Server
from benchmarks.tokens import make_key, make_tokens

BATCH = 100
TOPICS = 1000
SOME_TOPICS = 16
TOKENS = 1000
LARGE_FILTERED = 2048
FEW_AHEAD = 1000
PULL = 10
"""Messages of a pull from a backlog: small, so that looking for them weighs more than answering them."""

Row = Callable[[Bench], list[Measure]]


def publish_singly(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        topic = service.create_topic()
        topic.subscribe()
        publish = replay(service.server, service.save(raw.publish(topic.id, batch(1))))
        nothing = bench.noop_run()
        published, noop = bench.rounds(requests_per_second(publish), requests_per_second(nothing))
        bench.account("no-op requests", bench.noop, nothing, _requests)
        bench.account("publish one by one", service.server, publish, _requests)
    return [Measure("single publishes ÷ no-op requests", 1.0, 1.3, ratio(published, noop), _rates(published, noop))]


def publish_batches(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        topic = service.create_topic()
        topic.subscribe()
        floor = Floor(service)
        publish = replay(service.server, service.save(raw.publish(topic.id, batch(BATCH))))
        published, bare = bench.rounds(messages_per_second(publish, BATCH), floor.rows_per_second)
        bench.account("publish in batches of 100", service.server, publish, _batches)
    return [Measure("publish by 100 ÷ bare INSERT … SELECT", 0.4, 0.6, ratio(published, bare), _rates(published, bare))]


def fan_out(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        arms = []
        for subscriptions in (1, 10, 100):
            topic = service.create_topic()
            for _ in range(subscriptions):
                topic.subscribe()
            publish = replay(service.server, service.save(raw.publish(topic.id, batch(BATCH))))
            arms.append(messages_per_second(publish, BATCH))
        one, ten, hundred = bench.rounds(*arms)
    return [
        Measure("publish, 10 subscriptions ÷ 1", 0.9, 1.0, ratio(ten, one), _rates(ten, one)),
        Measure("publish, 100 subscriptions ÷ 1", 0.85, 1.0, ratio(hundred, one), _rates(hundred, one)),
    ]


def consume_batches(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        topic = service.create_topic()
        subscription = topic.subscribe()
        publish = replay(service.server, service.save(raw.publish(topic.id, batch(BATCH))))
        apart, at_once = (Consumer(subscription, BATCH, at_once=at_once) for at_once in (False, True))
        settled, exchanged, published = bench.rounds(
            apart.acked_per_second, at_once.acked_per_second, messages_per_second(publish, BATCH)
        )
        _account(bench, apart, "pull and ack in batches of 100", subscription)
        _account(bench, at_once, "the same in one request", subscription)
        bench.check_totals("pull and ack in batches of 100", subscription)
    name, one = "pull + ack by 100 ÷ publish by 100", "pull + ack by 100 (one request) ÷ publish by 100"
    return [
        Measure(name, 0.8, 1.2, ratio(settled, published), _rates(settled, published)),
        Measure(one, 0.8, 1.0, ratio(exchanged, published), _rates(exchanged, published)),
    ]


def consume_singly(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        subscription = service.create_topic().subscribe()
        apart, at_once = (Consumer(subscription, 1, at_once=at_once) for at_once in (False, True))
        settled, exchanged, noop = bench.rounds(
            apart.acked_per_second, at_once.acked_per_second, requests_per_second(bench.noop_run())
        )
        _account(bench, apart, "pull and ack one by one", subscription)
        _account(bench, at_once, "the same in one request", subscription)
        bench.check_totals("pull and ack one by one", subscription)
    name, one = "pull + ack one by one ÷ no-op requests", "pull + ack one by one (one request) ÷ no-op requests"
    return [
        Measure(name, 0.3, 0.5, ratio(settled, noop), _rates(settled, noop)),
        Measure(one, 0.5, 0.7, ratio(exchanged, noop), _rates(exchanged, noop)),
    ]


def filtered(bench: Bench) -> list[Measure]:
    measures = []
    with bench.service() as service:
        for size in (SMALL, LARGE_FILTERED):
            topic = service.create_topic(keep=True)
            first_fill = min(FIRST_FILL, bench.plan.backlog)
            some, all_ = (looked_at(topic.subscribe(filter=wanted), size, first_fill) for wanted in (FILTER, None))
            looked, pulled = bench.rounds(some, all_)
            name = f"looked at with a filter ÷ pulled without, {size / 1000:.1f} KB"
            measures.append(Measure(name, 0.3, 0.6, ratio(looked, pulled), _rates(looked, pulled)))
    return measures


def many_topics(bench: Bench) -> list[Measure]:
    with bench.service() as service:
        arms = []
        for count in (TOPICS, 1):
            topics = service.create_topics(count)
            publish = replay(service.server, service.save(*(raw.publish(topic, batch(1)) for topic in topics)))
            arms.append(requests_per_second(publish))
        many, one = bench.rounds(*arms)
    return [Measure("single publishes to 1,000 topics ÷ to one", 0.5, 0.8, ratio(many, one), _rates(many, one))]


def backlog(bench: Bench) -> list[Measure]:
    """Many subscriptions, so that none of those with little ahead comes to its end within a round."""
    ahead = bench.plan.backlog
    with bench.service() as service:
        topic = service.create_topic(keep=True)
        topic.fill(ahead)
        topic.settle_statistics()
        subscriptions = [topic.subscribe() for _ in range(max(10, round(bench.plan.seconds * 100)))]
        pulls = replay(service.server, service.save(*(raw.pull(one.id, PULL) for one in subscriptions)))
        far, near = 1, topic.last_position - FEW_AHEAD + 1

        def pull(start: int, seconds: float) -> float:
            for subscription in subscriptions:
                subscription.seek(start)
            rate = messages_per_second(pulls, PULL)(seconds)
            _refuse_empty(subscriptions)
            return rate

        much, little = bench.rounds(lambda seconds: pull(far, seconds), lambda seconds: pull(near, seconds))
        looks = []
        for subscription, start in zip(subscriptions, (far, near), strict=False):
            subscription.seek(start)
            path = f"/subscriptions/{subscription.id}/metrics"
            looks.append(requests_per_second(replay(service.server, service.save(raw.request("GET", path)))))
        at_much, at_little = bench.rounds(*looks)
    return [
        Measure(f"pull, {ahead:,} ahead ÷ 1,000", 0.9, 1.0, ratio(much, little), _rates(much, little)),
        Measure(f"metrics, {ahead:,} ahead ÷ 1,000", 0.9, 1.0, ratio(at_much, at_little), _rates(at_much, at_little)),
    ]


def authentication(bench: Bench) -> list[Measure]:
    """The server without authentication gets the same tokens, so both read the same requests."""
    with bench.service() as service:
        topic = service.create_topic()
        topic.subscribe()
        key = make_key()
        guarded = service.start_server(auth_enabled=True, auth_secret_key=key)
        headers = [[f"Authorization: Bearer {token}"] for token in make_tokens(service, key, TOKENS)]
        requests = service.save(*(raw.publish(topic.id, batch(1), header) for header in headers))
        arms = (requests_per_second(replay(server, requests)) for server in (guarded, service.server))
        on, off = bench.rounds(*arms)
    return [Measure("single publishes, authentication on ÷ off", 0.9, 0.95, ratio(on, off), _rates(on, off))]


def keyed(bench: Bench) -> list[Measure]:
    """CPU time of the server, because PostgreSQL has a row more to write for each key."""
    header = "Idempotency-Key: "
    with bench.service() as service:
        topic = service.create_topic()
        topic.subscribe()
        with_key, without = (service.save(raw.publish(topic.id, batch(1), headers)) for headers in ([header], []))

        def publish_with_keys(seconds: float) -> Load:
            arguments = (with_key, header, time.time_ns())
            return load.run(service.server.address, "replay_keyed.lua", seconds, *arguments)

        with_keys, plain = bench.rounds(
            _server_microseconds(bench, service.server, publish_with_keys),
            _server_microseconds(bench, service.server, replay(service.server, without)),
        )
        bench.account("publish one by one, with keys", service.server, publish_with_keys, _requests)
    name = "CPU of a single publish, Idempotency-Key ÷ none"
    figures = f"{with_keys.median:,.1f} ÷ {plain.median:,.1f} µs of the server"
    return [Measure(name, 1.15, 1.05, ratio(with_keys, plain), figures, smaller_is_better=True)]


def processes(bench: Bench) -> list[Measure]:
    """CPU time instead of rates: on a machine that is full already, a second process can only show what it costs."""
    with bench.service() as service:
        topics = service.create_topics(SOME_TOPICS)
        publish = service.save(*(raw.publish(topic, batch(1)) for topic in topics))

        def cost_of(server: Server) -> Arm:
            def microseconds(seconds: float) -> float:
                with Meter(bench.cluster, server) as meter:
                    done = replay(server, publish)(seconds)
                return (meter.cost.server_seconds + meter.cost.postgres_seconds) * 1e6 / max(done.requests, 1)

            return microseconds

        two, one = bench.rounds(cost_of(service.start_server(api_num_workers=2)), cost_of(service.server))
    name = f"CPU of a single publish to {SOME_TOPICS} topics, 2 server processes ÷ 1"
    figures = f"{two.median:,.1f} ÷ {one.median:,.1f} µs of servers and PostgreSQL"
    return [Measure(name, 1.3, 1.1, ratio(two, one), figures, smaller_is_better=True)]


ROWS: dict[str, Row] = {
    "publish-singly": publish_singly,
    "publish-batches": publish_batches,
    "fan-out": fan_out,
    "consume-batches": consume_batches,
    "consume-singly": consume_singly,
    "ordered": ordering.ordered,
    "fair": sharing.fair,
    "held-snapshot": held.held_snapshot,
    "filter": filtered,
    "topics": many_topics,
    "backlog": backlog,
    "authentication": authentication,
    "wal": wal.wal,
    "latency": latency.latency,
    "client-publish": python_client.client_publish,
    "client-threads": python_client.client_threads,
    "client-publisher": python_client.client_publisher,
    "worker": worker.worker,
    "push": pushing.pushing,
    "keyed": keyed,
    "processes": processes,
    "delayed": features.delayed,
    "ttl": features.ttl,
    "schedules": features.schedules,
    "limits": features.limits,
    "max-backlog": features.max_backlog,
    "transactions": features.transactions,
    "unused": unused.unused,
    "many-filters": unused.many_filters,
    "listeners": listening.listeners,
}


def _server_microseconds(bench: Bench, server: Server, run: Run) -> Arm:
    def microseconds(seconds: float) -> float:
        with Meter(bench.cluster, server) as meter:
            done = run(seconds)
        return meter.cost.server_seconds * 1e6 / max(done.requests, 1)

    return microseconds


def _account(bench: Bench, consumer: Consumer, name: str, subscription: Subscription) -> None:
    consumer.prepare(bench.plan.seconds)
    bench.account(name, subscription.topic.service.server, consumer.run, _acked)


def _requests(load: Load) -> int:
    return load.requests


def _batches(load: Load) -> int:
    return load.requests * BATCH


def _acked(load: Load) -> int:
    return load.counts["acked"]


def _rates(above: Spread, below: Spread) -> str:
    return f"{above.median:,.0f} ÷ {below.median:,.0f} per s"


def _refuse_empty(subscriptions: list[Subscription]) -> None:
    """Answering that nothing is there is another thing than pulling."""
    if any(subscription.ahead == 0 for subscription in subscriptions):
        raise AssertionError("a subscription came to its end, take more of them")
