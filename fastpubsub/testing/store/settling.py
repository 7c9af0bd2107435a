"""What consumers say of the messages that they have, and what happens when they say nothing."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from fastpubsub.message_ids import Target
from fastpubsub.testing.store.records import Lease
from fastpubsub.testing.store.turns import Turns

GONE, SETTLED, STALE = 0, 1, 2


class Settling(Turns):
    __slots__ = ()

    def _end(self, positions: Iterable[int]) -> list[tuple[int, Lease]]:
        return [(position, self.leases.pop(position)) for position in positions]

    def holds(self, one: Target) -> bool:
        lease = self.leases.get(one.position)
        if lease is None:
            return False
        if one.token is not None:
            return one.token == lease.token
        return one.created_at == self.message(one.position).created_at

    def _settle(self, targets: Sequence[Target]) -> tuple[list[int], dict[int, int]]:
        """Returns the outcome of each, and by position the first of them that settles it."""
        held = [self.holds(one) for one in targets]
        settled: dict[int, int] = {}
        for index, one in enumerate(targets):
            if held[index]:
                settled.setdefault(one.position, index)
        missed = [STALE if one.position in self.leases else GONE for one in targets]
        return [SETTLED if is_held else miss for is_held, miss in zip(held, missed, strict=True)], settled

    def ack(self, targets: Sequence[Target], now: datetime) -> list[int]:
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position in settled:
            self.revived.pop(position, None)
            self.forget(position)
        self._free((lease.turn for _, lease in ended), now)
        self.counts["acked"] += len(settled)
        return outcomes

    def nack(
        self,
        targets: Sequence[Target],
        delays: Sequence[int | None] | None,
        now: datetime,
        reason: str | None = None,
    ) -> list[int]:
        """Takes a delay for each, or None for the backoff."""
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position, lease in ended:
            delay = delays[settled[position]] if delays else None
            self._fail(position, lease, "nacked", reason, now)
            self._retry(position, lease.attempts, delay, now, "nacked", lease.turn, reason)
        self._go_on(ended, now)
        self.counts["nacked"] += len(settled)
        return outcomes

    def give_back(self, targets: Sequence[Target], now: datetime) -> list[int]:
        """Gives back undelivered messages: due at once, without the attempt."""
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position, lease in ended:
            self._retry(position, lease.attempts - 1, 0, now, "returned", lease.turn)
        self._go_on(ended, now)
        return outcomes

    def _go_on(self, ended: Sequence[tuple[int, Lease]], now: datetime) -> None:
        turns = [lease.turn for _, lease in ended]
        self._park_after(turns, now)
        self._free(turns, now)

    def reject(self, targets: Sequence[Target], reasons: Sequence[str], now: datetime) -> list[int]:
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position, lease in ended:
            self._fail(position, lease, "rejected", reasons[settled[position]], now)
            self._die(position, lease.attempts, reasons[settled[position]], now, lease.turn)
        self._go_on(ended, now)
        self.counts["rejected"] += len(settled)
        return outcomes

    def extend(self, targets: Sequence[Target], seconds: int, now: datetime) -> list[int]:
        outcomes, settled = self._settle(targets)
        for position in settled:
            self.leases[position].expires_at = now + timedelta(seconds=seconds)
        return outcomes

    def release(self, now: datetime) -> tuple[int, int]:
        """Ends the leases whose time is over: how many, and how many of these messages died."""
        expired = sorted((lease.expires_at, p) for p, lease in self.leases.items() if lease.expires_at <= now)
        died = 0
        ended = self._end(position for _, position in expired)
        for position, lease in ended:
            self._fail(position, lease, "lease expired", None, now)
            died += self._retry(position, lease.attempts, None, now, "lease expired", lease.turn)
        self._go_on(ended, now)
        self.counts["expired"] += len(expired)
        return len(expired), died
