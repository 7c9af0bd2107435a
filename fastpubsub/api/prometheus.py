"""Metrics of requests, and what a scrape of `/metrics` answers.

The names and labels are the spec's, the metrics prometheus-fastapi-instrumentator's. Used as it is meant, with
`Instrumentator().instrument(app).expose(app)`, it would be slower and wrong: its middleware walks all routes for every
request and counts no WebSocket; its functions look up the labels again each time (9 µs a request instead of 3); with
several workers its `/metrics` has only what processes share, so the gauges of subscriptions would be missing. It hands
out functions and no collectors, so we learn these from what it registers.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_fastapi_instrumentator import metrics

from fastpubsub import __version__
from fastpubsub.services.metrics import DelayedGauges, PushGauges, ScheduleGauges, SubscriptionGauges

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds."""


class RequestMetrics:
    """Their labels are looked up once: for each request that took longer than counting it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        made: Any = _Made(registry)
        metrics.requests(
            metric_doc="Total number of requests by method, path and status",
            should_include_handler=False,
            custom_labels={"path": ""},
            registry=made,
        )
        metrics.latency(
            metric_doc="Duration of requests in seconds by method and path",
            should_include_handler=False,
            should_include_status=False,
            custom_labels={"path": ""},
            buckets=BUCKETS,
            registry=made,
        )
        self._requests, self._durations = made.collectors
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        active = Gauge(
            "http_requests_inprogress", "Requests being answered", multiprocess_mode="livesum", registry=registry
        )
        self.started: Callable[[], None] = active.inc
        self._ended = active.dec

    def finished(self, method: str, path: str, status: int, seconds: float) -> None:
        self._ended()
        children = self._children.get((method, path, status))
        if children is None:
            children = self._children[method, path, status] = (
                self._requests.labels(method=method, path=path, status=str(status)),
                self._durations.labels(method=method, path=path),
            )
        count, durations = children
        count.inc()
        durations.observe(seconds)


class _Made:
    """The registry, and what was registered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.collectors: list[Any] = []

    def register(self, collector: Any) -> None:
        self.collectors.append(collector)
        self._registry.register(collector)


def make_registry() -> CollectorRegistry:
    """One for each application, so that several can live in a process."""
    registry = CollectorRegistry()
    if not is_multiprocess():
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
    return registry


def is_multiprocess() -> bool:
    return MULTIPROCESS_FOLDER in os.environ


class Read(NamedTuple):
    """What a scrape reads from the database."""

    subscriptions: Sequence[SubscriptionGauges]
    delayed: DelayedGauges
    pushed: Sequence[PushGauges]
    schedules: ScheduleGauges
    refused: Sequence[tuple[str, int]]
    missing_topics: int


def render(registry: CollectorRegistry, read: Read | None) -> bytes:
    """`read` is None when the database did not answer."""
    if is_multiprocess():
        registry = CollectorRegistry()
        _OfWorkers(registry)  # type: ignore[no-untyped-call]
    at_scrape = CollectorRegistry()
    at_scrape.register(_AtScrape(read))
    return generate_latest(registry) + generate_latest(at_scrape)


class _OfWorkers(MultiProcessCollector):
    """Leaves out the file that a worker has just made and not filled yet, at which prometheus_client fails."""

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in Path(self._path).glob("*.db") if _has_content(file)]
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call,no-any-return]


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False  # of a worker that has ended meanwhile


class _AtScrape:
    def __init__(self, read: Read | None) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("fastpubsub_build_info", "The running version", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        up = 0 if self._read is None else 1
        yield GaugeMetricFamily("fastpubsub_database_up", "Whether the database answered this scrape", value=up)
        if self._read is not None:
            yield from subscription_gauges(self._read.subscriptions)
            yield from delayed_gauges(self._read.delayed)
            yield from push_gauges(self._read.pushed)
            yield from schedule_gauges(self._read.schedules)
            yield refused_gauge(self._read.refused)
            yield missing_gauge(self._read.missing_topics)


LABELS = ["topic", "subscription"]
PINNING = ("ahead", "waiting", "leased")
"""States of messages that the log keeps."""

VALUES = {
    "fastpubsub_subscription_unjudged_messages": (
        "Messages not yet searched for the oldest that matches the filter; 0 when its age is known",
        "unjudged",
    ),
    "fastpubsub_subscription_paused": ("Whether the subscription is paused, and hands out nothing", "is_paused"),
    "fastpubsub_subscription_held_keys": (
        "Ordering keys that a dead letter of the subscription holds",
        "held_keys",
    ),
}
AGES = {
    "fastpubsub_subscription_oldest_message_age_seconds": (
        "Age of the oldest message that matches the filter and waits for its first delivery; 0 when there is none",
        "oldest_created_at",
    ),
    "fastpubsub_subscription_oldest_leased_message_age_seconds": (
        "Age of the oldest message that a consumer holds; 0 when there is none",
        "oldest_leased_created_at",
    ),
    "fastpubsub_subscription_oldest_waiting_message_age_seconds": (
        "Age of the oldest message that waits for a retry; 0 when there is none",
        "oldest_waiting_created_at",
    ),
}


def subscription_gauges(subscriptions: Sequence[SubscriptionGauges]) -> Iterable[Metric]:
    yield from _gauges_by_state(subscriptions)
    for name, (documentation, value) in VALUES.items():
        values = GaugeMetricFamily(name, documentation, labels=LABELS)
        for one in subscriptions:
            values.add_metric([one.topic_id, one.subscription_id], getattr(one, value))
        yield values
    now = datetime.now(UTC)
    for name, (documentation, time) in AGES.items():
        ages = GaugeMetricFamily(name, documentation, labels=LABELS)
        for one in subscriptions:
            ages.add_metric([one.topic_id, one.subscription_id], age(getattr(one, time), now))
        yield ages


def _gauges_by_state(subscriptions: Sequence[SubscriptionGauges]) -> Iterable[Metric]:
    messages = GaugeMetricFamily(
        "fastpubsub_subscription_messages",
        "Messages of a subscription by state: ahead of its cursor, waiting for a retry, leased, dead",
        labels=[*LABELS, "state"],
    )
    kept = GaugeMetricFamily(
        "fastpubsub_subscription_kept_bytes",
        "Bytes of the topic kept beyond the retention for the oldest message that is needed, by its state",
        labels=[*LABELS, "state"],
    )
    for one in subscriptions:
        names = [one.topic_id, one.subscription_id]
        for state in (*PINNING, "dead"):
            messages.add_metric([*names, state], getattr(one, state))
        for state in PINNING:
            kept.add_metric([*names, state], one.kept_bytes if state == one.kept_state else 0)
    return messages, kept


def delayed_gauges(delayed: DelayedGauges) -> Iterable[Metric]:
    messages = GaugeMetricFamily(
        "fastpubsub_delayed_messages",
        "Delayed messages: waiting (estimated when there are many), or held until they are released",
        labels=["state"],
    )
    messages.add_metric(["waiting"], delayed.waiting)
    messages.add_metric(["held"], delayed.held)
    yield messages
    yield GaugeMetricFamily(
        "fastpubsub_delayed_overdue_seconds",
        "For how long the first delayed message that is not held has been overdue; 0 when none is",
        value=delayed.overdue_seconds,
    )


def push_gauges(pushed: Sequence[PushGauges]) -> Iterable[Metric]:
    is_open = GaugeMetricFamily(
        "fastpubsub_subscription_push_breaker_open",
        "Whether a subscription that is pushed is held back because its endpoint failed several times in a row",
        labels=LABELS,
    )
    is_held = GaugeMetricFamily(
        "fastpubsub_subscription_push_held", "Whether a process pushes a subscription that is pushed", labels=LABELS
    )
    for one in pushed:
        is_open.add_metric([one.topic_id, one.subscription_id], one.is_open)
        is_held.add_metric([one.topic_id, one.subscription_id], one.is_held)
    yield from (is_open, is_held)


def schedule_gauges(schedules: ScheduleGauges) -> Iterable[Metric]:
    count = GaugeMetricFamily(
        "fastpubsub_schedules",
        "Schedules: active, paused, or failing, which is counted besides: the last time came without a message",
        labels=["state"],
    )
    for state in ("active", "paused", "failing"):
        count.add_metric([state], getattr(schedules, state))
    yield count
    yield GaugeMetricFamily(
        "fastpubsub_schedules_overdue_seconds",
        "For how long the first schedule has been overdue; 0 when none is",
        value=schedules.overdue_seconds,
    )


def refused_gauge(refused: Sequence[tuple[str, int]]) -> Metric:
    messages = GaugeMetricFamily(
        "fastpubsub_topic_refused_messages",
        "Messages from SQL that do not match the schema of their topic, 1,000 at most; no series for a topic with none",
        labels=["topic"],
    )
    for topic_id, count in refused:
        messages.add_metric([topic_id], count)
    return messages


def missing_gauge(missing_topics: int) -> Metric:
    return GaugeMetricFamily(
        "fastpubsub_topics_missing",
        "Topics whose node of PostgreSQL does not answer; their subscriptions have no series meanwhile",
        value=missing_topics,
    )


def age(created_at: datetime | None, now: datetime) -> float:
    return 0.0 if created_at is None else max((now - created_at).total_seconds(), 0.0)
