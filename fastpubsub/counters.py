"""Counters of what happens to messages, by topic or subscription, for `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MAX_PENDING = 10_000
"""Names that are counted for the history at once, of each kind."""

PUSH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REST = "(rest)"
"""The label of everything past the bound; no id can have this name."""


class Counters:
    """The counters of services, cheap enough for every call. Each label has at most `max_names` values and `REST`."""

    def __init__(self, registry: CollectorRegistry, max_names: int) -> None:
        def counter(name: str, what: str, label: str, prefix: str = "messages") -> "Labelled":
            return Labelled(Counter(f"fastpubsub_{prefix}_{name}", what, [label], registry=registry), max_names)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"fastpubsub_{name}", what, multiprocess_mode="livesum", registry=registry)

        self.waiting = gauge("waiting_consumers", "Waiting consumers")
        self.streams = gauge("open_streams", "Open streams")
        dropped = Counter(
            "fastpubsub_outbox_dropped",
            "Messages from SQL that were dropped because their topic was deleted",
            registry=registry,
        )
        self.outbox_dropped = dropped.inc
        self.published = counter("published", "Messages stored by publishing", "topic")
        self.refused = counter("refused", "Messages from SQL that did not match the schema of their topic", "topic")
        self.fired = counter("fired", "Messages published by schedules", "topic", "schedules")
        self.missed = counter("missed", "Times of schedules that came without a message", "topic", "schedules")
        self.delivered = counter("delivered", "Messages handed to a consumer", "subscription")
        self.acked = counter("acked", "Messages acknowledged", "subscription")
        self.nacked = counter("nacked", "Messages that a consumer gave back for a retry", "subscription")
        self.rejected = counter("rejected", "Messages that a consumer made dead letters at once", "subscription")
        self.expired = counter("expired", "Expired leases", "subscription")
        self.filtered = counter("filtered", "Messages that the filter of a subscription kept out", "subscription")
        self.ttl_expired = counter("ttl_expired", "Messages that expired and were dropped", "subscription")
        self.dropped = counter("dropped", "Messages that were dropped because the backlog was too long", "subscription")
        self.unreadable = counter("unreadable", "Messages skipped as unreadable by the filter", "subscription")
        self._pushes = Counter("fastpubsub_pushes", "Pushes to endpoints, by outcome", ["outcome"], registry=registry)
        self._push_seconds = Histogram(
            "fastpubsub_push_seconds", "Until an endpoint answered", buckets=PUSH_BUCKETS, registry=registry
        )
        self.dead_lettered = counter("dead_lettered", "Messages that became dead letters", "subscription")

    def pushed(self, outcome: str, seconds: float) -> None:
        self._pushes.labels(outcome).inc()
        self._push_seconds.observe(seconds)


class Labelled:
    """Counts, as in `counters.acked("invoices", 3)`."""

    def __init__(self, counter: Counter, max_names: int) -> None:
        self._counter = counter
        self._max_names = max_names
        self._children: dict[str, Counter] = {}
        self._pending: dict[str, int] = {}

    def __call__(self, name: str, count: int) -> None:
        if count:
            (self._children.get(name) or self._child(name)).inc(count)
            pending = self._pending
            if name in pending or len(pending) < MAX_PENDING:
                pending[name] = pending.get(name, 0) + count

    def take(self) -> dict[str, int]:
        """What was counted since the last call, by name."""
        taken, self._pending = self._pending, {}
        return taken

    def put_back(self, taken: dict[str, int]) -> None:
        for name, count in taken.items():
            self._pending[name] = self._pending.get(name, 0) + count

    def _child(self, name: str) -> Counter:
        label = name if len(self._children) < self._max_names else REST
        child: Counter = self._counter.labels(label)
        if label is name:
            self._children[name] = child
        return child
