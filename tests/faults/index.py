"""A history, sorted by what the checks ask for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.message_ids import parse
from tests.faults.history import Call, History, Kind, Number
from tests.faults.plan import DEADLINE_SECONDS, Plan, Subscription

DYING_SECONDS = 0.5
"""From a kill, which is noted before it is done, to the end of the last session, unless that is noted as well."""

FORGETTABLE_SECONDS = 3.0
"""A claim commits asynchronously: a crash of PostgreSQL forgets those of the last moments."""


@dataclass(frozen=True, slots=True)
class Delivery:
    number: Number
    message_id: str
    ack_id: str
    attempt: int
    expires: float
    begun: float
    ended: float

    @property
    def place(self) -> tuple[int, ...]:
        """In the log: the position in its id, or in a history that was made up its number."""
        with suppress(InvalidRequest):
            if parsed := parse(self.message_id):
                return (parsed.position,)
        return self.number.request, self.number.place

    @property
    def starts(self) -> float:
        """By the clock of the database, as its end."""
        return self.expires - DEADLINE_SECONDS


class Settle(NamedTuple):
    op: str
    outcome: str
    """settled, gone, stale, or unknown."""
    begun: float
    ended: float


@dataclass
class Seen:
    """Of one subscription."""

    subscription: Subscription
    by_number: dict[Number, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    settles: dict[str, list[Settle]] = field(default_factory=lambda: defaultdict(list))
    """By ack_id."""
    dead: list[Number] = field(default_factory=list)
    metrics: dict[str, int] | None = None
    """At the end, when it was drained."""

    @property
    def numbers(self) -> set[Number]:
        return self.by_number.keys() | set(self.dead)

    def pairs(self) -> list[tuple[Delivery, Delivery]]:
        """Each delivery with the next one of the same message."""
        return [pair for deliveries in self.by_number.values() for pair in pairwise(deliveries)]

    def by_key(self) -> Iterator[list[Delivery]]:
        """The deliveries of each ordering key, which is the name of the publisher, in the order of the log."""
        keys: dict[str, list[Delivery]] = defaultdict(list)
        for number, deliveries in self.by_number.items():
            keys[number.publisher] += deliveries
        for deliveries in keys.values():
            deliveries.sort(key=lambda one: (one.place, one.expires))
            yield deliveries

    def given_back(self, delivery: Delivery) -> list[Settle]:
        """How earlier messages of its key in the same answer were given back, in an ordered subscription."""
        if not self.subscription.ordered:
            return []
        return [
            settle
            for deliveries in self.by_number.values()
            for one in deliveries
            if one.number.publisher == delivery.number.publisher
            and (one.begun, one.ended) == (delivery.begun, delivery.ended)
            and one.place < delivery.place
            for settle in self.settled(one, "nacks", "returns")
        ]

    def settled(self, delivery: Delivery, *ops: str) -> list[Settle]:
        """What ended this delivery, surely or perhaps."""
        found = self.settles.get(delivery.ack_id, [])
        return [
            one
            for one in found
            if one.op in (ops or ("acks", "nacks", "returns")) and one.outcome in ("settled", "unknown")
        ]


class Index:
    def __init__(self, plan: Plan, history: History) -> None:
        self.plan = plan
        self.calls = history.calls()
        self.crashes = list(crashes(history))
        self.attempted: dict[tuple[str, Number], Kind] = {}
        self.sizes: dict[tuple[str, str, int], int] = {}
        self.ids: dict[tuple[str, Number], str] = {}
        self.seen = {one.name: Seen(one) for one in plan.subscriptions}
        for call in self.calls:
            if call.op == "publish":
                self._add_publish(call)
            elif call.op == "pull":
                self._add_pull(call)
            else:
                self._add_settle(call)
        for event in history.notes("end"):
            seen = self.seen[event.value["subscription"]]
            seen.dead = [Number(*number) for number in event.value["dead"]]
            seen.metrics = event.value["metrics"]
        for seen in self.seen.values():
            for deliveries in seen.by_number.values():
                deliveries.sort(key=lambda one: one.expires)

    def _add_publish(self, call: Call) -> None:
        topic, publisher, request = call.sent["topic"], call.sent["publisher"], call.sent["request"]
        self.sizes[topic, publisher, request] = call.sent["count"]
        for place in range(call.sent["count"]):
            key = topic, Number(publisher, request, place)
            before = self.attempted.get(key, Kind.REFUSED)
            self.attempted[key] = max(before, call.outcome, key=_CERTAINTY.index)
            if ids := call.got.get("ids"):
                self.ids.setdefault(key, ids[place])

    def _add_pull(self, call: Call) -> None:
        seen = self.seen[call.sent["subscription"]]
        for number, message_id, ack_id, attempt, expires in call.got.get("messages", ()):
            delivery = Delivery(Number(*number), message_id, ack_id, attempt, expires, call.begun, call.ended)
            seen.by_number[delivery.number].append(delivery)

    def _add_settle(self, call: Call) -> None:
        seen = self.seen[call.sent["subscription"]]
        if call.outcome is Kind.OK:
            outcomes = {ack_id: name for name in ("settled", "gone", "stale") for ack_id in call.got[name]}
        else:
            outcomes = dict.fromkeys(call.sent["ids"], "unknown" if call.outcome is Kind.UNKNOWN else "refused")
        for ack_id, outcome in outcomes.items():
            seen.settles[ack_id].append(Settle(call.op, outcome, call.begun, call.ended))

    def confirmed(self, subscription: Subscription) -> list[Number]:
        """In their order."""
        return [
            number
            for (topic, number), outcome in self.attempted.items()
            if topic == subscription.topic and outcome is Kind.OK and subscription.takes(number)
        ]

    def stored(self, topic: str) -> set[Number]:
        """As far as anybody saw."""
        return {number for seen in self.seen.values() if seen.subscription.topic == topic for number in seen.numbers}

    @property
    def repetitions(self) -> int:
        """Deliveries of what the subscription had before: after nacks, leases that ended, answers that were lost."""
        return sum(len(deliveries) - 1 for seen in self.seen.values() for deliveries in seen.by_number.values())

    def forgotten(self, first: Delivery, second: Delivery) -> bool:
        """Whether a crash of PostgreSQL may have forgotten the first one."""
        return any(
            first.begun < gone and first.ended > crash - FORGETTABLE_SECONDS and second.ended > crash
            for crash, gone in self.crashes
        )


def crashes(history: History) -> Iterator[tuple[float, float]]:
    """From when to when PostgreSQL died, the last time that its death is noted before the next."""
    begun = [event.time for event in history.notes("crash")]
    over = [event.time for event in history.notes("crashed")]
    for crash, following in pairwise([*begun, float("inf")]):
        yield crash, max((time for time in over if crash < time < following), default=crash + DYING_SECONDS)


_CERTAINTY: Sequence[Kind] = (Kind.REFUSED, Kind.UNKNOWN, Kind.OK)
