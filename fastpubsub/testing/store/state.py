"""Where a subscription is, and which of its messages are ahead, put aside, leased, waiting or dead."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fastpubsub.models import Subscription
from fastpubsub.testing.store.judging import Filter, attribute_of, passes
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.records import (
    FOREVER,
    PUT_ASIDE,
    Dead,
    Failed,
    Lease,
    Passed,
    Redriven,
    Stored,
    WaitingMessage,
)


@dataclass(slots=True)
class CursorState:
    """A subscription: where it has read to, and what is with consumers, waiting or dead.

    No retry is due before `floor`, where the last claim ended. `revived` are reprocessed dead letters, which outlive
    the log. When it is ordered, `turns` has the busy keys, each with its turn: the last of its messages that anybody
    had. Those after it, up to `position`, are put aside, and `due` once nobody has the key. `parked` ones wait behind
    one of their turn that is leased or waits. When it is fair, all keys with something put aside are `due`, and
    `sequence` says whether the log or they come first.
    """

    log: Log
    subscription: Subscription
    position: int
    logs: dict[str, Log]
    wanted: Filter | None = None
    floor: datetime | None = None
    routed: int = 0
    filtered: int = 0
    purged: int = 0
    ttl_expired: int = 0
    dropped: int = 0
    leases: dict[int, Lease] = field(default_factory=dict)
    waiting: list[WaitingMessage] = field(default_factory=list)
    dead: dict[int, Dead] = field(default_factory=dict)
    revived: dict[int, Stored] = field(default_factory=dict)
    turns: dict[str | None, int] = field(default_factory=dict)
    parked: list[WaitingMessage] = field(default_factory=list)
    due: list[WaitingMessage] = field(default_factory=list)
    failures: dict[int, list[Failed]] = field(default_factory=dict)
    passed: dict[int, Passed] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    past: dict[int, Counter[str]] = field(default_factory=dict)
    full_at: datetime | None = None
    sequence: int = 0
    redrives: list[Redriven] = field(default_factory=list)

    @property
    def is_paused(self) -> bool:
        return self.subscription.is_paused

    def message(self, position: int) -> Stored:
        return self.log.messages.get(position) or self.revived[position]

    def _key(self, position: int) -> str | None:
        """By what messages take turns."""
        message = self.log.messages[position]
        _, _, attribute = (self.subscription.fair_by or "").partition("attributes.")
        return attribute_of(message, attribute) if attribute else message.ordering_key

    def _passes(self, position: int) -> bool:
        return passes(self.wanted, self.log.messages[position])

    def is_too_late(self, position: int, now: datetime) -> bool:
        """A reprocessed dead letter does not expire."""
        return self.expired_at(position, now) is not None

    def expired_at(self, position: int, now: datetime) -> datetime | None:
        message = None if position in self.revived else self.log.messages.get(position)
        expires_at = None if message is None else message.expires_at
        return None if expires_at is None or expires_at > now else expires_at

    def ahead(self) -> list[int]:
        aside = [one for one in self.aside() if self._passes(one)]
        return aside + self.log.matching(self.position, self.wanted)

    def aside(self) -> list[int]:
        """What was put aside, whether it passes the filter or not."""
        return sorted(position for key, turn in self.turns.items() for position in self._after(key, turn))

    def _after(self, key: str | None, turn: int) -> list[int]:
        after = range(max(turn + 1, self.log.first), self.position + 1)
        return [one for one in after if self._key(one) == key]

    @property
    def all_waiting(self) -> list[WaitingMessage]:
        return self.waiting + [one for one in self.parked if one.reason != PUT_ASIDE]

    def holder_of(self, position: int) -> int | None:
        """The dead letter that holds the key of a message, which may be itself."""
        held = [one for one in self.due + self.parked if one.due_at == FOREVER]
        if position in self.dead:
            return next((one.position for one in held if one.position == position), None)
        if position not in self.aside():
            return None
        stopped = (one.position for one in self.due if one in held and one.position < position)
        return next((one for one in stopped if self._key(one) == self._key(position)), None)

    @property
    def held_keys(self) -> int:
        return sum(one.due_at == FOREVER for one in self.due)

    @property
    def unsettled(self) -> int:
        """The oldest message that is ahead, leased or waiting and still in the log; the next one when there is none."""
        held = [*self.leases, *(one.position for one in self.waiting + self.due)]
        return min([self.position + 1, *(position for position in held if position in self.log.messages)])

    @property
    def acked(self) -> int:
        gone = self.purged + self.ttl_expired + self.dropped
        return self.routed - len(self.all_waiting) - len(self.leases) - len(self.dead) - gone

    def _pass(self, until: int, matching: Sequence[int]) -> None:
        """Moves the cursor; what does not match was kept out by the filter."""
        for position in range(self.position + 1, until + 1):
            state = "settled" if position in matching else "filtered"
            self.passed[position] = Passed(state, self.wanted is not None)
        self.filtered += until - self.position - len(matching)
        self.counts["filtered"] += until - self.position - len(matching)
        self.position = until
        self.routed += len(matching)
