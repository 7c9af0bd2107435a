"""Coalesces acks, nacks, rejects and extensions of many consumers into calls of one procedure each."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.message_ids import Targets, parse_targets
from fastpubsub.services.coalescing import make_coalescer
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.in_flight import InFlight
from fastpubsub.services.wakeups import Wakeups

SETTLED, GONE, STALE = 1, 0, 2


class Kind(NamedTuple):
    """A way to settle: its procedure, and the type of the value that each id gets, if it has one."""

    procedure: str
    value_type: str | None = None


ACK = Kind("ack_messages_2")
NACK = Kind("nack_messages", "int4")
REJECT = Kind("reject_messages_2", "text")
RETURN = Kind("return_leases")
EXTEND = Kind("extend_leases", "int4")
KINDS = (ACK, NACK, RETURN, REJECT, EXTEND)
"""In the order in which `settle_and_claim_2` does them."""
FREEING = (ACK, REJECT, RETURN)
"""After which the next messages of an ordering key, or the same ones, can be had at once."""


class SettleKey(NamedTuple):
    keys: SubscriptionKey
    kind: Kind
    subscription_id: str
    is_push: bool = False


class Settle(NamedTuple):
    targets: Targets
    value: int | str | None
    reason: str | None = None


Exchange = Callable[[SettleKey, Settle, int], Awaitable[Sequence[int]]]
"""The number is that of the ids."""


class Settling:
    def __init__(
        self,
        database: Database,
        directory: Directory,
        settings: Settings,
        counters: Counters,
        wakeups: Wakeups,
        push_calls: int = 1,
    ) -> None:
        """`push_calls`: of dispatchers, on their way at once; the API waits for one at the most."""
        self._database = database
        self._directory = directory
        self._counters = counters
        self._wakeups = wakeups
        self._settling = make_coalescer(settings, self._call_settle)
        self._push_calls = asyncio.Semaphore(push_calls)
        self.in_flight = InFlight()
        self.exchange: Exchange | None = None
        """How settles of an ordered subscription share calls with the claims that wait for them."""

    async def close(self) -> None:
        """Lets what was accepted finish."""
        await self._settling.drain()

    async def settle(
        self,
        kind: Kind,
        subscription_id: str,
        ids: Sequence[str],
        value: int | str | None = None,
        reason: str | None = None,
        *,
        is_push: bool = False,
    ) -> Sequence[int]:
        """Returns for each id SETTLED, GONE or STALE.

        `value` is the delay, reason or extension, `reason` that of a nack.
        """

        async def settle(keys: SubscriptionKey) -> Sequence[int]:
            targets = parse_targets(ids, keys.topic_key)
            if not targets.positions:
                await self._database.fetch_one("require_subscription", *keys)
                return [GONE] * len(ids)
            key = SettleKey(keys, kind, subscription_id, is_push)
            answer = await self._submit(key, Settle(targets, value, reason), len(ids))
            return of_each(targets, answer, len(ids))

        return await self._directory.subscriptions.use(subscription_id, settle)

    async def hand_back(self, keys: SubscriptionKey, subscription_id: str, tokens: Mapping[int, int]) -> None:
        """Deliveries, by position, that their consumer saw and will not settle: due again at once."""
        targets = Targets()
        for position, token in tokens.items():
            targets.append(position, token, None)
        await self._submit(SettleKey(keys, NACK, subscription_id), Settle(targets, 0), len(tokens))

    async def _submit(self, key: SettleKey, settle: Settle, ids: int) -> Sequence[int]:
        line = None if key.is_push else self._wakeups.lines.find_ordered(key.keys)
        if self.exchange is None or line is None:
            return await self._settling.submit(key, settle, rows=ids)
        if key.kind in FREEING:
            # They claim in the call that settles.
            line.wake_for(ids)
        return await self.exchange(key, settle, ids)

    async def _call_settle(self, key: SettleKey, settles: Sequence[Settle]) -> list[Sequence[int]]:
        targets = [settle.targets for settle in settles]
        positions, tokens, created_at, lengths = runs(targets)
        values = []
        if key.kind.value_type is not None:
            values.append(Array(key.kind.value_type, [s.value for s in settles for _ in s.targets.positions]))
        arguments = (*key.keys, positions, tokens, created_at, *values, lengths, *_nack_reasons(settles))
        if key.is_push:
            async with self._push_calls:
                outcomes, *more = await self._database.fetch_one(key.kind.procedure, *arguments)
        else:
            outcomes, *more = await self._database.fetch_one(key.kind.procedure, *arguments)
        if key.kind in (ACK, REJECT):
            self.settled(key, targets, outcomes, freed=bool(more[0]))
        else:
            self.settled(key, targets, outcomes, *more)
        return split(targets, outcomes)

    def settled(
        self,
        key: SettleKey,
        targets: Sequence[Targets],
        outcomes: Sequence[int],
        died: int = 0,
        *,
        freed: bool = False,
    ) -> None:
        """Has those who count, wait or stream know of it. `freed`: an ordering key can go on."""
        self._count(key, outcomes.count(SETTLED), died)
        self.told(key, targets, outcomes, freed=freed)

    def told(self, key: SettleKey, targets: Sequence[Targets], outcomes: Sequence[int], *, freed: bool = False) -> None:
        """Has those who wait or stream know of it."""
        if freed:
            self._wakeups.freed(key.keys)
        elif key.kind in (NACK, RETURN):
            self._wakeups.changed(key.keys)
        elif key.kind is not EXTEND:
            self._wakeups.settled(key.keys)
        if key.kind is not EXTEND:
            self.in_flight.settled(key.keys, targets, outcomes)

    def _count(self, key: SettleKey, settled: int, died: int = 0) -> None:
        if key.kind is ACK:
            self._counters.acked(key.subscription_id, settled)
        elif key.kind is NACK:
            self._counters.nacked(key.subscription_id, settled)
            self._counters.dead_lettered(key.subscription_id, died)
        elif key.kind is REJECT:
            self._counters.rejected(key.subscription_id, settled)
            self._counters.dead_lettered(key.subscription_id, settled)


def _nack_reasons(settles: Sequence[Settle]) -> tuple[()] | tuple[None, Array]:
    """With the time before them, which is that of the call."""
    if all(settle.reason is None for settle in settles):
        return ()
    return None, Array("text", [settle.reason for settle in settles for _ in settle.targets.positions])


def runs(targets: Sequence[Targets]) -> tuple[Array, Array, Array, Array]:
    """Positions, tokens, times of creation and lengths."""
    return (
        Array("int8", [position for target in targets for position in target.positions]),
        Array("int8", [token for target in targets for token in target.tokens]),
        Array("timestamptz", [time for target in targets for time in target.created_at]),
        Array("int4", [length for target in targets for length in target.lengths]),
    )


def split(targets: Sequence[Targets], outcomes: Sequence[int]) -> list[Sequence[int]]:
    """To each what belongs to it."""
    ends = list(itertools.accumulate((sum(target.lengths) for target in targets), initial=0))
    return [outcomes[start:end] for start, end in itertools.pairwise(ends)]


def of_each(targets: Targets, outcomes: Sequence[int], count: int) -> Sequence[int]:
    """Of so many ids in their order, those too that name nothing of the topic."""
    if targets.indexes is None or len(outcomes) == count:
        return outcomes
    of_all = [GONE] * count
    for index, outcome in zip(targets.indexes, outcomes, strict=True):
        of_all[index] = outcome
    return of_all
