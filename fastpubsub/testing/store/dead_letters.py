"""Reprocessing and purging dead letters."""

from collections.abc import Iterable
from datetime import datetime

from fastpubsub.message_ids import Target
from fastpubsub.testing.store.records import FOREVER
from fastpubsub.testing.store.turns import Turns


class DeadLetters(Turns):
    __slots__ = ()

    def _dead_among(self, targets: Iterable[Target]) -> list[int]:
        named = ((one.position, one.created_at) for one in targets)
        return sorted({p for p, time in named if p in self.dead and self.dead[p].message.created_at == time})

    def reprocess(self, targets: Iterable[Target], now: datetime) -> list[int]:
        waiting = {one.position for one in self.all_waiting}
        comes = self.leases.keys() | waiting | set(self.ahead())
        put_aside = set(self.aside())
        moved = [p for p in self._dead_among(targets) if p in comes or (p <= self.position and p not in put_aside)]
        for position in moved:
            message = self.dead.pop(position).message
            if position in comes:
                self.purged += 1
            else:
                self.revived[position] = message
                self._revive(position, now)
        return moved

    def _revive(self, position: int, now: datetime) -> None:
        """One that held its key takes its place in it again."""
        is_first, turn = self._end_hold(position)
        self._wait(position, 0, now, "reprocessed", turn)
        if is_first:
            self.waiting.append(self.parked.pop())

    def _end_hold(self, position: int) -> tuple[bool, int | None]:
        """Whether the dead letter was what its key waited for, and its turn when it held its key."""
        for there in (self.due, self.parked):
            for one in there:
                if one.position == position and one.due_at == FOREVER:
                    there.remove(one)
                    return there is self.due, one.turn
        return False, None

    def purge(self, targets: Iterable[Target], now: datetime) -> list[int]:
        purged = self._dead_among(targets)
        for position in purged:
            del self.dead[position]
            is_first, turn = self._end_hold(position)
            if is_first:
                self._free([turn], now)
            self.forget(position)
        self.purged += len(purged)
        return purged
