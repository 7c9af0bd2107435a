"""What must hold of fair subscriptions in every history."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.history import Number
from tests.faults.index import Delivery, Index, Seen

MORE = 2
"""Messages that a key may have more in a claim than another one that waits: the first one of a key that is new, and one
of what does not divide.
"""

LOOK = 64
"""Messages of the log that a claim looks at, however little time it has."""


def fair(index: Index) -> Iterator[str]:
    """A claim gives no key more than its share while others wait."""
    for name, seen in index.seen.items():
        if seen.subscription.fair_by:
            yield from (f"{name}: {text}" for text in unfair_claims(index, seen))


def unfair_claims(index: Index, seen: Seen) -> Iterator[str]:
    """By what callers knew: a message waits during a claim if its publish was answered before anybody asked for it, and
    if whoever got it first asked after all answers of the claim.
    """
    firsts = [deliveries[0] for deliveries in seen.by_number.values()]
    confirmed = {
        number: time for (topic, number), time in index.confirmed_at.items() if topic == seen.subscription.topic
    }
    coming = [one for one in firsts if one.attempt == 1 and one.number in confirmed]
    coming.sort(key=lambda one: confirmed[one.number], reverse=True)
    # Their first claim was another one, whose answer was lost.
    unknown = [one for one in firsts if one.attempt > 1]
    passing = sorted(firsts, key=lambda one: one.ended, reverse=True)
    waiting: list[Delivery] = []
    passed = 0
    for claim in claims(seen):
        begun, ended = min(one.begun for one in claim), max(one.ended for one in claim)
        while coming and confirmed[coming[-1].number] < begun:
            waiting.append(coming.pop())
        waiting = [one for one in waiting if one.begun > begun]
        while passing and passing[-1].ended < begun:
            if not index.forgettable(one := passing.pop()):
                passed = max(passed, one.place[0])
        if not any(map(index.forgettable, claim)):
            reach = max(passed + LOOK, *(one.place[0] for one in claim))
            lost = [one for one in unknown if one.ended > begun]
            may_have = Counter(one.number.tenant for one in (*claim, *lost))
            new = Counter(one.number.tenant for one in claim if one is seen.by_number[one.number][0])
            late = [one.number for one in waiting if one.begun > ended and one.place[0] <= reach]
            yield from unfair(new, may_have, late)


def claims(seen: Seen) -> list[list[Delivery]]:
    """What was handed out together for the first time, or as if it were, as it was asked for."""
    found: dict[str, list[Delivery]] = defaultdict(list)
    for deliveries in seen.by_number.values():
        for one in deliveries:
            if one.attempt == 1:
                found[one.claim].append(one)
    return sorted(found.values(), key=lambda claim: min(one.begun for one in claim))


def unfair(new: Counter[str], may_have: Counter[str], waiting: Sequence[Number]) -> Iterator[str]:
    for number in waiting:
        for tenant, count in new.most_common(1):
            if count > may_have[number.tenant] + MORE:
                other = f"{may_have[number.tenant]} of {number.tenant}"
                yield f"{count} of {tenant} and {other} at once, while {number} waited"
                return
