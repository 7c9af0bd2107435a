"""What must hold of times, limits, shares and transactions in every history."""

from collections import Counter
from collections.abc import Callable, Iterator

from fastpubsub.message_ids import parse
from tests.faults.history import Number
from tests.faults.index import Delivery, Index, Seen
from tests.faults.plan import MOVED, TICKS, TIMED
from tests.faults.sharing import fair

MARGIN_SECONDS = 0.01
"""Times in answers are in milliseconds."""

Check = Callable[[Index], Iterator[str]]


def of_topic(index: Index, topic: str) -> Iterator[tuple[str, Number, list[Delivery]]]:
    for name, seen in index.seen.items():
        if seen.subscription.topic == topic:
            yield from ((name, number, deliveries) for number, deliveries in seen.by_number.items())


def delayed(index: Index) -> Iterator[str]:
    """A delayed message comes once, and not before its time."""
    for name, number, deliveries in of_topic(index, TIMED):
        if number.delay_seconds is not None:
            due = index.begun.get((TIMED, number), 0.0) + number.delay_seconds
            yield from (f"{name} {number}: {text}" for text in once_and_not_before(deliveries, due))


def times(index: Index) -> Iterator[str]:
    """A schedule publishes once for each of its times, and not before."""
    for name, number, deliveries in of_topic(index, TICKS):
        yield from (f"{name} {number}: {text}" for text in once_and_not_before(deliveries, number.request))
    for name, seen in index.seen.items():
        if seen.subscription.topic == TICKS and seen.numbers != set(index.scheduled):
            yield f"{name}: {min(seen.numbers ^ set(index.scheduled))}"


def once_and_not_before(deliveries: list[Delivery], due: float) -> Iterator[str]:
    if len(ids := {one.message_id for one in deliveries}) > 1:
        yield f"came as {sorted(ids)}"
    starts = min(one.starts for one in deliveries)
    if starts < due - MARGIN_SECONDS:
        yield f"{due - starts:.3f} s too early"


def expired(index: Index) -> Iterator[str]:
    """Nothing is handed out after its time."""
    for name, number, deliveries in of_topic(index, TIMED):
        for one in deliveries if number.ttl_seconds is not None else ():
            parsed = parse(one.message_id)
            until = parsed.created_at.timestamp() + (number.ttl_seconds or 0) if parsed else 0.0
            if one.starts > until + MARGIN_SECONDS:
                yield f"{name} {number}: {one.starts - until:.3f} s too late"


def in_flight(index: Index) -> Iterator[str]:
    """No more are with consumers at once than the limit."""
    for name, seen in index.seen.items():
        limit = seen.subscription.max_in_flight
        steps = sorted(step for one in remembered(index, seen) for step in ((one.starts, 1), (ends(seen, one), -1)))
        held = 0
        for time, step in steps if limit else ():
            held += step
            if held > limit:
                yield f"{name}: {held} at {time:.3f}"


def ends(seen: Seen, delivery: Delivery) -> float:
    """At the earliest."""
    return min([delivery.expires, *(one.begun for one in seen.settled(delivery))]) - MARGIN_SECONDS


def rate(index: Index) -> Iterator[str]:
    """Within n seconds no more are handed out than those of n seconds, and of one."""
    for name, seen in index.seen.items():
        limit = seen.subscription.rate_limit
        level, before = 0.0, 0.0
        for time in sorted(one.starts for one in remembered(index, seen)) if limit else ():
            level = max(level - limit * (time - before), 0.0) + 1
            before = time
            if level > limit + 1:
                yield f"{name}: {level:.1f} at {time:.3f}"


def remembered(index: Index, seen: Seen) -> Iterator[Delivery]:
    """A crash of PostgreSQL may have forgotten the others."""
    for deliveries in seen.by_number.values():
        yield from (one for one in deliveries if not index.forgettable(one))


def moved(index: Index) -> Iterator[str]:
    """What was acked in a transaction with a publish was published, and nothing else."""
    for name, seen in index.seen.items():
        if seen.subscription.acks == "with publishes":
            yield from (f"{name}: {one}" for one in sorted(seen.done ^ index.stored(MOVED)))


def booked(index: Index) -> Iterator[str]:
    """What was acked in a transaction with a row has one."""
    for name, seen in index.seen.items():
        if seen.subscription.acks == "with rows":
            rows, wanted = index.booked, Counter(seen.done)
            yield from (f"{name}: {rows[one]} rows of {one}" for one in rows | wanted if rows[one] != wanted[one])


CHECKS: tuple[Check, ...] = (delayed, times, expired, in_flight, rate, moved, booked, fair)
