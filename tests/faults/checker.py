"""What must hold in every history, whatever was done to whom: the invariants of docs/reliability.md."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.faults import keeping, promises
from tests.faults.features import NO_LONGER_HELD
from tests.faults.history import History, Kind, Number
from tests.faults.index import Delivery, Index, Seen
from tests.faults.plan import GRAVES, Plan, Subscription, backoff_seconds
from tests.faults.promises import MARGIN_SECONDS, Check
from tests.faults.tending import TAKEN


class Violation(NamedTuple):
    kind: str
    text: str


def lost(index: Index) -> Iterator[str]:
    """Each confirmed message was acked, perhaps acked, or is a dead letter; one that expires may be dropped.

    Those that are dropped of a backlog, or purged with others, are counted elsewhere, as is what a fork begins with.
    """
    for seen in index.seen.values():
        confirmed = index.confirmed(seen.subscription)
        dead = set(seen.dead) | seen.purged.keys() | {copy.number for copy in index.copies_of(seen.subscription)}
        for order, number in enumerate(confirmed):
            if seen.subscription.drops and number.ttl_seconds:
                continue
            deliveries = seen.by_number.get(number, ())
            if may_miss(index, seen.subscription, deliveries):
                continue
            if number not in dead and not any(seen.settled(one, "acks") for one in deliveries):
                third = ("prefix", "middle", "postfix")[order * 3 // len(confirmed)]
                what = "delivered and never settled" if deliveries else "never delivered"
                yield f"{seen.subscription.name} {number}: {what}, in the {third}"


def may_miss(index: Index, subscription: Subscription, deliveries: Sequence[Delivery]) -> bool:
    """What no claim has that PostgreSQL remembers may be dropped, and what a fork does not get may be settled."""
    if subscription.on_full == "drop_oldest":
        return all(map(index.forgettable, deliveries))
    return bool(subscription.original) and not deliveries


def phantom(index: Index) -> Iterator[str]:
    """Nothing comes that nobody sent, or that was refused."""
    for seen in index.seen.values():
        for number in seen.numbers if seen.subscription.topic != GRAVES else ():
            if index.attempted.get((seen.subscription.topic, number), Kind.REFUSED) is Kind.REFUSED:
                yield f"{seen.subscription.name} {number}"


def misrouted(index: Index) -> Iterator[str]:
    """Nothing comes that the filter does not let pass."""
    for seen in index.seen.values():
        yield from (f"{seen.subscription.name} {one}" for one in seen.numbers if not seen.subscription.takes(one))


def stored_twice(index: Index) -> Iterator[str]:
    """One number has one message id, and it is the one that the publisher was told."""
    ids = defaultdict(set)
    for key, message_id in index.ids.items():
        ids[key].add(message_id)
    for seen in index.seen.values():
        for number, deliveries in seen.by_number.items():
            ids[seen.subscription.topic, number].update(one.message_id for one in deliveries)
    for key, found in ids.items():
        if len(found) > 1:
            yield f"{key} is stored as {sorted(found)}"


def torn(index: Index) -> Iterator[str]:
    """A request is stored whole or not at all."""
    for topic in index.plan.topics:
        places = Counter((number.publisher, number.request) for number in index.stored(topic))
        for (publisher, request), found in places.items():
            if found != index.sizes.get((topic, publisher, request), found):
                yield f"{topic} {publisher}/{request}: {found} of {index.sizes[topic, publisher, request]}"


def redelivered(index: Index) -> Iterator[str]:
    """No pull that begins after an ack was answered gets that message."""
    for seen in index.seen.values():
        for deliveries in seen.by_number.values():
            acks = [
                one for delivery in deliveries for one in seen.settled(delivery, "acks") if one.outcome == "settled"
            ]
            answered = min((ack.ended for ack in acks), default=float("inf"))
            for delivery in deliveries:
                if delivery.begun > answered:
                    yield f"{seen.subscription.name} {delivery.number}: {delivery.begun - answered:.3f} s after its ack"


def overlap(index: Index) -> Iterator[str]:
    """A message that is with one consumer goes to no other before the deadline, unless it was given back."""
    for seen in index.seen.values():
        for first, second in seen.pairs():
            if second.starts >= first.expires - MARGIN_SECONDS or index.forgotten(first, second):
                continue
            if not any(one.begun < second.ended for one in (*seen.settled(first), *seen.given_back(first))):
                early = first.expires - second.starts
                yield f"{seen.subscription.name} {first.number}: {early:.3f} s before the end of the lease"


def settled_by_others(index: Index) -> Iterator[str]:
    """Only the current delivery settles, and only one of them acks."""
    for seen in index.seen.values():
        for first, second in seen.pairs():
            for settle in seen.settles.get(first.ack_id, ()):
                if settle.outcome == "settled" and settle.begun > second.ended and not index.forgotten(first, second):
                    yield f"{seen.subscription.name} {first.number}: by an earlier delivery"
        for number, deliveries in seen.by_number.items():
            ids = {one.ack_id for one in deliveries}
            acked = [one for ack_id in ids for one in seen.settles.get(ack_id, ()) if one[:2] == ("acks", "settled")]
            if len(acked) > 1:
                yield f"{seen.subscription.name} {number}: acked {len(acked)} times"


def attempts(index: Index) -> Iterator[str]:
    """They grow with each delivery, up to the limit; what is returned, or forgotten in a crash, is not counted.

    What is pushed over a connection that ends without an answer may come over a new one once more, as the same attempt.
    """
    for seen in index.seen.values():
        limit = seen.subscription.max_attempts
        for number, deliveries in seen.by_number.items():
            counted = [one for one in deliveries if not seen.settled(one, "returns")]
            most = (2 * limit if seen.subscription.pushed else limit) + len(index.crashes)
            # Given back with an earlier message of its key, a delivery does not count.
            is_over = len(counted) > most and not seen.subscription.ordered
            if is_over or max(one.attempt for one in deliveries) > limit:
                yield f"{seen.subscription.name} {number}: {[one.attempt for one in deliveries]} of {limit}"
        for first, second in seen.pairs():
            may_stay = seen.subscription.ordered or seen.subscription.pushed
            grows = 0 if may_stay or seen.settled(first, "returns") else 1
            excused = seen.is_revived(first, second) or index.forgotten(first, second)
            if second.attempt < first.attempt + grows and not excused:
                yield f"{seen.subscription.name} {first.number}: {first.attempt} and then {second.attempt}"


def order(index: Index) -> Iterator[str]:
    """Of a key nothing comes before all that was published earlier is settled, or is in the same answer before it."""
    for seen in index.seen.values():
        if seen.subscription.ordered and not seen.subscription.holds:
            for deliveries in seen.by_key():
                yield from overtaking(seen, deliveries, dict.fromkeys(seen.dead, 0.0))


def held(index: Index) -> Iterator[str]:
    """And where a dead letter holds its key, nothing comes before that is acked, or somebody purges it."""
    for seen in index.seen.values():
        if seen.subscription.holds:
            for deliveries in seen.by_key():
                yield from overtaking(seen, deliveries, seen.purged)


def overtaking(seen: Seen, deliveries: Sequence[Delivery], let_go: Mapping[Number, float]) -> Iterator[str]:
    """Of the deliveries of a key, in the order of the log; `let_go`: when a message was, without an ack."""
    acked: dict[Number, float] = {}
    for one in deliveries:
        acks = [ack.begun for ack in seen.settled(one, "acks")]
        acked[one.number] = min([*acks, acked.get(one.number, float("inf"))])
    acked |= {number: min(time, acked.get(number, time)) for number, time in let_go.items()}
    earlier: dict[Number, None] = {}
    for one in deliveries:
        together = {other.number for other in deliveries if other.begun == one.begun and other.ended == one.ended}
        for number in earlier:
            if number != one.number and acked[number] > one.ended and number not in together:
                yield f"{seen.subscription.name} {one.number} came while {number} was not settled"
        earlier[one.number] = None


def early(index: Index) -> Iterator[str]:
    """What was nacked does not come before its backoff."""
    for seen in index.seen.values():
        for first, second in seen.pairs():
            for nack in seen.settled(first, "nacks"):
                wait = backoff_seconds(first.attempt) * (1 - seen.subscription.jitter)
                due = nack.begun + wait - MARGIN_SECONDS
                is_early = nack.outcome == "settled" and nack.begun < second.starts < due
                if is_early and not seen.is_revived(first, second):
                    yield f"{seen.subscription.name} {first.number}: {due - second.starts:.3f} s too early"


def poison(index: Index) -> Iterator[str]:
    """What kills its consumers becomes a dead letter."""
    for seen in index.seen.values():
        if seen.subscription.refuses_poison:
            deadly = {number for number in seen.numbers if number.is_poison}
            alive = deadly - set(seen.dead) - seen.purged.keys()
            yield from (f"{seen.subscription.name} {number}" for number in alive)


def counts(index: Index) -> Iterator[str]:
    """At the end everything that was routed is acked or dead, and the metrics say so."""
    for name, seen in index.seen.items():
        if seen.metrics is None:
            yield f"{name} was not drained"
        elif seen.metrics != expected_metrics(index, seen):
            yield f"{name}: {seen.metrics} instead of {expected_metrics(index, seen)}"


def expected_metrics(index: Index, seen: Seen) -> dict[str, int]:
    """What was dropped or buried nobody has seen; another subscription of the topic has."""
    dead, acked = len(seen.dead), len(seen.done)
    told = seen.metrics or {}
    expired = told["ttl_expired"] if seen.subscription.drops else 0
    dropped = told["dropped"] if seen.subscription.on_full == "drop_oldest" else 0
    if seen.subscription.drops or seen.subscription.redriven or seen.subscription.on_full == "drop_oldest":
        stored = [one for one in index.stored(seen.subscription.topic) if seen.subscription.takes(one)]
        acked = len(stored) - dead - expired - dropped - index.purges(seen.subscription.name)
    counted = {"available": 0, "delivered": 0, "acked": acked, "dlq": dead}
    return {**counted, "ttl_expired": expired, "dropped": dropped}


def statuses(index: Index) -> Iterator[str]:
    """Trouble is 503, or 429, with Retry-After."""
    for call in index.calls:
        got: dict[str, Any] = call.got
        status = got.get("status", 503)
        is_lost = (call.op, status) in (("transaction", NO_LONGER_HELD), ("fork", TAKEN))
        if (status not in (200, 201, 204, 429, 503) and not is_lost) or (
            status in (429, 503) and not got.get("retry_after", 1)
        ):
            yield f"{call.op} was answered {status}"


CHECKS: tuple[Check, ...] = (
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
    held,
    *promises.CHECKS,
    *keeping.CHECKS,
)


def check(plan: Plan, history: History) -> list[Violation]:
    return check_index(Index(plan, history))


def check_index(index: Index) -> list[Violation]:
    return [Violation(one.__name__, text) for one in CHECKS for text in one(index)]
