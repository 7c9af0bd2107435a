"""Claims: who gets which messages."""

import secrets
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

from fastpubsub.testing.store.fairly import Fairly
from fastpubsub.testing.store.in_order import InOrder
from fastpubsub.testing.store.limits import Limited
from fastpubsub.testing.store.records import Claimed, Lease, Stored
from fastpubsub.testing.store.turns import LOOKED_AT


class Claiming(InOrder, Fairly, Limited):
    __slots__ = ()

    def is_ready(self, now: datetime) -> bool:
        """Whether a claim would find something to do."""
        due = self._due(self._soon(now) if self.subscription.fair_by else now)
        return bool(due) or bool(self.log.matching(self.position, self.wanted))

    def claim(
        self,
        limit: int,
        now: datetime,
        *,
        consumer_id: str = "",
        token: int | None = None,
        max_bytes: int = sys.maxsize,
        scan_rows: int = sys.maxsize,
        is_first: bool = True,
    ) -> list[Claimed]:
        """Claims at least one message if there is one, however large; looks at `scan_rows` of the log."""
        self.use(now)
        if self.is_paused:
            return []
        limit = min(limit, self.room(now))
        if limit == 0:
            return []
        expired: list[tuple[int, int]] = []
        if self.subscription.ordered:
            in_order = self._claim_in_order(limit, now, max_bytes, expired, is_first=is_first)
        elif self.subscription.fair_by:
            in_order = self._take_fairly(limit, now, max_bytes, expired)
        else:
            taken = self._claim_waiting(limit, now, max_bytes)
            left = max_bytes - sum(message.size for _, message, _ in taken)
            is_first = not taken
            taken = self._living(taken, expired, now)
            if len(taken) < limit and left > 0:
                taken += self._claim_living(limit - len(taken), left, scan_rows, expired, now, is_first=is_first)
            in_order = [(position, n, None) for position, _, n in taken]
        self.expire(expired, now)
        token = secrets.randbits(63) if token is None else token
        expires_at = now + timedelta(seconds=self.subscription.ack_deadline_seconds)
        claimed = [
            Claimed(position, self.message(position), Lease(token, expires_at, n, now, consumer_id, turn))
            for position, n, turn in in_order
        ]
        self.leases |= {one.position: one.lease for one in claimed}
        self._take(len(claimed), now)
        self.counts["delivered"] += len(claimed)
        return claimed

    def _claim_waiting(self, limit: int, now: datetime, max_bytes: int) -> list[tuple[int, Stored, int]]:
        taken: list[tuple[int, Stored, int]] = []
        for waiting in sorted(one for one in self.waiting if one.due_at <= now)[:limit]:
            message = self.message(waiting.position)
            max_bytes -= message.size
            if taken and max_bytes < 0:
                break
            taken.append((waiting.position, message, waiting.attempts + 1))
            self.waiting.remove(waiting)
            self.floor = waiting.due_at
        return taken

    def _living(
        self, taken: Sequence[tuple[int, Stored, int]], expired: list[tuple[int, int]], now: datetime
    ) -> list[tuple[int, Stored, int]]:
        """Without those that expired, which it adds to `expired`."""
        expired += [(position, n - 1) for position, _, n in taken if self.is_too_late(position, now)]
        return [one for one in taken if not self.is_too_late(one[0], now)]

    def _claim_living(
        self,
        limit: int,
        max_bytes: int,
        scan_rows: int,
        expired: list[tuple[int, int]],
        now: datetime,
        *,
        is_first: bool,
    ) -> list[tuple[int, Stored, int]]:
        """Goes on past what expired, as long as that is all that it finds."""
        while True:
            found = self._claim_ahead(limit, max_bytes, scan_rows, is_first=is_first)
            living = self._living(found, expired, now)
            if living or not found or self.position >= self.log.last:
                return living
            self._pass_expired(scan_rows, expired, now)
            if self.position >= self.log.last:
                return []

    def _pass_expired(self, scan_rows: int, expired: list[tuple[int, int]], now: datetime) -> None:
        """What comes next and has expired; with a filter, of what matches."""
        until = min(self.log.last, self.position + (LOOKED_AT if self.wanted is None else scan_rows))
        ahead = [position for position in self.log.matching(self.position, self.wanted) if position <= until]
        living = next((position for position in ahead[:LOOKED_AT] if not self.is_too_late(position, now)), None)
        if living is not None:
            until = living - 1
        elif len(ahead) >= LOOKED_AT:
            until = ahead[LOOKED_AT - 1]
        passed = [position for position in ahead if position <= until]
        self._pass(until, passed)
        expired += [(position, 0) for position in passed]

    def _claim_ahead(
        self, limit: int, max_bytes: int, scan_rows: int, *, is_first: bool
    ) -> list[tuple[int, Stored, int]]:
        until = self.log.last if self.wanted is None else min(self.log.last, self.position + scan_rows)
        found = [position for position in self.ahead() if position <= until]
        if len(found) >= limit:
            until = found[limit - 1]
        taken: list[tuple[int, Stored, int]] = []
        for position in found[:limit]:
            message = self.log.messages[position]
            max_bytes -= message.size
            if max_bytes < 0 and (taken or not is_first):
                until = taken[-1][0] if taken else self.position
                break
            taken.append((position, message, 1))
        self._pass(until, [position for position, *_ in taken])
        return taken
