"""The turns that keys take: of an ordered subscription, and of a fair one."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from fastpubsub.testing.store.failing import Failing
from fastpubsub.testing.store.records import PUT_ASIDE, WaitingMessage

LOOKED_AT = 1000

STEP = 4096
"""What a claim of an ordered subscription takes at once: retries, messages of a key behind a filter, and of the log."""


class Turns(Failing):
    __slots__ = ()

    def _due(self, now: datetime) -> list[WaitingMessage]:
        return sorted((one for one in self.waiting + self.due if one.due_at <= now), key=lambda one: one[:2])

    def _soon(self, now: datetime) -> datetime:
        """Now, and after what the last claim took: keys of a fair subscription stand there in line again."""
        return now if self.floor is None else max(now, self.floor + datetime.resolution)

    def _size(self, taken: Iterable[tuple[int, int, int | None]]) -> int:
        return sum(self.message(position).size for position, *_ in taken)

    def _take_turns(
        self, due: list[WaitingMessage], limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int, int | None]]:
        taken: list[tuple[int, int, int | None]] = []
        passed = []
        for one in due:
            if taken and self._size(taken) + self.message(one.position).size > max_bytes:
                break
            (self.due if one.reason == PUT_ASIDE else self.waiting).remove(one)
            self.floor = one.due_at
            if one.turn is None:
                if self.is_too_late(one.position, now):
                    expired.append((one.position, one.attempts))
                else:
                    taken.append((one.position, one.attempts + 1, None))
                continue
            key = self._key(one.position)
            share, left = max(limit // len(due), 1), max_bytes - self._size(taken)
            if self.subscription.fair_by:
                part: list[tuple[int, int]] = []
                self._take_aside(self._after(key, self.turns[key]), share, left, part, expired, now)
            else:
                part = self._continue(one, share, left, now, expired)
            taken += [(position, attempts, self.turns[key]) for position, attempts in part]
            if not part or self.subscription.fair_by:
                passed.append(self.turns[key])
        self._free(passed, now if self.subscription.fair_by else now + datetime.resolution)
        return taken

    def _continue(
        self, first: WaitingMessage, limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """The messages of a turn that follow, and sets its key to the turn that they make."""
        turn, key = first.turn or 0, self._key(first.position)
        taken: list[tuple[int, int]] = []
        size = 0
        if first.reason != PUT_ASIDE:
            size = self._give(first.position, first.attempts, taken, expired, now)
            for one in sorted((one for one in self.parked if one.turn == turn), key=lambda one: one.position):
                more = self.message(one.position).size
                if one.due_at > now or len(taken) >= limit or (taken and size + more > max_bytes):
                    return taken
                self.parked.remove(one)
                size += self._give(one.position, one.attempts, taken, expired, now)
        while True:
            turn = self.turns[key]
            most = limit - len(taken) if self.wanted is None else LOOKED_AT
            self._take_aside(self._after(key, turn)[:most], limit, max_bytes - size, taken, expired, now)
            if self.turns[key] == turn or taken or self.wanted is not None:
                return taken

    def _take_aside(
        self,
        aside: Iterable[int],
        limit: int,
        max_bytes: int,
        taken: list[tuple[int, int]],
        expired: list[tuple[int, int]],
        now: datetime,
    ) -> None:
        """The next of what was put aside of a key."""
        for position in aside:
            if len(taken) >= limit or (taken and self.message(position).size > max_bytes):
                break
            self.turns[self._key(position)] = position
            if self._passes(position):
                self.routed += 1
                max_bytes -= self._give(position, 0, taken, expired, now)
            else:
                self.filtered += 1
                self.counts["filtered"] += 1

    def _give(
        self, position: int, attempts: int, taken: list[tuple[int, int]], expired: list[tuple[int, int]], now: datetime
    ) -> int:
        """Adds it to `taken`, with this attempt, and returns its size; or to `expired`."""
        if self.is_too_late(position, now):
            expired.append((position, attempts))
            return 0
        taken.append((position, attempts + 1))
        return self.message(position).size

    def _free(self, turns: Iterable[int | None], now: datetime) -> None:
        """Nothing of these turns is leased any more, or it is: a key goes on, or is free."""
        floor = datetime.min.replace(tzinfo=UTC) if self.floor is None else self.floor + datetime.resolution
        leased = {lease.turn for lease in self.leases.values()}
        for turn in {turn for turn in turns if turn is not None and turn not in leased}:
            parked = sorted((one for one in self.parked if one.turn == turn), key=lambda one: one.position)
            if parked:
                self.parked.remove(parked[0])
                goes_on = self.due if parked[0].reason == PUT_ASIDE else self.waiting
                goes_on.append(parked[0]._replace(due_at=max(parked[0].due_at, floor)))
            elif after := self._after(self._key(turn), turn):
                self.due.append(WaitingMessage(max(now, floor), after[0], 0, PUT_ASIDE, turn))
            else:
                del self.turns[self._key(turn)]

    def _park_after(self, turns: Iterable[int | None], now: datetime) -> None:
        """Gives back what is leased after the first parked message of a turn, as if it had not been delivered."""
        for turn in {turn for turn in turns if turn is not None}:
            first = min((one.position for one in self.parked if one.turn == turn), default=sys.maxsize)
            for position in [p for p, lease in self.leases.items() if lease.turn == turn and p > first]:
                attempts = self.leases.pop(position).attempts - 1
                self.parked.append(WaitingMessage(now, position, attempts, "returned", turn))
