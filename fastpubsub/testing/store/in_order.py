"""Claims of ordered subscriptions."""

from collections.abc import Sequence
from datetime import datetime

from fastpubsub.testing.store.records import Passed
from fastpubsub.testing.store.turns import STEP, Turns

AT_ONCE = 32
"""Keys that go on, taken together: one at first, then twice as many each time, up to so many."""


class InOrder(Turns):
    __slots__ = ()

    def _claim_in_order(
        self, limit: int, now: datetime, max_bytes: int, expired: list[tuple[int, int]], *, is_first: bool
    ) -> list[tuple[int, int, int | None]]:
        """Positions, attempts and turns, as the procedure of that name takes them for one consumer."""
        taken: list[tuple[int, int, int | None]] = []
        left = max_bytes
        at_once = 1
        while len(taken) < limit and left > 0:
            due = self._due(now)[: min(limit - len(taken), at_once)]
            if not due:
                break
            part = self._take_turns(due, limit - len(taken), left, now, expired)
            taken += part
            left -= self._size(part)
            at_once = min(2 * at_once, AT_ONCE)
        if len(taken) < limit and left > 0 and self.position < self.log.last:
            taken += self._read_in_order(limit - len(taken), left, now, expired, is_first=is_first and not taken)
        return taken

    def _read_in_order(
        self, limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]], *, is_first: bool
    ) -> list[tuple[int, int, int | None]]:
        taken: list[tuple[int, int, int | None]] = []
        step = limit
        while True:
            stretch = range(self.position + 1, min(self.log.last, self.position + step) + 1)
            keys = {position: self.log.messages[position].ordering_key for position in stretch}
            busy = {position for position, key in keys.items() if key in self.turns}
            passing = [position for position in stretch if position not in busy and self._passes(position)]
            found = [position for position in passing if not self.is_too_late(position, now)]
            left = max_bytes - self._size(taken)
            fit = self._fitting(found[: limit - len(taken)], left, is_first=is_first and not taken)
            is_full = len(fit) < len(found)
            end = stretch[-1]
            if is_full or len(fit) == limit - len(taken):
                end = fit[-1] if fit else self.position
            passed = [position for position in stretch if position <= end]
            tails = {key: position for position in passed if (key := keys[position]) is not None}
            for position in passed:
                state = "settled" if self._passes(position) else "filtered"
                self.passed[position] = Passed(state, self.wanted is not None)
            taken += [(one, 1, tails.get(keys[one] or "") if keys[one] is not None else None) for one in fit]
            self.turns |= {key: tails[key] for one in fit if (key := keys[one]) is not None}
            late = [position for position in passing if position <= end and position not in found]
            expired += [(position, 0) for position in late]
            missed = sum(1 for position in passed if position not in busy) - len(fit) - len(late)
            self.filtered += missed
            self.counts["filtered"] += missed
            self.position = end
            self.routed += len(fit) + len(late)
            if is_full or len(taken) >= limit or end >= self.log.last:
                return taken
            step = limit - len(taken) if 2 * len(fit) >= step else min(max(step, 64) * 2, STEP)

    def _fitting(self, found: Sequence[int], max_bytes: int, *, is_first: bool) -> list[int]:
        """As many as do not exceed the size, and one of any size when it is the first."""
        fit: list[int] = []
        for position in found:
            max_bytes -= self.message(position).size
            if max_bytes < 0 and (fit or not is_first):
                break
            fit.append(position)
        return fit
