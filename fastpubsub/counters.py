"""Counters of what happens to messages, by topic or subscription, for `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge

REST = "(rest)"
"""The label of everything past the bound; no id can have this name."""


class Counters:
    """What services count; cheap enough for every call. Each label has at most `max_names` values and `REST`."""

    def __init__(self, registry: CollectorRegistry, max_names: int) -> None:
        def counter(name: str, what: str, label: str) -> "_Labelled":
            return _Labelled(Counter(f"fastpubsub_messages_{name}", what, [label], registry=registry), max_names)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"fastpubsub_{name}", what, multiprocess_mode="livesum", registry=registry)

        self.waiting = gauge("waiting_consumers", "Consumers that wait for messages")
        self.streams = gauge("open_streams", "Streams that are open")
        dropped = Counter(
            "fastpubsub_outbox_dropped",
            "Messages from SQL whose topic was deleted before",
            registry=registry,
        )
        self.outbox_dropped = dropped.inc
        self.published = counter("published", "Messages stored by publishing", "topic")
        self.delivered = counter("delivered", "Messages handed to a consumer", "subscription")
        self.acked = counter("acked", "Messages acknowledged", "subscription")
        self.nacked = counter("nacked", "Messages given back for a retry by a consumer", "subscription")
        self.rejected = counter("rejected", "Messages that a consumer made dead letters at once", "subscription")
        self.expired = counter("expired", "Leases that ran out", "subscription")
        self.unreadable = counter("unreadable", "Messages that the filter could not read and skipped", "subscription")
        self.dead_lettered = counter("dead_lettered", "Messages that became dead letters", "subscription")


class _Labelled:
    """`counters.acked("invoices", 3)`"""

    def __init__(self, counter: Counter, max_names: int) -> None:
        self._counter = counter
        self._max_names = max_names
        self._children: dict[str, Counter] = {}

    def __call__(self, name: str, count: int) -> None:
        if count:
            (self._children.get(name) or self._child(name)).inc(count)

    def _child(self, name: str) -> Counter:
        label = name if len(self._children) < self._max_names else REST
        child: Counter = self._counter.labels(label)
        if label is name:
            self._children[name] = child
        return child
