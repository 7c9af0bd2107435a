"""Consumers that wait, in this process: one line per subscription, first come, first served."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from fastpubsub.exceptions import Overloaded
from fastpubsub.services.directory import SubscriptionKey

Call = Callable[[SubscriptionKey], None]


class WaitingLine:
    """The consumers that wait for messages of one subscription.

    A signal wakes as many as the messages need, never all. A woken consumer claims, and passes the signal on when there
    may be more. `missed` remembers a signal that came while nobody stood in the line but somebody was claiming, perhaps
    too early to see what it was about.
    """

    __slots__ = ("_waiting", "is_limited", "is_ordered", "is_paused", "keys", "members", "missed", "timer", "unused")

    def __init__(self, keys: SubscriptionKey) -> None:
        self.keys = keys
        self.members = 0
        self.missed = False
        self.unused = False
        self.is_paused: bool | None = None
        """Whether the subscription hands out nothing, None as long as nobody has asked."""
        self.is_ordered = False
        """Whether a claim has found that the subscription keeps the order of keys; it never stops to do so."""
        self.is_limited = False
        """Whether a limit keeps messages back; then new ones wake nobody."""
        self.timer: asyncio.TimerHandle | None = None
        self._waiting: OrderedDict[asyncio.Future[bool], tuple[int, str | None, float]] = OrderedDict()

    @property
    def is_waiting(self) -> bool:
        """Returns whether a consumer waits, and so knows that there is no message."""
        return bool(self._waiting)

    def pulls(self) -> Iterator[tuple[str, float]]:
        """Who waits with a limit of time, and since when by the clock of the loop."""
        return ((waits, since) for _, waits, since in self._waiting.values() if waits is not None)

    def learn(self, *, is_paused: bool, is_ordered: bool = False) -> None:
        """From a claim, which may be older than what was found since."""
        self.is_ordered = self.is_ordered or is_ordered
        if self.is_paused is None or not is_paused:
            self.is_paused = is_paused

    def pause(self, *, is_paused: bool) -> None:
        """What was found. When it is paused, those who wait with a limit of time are told; later ones wait theirs."""
        if is_paused and self.is_paused is False:
            for place, (_, waits, _) in self._waiting.items():
                if waits is not None:
                    _give_up(place)
        self.is_paused = is_paused

    def begin_claim(self) -> None:
        """Starts a claim, which will see everything signaled until now."""
        self.missed = False

    def wake(self, messages: int) -> None:
        while messages > 0 and self._waiting:
            place, (limit, *_) = self._waiting.popitem(last=False)
            if not place.done():
                place.set_result(True)
                messages -= limit
        if messages > 0:
            self.missed = True

    def wake_for(self, settled: int) -> None:
        """So many messages of an ordered subscription are being settled: those who wait get what comes after them."""
        if self.is_waiting and not self.is_paused and not self.is_limited:
            self.wake(settled)

    def end(self) -> None:
        while self._waiting:
            place, _ = self._waiting.popitem(last=False)
            if not place.done():
                place.set_result(False)

    def leave(self, consumer: str) -> None:
        """Ends the waits of a consumer, by the digest of its id."""
        for place, (_, waits, _) in self._waiting.items():
            if waits is not None and digest(waits) == consumer:
                _give_up(place)

    async def wait(self, limit: int, until: float | None, consumer_id: str | None = None, since: float = 0.0) -> bool:
        """Waits until it is time to claim up to `limit` messages; the consumer has done so `since` then.

        False when the time of the loop's clock is over, or when the consumer leaves.
        """
        if self.missed:
            return True
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        timer = None if until is None else loop.call_at(until, _give_up, place)
        self._waiting[place] = (limit, consumer_id, since)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.wake(limit)
            raise
        finally:
            self._waiting.pop(place, None)
            if timer is not None:
                timer.cancel()

    def look_in(self, seconds: float | None, look: Call) -> None:
        """Sets when to look again, as when the next retry is due; the newest call counts."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, look, self.keys)


class WaitingLines:
    """All lines of the process. An empty line stays for a while, so that it need not be looked up again."""

    def __init__(self, max_members: int, opened: Call) -> None:
        """`opened` is called for each new line."""
        self._opened = opened
        self._max_members = max_members
        self._members = 0
        self._ended = False
        self._lines: dict[SubscriptionKey, WaitingLine] = {}
        self._topics: dict[int, dict[SubscriptionKey, WaitingLine]] = {}

    @contextmanager
    def join(self, keys: SubscriptionKey) -> Iterator[WaitingLine]:
        if self._members >= self._max_members:
            raise Overloaded("too many consumers are waiting at this server; try again later, or use another server")
        line = self._lines.get(keys)
        if line is None:
            line = self._lines[keys] = self._topics.setdefault(keys.topic_key, {})[keys] = WaitingLine(keys)
            self._opened(keys)
        self._members += 1
        line.members += 1
        try:
            yield line
        finally:
            line.members -= 1
            self._members -= 1

    @property
    def ended(self) -> bool:
        return self._ended

    def end(self) -> None:
        """Nobody waits from now on."""
        self._ended = True
        for line in self._lines.values():
            line.end()
            line.look_in(None, _nowhere)

    def pulls(self) -> Iterator[tuple[SubscriptionKey, list[tuple[str, float]]]]:
        """Who waits with a limit of time in each line."""
        return ((keys, list(line.pulls())) for keys, line in self._lines.items() if line.is_waiting)

    def with_members(self) -> Iterator[SubscriptionKey]:
        return (keys for keys, line in self._lines.items() if line.members)

    def find(self, keys: SubscriptionKey) -> WaitingLine | None:
        return self._lines.get(keys)

    def wake_topic(self, topic_key: int, messages: int) -> None:
        lines = self._topics.get(topic_key)
        if lines is not None:
            for line in lines.values():
                if not line.is_paused and not line.is_limited:
                    line.wake(messages)

    def find_ordered(self, keys: SubscriptionKey) -> WaitingLine | None:
        line = self._lines.get(keys)
        return line if line is not None and line.is_ordered else None

    def topics(self) -> Iterable[int]:
        return self._topics

    def in_use(self) -> list[SubscriptionKey]:
        """Returns the lines with members. Forgets those that had none the last time, either."""
        for keys, line in list(self._lines.items()):
            if line.members == 0 and line.unused:
                self._forget(keys)
            line.unused = line.members == 0
        return [keys for keys, line in self._lines.items() if line.members]

    def _forget(self, keys: SubscriptionKey) -> None:
        self._lines.pop(keys).look_in(None, _nowhere)
        lines = self._topics[keys.topic_key]
        del lines[keys]
        if not lines:
            del self._topics[keys.topic_key]


def digest(consumer_id: str) -> str:
    return hashlib.blake2b(consumer_id.encode(), digest_size=8).hexdigest()


def _give_up(place: asyncio.Future[bool]) -> None:
    if not place.done():
        place.set_result(False)


def _nowhere(_keys: SubscriptionKey) -> None:
    pass
