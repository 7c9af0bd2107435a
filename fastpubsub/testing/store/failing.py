"""What becomes of messages that are not processed: they wait for a retry, or they are dead letters."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from fastpubsub.testing.store.records import (
    FOREVER,
    PUT_ASIDE,
    Dead,
    Failed,
    Lease,
    WaitingMessage,
)
from fastpubsub.testing.store.state import CursorState

DEAD_LETTER_ID = "dead_letter_message_id"
"""The attribute of a message that is the copy of a dead letter."""

MAX_ATTRIBUTE = 1024

KEPT_FAILURES = 20
"""Of a message."""

EXPIRED = "expired"
"""Why a message that expired is a dead letter."""

BACKLOG_FULL = "backlog full"
"""Why a message is a dead letter that was too many."""

DROPPED_AT_ONCE = 1000

INSTANTS = 16
"""At which jitter lets messages come that failed together."""

TOGETHER = 10
"""Positions of which all come at one of them."""

EPOCH = datetime.fromtimestamp(0, UTC)


def draw_due_at(due_at: datetime, seconds: float, position: int, attempts: int) -> datetime:
    """Does what the procedure of this name does."""
    step = timedelta(microseconds=round(seconds / INSTANTS * 1_000_000))
    digest = sha256((position // TOGETHER).to_bytes(8) + attempts.to_bytes(4)).digest()
    drawn = due_at - step * (digest[0] >> 4)
    return drawn - (drawn - EPOCH) % step


class Failing(CursorState):
    __slots__ = ()

    def _fail(self, position: int, lease: Lease, cause: str, reason: str | None, now: datetime) -> None:
        failed = Failed(now, lease.attempts, cause, reason, lease.consumer_id)
        self.failures[position] = [*self.failures.get(position, []), failed][-KEPT_FAILURES:]

    def forget(self, position: int) -> None:
        """How its deliveries failed, when nothing has the message any more."""
        if position not in self.log.messages and position not in self.dead:
            self.failures.pop(position, None)

    def _retry(
        self,
        position: int,
        attempts: int,
        delay: int | None,
        now: datetime,
        cause: str,
        turn: int | None,
        said: str | None = None,
    ) -> bool:
        """Returns whether the message died."""
        settings = self.subscription
        more = "" if said is None else f": {said}"
        if attempts >= settings.max_delivery_attempts:
            reason = f"{cause} on delivery attempt {attempts} of {settings.max_delivery_attempts}{more}"
            self._die(position, attempts, reason, now, turn)
            return True
        doubled = settings.backoff_min_seconds * 2 ** max(attempts - 1, 0)
        wait = min(settings.backoff_max_seconds, doubled) if delay is None else delay
        due_at = now + timedelta(seconds=wait)
        if delay is None and wait > 0 and settings.backoff_jitter is not None:
            due_at = draw_due_at(due_at, wait * settings.backoff_jitter, turn or position, attempts)
        self._wait(position, attempts, due_at, cause + more, turn)
        return False

    def _wait(self, position: int, attempts: int, due_at: datetime, reason: str, turn: int | None = None) -> None:
        if self.floor is not None:
            due_at = max(due_at, self.floor + datetime.resolution)
        (self.waiting if turn is None else self.parked).append(WaitingMessage(due_at, position, attempts, reason, turn))

    def _die(self, position: int, attempts: int, reason: str, now: datetime, turn: int | None = None) -> None:
        message = self.message(position)
        if turn is not None and self.subscription.on_dead_letter == "hold":
            self.parked.append(WaitingMessage(FOREVER, position, 0, PUT_ASIDE, turn))
        self.revived.pop(position, None)
        self.purged += position in self.dead
        self.counts["dead_lettered"] += 1
        self.dead[position] = Dead(message, now, attempts, reason)
        topic = self.logs.get(self.subscription.dead_letter_topic or "")
        attributes: dict[str, str] = json.loads(message.attributes or b"{}")
        if topic is not None and DEAD_LETTER_ID not in attributes:
            attributes |= {
                DEAD_LETTER_ID: self.log.id_of(position, message),
                "dead_letter_subscription_id": self.subscription.id,
                "dead_letter_reason": reason[:MAX_ATTRIBUTE],
                "dead_letter_delivery_attempts": str(attempts),
            }
            topic.publish_or_refuse(message.payload, json.dumps(attributes).encode(), now, message.ordering_key)

    def expire(self, expired: Sequence[tuple[int, int]], now: datetime) -> None:
        """Positions and attempts of what a claim has passed, because it expired."""
        if self.subscription.on_expired == "drop":
            self.ttl_expired += len(expired)
            return
        for position, attempts in expired:
            self._die(position, attempts, EXPIRED, now)

    def drop_backlog(self, now: datetime, limit: int = DROPPED_AT_ONCE) -> tuple[int, int, bool]:
        """How many messages were dropped, how many died, and whether there are more."""
        most, on_full = self.subscription.max_backlog, self.subscription.on_full
        end = self.position if most is None or on_full == "reject" else self.log.last - most
        if end <= self.position:
            return 0, 0, False
        found = [position for position in self.log.matching(self.position, self.wanted) if position <= end]
        until = end
        if len(found) >= limit and (self.wanted is not None or on_full == "dead_letter"):
            found, until = found[:limit], found[limit - 1]
        self._pass(until, found)
        if on_full == "drop_oldest":
            self.dropped += len(found)
            return len(found), 0, until < end
        for position in found:
            self._die(position, 0, BACKLOG_FULL, now)
        return 0, len(found), until < end
