"""How much the settings of a subscription let through, and until when it lives."""

import sys
from datetime import datetime, timedelta

from fastpubsub.testing.store.state import CursorState

NOTED_SECONDS = 120
"""What a server adds, because processes tell late which subscriptions are used."""

ROUNDING = 0.00001
"""Of a message: what the microseconds of a time are rounded by."""


class Limited(CursorState):
    __slots__ = ()

    def room(self, now: datetime) -> int:
        """How many more messages the limits let through."""
        most, rate = self.subscription.max_in_flight, self.subscription.rate_limit
        in_flight = sys.maxsize if most is None else max(most - len(self.leases), 0)
        return in_flight if rate is None else min(in_flight, max(int(self._bucket(rate, now) + ROUNDING), 0))

    def _bucket(self, rate: float, now: datetime) -> float:
        """How many messages are in it."""
        size = max(rate, 1.0)
        lacks = 0.0 if self.full_at is None else rate * max((self.full_at - now).total_seconds(), 0.0)
        return size if lacks > 2 * size else size - lacks

    def _take(self, messages: int, now: datetime) -> None:
        """Out of the bucket of the rate limit."""
        rate = self.subscription.rate_limit
        if rate is not None and messages:
            self.full_at = now + timedelta(seconds=(max(rate, 1.0) - self._bucket(rate, now) + messages) / rate)

    @property
    def backlog_room(self) -> int | None:
        """How many more messages may be published; None without a limit."""
        most = self.subscription.max_backlog
        if most is None or self.subscription.on_full != "reject":
            return None
        return most - (self.log.last - self.position)

    def pause(self, paused_at: datetime | None) -> None:
        """Without a time it is resumed."""
        if paused_at is None or not self.is_paused:
            changed = {"is_paused": paused_at is not None, "paused_at": paused_at}
            self.subscription = self.subscription.model_copy(update=changed)

    def use(self, now: datetime) -> None:
        """Somebody wants messages, so the time until it expires begins anew."""
        seconds = self.subscription.expire_after_seconds
        at = None if seconds is None or self.is_paused else now + timedelta(seconds=seconds + NOTED_SECONDS)
        if at != self.subscription.expires_at:
            self.subscription = self.subscription.model_copy(update={"expires_at": at})

    def is_expired(self, now: datetime) -> bool:
        at = self.subscription.expires_at
        return at is not None and at <= now and not self.leases
