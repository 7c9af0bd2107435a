"""Histories of a queue that exists only here and makes no mistakes, and the mistakes to plant into them."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastpubsub.message_ids import MessageIds
from tests.faults.history import Event, History, Kind, Number
from tests.faults.plan import (
    BURIED,
    CROWDED,
    DEADLINE_SECONDS,
    EVERY,
    FAILING,
    FULL,
    GRAVES,
    MAX_CROWD,
    MOVED,
    REASONS,
    SHAPED,
    TICKS,
    TIMED,
    Plan,
    Subscription,
    backoff_seconds,
)

ORIGINAL = "failing.even"
PLAN = Plan(("t",), featured=True)
KEPT_PLAN = Plan((), kept=True, forks=[Subscription(FAILING, "fork0", parity=0, original=ORIGINAL)])
CALL_SECONDS = 0.05
TICK_SECONDS = 12


class Queue:
    """Time passes as calls are made; lots decide who dies, is late, or gets no answer. The first publish succeeds."""

    def __init__(self, seed: int, plan: Plan = PLAN) -> None:
        self.plan = plan
        self.random = random.Random(seed)
        self.now = 1000.0
        self.events: list[Event] = []
        self.stored: dict[str, dict[Number, float]] = {topic: {} for topic in (*plan.topics, MOVED, TICKS, GRAVES)}
        """When each came."""
        self.places: dict[tuple[str, Number], int] = {}
        """In topics whose backlogs are limited, where a position must be what comes after the one before."""
        self.copies: dict[Number, list[Any]] = {}
        self.redriven: dict[str, dict[str, int]] = {}
        """How many were reprocessed and purged, by subscription."""
        self.forked: list[Number] = []
        """What the original had still to settle."""
        self.booked: list[Number] = []

    def history(self, requests: int = 8) -> History:
        for topic in sorted(self.plan.topics, key=lambda one: one == TIMED):
            for request in range(requests):
                name = f"{FAILING}.{request % 2}" if topic == FAILING else f"p.{topic}"
                self.publish(topic, Number(name, request, 0), self.random.randint(2, 4))
        first = int(self.now) + 1
        self.stored[TICKS] = {Number(EVERY, first + second, 0): first + second for second in range(TICK_SECONDS)}
        # Those of TIMED at once, before they expire.
        for subscription in sorted(self.plan.subscriptions, key=lambda one: one.topic != TIMED):
            self.consume(subscription)
        if self.plan.featured:
            self.note("fired", first=first, count=TICK_SECONDS)
            self.note("booked", numbers=self.booked)
        if self.plan.kept:
            self.note_kept()
        return History(self.events)

    def note_kept(self) -> None:
        misfits = [number for number in self.stored[SHAPED] if number.is_misfit]
        self.note("refused", refused=[[number, 'does not match at "/parity"'] for number in misfits])
        self.note("idle", created=1000.0, there=self.now, gone=self.now if self.now > 1300.0 else 0)

    def note(self, op: str, **value: Any) -> None:
        self.events.append(Event(self.now, "campaign", Kind.NOTE, op, value))

    def call(self, op: str, sent: dict[str, Any], outcome: Kind, got: dict[str, Any]) -> None:
        self.events.append(Event(self.now, "w", Kind.INVOKE, op, sent))
        self.now += CALL_SECONDS
        self.events.append(Event(self.now, "w", outcome, op, got))

    def publish(self, topic: str, first: Number, count: int) -> None:
        numbers = [first._replace(place=place) for place in range(count)]
        sent = {"topic": topic, "publisher": first.publisher, "request": first.request, "count": count}
        outcome = self.random.choices([Kind.OK, Kind.UNKNOWN, Kind.REFUSED], [8, 2, 1])[0] if first.request else Kind.OK
        is_stored = outcome is Kind.OK or (outcome is Kind.UNKNOWN and self.random.random() < 0.5)
        if is_stored and topic in (FULL, CROWDED):
            taken = sum(name == topic for name, _ in self.places)
            self.places |= {(topic, number): taken + place for place, number in enumerate(numbers, 1)}
        delays = [number.delay_seconds or 0 if topic == TIMED else 0 for number in numbers]
        if is_stored:
            self.stored[topic] |= {number: self.now + delay for number, delay in zip(numbers, delays, strict=True)}
        ids = [
            f"delayed-{number.place}" if delay else self.message_id(topic, number, self.now)
            for number, delay in zip(numbers, delays, strict=True)
        ]
        self.call("publish", sent, outcome, {"status": 201, "ids": ids} if outcome is Kind.OK else {})

    def consume(self, subscription: Subscription) -> None:
        times = self.stored[subscription.topic]
        numbers = sorted((number for number in times if subscription.takes(number)), key=lambda one: (times[one], one))
        if subscription.original:
            numbers = self.forked
        self.redriven[subscription.name] = {"reprocess": 0, "purge": 0}
        crowd = numbers[:-MAX_CROWD] if subscription.on_full != "reject" else []
        coming = [one for one in numbers if one not in crowd or self.comes_at_last(subscription, one)]
        ends: dict[str, list[Number]] = {"acked": [], "dead": [], "purged": []}
        for place, number in enumerate(coming):
            if subscription.name == ORIGINAL and place == len(coming) // 2:
                self.call("fork", {"subscription": f"{FAILING}.fork0", "original": ORIGINAL}, Kind.OK, {"status": 201})
                self.forked = coming[place:]
            ends[self.deliver(subscription, number)].append(number)
        moved = self.redriven[subscription.name]
        gone = len(numbers) - len(coming)
        dead = (
            [one for one in numbers if one not in coming][moved["purge"] :] if subscription.redriven and crowd else []
        )
        dead += ends["dead"]
        dropped = gone if subscription.on_full == "drop_oldest" else 0
        expired = len(ends["dead"]) if subscription.drops else 0
        if subscription.drops or subscription.holds:
            dead = []
        metrics = {"available": 0, "delivered": 0, "acked": len(ends["acked"]), "dlq": len(dead)}
        metrics |= {"ttl_expired": expired, "dropped": dropped}
        if subscription.redriven:
            self.note_redrives(subscription.name)
        self.note("end", subscription=subscription.name, dead=dead, metrics=metrics)

    def comes_at_last(self, subscription: Subscription, number: Number) -> bool:
        """Although it was too much for a backlog: reprocessed, as most of what is buried, or purged, or dead."""
        if subscription.on_full == "dead_letter":
            self.copy(subscription, number, BURIED, 0)
            fate = self.random.choice(["reprocess", "purge", "dead"])
            if fate != "dead":
                self.redriven[subscription.name][fate] += 1
            return fate == "reprocess"
        return False

    def copy(self, subscription: Subscription, number: Number, reason: str, attempts: int) -> None:
        """Of a dead letter."""
        id_ = self.message_id(GRAVES, Number("", len(self.copies), 0), self.now)
        original = self.message_id(subscription.topic, number, self.stored[subscription.topic][number])
        self.copies[Number(id_, 1, 0)] = [subscription.name, number, original, reason, str(attempts)]
        self.stored[GRAVES][Number(id_, 1, 0)] = self.now

    def note_redrives(self, name: str) -> None:
        times = {"created_at": iso(1000.0), "ended_at": iso(self.now), "per_second": 10}
        redrives = [
            {"id": id_, "action": action, "done": done, **times}
            for id_, (action, done) in enumerate(self.redriven[name].items())
        ]
        for one in redrives:
            self.note("redrive", subscription=name, id=one["id"], since=self.now, done=one["done"])
            self.note("left", subscription=name, id=one["id"], left=[])
        self.note("redrives", subscription=name, redrives=redrives)

    def deliver(self, subscription: Subscription, number: Number) -> str:
        """Again and again; acked, purged, or dead, which an expired one is as well."""
        attempt = 1
        came = self.stored[subscription.topic][number]
        expires = came + number.ttl_seconds if subscription.topic == TIMED and number.ttl_seconds else float("inf")
        self.now = max(self.now, came)
        while attempt <= subscription.max_attempts and self.now < expires:
            ack_id = self.pull(subscription, number, attempt)
            fate = self.fate(subscription, number)
            if fate == "acks":
                self.ack(subscription, number, ack_id)
                return "acked"
            if fate == "rejects":
                end = self.reject(subscription, number, ack_id, attempt)
                if end != "reprocess":
                    return end
                attempt = 1
            elif fate == "returns":
                self.settle(subscription, "returns", ack_id, "settled")
            else:
                self.fail(subscription, fate, ack_id, attempt)
                attempt += 1
        if subscription.holds:
            self.call("purge", {"subscription": subscription.name, "numbers": [number], "revives": False}, Kind.OK, {})
        return "dead"

    def pull(self, subscription: Subscription, number: Number, attempt: int) -> str:
        came = self.stored[subscription.topic][number]
        id_ = number.publisher if number in self.copies else self.message_id(subscription.topic, number, came)
        ack_id = f"{id_}.{subscription.name}.{self.random.random()}"
        message = [list(number), id_, ack_id, attempt, self.now + DEADLINE_SECONDS]
        copies = {"copies": {id_: self.copies[number]}} if number in self.copies else {}
        got = {"status": 200, "messages": [message], **copies}
        self.call("pull", {"subscription": subscription.name}, Kind.OK, got)
        return ack_id

    def fate(self, subscription: Subscription, number: Number) -> str:
        if number.is_poison and subscription.refuses_poison:
            return "dies"
        fates = {"acks": 6, "nacks": 2, "returns": 1, "dies": 1, "late": 1, "rejects": 2 * subscription.rejects}
        return self.random.choices([*fates], [*fates.values()])[0]

    def fail(self, subscription: Subscription, fate: str, ack_id: str, attempt: int) -> None:
        if fate == "nacks":
            self.settle(subscription, "nacks", ack_id, "settled")
            self.now += backoff_seconds(attempt)
        else:
            self.now += DEADLINE_SECONDS
            if fate == "late":
                self.settle(subscription, "acks", ack_id, "gone")

    def reject(self, subscription: Subscription, number: Number, ack_id: str, attempt: int) -> str:
        """What becomes of it: reprocess, purged, or dead."""
        reason = REASONS[number.request % len(REASONS)]
        self.settle(subscription, "rejects", ack_id, "settled", reason=reason)
        if subscription.topic != GRAVES:
            self.copy(subscription, number, reason, attempt)
        fate = self.random.choice(["reprocess", "purge", "dead"]) if subscription.redriven else "dead"
        if fate != "dead":
            self.redriven[subscription.name][fate] += 1
        return "purged" if fate == "purge" else fate

    def ack(self, subscription: Subscription, number: Number, ack_id: str) -> None:
        if subscription.acks == "with publishes":
            self.settle(subscription, "transaction", ack_id, "settled", publishes=[number])
            self.stored[MOVED][number] = self.now
        else:
            self.settle(subscription, "acks", ack_id, "settled")
            self.booked += [number] if subscription.acks == "with rows" else []

    def settle(self, subscription: Subscription, op: str, ack_id: str, outcome: str, **more: Any) -> None:
        got: dict[str, Any] = {"status": 200, "settled": [], "gone": [], "stale": []}
        got[outcome] = [ack_id]
        self.call(op, {"subscription": subscription.name, "ids": [ack_id], **more}, Kind.OK, got)

    def message_id(self, topic: str, number: Number, came: float) -> str:
        """Positions in the order of times and numbers."""
        if place := self.places.get((topic, number)):
            return MessageIds([*self.stored].index(topic), datetime.fromtimestamp(came, UTC)).at(place)
        position = round(came * 1000) << 12 | number.request % 256 << 4 | number.place
        return MessageIds([*self.stored].index(topic), datetime.fromtimestamp(came, UTC)).at(position)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


Plant = Callable[[History, random.Random], None]


def pulls(history: History, subscription: str = "t.all") -> list[int]:
    """Where the answers to its pulls are."""
    begun = [event.value.get("subscription") for event in history.events]
    return [
        index
        for index, event in enumerate(history.events)
        if event.op == "pull" and event.kind is Kind.OK and begun[index - 1] == subscription
    ]


def pull_again(history: History, at: int, **changes: Any) -> None:
    """The same message once more, in a call of its own at the end of the time."""
    (message,) = history.events[at].value["messages"]
    number, message_id_, ack_id, attempt, _ = message
    late = history.events[-1].time + 100
    message = [number, message_id_, f"{ack_id}x", attempt + 1, late + DEADLINE_SECONDS]
    for name, value in changes.items():
        message[("number", "message_id", "ack_id", "attempt", "expires").index(name)] = value
    sent = {"subscription": history.events[at - 1].value["subscription"]}
    begun = min(message[4] - DEADLINE_SECONDS, late)
    history.events += [
        Event(begun, "w2", Kind.INVOKE, "pull", sent),
        Event(begun + CALL_SECONDS, "w2", Kind.OK, "pull", {"status": 200, "messages": [message]}),
    ]


def change(history: History, at: int, **value: Any) -> None:
    event = history.events[at]
    history.events[at] = replace(event, value={**event.value, **value})


def acked(history: History) -> list[int]:
    """Where the pulls of `t.all` are whose message was confirmed, and was acked right after."""
    confirmed = {
        history.events[at - 1].value["request"]
        for at, event in enumerate(history.events)
        if event.op == "publish" and event.kind is Kind.OK and history.events[at - 1].value["topic"] == "t"
    }
    return [
        at
        for at in pulls(history)
        if history.events[at].value["messages"][0][0][1] in confirmed
        and history.events[at + 2].op == "acks"
        and history.events[at + 2].value["settled"]
    ]
