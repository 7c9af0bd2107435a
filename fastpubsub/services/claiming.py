"""Claiming: pulls of many consumers, at once or when something comes, coalesced into calls of one procedure."""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import FastpubsubError, NotFound
from fastpubsub.message_ids import MessageIds
from fastpubsub.services.coalescing import make_coalescer
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.waiting_lines import WaitingLine
from fastpubsub.services.wakeups import Wakeups
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

_SCAN_ROWS = 50_000
_SCAN_MILLISECONDS = 20
_PULL_SECONDS = 5.0
_ORDERED_PAUSE_SECONDS = 0.01
"""Between looks at the log of an ordered subscription whose keys are busy: those who settle need its lock."""


class ClaimRequest(NamedTuple):
    limit: int
    consumer_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The messages of one consumer in a claim call; `more` when this call may have left some."""

    keys: SubscriptionKey
    token: int
    expires_at: datetime | None
    lease_seconds: int | None
    positions: list[int]
    attempts: list[int]
    created_at: list[datetime]
    payloads: list[bytes]
    attributes: list[bytes | None]
    more: bool
    is_paused: bool = False
    ordering_keys: list[str | None] | None = None
    is_ordered: bool = False
    is_cut: bool = False
    """Whether the call left messages that were due: it reached the messages, the bytes or the time of a call."""
    limited_seconds: float | None = None
    """After which it is worth asking again, when a limit of the subscription kept messages back."""

    def leaves_nothing(self, limit: int) -> bool:
        """Whether whoever asked for so many got all that there was."""
        is_partial = (
            self.is_cut or self.is_paused or self.limited_seconds is not None or (self.is_ordered and self.more)
        )
        return 0 < len(self.positions) < limit and not is_partial


class ClaimedRow(NamedTuple):
    """What `claim_messages_2` answers; a column without messages is null."""

    token: int
    expires_at: datetime | None
    scanned: int
    last: int
    positions: list[int] | None
    attempts: list[int] | None
    created_at: list[datetime] | None
    payloads: list[bytes] | None
    attributes: list[bytes | None] | None
    unreadable: list[int] | None
    unreadable_created_at: list[datetime] | None
    lease_seconds: int | None
    filtered: int | None
    is_paused: bool
    ordering_keys: list[str | None] | None
    sizes: list[int] | None
    """How many messages each consumer of an ordered subscription gets."""
    limited_seconds: float | None
    """Zero: there was no room."""
    ttl_expired: int | None
    dead_lettered: int | None

    @property
    def is_ordered(self) -> bool:
        return self.sizes is not None

    @property
    def has_more(self) -> bool:
        """Whether the call may have left some.

        In an ordered subscription what comes after messages may have to wait for them, and a key goes on after what
        nobody gets.
        """
        if self.is_paused:
            return False
        if self.limited_seconds is not None:
            return self.limited_seconds == 0
        passed = bool(self.ttl_expired or self.dead_lettered)
        return self.scanned < self.last or passed or bool(self.filtered if self.is_ordered else self.positions)

    def is_cut(self, max_bytes: int) -> bool:
        """Whether the call, if there is more, left messages that were due."""
        if self.is_ordered:
            return False
        is_short = self.limited_seconds == 0 or self.scanned < self.last
        return is_short or sum(map(len, self.payloads or ())) > max_bytes // 2

    def claim(self, keys: SubscriptionKey, part: slice, *, more: bool, is_cut: bool) -> Claim:
        """What one consumer gets: this part of the messages."""
        return Claim(
            keys,
            self.token,
            self.expires_at,
            self.lease_seconds,
            (self.positions or [])[part],
            (self.attempts or [])[part],
            (self.created_at or [])[part],
            (self.payloads or [])[part],
            (self.attributes or [])[part],
            more,
            self.is_paused,
            self.ordering_keys and self.ordering_keys[part],
            self.is_ordered,
            is_cut,
            self.limited_seconds or None,
        )


class ClaimKey(NamedTuple):
    keys: SubscriptionKey
    subscription_id: str
    is_push: bool = False
    """By a dispatcher, who alone claims what is pushed."""


Exchange = Callable[[ClaimKey, ClaimRequest], Awaitable[Claim]]


class Claiming:
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
        self._max_bytes = settings.pull_max_bytes
        self._claiming = make_coalescer(settings, self._call_claim, lambda _key, claim: self.give_back(claim))
        self._push_calls = asyncio.Semaphore(push_calls)
        self._returning = Tasks()
        self._claimed: set[SubscriptionKey] = set()
        self.exchange: Exchange | None = None
        """How claims of an ordered subscription share calls with what is settled, which makes room for them."""

    async def close(self) -> None:
        """Lets what was accepted finish."""
        await self._claiming.drain()
        await self._returning.finish()

    async def require(self, subscription_id: str) -> None:
        async def require(keys: SubscriptionKey) -> None:
            await self._database.fetch_one("require_subscription", *keys)

        await self._directory.subscriptions.use(subscription_id, require)

    async def pull(
        self,
        subscription_id: str,
        limit: int,
        consumer_id: str,
        seconds: float | None = 0,
        *,
        is_push: bool = False,
        is_all_taken: bool = False,
    ) -> Claim:
        """Waits so long for a message, or for ever without a number. A consumer that finds others waiting queues up.

        So does one whose last claim took all that there was: what came since then has been signaled to the line.
        Empty when the time is over, when the subscription is paused meanwhile, when the consumer leaves, when the
        server stops, or when looking through a filter took too long.
        """
        if seconds == 0:
            return await self._claim(subscription_id, limit, consumer_id, is_push=is_push, waits=False)
        since = asyncio.get_running_loop().time()
        until = None if seconds is None else since + seconds
        woken = False
        while True:
            keys = await self._directory.subscriptions.key(subscription_id)
            with self._wakeups.lines.join(keys) as line:
                if woken or not (is_all_taken or line.is_waiting):
                    claim = await self._claim_in(line, subscription_id, limit, consumer_id, is_push=is_push)
                    if claim.positions:
                        return claim
                    if claim.keys != keys:
                        continue
                with self._counters.waiting.track_inprogress():
                    # A stream does not leave: its consumer goes away.
                    leaves = None if until is None else consumer_id
                    woken = not self._wakeups.lines.ended and await line.wait(limit, until, leaves, since)
                if not woken:
                    return nothing(keys, is_paused=bool(line.is_paused))

    async def leave(self, subscription_id: str, consumer_id: str) -> None:
        """Answers all waiting pulls of this consumer now, here and in other processes."""
        self._wakeups.left(await self._directory.subscriptions.key(subscription_id), consumer_id)

    def take_claimed(self) -> set[SubscriptionKey]:
        """The subscriptions that were claimed from here since the last call, also without getting anything."""
        claimed, self._claimed = self._claimed, set()
        return claimed

    def put_back(self, claimed: set[SubscriptionKey]) -> None:
        self._claimed |= claimed

    def give_back(self, claim: Claim) -> None:
        """Gives back an answer of which no byte was sent: due again at once, without the attempt."""
        if claim.positions:
            self._returning.start(self._return(claim))

    async def _claim(self, subscription_id: str, limit: int, consumer_id: str, *, is_push: bool, waits: bool) -> Claim:
        """Empty only when nothing was there at the start, or the time for looking through a filter is spent.

        One that `waits` does not stay to look through a log whose keys are busy: what is settled meanwhile is for it.
        """
        until = time.monotonic() + _PULL_SECONDS

        async def claim(keys: SubscriptionKey) -> Claim:
            key = ClaimKey(keys, subscription_id, is_push)
            while True:
                claim = await self._submit(key, ClaimRequest(limit, consumer_id))
                if claim.positions or not claim.more or time.monotonic() > until:
                    return claim
                if claim.is_ordered:
                    if waits:
                        return claim
                    await asyncio.sleep(_ORDERED_PAUSE_SECONDS)

        claimed = await self._directory.subscriptions.use(subscription_id, claim)
        self._counters.delivered(subscription_id, len(claimed.positions))
        return claimed

    async def _submit(self, key: ClaimKey, request: ClaimRequest) -> Claim:
        if self.exchange is not None and not key.is_push and self._wakeups.lines.find_ordered(key.keys) is not None:
            return await self.exchange(key, request)
        return await self._claiming.submit(key, request, rows=request.limit)

    async def _claim_in(
        self, line: WaitingLine, subscription_id: str, limit: int, consumer_id: str, *, is_push: bool
    ) -> Claim:
        line.begin_claim()
        try:
            claim = await self._claim(subscription_id, limit, consumer_id, is_push=is_push, waits=True)
        except NotFound:
            line.wake(sys.maxsize)
            raise
        except BaseException:
            line.wake(limit)
            raise
        self.tell(line, claim, limit)
        return claim

    def tell(self, line: WaitingLine, claim: Claim, limit: int) -> None:
        """What a claim of up to `limit` messages, for one of its consumers, has found."""
        line.learn(is_paused=claim.is_paused, is_ordered=claim.is_ordered)
        if claim.limited_seconds is not None:
            self._wakeups.limited(line, claim.limited_seconds)
        elif claim.is_cut or (len(claim.positions) >= limit and (claim.more or not claim.is_ordered)):
            line.wake(1)
        elif claim.is_ordered and claim.more:
            # One consumer after the other, with a pause: those who settle need the lock that it takes.
            self._wakeups.look(line.keys)

    async def _call_claim(self, key: ClaimKey, requests: Sequence[ClaimRequest]) -> list[Claim]:
        arguments = (*key.keys, *self.arguments(key, requests))
        if key.is_push:
            async with self._push_calls:
                row = await self._database.fetch_one("claim_messages_2", *arguments, None, True)
        else:
            row = await self._database.fetch_one("claim_messages_2", *arguments)
        return self.shares(key, requests, row)

    def arguments(self, key: ClaimKey, requests: Sequence[ClaimRequest]) -> tuple[object, ...]:
        """Of the procedures that claim."""
        if requests:
            self._claimed.add(key.keys)
        return (
            Array("int4", [request.limit for request in requests]),
            Array("text", [request.consumer_id for request in requests]),
            self._max_bytes,
            _SCAN_ROWS,
            _SCAN_MILLISECONDS,
        )

    def shares(self, key: ClaimKey, requests: Sequence[ClaimRequest], columns: Sequence[Any]) -> list[Claim]:
        """What each consumer gets of what `claim_messages_2` answered."""
        row = ClaimedRow(*columns)
        if row.unreadable:
            self._report_unreadable(key, row.unreadable, row.unreadable_created_at or [])
        self._counters.filtered(key.subscription_id, row.filtered or 0)
        self._counters.ttl_expired(key.subscription_id, row.ttl_expired or 0)
        self._counters.dead_lettered(key.subscription_id, row.dead_lettered or 0)
        more = row.has_more
        is_cut = more and row.is_cut(self._max_bytes)
        claims = []
        start = 0
        # Of an ordered subscription a consumer may get less than it asked for, and the next one something.
        for size in row.sizes or [request.limit for request in requests]:
            claims.append(row.claim(key.keys, slice(start, start + size), more=more, is_cut=is_cut))
            start += size
        return claims

    def _report_unreadable(self, key: ClaimKey, positions: list[int], created_at: list[datetime]) -> None:
        self._counters.unreadable(key.subscription_id, len(positions))
        for position, time_ in zip(positions, created_at, strict=True):
            message_id = MessageIds(key.keys.topic_key, time_).at(position)
            logger.warning(
                "the filter of a subscription cannot read a message and skips it: subscription_id=%s message_id=%s",
                key.subscription_id,
                message_id,
            )

    async def _return(self, claim: Claim) -> None:
        try:
            count = len(claim.positions)
            await self._database.fetch_one(
                "return_leases",
                *claim.keys,
                Array("int8", claim.positions),
                Array("int8", [claim.token] * count),
                Array("timestamptz", [None] * count),
            )
            self._wakeups.changed(claim.keys)
        except FastpubsubError:
            logger.warning("messages could not be given back; they come again after their ack deadline")


def nothing(keys: SubscriptionKey, *, is_paused: bool = False) -> Claim:
    return Claim(keys, 0, None, None, [], [], [], [], [], False, is_paused)
