"""A subscription: all that can be done with it."""

from datetime import datetime

from fastpubsub.testing.store.claiming import Claiming
from fastpubsub.testing.store.looking import Looking
from fastpubsub.testing.store.records import Dead, Passed
from fastpubsub.testing.store.redriving import Redriving
from fastpubsub.testing.store.settling import Settling

SOUGHT = "the subscription was sought elsewhere before the reprocessed message was settled"


class Cursor(Claiming, Settling, Redriving, Looking):
    __slots__ = ()

    def seek(self, to: str | datetime | int, now: datetime) -> None:
        """Moves the cursor to a value of `start_from`, or to the position that comes next."""
        self.routed -= len(self.leases) + len(self.all_waiting)
        self.routed += len(self.revived)
        self.dead |= {position: Dead(message, now, 0, SOUGHT) for position, message in self.revived.items()}
        self._move(self.log.before(to), "skipped")

    def settle_all(self) -> int:
        """Purges what is ahead, leased or waiting, and counts it."""
        ended = len(self.leases) + len(self.all_waiting)
        purged = len(self.ahead()) + ended
        self.purged += ended
        revived = list(self.revived)
        self._move(self.log.last, "purged")
        for position in revived:
            self.forget(position)
        return purged

    def _move(self, target: int, state: str) -> None:
        """Ends all deliveries; what lies between is in that state."""
        self.leases.clear()
        self.waiting.clear()
        self.parked.clear()
        self.due.clear()
        self.turns.clear()
        self.revived.clear()
        both = min(self.position, target)
        self.passed = {
            p: passed if passed.state in ("skipped", "purged") else passed._replace(is_sought=True)
            for p, passed in self.passed.items()
            if p <= both
        }
        self.passed |= {p: Passed(state) for p in range(both + 1, target + 1)}
        self.position = target
