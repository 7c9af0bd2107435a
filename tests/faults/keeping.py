"""What must hold of backlogs, dead letters, refused messages, forks and expiry in every history."""

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

from tests.faults.history import Kind, Number
from tests.faults.index import Copy, Delivery, Index, Seen
from tests.faults.plan import BURIED, GRAVES, IDLE_SECONDS, SHAPED

LATE_SECONDS = 5.0
"""After these a call that nobody answered does nothing any more."""

DROP_SECONDS = 30.0
"""After these a backlog is no longer than its limit, whatever was done to the servers."""

EXPIRED_SECONDS = IDLE_SECONDS + 240 + 60
"""After these a subscription that nobody uses is gone, also when servers were away for a while."""

INFINITY = float("inf")


def room(index: Index) -> Iterator[str]:
    """A publish is stored only if no subscription that rejects has more than its limit after its cursor then."""
    for name, seen in index.seen.items():
        if seen.subscription.max_backlog and seen.subscription.on_full == "reject":
            yield from (f"{name}: {text}" for text in overfull(index, seen))


def overfull(index: Index, seen: Seen) -> Iterator[str]:
    """A pull without an answer may have claimed as many messages as it asked for."""
    subscription = seen.subscription
    taken = sorted((one.begun, one.place[0]) for one in all_of(seen))
    begun = [time for time, _ in taken]
    reached = [(0, -INFINITY), *accumulate(((place, time) for time, place in taken), further)]
    unseen = [
        one
        for one in index.calls
        if one.op == "pull" and one.sent["subscription"] == subscription.name and one.outcome is Kind.UNKNOWN
    ]
    for call in index.calls:
        if call.op == "publish" and call.outcome is Kind.OK and call.sent["topic"] == subscription.topic:
            who, request, count = (call.sent[name] for name in ("publisher", "request", "count"))
            numbers = (Number(who, request, place) for place in range(count))
            last = max(index.positions.get((subscription.topic, number), 0) for number in numbers)
            position, since = reached[bisect(begun, call.ended)]
            perhaps = sum(one.begun < call.ended and one.ended + LATE_SECONDS > since for one in unseen)
            backlog = last - position - perhaps * subscription.batch_size
            if backlog > subscription.max_backlog:
                yield f"{backlog} after the cursor, with {who}/{request}"


def further(one: tuple[int, float], other: tuple[int, float]) -> tuple[int, float]:
    """Of places and times: the one that is further, and the first of equals."""
    return other if other[0] > one[0] else one


def all_of(seen: Seen) -> Iterator[Delivery]:
    return (one for deliveries in seen.by_number.values() for one in deliveries)


def overflow(index: Index) -> Iterator[str]:
    """Of a backlog nothing goes but the oldest of what is too much, and that soon."""
    for name, seen in index.seen.items():
        if seen.subscription.max_backlog and seen.subscription.on_full != "reject":
            yield from (f"{name} {text}" for text in (*gone_too_early(index, seen), *kept_too_long(index, seen)))
            dropped = len(unseen_by(index, seen)) if seen.subscription.on_full == "drop_oldest" else 0
            told = (seen.metrics or {}).get("dropped", 0)
            # What a claim had that a crash has forgotten may be dropped after all.
            if told < dropped or (told > dropped and not index.crashes):
                yield f"{name}: {told} were dropped, and {dropped} never came"


def unseen_by(index: Index, seen: Seen) -> set[Number]:
    return {one for one in index.stored(seen.subscription.topic) if seen.subscription.takes(one)} - seen.numbers


def gone_too_early(index: Index, seen: Seen) -> Iterator[str]:
    """The cursor has passed what is gone when something after it is handed out."""
    topic, limit = seen.subscription.topic, seen.subscription.max_backlog
    dead = {copy.number for copy in index.copies_of(seen.subscription) if copy.reason == BURIED}
    gone = dead if seen.subscription.on_full == "dead_letter" else unseen_by(index, seen)
    times, most = furthest(index, topic, index.begun)
    claimed = [one for one in all_of(seen) if one.attempt == 1 and one.number not in dead]
    passing = sorted(((one.place[0], one.ended) for one in claimed if not index.forgettable(one)), reverse=True)
    places = [-place for place, _ in passing]
    passed = [INFINITY, *accumulate((ended for _, ended in passing), min)]
    for number in gone:
        position = index.positions.get((topic, number), 0)
        before = passed[bisect(places, -position - 1)]
        after = most[bisect(times, before)] - position
        if after < limit:
            yield f"{number} is gone with {after} after it, of {limit}"


def furthest(index: Index, topic: str, when: Mapping[tuple[str, Number], float]) -> tuple[list[float], list[int]]:
    """Times, and the last position of the topic before each of them, and after all."""
    came = sorted((time, index.positions.get((topic, number), 0)) for (of, number), time in when.items() if of == topic)
    return [time for time, _ in came], [0, *accumulate((position for _, position in came), max)]


def kept_too_long(index: Index, seen: Seen) -> Iterator[str]:
    topic, limit = seen.subscription.topic, seen.subscription.max_backlog
    times, last = furthest(index, topic, index.confirmed_at)
    dead = {copy.number for copy in index.copies_of(seen.subscription)}
    for number, (first, *_) in seen.by_number.items():
        if first.attempt == 1 and number not in dead:
            long_ago = last[bisect(times, first.begun - DROP_SECONDS)]
            if first.place[0] <= long_ago - limit:
                yield f"{number} came although {long_ago - first.place[0]} were after it {DROP_SECONDS:.0f} s before"


def buried(index: Index) -> Iterator[str]:
    """A dead letter is published to the topic for that once for each time that it died, and a copy never."""
    for name, seen in index.seen.items():
        if seen.subscription.dead_letter_topic:
            copies = index.copies_of(seen.subscription)
            if seen.subscription.topic == GRAVES:
                yield from (f"{name}: {one}, which is a copy itself" for one in copies)
                yield from (f"{name}: {one}" for one in come_after_reject(seen))
                continue
            yield from (f"{name}: {text}" for text in (*wrong_copies(index, seen, copies), *miscounted(seen, copies)))
    readers = [seen.numbers for seen in index.seen.values() if seen.subscription.topic == GRAVES]
    yield from (f"{one} came to one reader only" for first, second in pairwise(readers) for one in first ^ second)


def wrong_copies(index: Index, seen: Seen, copies: Iterable[Copy]) -> Iterator[str]:
    """Which tell of a message that is another, or of other attempts."""
    for copy in copies:
        deliveries = seen.by_number.get(copy.number, [])
        rejected = {one.attempt for one in deliveries if seen.settled(one, "rejects")}
        if copy.message_id != index.ids.get((seen.subscription.topic, copy.number), copy.message_id) or (
            copy.attempts not in ({0} if copy.reason == BURIED else rejected)
        ):
            yield f"{copy}, of attempts {sorted(rejected)}"


def miscounted(seen: Seen, copies: Iterable[Copy]) -> Iterator[str]:
    """Too few, or too many. Nobody knows whether a reject without an answer was done."""
    made = Counter((copy.number, copy.reason) for copy in copies)
    surely: Counter[tuple[Number, str]] = Counter()
    perhaps: Counter[tuple[Number, str]] = Counter()
    for one in all_of(seen):
        for settle in seen.settled(one, "rejects"):
            (surely if settle.outcome == "settled" else perhaps)[one.number, settle.reason] += 1
    perhaps += Counter(key for key in made if key[1] == BURIED)
    for key in made | surely:
        if not surely[key] <= made[key] <= surely[key] + perhaps[key]:
            yield f"{made[key]} copies of {key}, which died {surely[key]} times, and perhaps {perhaps[key]} times more"


def come_after_reject(seen: Seen) -> Iterator[str]:
    for deliveries in seen.by_number.values():
        rejects = [
            one.ended
            for delivery in deliveries
            for one in seen.settled(delivery, "rejects")
            if one.outcome == "settled"
        ]
        if any(one.begun > min(rejects, default=INFINITY) for one in deliveries):
            yield f"{deliveries[0].number} came after it was rejected"


def redriven(index: Index) -> Iterator[str]:
    """What dies is reprocessed, purged, or still there, each once; and no redrive leaves anything or is too fast."""
    for name, seen in index.seen.items():
        if seen.subscription.redriven and (redrives := index.redrives.get(name)) is not None:
            moved, died = sum(one["done"] for one in redrives), len(index.copies_of(seen.subscription))
            if died != moved + len(seen.dead):
                yield f"{name}: {died} died, {moved} were moved, and {len(seen.dead)} are dead"
            least, most = purged_at(index, seen)
            if not least <= index.purges(name) <= most:
                yield f"{name}: {index.purges(name)} were purged, and from {least} to {most} are gone"
            yield from (f"{name}: {text}" for one in redrives for text in too_fast(index, name, one))
    for subscription, id_, left in index.left:
        if left:
            yield f"{subscription}: redrive {id_} has left {len(left)}, as {left[0]}"


def purged_at(index: Index, seen: Seen) -> tuple[int, int]:
    """How many are neither dead nor acked, at least and at most."""
    stored = {one for one in index.stored(seen.subscription.topic) if seen.subscription.takes(one)} - set(seen.dead)
    outcomes = {
        number: {ack.outcome for one in seen.by_number.get(number, ()) for ack in seen.settled(one, "acks")}
        for number in stored
    }
    return sum(not found for found in outcomes.values()), sum("settled" not in found for found in outcomes.values())


def too_fast(index: Index, name: str, redrive: dict[str, Any]) -> Iterator[str]:
    """Within n seconds it moves no more than those of n seconds, and of one."""
    begun, ended = (seconds_of(redrive[member]) for member in ("created_at", "ended_at"))
    looks = [(begun, begun, 0), *index.looks.get((name, redrive["id"]), ()), (ended, ended, redrive["done"])]
    for place, (since, _, before) in enumerate(looks):
        for _, until, after in looks[place + 1 :]:
            passed = max(until - since, 0.0)
            if after - before > redrive["per_second"] * (passed + 1) + 1:
                yield f"redrive {redrive['id']} moved {after - before} in {passed:.3f} s"
                return


def seconds_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def refused(index: Index) -> Iterator[str]:
    """What does not match the schema is kept apart, once, with the reason."""
    if index.refused is not None:
        misfits = {
            number: kind for (topic, number), kind in index.attempted.items() if topic == SHAPED and number.is_misfit
        }
        times = Counter(number for number, _ in index.refused)
        for number in misfits.keys() | times.keys():
            kind = misfits.get(number, Kind.REFUSED)
            allowed = {Kind.OK: (1,), Kind.UNKNOWN: (0, 1), Kind.REFUSED: (0,)}[kind]
            if times[number] not in allowed:
                yield f"{number} is refused {times[number]} times"
        yield from (f"{number}: {reason}" for number, reason in index.refused if '"/parity"' not in reason)


def forked(index: Index) -> Iterator[str]:
    """A fork gets what its original had not settled, from the oldest of it on, and everything after that."""
    for name, seen in index.seen.items():
        if seen.subscription.original and name in index.forked:
            yield from (f"{name}: {text}" for text in misforked(index, seen, *index.forked[name]))


def misforked(index: Index, seen: Seen, begun: float, ended: float) -> Iterator[str]:
    topic, original = seen.subscription.topic, index.seen[seen.subscription.original]
    places = {
        number: index.positions[topic, number] for number in index.stored(topic) if seen.subscription.takes(number)
    }
    first = min((places[number] for number in seen.numbers), default=INFINITY)
    for number, place in places.items():
        acks = [ack for one in original.by_number.get(number, ()) for ack in original.settled(one, "acks")]
        if number in seen.numbers:
            settled = min((ack.ended for ack in acks if ack.outcome == "settled"), default=INFINITY)
            if place == first and settled < begun:
                yield f"it begins at {number}, which was settled {begun - settled:.3f} s before"
        elif place > first:
            yield f"{number} is left out"
        elif number not in original.dead and not any(ack.begun < ended for ack in acks):
            yield f"{number} is left out, and was not settled"


def unused(index: Index) -> Iterator[str]:
    """A subscription that nobody uses expires, and not before its time."""
    for created, there, gone in index.idle:
        if gone and gone < created + IDLE_SECONDS:
            yield f"it expired after {gone - created:.1f} s"
        if not gone and there > created + EXPIRED_SECONDS:
            yield f"it was there after {there - created:.1f} s"


CHECKS = (room, overflow, buried, redriven, refused, forked, unused)
