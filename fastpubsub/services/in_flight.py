"""The deliveries in flight of this process's streams, so that a settle in it frees a place at once."""

import asyncio
from collections.abc import Sequence

from fastpubsub.message_ids import Targets
from fastpubsub.services.directory import SubscriptionKey

FIRST_CHECK_SECONDS = 0.05
LAST_CHECK_SECONDS = 5.0


class StreamHolder:
    """The deliveries of one stream that are not settled: position → token."""

    def __init__(self) -> None:
        self.tokens: dict[int, int] = {}
        self.freed = asyncio.Event()
        self.patience = FIRST_CHECK_SECONDS
        """How long to wait until the database is asked what others have settled."""

    def forget(self, position: int) -> None:
        if self.tokens.pop(position, None) is not None:
            self.freed.set()


class InFlight:
    def __init__(self) -> None:
        self._holders: dict[SubscriptionKey, dict[int, StreamHolder]] = {}

    def hold(self, keys: SubscriptionKey, positions: Sequence[int], token: int, holder: StreamHolder) -> None:
        holders = self._holders.setdefault(keys, {})
        for position in positions:
            if (before := holders.get(position)) is not None:
                before.forget(position)
            holders[position] = holder
            holder.tokens[position] = token

    def settled(self, keys: SubscriptionKey, targets: Sequence[Targets], outcomes: Sequence[int]) -> None:
        """Outcomes are 1 where a delivery was settled."""
        holders = self._holders.get(keys)
        if holders is not None:
            positions = (one.position for target in targets for one in target.singly())
            for position, outcome in zip(positions, outcomes, strict=True):
                if outcome == 1 and (holder := holders.get(position)) is not None:
                    self.release(keys, [position], holder)

    def release(self, keys: SubscriptionKey, positions: Sequence[int], holder: StreamHolder) -> None:
        holders = self._holders.get(keys, {})
        for position in positions:
            holder.forget(position)
            if holders.get(position) is holder:
                del holders[position]
        if not holders:
            self._holders.pop(keys, None)
