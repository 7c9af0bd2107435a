"""One mistake of each kind, planted into a good history."""

import random
from dataclasses import replace

from tests.faults import plants_of_keeping, plants_of_promises
from tests.faults.history import Event, History, Kind
from tests.faults.plan import DEADLINE_SECONDS
from tests.faults.synthetic import CALL_SECONDS, Plant, acked, change, pull_again, pulls


def lost(history: History, rng: random.Random) -> None:
    at = rng.choice(acked(history))
    number = history.events[at].value["messages"][0][0]
    for index in pulls(history):
        if history.events[index].value["messages"] and history.events[index].value["messages"][0][0] == number:
            change(history, index, messages=[])


def phantom(history: History, rng: random.Random) -> None:
    pull_again(history, rng.choice(pulls(history)), number=["nobody", 1, 0], message_id="nothing")


def misrouted(history: History, rng: random.Random) -> None:
    at = rng.choice(pulls(history, "t.even"))
    publisher, request, _ = history.events[at].value["messages"][0][0]
    pull_again(history, at, number=[publisher, request, 1], message_id=f"{publisher}-{request}-1")


def stored_twice(history: History, rng: random.Random) -> None:
    pull_again(history, rng.choice(pulls(history)), message_id="another")


def torn(history: History, rng: random.Random) -> None:
    requests = [at for at, event in enumerate(history.events) if event.op == "publish" and event.kind is Kind.OK]
    at = rng.choice(requests)
    change(history, at - 1, count=9)
    change(history, at, ids=[])


def redelivered(history: History, rng: random.Random) -> None:
    pull_again(history, rng.choice(acked(history)))


def overlap(history: History, rng: random.Random) -> None:
    dropped = [at for at in pulls(history) if history.events[at + 2].op not in ("acks", "nacks", "returns")]
    dropped += [at for at in pulls(history) if history.events[at + 2].value.get("gone")]
    if not dropped:
        at = rng.choice(acked(history))
        del history.events[at + 1 : at + 3]
        dropped = [at]
    at = rng.choice(dropped)
    expires = history.events[at].value["messages"][0][4]
    pull_again(history, at, expires=expires + rng.uniform(0.1, 0.9) * DEADLINE_SECONDS)


def settled_by_others(history: History, rng: random.Random) -> None:
    at = rng.choice(acked(history))
    pull_again(history, at)
    (message,) = history.events[-1].value["messages"]
    sent = {"subscription": "t.all", "ids": [message[2]]}
    got = {"status": 200, "settled": [message[2]], "gone": [], "stale": []}
    late = history.events[-1].time + 1
    history.events += [
        Event(late, "w2", Kind.INVOKE, "acks", sent),
        Event(late + CALL_SECONDS, "w2", Kind.OK, "acks", got),
    ]


def attempts(history: History, rng: random.Random) -> None:
    pull_again(history, rng.choice(pulls(history)), attempt=21)


def order(history: History, rng: random.Random) -> None:
    """What was acked comes before everything else, once more without the ack of that."""
    begun = min(event.time for event in history.events)
    numbers = [history.events[at].value["messages"][0] for at in pulls(history, "t.ordered")]
    last = max(numbers, key=lambda message: message[0])
    late = [last[0], last[1], f"{last[2]}x", 1, begun + DEADLINE_SECONDS]
    sent = {"subscription": "t.ordered"}
    history.events[:0] = [
        Event(begun - 1.0, "w3", Kind.INVOKE, "pull", sent),
        Event(begun - 1.0 + CALL_SECONDS, "w3", Kind.OK, "pull", {"status": 200, "messages": [late]}),
    ]


def early(history: History, rng: random.Random) -> None:
    at = rng.choice(acked(history))
    ack_id = history.events[at].value["messages"][0][2]
    for index in (at + 1, at + 2):
        history.events[index] = replace(history.events[index], op="nacks")
    nacked = history.events[at + 1].time
    assert history.events[at + 2].value["settled"] == [ack_id]
    pull_again(history, at, expires=nacked + rng.uniform(0.1, 0.8) + DEADLINE_SECONDS)


def poison(history: History, _: random.Random) -> None:
    for at, event in enumerate(history.events):
        if event.op == "end":
            change(history, at, dead=[number for number in event.value["dead"] if not number.is_poison])


def counts(history: History, rng: random.Random) -> None:
    at = rng.choice([at for at, event in enumerate(history.events) if event.op == "end"])
    name = rng.choice(["available", "delivered", "acked", "dlq"])
    change(history, at, metrics={**history.events[at].value["metrics"], name: 77})


def statuses(history: History, rng: random.Random) -> None:
    at = rng.choice(pulls(history))
    change(history, at, **rng.choice([{"status": 500}, {"status": 404}, {"status": 503, "retry_after": 0}]))


PLANTS: tuple[Plant, ...] = (
    lost,
    phantom,
    misrouted,
    stored_twice,
    torn,
    redelivered,
    overlap,
    settled_by_others,
    attempts,
    order,
    early,
    poison,
    counts,
    statuses,
    *plants_of_promises.PLANTS,
    *plants_of_keeping.PLANTS,
)
