"""A history, sorted by what the checks ask for."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.message_ids import parse
from tests.faults.history import Call, Event, History, Kind, Number
from tests.faults.plan import DEADLINE_SECONDS, EVERY, MOVED, SHAPED, TICKS, Plan, Subscription

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
        position = position_of(self.message_id)
        return (self.number.request, self.number.place) if position is None else (position,)

    @property
    def claim(self) -> str:
        """All that PostgreSQL hands out in one call has the same, whoever gets it."""
        return self.ack_id.rpartition(".")[2]

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
    reason: str = ""


class Copy(NamedTuple):
    """Of a dead letter, as its attributes say."""

    subscription: str
    number: Number
    message_id: str
    reason: str
    attempts: int


@dataclass
class Seen:
    """Of one subscription."""

    subscription: Subscription
    by_number: dict[Number, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    settles: dict[str, list[Settle]] = field(default_factory=lambda: defaultdict(list))
    """By ack_id."""
    dead: list[Number] = field(default_factory=list)
    purged: dict[Number, float] = field(default_factory=dict)
    """When somebody began to, of dead letters that hold their keys."""
    revived: dict[Number, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When somebody began to reprocess them."""
    metrics: dict[str, int] | None = None
    """At the end, when it was drained."""

    @property
    def numbers(self) -> set[Number]:
        return self.by_number.keys() | set(self.dead)

    @property
    def done(self) -> set[Number]:
        """At the end, when everything is drained."""
        return self.numbers - set(self.dead) - self.purged.keys()

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

    def is_revived(self, first: Delivery, second: Delivery) -> bool:
        """Whether somebody may have reprocessed it between them."""
        is_redriven = self.subscription.redriven and bool(self.settled(first, "rejects"))
        return is_redriven or any(first.begun < time < second.ended for time in self.revived.get(first.number, ()))

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
            if one.op in (ops or ("acks", "nacks", "returns", "rejects")) and one.outcome in ("settled", "unknown")
        ]


class Index:
    def __init__(self, plan: Plan, history: History) -> None:
        self.plan = plan
        self.calls = history.calls()
        self.crashes = list(crashes(history))
        self.attempted: dict[tuple[str, Number], Kind] = {}
        self.sizes: dict[tuple[str, str, int], int] = {}
        self.ids: dict[tuple[str, Number], str] = {}
        self.begun: dict[tuple[str, Number], float] = {}
        """When its publisher asked for the first time."""
        self.confirmed_at: dict[tuple[str, Number], float] = {}
        self.copies: dict[str, Copy] = {}
        """By their message ids."""
        self.forked: dict[str, tuple[float, float]] = {}
        """When somebody began to make a fork, and knew that it was there."""
        self.seen = {one.name: Seen(one) for one in plan.subscriptions}
        adding = {
            "publish": self._add_publish,
            "pull": self._add_pull,
            "purge": self._add_purge,
            "fork": self._add_fork,
        }
        for call in self.calls:
            adding.get(call.op, self._add_settle)(call)
        self._add_notes(history)
        for seen in self.seen.values():
            for deliveries in seen.by_number.values():
                deliveries.sort(key=lambda one: one.expires)

    def _add_notes(self, history: History) -> None:
        self.scheduled = [Number(EVERY, second, 0) for event in history.notes("fired") for second in seconds(event)]
        self.attempted |= {(TICKS, number): Kind.OK for number in self.scheduled}
        self.booked = Counter(Number(*one) for event in history.notes("booked") for one in event.value["numbers"])
        for event in history.notes("end"):
            seen = self.seen[event.value["subscription"]]
            seen.dead = [Number(*number) for number in event.value["dead"]]
            seen.metrics = event.value["metrics"]
        self.redrives: dict[str, list[dict[str, Any]]] = {}
        """Of each subscription, at the end."""
        for event in history.notes("redrives"):
            self.redrives[event.value["subscription"]] = event.value["redrives"]
        self.looks: dict[tuple[str, int], list[tuple[float, float, int]]] = defaultdict(list)
        """At each redrive: from when to when, and how many it had moved."""
        for event in history.notes("redrive"):
            key = event.value["subscription"], event.value["id"]
            self.looks[key].append((event.value["since"], event.time, event.value["done"]))
        self.left = [
            (event.value["subscription"], event.value["id"], event.value["left"]) for event in history.notes("left")
        ]
        self.idle = [
            (event.value["created"], event.value["there"], event.value["gone"]) for event in history.notes("idle")
        ]
        self.refused: list[tuple[Number, str]] | None = None
        for event in history.notes("refused"):
            self.refused = [(Number(*number), reason) for number, reason in event.value["refused"]]

    def _add_publish(self, call: Call) -> None:
        topic, publisher, request = call.sent["topic"], call.sent["publisher"], call.sent["request"]
        self.sizes[topic, publisher, request] = call.sent["count"]
        for place in range(call.sent["count"]):
            key = topic, Number(publisher, request, place)
            before = self.attempted.get(key, Kind.REFUSED)
            self.attempted[key] = max(before, call.outcome, key=_CERTAINTY.index)
            self.begun.setdefault(key, call.begun)
            if call.outcome is Kind.OK:
                self.confirmed_at.setdefault(key, call.ended)
            if (ids := call.got.get("ids")) and not ids[place].startswith("delayed-"):
                self.ids.setdefault(key, ids[place])

    def _add_pull(self, call: Call) -> None:
        seen = self.seen[call.sent["subscription"]]
        for number, message_id, ack_id, attempt, expires in call.got.get("messages", ()):
            delivery = Delivery(Number(*number), message_id, ack_id, attempt, expires, call.begun, call.ended)
            seen.by_number[delivery.number].append(delivery)
        for id_, (subscription, number, original, reason, attempts) in call.got.get("copies", {}).items():
            self.copies[id_] = Copy(subscription, Number(*number), original, reason, int(attempts))

    def _add_fork(self, call: Call) -> None:
        begun, _ = self.forked.get(call.sent["subscription"], (call.begun, call.ended))
        self.forked[call.sent["subscription"]] = begun, call.ended

    def _add_settle(self, call: Call) -> None:
        seen = self.seen[call.sent["subscription"]]
        if call.outcome is Kind.OK:
            outcomes = {ack_id: name for name in ("settled", "gone", "stale") for ack_id in call.got[name]}
        else:
            outcomes = dict.fromkeys(call.sent["ids"], "unknown" if call.outcome is Kind.UNKNOWN else "refused")
        op = "acks" if call.op == "transaction" else call.op
        for ack_id, outcome in outcomes.items():
            seen.settles[ack_id].append(Settle(op, outcome, call.begun, call.ended, call.sent.get("reason", "")))
        for number in call.sent.get("publishes", ()):
            key = MOVED, Number(*number)
            self.attempted[key] = max(self.attempted.get(key, Kind.REFUSED), call.outcome, key=_CERTAINTY.index)

    def _add_purge(self, call: Call) -> None:
        seen = self.seen[call.sent["subscription"]]
        for number in call.sent["numbers"] if call.outcome is not Kind.REFUSED else ():
            if call.sent["revives"]:
                seen.revived[Number(*number)].append(call.begun)
            else:
                seen.purged.setdefault(Number(*number), call.begun)

    def confirmed(self, subscription: Subscription) -> list[Number]:
        """In their order."""
        return [
            number
            for (topic, number), outcome in self.attempted.items()
            if topic == subscription.topic and outcome is Kind.OK and subscription.takes(number)
        ]

    def stored(self, topic: str) -> set[Number]:
        """As far as anybody saw."""
        refused = {number for number, _ in self.refused or () if topic == SHAPED}
        seen = {number for seen in self.seen.values() if seen.subscription.topic == topic for number in seen.numbers}
        return seen | refused

    @cached_property
    def positions(self) -> dict[tuple[str, Number], int]:
        """In the log of their topic, of all that anybody saw."""
        ids = dict(self.ids)
        for seen in self.seen.values():
            for number, deliveries in seen.by_number.items():
                ids.setdefault((seen.subscription.topic, number), deliveries[0].message_id)
        for copy in self.copies.values():
            if copy.subscription in self.seen:
                ids.setdefault((self.seen[copy.subscription].subscription.topic, copy.number), copy.message_id)
        return {key: position for key, id_ in ids.items() if (position := position_of(id_)) is not None}

    def copies_of(self, subscription: Subscription) -> list[Copy]:
        return [one for one in self.copies.values() if one.subscription == subscription.name]

    def purges(self, subscription: str) -> int:
        """How many messages redrives have purged."""
        return sum(one["done"] for one in self.redrives.get(subscription, ()) if one["action"] == "purge")

    @property
    def repetitions(self) -> int:
        """Deliveries of what the subscription had before: after nacks, leases that ended, answers that were lost."""
        return sum(len(deliveries) - 1 for seen in self.seen.values() for deliveries in seen.by_number.values())

    def forgettable(self, one: Delivery) -> bool:
        """Whether a crash of PostgreSQL may have forgotten that it was handed out."""
        return any(one.begun < gone and one.ended > crash - FORGETTABLE_SECONDS for crash, gone in self.crashes)

    def forgotten(self, first: Delivery, second: Delivery) -> bool:
        """Whether a crash of PostgreSQL may have forgotten the first one."""
        return any(
            first.begun < gone and first.ended > crash - FORGETTABLE_SECONDS and second.ended > crash
            for crash, gone in self.crashes
        )


def position_of(message_id: str) -> int | None:
    """None of one that was made up."""
    with suppress(InvalidRequest):
        if parsed := parse(message_id):
            return parsed.position
    return None


def crashes(history: History) -> Iterator[tuple[float, float]]:
    """From when to when PostgreSQL died, the last time that its death is noted before the next."""
    begun = [event.time for event in history.notes("crash")]
    over = [event.time for event in history.notes("crashed")]
    for crash, following in pairwise([*begun, float("inf")]):
        yield crash, max((time for time in over if crash < time < following), default=crash + DYING_SECONDS)


def seconds(fired: Event) -> range:
    """The times of the schedule, until it was paused."""
    return range(fired.value["first"], fired.value["first"] + fired.value["count"])


_CERTAINTY: Sequence[Kind] = (Kind.REFUSED, Kind.UNKNOWN, Kind.OK)
