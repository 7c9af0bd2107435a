"""Claims of fair subscriptions."""

from datetime import datetime

from fastpubsub.testing.store.records import PUT_ASIDE, Passed, WaitingMessage
from fastpubsub.testing.store.turns import LOOKED_AT, Turns

LOOK_AHEAD = 64
"""Messages at which a claim of a fair subscription looks at least, to see who waits."""

BUNDLE = 1024
"""The most messages that it puts aside at once."""


class Fairly(Turns):
    __slots__ = ()

    def _take_fairly(
        self, limit: int, now: datetime, max_bytes: int, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int, int | None]]:
        """Positions and attempts, as the procedure of that name takes them: what is new, then those in line."""
        reserved = min(len(self._due(self._soon(now))), (limit + self.sequence % 2) // 2)
        self.sequence += 1
        new = self._read_fairly(limit - reserved, max_bytes, now, expired) if limit > reserved else []
        taken: list[tuple[int, int, int | None]] = []
        looked_at = self.filtered + LOOKED_AT
        while (left := limit - len(new) - len(taken)) and self.filtered < looked_at and len(expired) < LOOKED_AT:
            more = max_bytes - self._size(taken + new)
            soon = self._soon(now)
            if more <= 0 or not (due := self._due(soon)[:left]):
                break
            taken += [(position, n, None) for position, n, _ in self._take_turns(due, left, more, soon, expired)]
        return sorted(new + taken)

    def _read_fairly(
        self, limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int, int | None]]:
        """One message of each key that is not busy; the others of it are put aside."""
        taken: list[int] = []
        soon, step = self._soon(now), max(limit, LOOK_AHEAD)
        while self.position < self.log.last:
            end = min(self.log.last, self.position + step)
            turns = self._read_stretch(end, limit, max_bytes, taken, expired, now)
            for key, turn in turns.items():
                if after := self._after(key, turn):
                    self.turns[key] = turn
                    self.due.append(WaitingMessage(soon, after[0], 0, PUT_ASIDE, turn))
            if self.position < end or len(taken) >= limit or len(expired) >= LOOKED_AT:
                break
            step = min(step * 2, BUNDLE)
        return [(position, 1, None) for position in taken]

    def _read_stretch(
        self,
        end: int,
        limit: int,
        max_bytes: int,
        taken: list[int],
        expired: list[tuple[int, int]],
        now: datetime,
    ) -> dict[str, int]:
        """Returns which of its messages each key had."""
        turns: dict[str, int] = {}
        for position in range(self.position + 1, end + 1):
            key, passes = self._key(position), self._passes(position)
            if key not in self.turns and key not in turns:
                if passes and not self.is_too_late(position, now):
                    size = sum(self.message(one).size for one in [*taken, position])
                    if len(taken) >= limit or (taken and size > max_bytes):
                        break
                    taken.append(position)
                    if key is not None:
                        turns[key] = position
                elif passes:
                    expired.append((position, 0))
                self.routed += passes
                self.filtered += not passes
                self.counts["filtered"] += not passes
            self.passed[position] = Passed("settled" if passes else "filtered", self.wanted is not None)
            self.position = position
        return turns
