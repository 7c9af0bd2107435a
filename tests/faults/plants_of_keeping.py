"""One mistake of each kind with backlogs, dead letters, refused messages, forks and expiry, in a good history."""

import random

from fastpubsub.message_ids import MessageIds, parse
from tests.faults.history import History, Kind
from tests.faults.plan import FULL, GRAVES, IDLE_SECONDS, MAX_BACKLOG
from tests.faults.plants_of_promises import number_at
from tests.faults.synthetic import Plant, change, pulls


def noted(history: History, op: str) -> list[int]:
    return [at for at, event in enumerate(history.events) if event.op == op and event.kind is Kind.NOTE]


def forget(history: History, subscription: str, at: int) -> None:
    """That this message came."""
    number = number_at(history, at)
    for index in pulls(history, subscription):
        if history.events[index].value["messages"] and number_at(history, index) == number:
            change(history, index, messages=[])


def room(history: History, rng: random.Random) -> None:
    """A publish that is further from the cursor than the limit allows."""
    published = [
        at
        for at, event in enumerate(history.events)
        if event.op == "publish" and event.kind is Kind.OK and history.events[at - 1].value["topic"] == FULL
    ]
    at = rng.choice(published)
    parsed = [parse(one) for one in history.events[at].value["ids"]]
    further = [MessageIds(one.topic_key, one.created_at).at(one.position + MAX_BACKLOG) for one in parsed if one]
    change(history, at, ids=further)


def overflow(history: History, _: random.Random) -> None:
    """The newest message is gone, and nothing was after it."""
    forget(history, "crowded.dropping", pulls(history, "crowded.dropping")[-1])


def buried(history: History, rng: random.Random) -> None:
    """A copy with another reason, or one that only one reader got."""
    readers = [f"{GRAVES}.all", f"{GRAVES}.rejecting"]
    at = rng.choice(pulls(history, readers[0]))
    if rng.random() < 0.5:
        return forget(history, readers[0], at)
    number = number_at(history, at)
    for index in (index for reader in readers for index in pulls(history, reader)):
        if number_at(history, index) == number:
            ((id_, told),) = history.events[index].value["copies"].items()
            change(history, index, copies={id_: [*told[:3], "another", told[4]]})
    return None


def redriven(history: History, rng: random.Random) -> None:
    """One more was moved than died, or less was purged than is gone, or something is left, or it was too fast."""
    at = rng.choice(noted(history, "redrives"))
    first, second = history.events[at].value["redrives"]
    fault = rng.choice(["more", "not purged", "left", "fast"])
    if fault == "more":
        change(history, at, redrives=[first, {**second, "done": second["done"] + 1}])
    elif fault == "not purged":
        gone = {**first, "done": first["done"] + second["done"] + 1}, {**second, "done": -1}
        change(history, at, redrives=list(gone))
    elif fault == "left":
        change(history, rng.choice(noted(history, "left")), left=["one"])
    else:
        change(history, rng.choice(noted(history, "redrive")), done=1_000_000)


def refused(history: History, rng: random.Random) -> None:
    """One is lost, is refused twice, or has no reason."""
    (at,) = noted(history, "refused")
    first, *others = history.events[at].value["refused"]
    change(history, at, refused=rng.choice([others, [first, first, *others], [[first[0], "refused"], *others]]))


def forked(history: History, rng: random.Random) -> None:
    """It begins one later, or one earlier than what its original had settled long ago."""
    name, original = "failing.fork0", "failing.even"
    if rng.random() < 0.5:
        return forget(history, name, pulls(history, name)[0])
    at = pulls(history, original)[0]
    change(history, pulls(history, name)[-1], messages=history.events[at].value["messages"])
    (made,) = [at for at, event in enumerate(history.events) if event.op == "fork" and event.kind is Kind.INVOKE]
    sent = history.events[made : made + 2]
    del history.events[made : made + 2]
    place = pulls(history, name)[0] - 1
    late = history.events[place].time
    history.events[place:place] = [type(one)(late, "w4", one.kind, one.op, one.value) for one in sent]
    return None


def unused(history: History, rng: random.Random) -> None:
    """It expired at once, or never."""
    (at,) = noted(history, "idle")
    created = history.events[at].value["created"]
    change(history, at, **rng.choice([{"gone": created + IDLE_SECONDS - 1.0}, {"gone": 0, "there": created + 1000.0}]))


PLANTS: tuple[Plant, ...] = (room, overflow, buried, redriven, refused, forked, unused)
