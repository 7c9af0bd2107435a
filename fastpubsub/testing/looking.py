"""Looking into the bus in memory: the sums, the messages of a state, and what became of one."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from fastpubsub import __version__, message_ids, models
from fastpubsub.exceptions import NotFound
from fastpubsub.searches import Place, parse_due, parse_place, parse_search
from fastpubsub.testing.answers import Seen, browsed, time_text
from fastpubsub.testing.calls import Answer, Call, Part, route
from fastpubsub.testing.store.history import rates_of
from fastpubsub.testing.store.judging import is_found
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.looking import of_failures


@dataclass
class Present:
    """A consumer, since when it holds each of its messages, and since when each of its pulls waits."""

    consumer_id: str
    leased_at: list[datetime] = field(default_factory=list)
    waits: list[datetime] = field(default_factory=list)
    now: datetime | None = None

    def consumer(self) -> models.Consumer:
        return models.Consumer(
            consumer_id=self.consumer_id,
            leased=len(self.leased_at),
            oldest_leased_at=min(self.leased_at, default=None),
            pulls=len(self.waits),
            streams=0,
            waits_since=min(self.waits, default=None),
            seen_at=self.now or max(self.leased_at),
        )


class Looking(Part):
    @route("GET", "/overview")
    def overview(self, _call: Call) -> Answer:
        """The sums; what somebody should look at is the server's."""
        cursors = self.store.cursors.values()
        return 200, models.Overview(
            topics=len(self.store.logs),
            subscriptions=len(cursors),
            published=sum(log.last for log in self.store.logs.values()),
            ahead=sum(len(cursor.ahead()) for cursor in cursors),
            ahead_is_estimated=False,
            leased=sum(len(cursor.leases) for cursor in cursors),
            waiting=sum(len(cursor.all_waiting) for cursor in cursors),
            dlq=sum(len(cursor.dead) for cursor in cursors),
            rates=models.Rates(**rates_of(self.store.past, self.store.now, models.Rates.model_fields)),
            is_authentication_on=False,
            version=__version__,
            server_time=self.store.now,
            findings=[],
        )

    @route("GET", "/topics/{id}/messages")
    def browse_topic(self, call: Call) -> Answer:
        log = self.store.log(*call.ids)
        backwards = "from" not in call.query
        place = parse_place(call.query.get("from", call.query.get("before")), log.key)
        start = log.last + 1 if place == (None, None) else start_of(log, place)
        messages: list[Seen] = [
            (p, log.messages[p], {}) for p in log.messages if (p < start if backwards else p >= start)
        ]
        found, looked_at, stop = search(call, messages[::-1] if backwards else messages)
        end = None if stop is None else stop[0]
        if backwards:
            found.reverse()
            ends = start if start in log.messages else None, None if end is None else end + 1
        else:
            ends = end, start if start - 1 in log.messages else None
        return 200, browsed(log, found, looked_at=looked_at, next=ends[0], previous=ends[1])

    @route("GET", "/subscriptions/{id}/messages/browse")
    def browse(self, call: Call) -> Answer:
        cursor = self.store.cursor(*call.ids)
        state, text = call.query.get("state", "ahead"), call.query.get("from")
        place = parse_due(text) if state == "waiting" else parse_place(text, cursor.log.key)
        messages: list[Seen] = []
        for position, more in cursor.browse(state):
            key = (more["due_at"], position) if state == "waiting" else (position,)
            start = (
                (place.time or key[0], place.position or 0) if state == "waiting" else (start_of(cursor.log, place),)
            )
            message = cursor.dead[position].message if state == "dead" else cursor.message(position)
            if key >= start:
                messages.append(
                    (position, message, {"state": state} | more | of_failures(cursor.failures.get(position)))
                )
        found, looked_at, stop = search(call, messages)
        after: int | str | None = None if stop is None else stop[0]
        if stop is not None and state == "waiting":
            after = f"{time_text(stop[2]['due_at'])}/{after}"
        return 200, browsed(cursor.log, found, looked_at=looked_at, next=after)

    @route("GET", "/subscriptions/{id}/messages/{id}")
    def explain(self, call: Call) -> Answer:
        """The state, with what a lease, a retry or a dead letter says; the words are the server's."""
        subscription_id, message_id = call.ids
        cursor = self.store.cursor(subscription_id)
        place = message_ids.parse(message_id)
        if place is None or place.topic_key != cursor.log.key or not 0 < place.position <= cursor.log.last:
            raise NotFound(f"there is no message {message_id} in the topic of the subscription")
        state, _ = cursor.explain(place.position)
        is_seen = state in ("leased", "waiting", "dead")
        more = cursor.noted(state, place.position) if is_seen else {}
        more |= of_failures(cursor.failures.get(place.position))
        if (holder := cursor.holder_of(place.position)) is not None:
            more |= {"held_by": UUID(cursor.log.id_of(holder, cursor.log.messages[holder]))}
        if state in ("ahead", "waiting", "settled"):
            more |= {"expired_at": cursor.expired_at(place.position, self.store.now)}
        return 200, models.Explanation(
            message_id=UUID(message_id), subscription_id=subscription_id, state=state, detail=f"it is {state}", **more
        )

    @route("GET", "/subscriptions/{id}/consumers")
    def list_consumers(self, call: Call) -> Answer:
        """Those that hold messages, and those whose pull waits at this moment."""
        found = [one.consumer() for one in self._present(*call.ids).values()]
        return 200, models.ConsumerList(data=sorted(found, key=lambda one: one.consumer_id))

    def _present(self, subscription_id: str) -> dict[str, "Present"]:
        present: dict[str, Present] = {}
        for lease in self.store.cursor(subscription_id).leases.values():
            present.setdefault(lease.consumer_id, Present(lease.consumer_id)).leased_at.append(lease.leased_at)
        for path, consumer_id, since in self.waiting:
            if path == f"/subscriptions/{subscription_id}":
                one = present.setdefault(consumer_id, Present(consumer_id))
                one.waits.append(since)
                one.now = self.store.now
        return present


def start_of(log: Log, place: Place) -> int:
    return log.before(place.time) + 1 if place.time is not None else place.position or 0


def search(call: Call, messages: list[Seen]) -> tuple[list[Seen], int, Seen | None]:
    """What was found, how many were looked at, and what comes next."""
    limit, q = call.number("limit", 10, 1, 100), call.query.get("q")
    search = None if q is None else parse_search(q)
    found: list[Seen] = []
    for looked_at, one in enumerate(messages):
        if len(found) == limit:
            return found, looked_at, one
        if is_found(search, one[1]):
            found.append(one)
    return found, len(messages), None
