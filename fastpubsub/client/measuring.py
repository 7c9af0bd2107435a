"""What became of the deliveries of a worker, as Prometheus reads it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Measured:
    """A subscription in this process, since it began."""

    subscription_id: str
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    running: dict[asyncio.Task[None], float] = field(default_factory=dict)
    """Since when, by the clock of the event loop."""
    in_flight: int = 0
    """Messages: of a batch, all of them."""
    then: Callable[[], None] = lambda: None
    """Called for each message."""

    def finished(self, outcome: str, seconds: float) -> None:
        self.in_flight -= 1
        self.outcomes[outcome] += 1
        self.seconds += seconds
        self.then()

    def longest_seconds(self, now: float) -> float:
        return now - min(self.running.values(), default=now)


def exposition(measured: Iterable[Measured]) -> str:
    """The text format of Prometheus. Ids of subscriptions need no escaping."""
    several = sorted(measured, key=lambda one: one.subscription_id)
    handled = [
        f'fastpubsub_worker_messages_total{{subscription="{one.subscription_id}",outcome="{outcome}"}} {count}'
        for one in several
        for outcome, count in sorted(one.outcomes.items())
    ]
    lines = [
        "# HELP fastpubsub_worker_messages_total Messages that handlers have ended with, by what became of them.",
        "# TYPE fastpubsub_worker_messages_total counter",
        *handled,
        "# HELP fastpubsub_worker_handler_seconds How long handlers took.",
        "# TYPE fastpubsub_worker_handler_seconds summary",
    ]
    for one in several:
        label = f'{{subscription="{one.subscription_id}"}}'
        lines.append(f"fastpubsub_worker_handler_seconds_sum{label} {one.seconds:.6f}")
        lines.append(f"fastpubsub_worker_handler_seconds_count{label} {one.outcomes.total()}")
    lines.append("# HELP fastpubsub_worker_messages_in_flight Messages that handlers work on.")
    lines.append("# TYPE fastpubsub_worker_messages_in_flight gauge")
    lines += [
        f'fastpubsub_worker_messages_in_flight{{subscription="{one.subscription_id}"}} {one.in_flight}'
        for one in several
    ]
    return "\n".join(lines) + "\n"
