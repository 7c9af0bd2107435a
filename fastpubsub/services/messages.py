"""Publish, pull, settle: requests of many clients, coalesced into calls of one procedure each."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from fastpubsub.arrays import Array
from fastpubsub.coalescer import Bounds, Coalescer
from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database import Database
from fastpubsub.exceptions import FastpubsubError, InvalidRequest
from fastpubsub.message_ids import MessageIds, Targets, parse_targets
from fastpubsub.payloads import Batch
from fastpubsub.services.appends import CALL_BYTES, CALL_ROWS, Appends, columns
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.in_flight import InFlight
from fastpubsub.services.schemas import Schemas, StoreKey, split
from fastpubsub.services.wakeups import Wakeups

logger = logging.getLogger(__name__)

_SCAN_ROWS = 50_000
_SCAN_MILLISECONDS = 20
_PULL_SECONDS = 5.0

SETTLED, GONE, STALE = 1, 0, 2


class Idempotency(NamedTuple):
    client: str
    key: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Published:
    topic_key: int
    first_position: int
    created_at: datetime
    count: int

    def ids(self) -> list[str]:
        ids = MessageIds(self.topic_key, self.created_at)
        return [ids.at(position) for position in range(self.first_position, self.first_position + self.count)]


class Keyed(NamedTuple):
    batch: Batch
    idempotency: Idempotency


class ClaimRequest(NamedTuple):
    limit: int
    consumer_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What one consumer got of a claim call; `more` when there may be messages that this call did not come to."""

    keys: SubscriptionKey
    token: int
    expires_at: datetime | None
    positions: list[int]
    attempts: list[int]
    created_at: list[datetime]
    payloads: list[bytes]
    attributes: list[bytes | None]
    more: bool


class Kind(NamedTuple):
    """A way to settle: its procedure, and the type of the value that each id gets, if it has one."""

    procedure: str
    value_type: str | None = None


ACK = Kind("ack_messages")
NACK = Kind("nack_messages", "int4")
REJECT = Kind("reject_messages", "text")
EXTEND = Kind("extend_leases", "int4")


class ClaimKey(NamedTuple):
    keys: SubscriptionKey
    subscription_id: str


class SettleKey(NamedTuple):
    keys: SubscriptionKey
    kind: Kind
    subscription_id: str


class Settle(NamedTuple):
    targets: Targets
    value: int | str | None


class Messages:
    def __init__(
        self, database: Database, directory: Directory, settings: Settings, counters: Counters, wakeups: Wakeups
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._directory = directory
        self._counters = counters
        self._max_bytes = settings.pull_max_bytes
        self._window_seconds = settings.idempotency_window_seconds
        self._schemas = Schemas(database)
        self._returning: set[asyncio.Task[None]] = set()
        bounds = Bounds(CALL_ROWS, CALL_BYTES, settings.queue_max_messages, settings.queue_max_bytes)
        self.in_flight = InFlight()
        self._appends = Appends(database)
        self._publishing = Coalescer(self._call_publish, bounds, ready=self._appends.ready)
        self._publishing_once = Coalescer(self._call_publish_once, bounds)
        self._claiming = Coalescer(self._call_claim, bounds, lambda _key, claim: self.give_back(claim))
        self._settling = Coalescer(self._call_settle, bounds)

    async def close(self) -> None:
        """Lets what was accepted finish."""
        for coalescer in (self._publishing, self._publishing_once, self._claiming, self._settling):
            await coalescer.drain()
        while self._returning:
            await asyncio.wait(self._returning)

    async def publish(self, topic_id: str, batch: Batch, idempotency: Idempotency | None = None) -> Published | None:
        """None when there was nothing to publish."""
        if not batch.payloads:
            await self._database.fetch_one("resolve_topic", topic_id)
            return None
        rows = len(batch.payloads)

        async def store(key: StoreKey) -> Published:
            if idempotency is None:
                return await self._publishing.submit(key, batch, rows=rows, size=batch.size)
            keyed = Keyed(batch, idempotency)
            published = await self._publishing_once.submit(key, keyed, rows=rows, size=batch.size)
            if published is None:
                raise InvalidRequest(
                    "this Idempotency-Key was used with another body; repeat that body, or take a new key"
                )
            return published

        async def publish(topic_key: int) -> Published:
            return await self._schemas.use(topic_key, batch.payloads, store)

        published = await self._directory.topics.use(topic_id, publish)
        self._counters.published(topic_id, rows)
        return published

    async def pull(self, subscription_id: str, limit: int, consumer_id: str) -> Claim:
        """Empty only when nothing was there at the start, or the time for looking through a filter is spent."""
        until = time.monotonic() + _PULL_SECONDS

        async def claim(keys: SubscriptionKey) -> Claim:
            key = ClaimKey(keys, subscription_id)
            while True:
                claim = await self._claiming.submit(key, ClaimRequest(limit, consumer_id), rows=limit)
                if claim.positions or not claim.more or time.monotonic() > until:
                    return claim

        claimed = await self._directory.subscriptions.use(subscription_id, claim)
        self._counters.delivered(subscription_id, len(claimed.positions))
        return claimed

    async def require(self, subscription_id: str) -> None:
        async def require(keys: SubscriptionKey) -> None:
            await self._database.fetch_one("require_subscription", *keys)

        await self._directory.subscriptions.use(subscription_id, require)

    def give_back(self, claim: Claim) -> None:
        """For an answer of which no byte was handed to the transport: due again at once, without the attempt."""
        if claim.positions:
            task = asyncio.create_task(self._return(claim))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    async def settle(
        self, kind: Kind, subscription_id: str, ids: Sequence[str], value: int | str | None = None
    ) -> list[int]:
        """For each id whether it was SETTLED, GONE or STALE; `value` is the delay, reason or extension."""

        async def settle(keys: SubscriptionKey) -> list[int]:
            targets = parse_targets(ids, keys.topic_key)
            if not targets.positions:
                await self._database.fetch_one("require_subscription", *keys)
                return [GONE] * len(ids)
            key = SettleKey(keys, kind, subscription_id)
            answer = await self._settling.submit(key, Settle(targets, value), rows=len(ids))
            if targets.indexes is None or len(answer) == len(ids):
                return answer
            outcomes = [GONE] * len(ids)
            for index, outcome in zip(targets.indexes, answer, strict=True):
                outcomes[index] = outcome
            return outcomes

        return await self._directory.subscriptions.use(subscription_id, settle)

    async def hand_back(self, keys: SubscriptionKey, subscription_id: str, tokens: Mapping[int, int]) -> None:
        """Deliveries, by position, that their consumer saw and will not settle: due again at once."""
        targets = Targets()
        for position, token in tokens.items():
            targets.append(position, token, None)
        await self._settling.submit(SettleKey(keys, NACK, subscription_id), Settle(targets, 0), rows=len(tokens))

    async def _call_publish(self, key: StoreKey, batches: Sequence[Batch]) -> list[Published]:
        topic_key = split(key)[0]
        position, created_at = await self._appends.append(key, batches)
        answers = []
        for batch in batches:
            answers.append(Published(topic_key, position, created_at, len(batch.payloads)))
            position += len(batch.payloads)
        self._wakeups.published(topic_key, position - answers[0].first_position)
        return answers

    async def _call_publish_once(self, key: StoreKey, requests: Sequence[Keyed]) -> list[Published | None]:
        topic_key, *schema_version = split(key)
        counts = [len(request.batch.payloads) for request in requests]
        positions, created_at = await self._database.fetch_one(
            "publish_messages_once",
            topic_key,
            *columns([request.batch for request in requests]),
            Array("int4", counts),
            Array("text", [request.idempotency.client for request in requests]),
            Array("text", [request.idempotency.key for request in requests]),
            Array("bytea", [request.idempotency.body_hash for request in requests]),
            self._window_seconds,
            *schema_version,
        )
        self._wakeups.published(topic_key, sum(counts))
        return [
            None if position is None else Published(topic_key, position, time, count)
            for position, time, count in zip(positions, created_at, counts, strict=True)
        ]

    async def _call_claim(self, key: ClaimKey, requests: Sequence[ClaimRequest]) -> list[Claim]:
        row = await self._database.fetch_one(
            "claim_messages",
            *key.keys,
            Array("int4", [request.limit for request in requests]),
            Array("text", [request.consumer_id for request in requests]),
            self._max_bytes,
            _SCAN_ROWS,
            _SCAN_MILLISECONDS,
        )
        token, expires_at, scanned, last, *columns, unreadable, unreadable_created_at = row
        positions, attempts, created_at, payloads, attributes = (column or [] for column in columns)
        if unreadable:
            self._report_unreadable(key, unreadable, unreadable_created_at)
        claims = []
        start = 0
        more = scanned < last or bool(positions)
        for request in requests:
            part = slice(start, start + request.limit)
            start += request.limit
            claims.append(
                Claim(
                    key.keys,
                    token,
                    expires_at,
                    positions[part],
                    attempts[part],
                    created_at[part],
                    payloads[part],
                    attributes[part],
                    more,
                )
            )
        return claims

    async def _call_settle(self, key: SettleKey, settles: Sequence[Settle]) -> list[list[int]]:
        targets = [settle.targets for settle in settles]
        arguments = [
            Array("int8", [position for target in targets for position in target.positions]),
            Array("int8", [token for target in targets for token in target.tokens]),
            Array("timestamptz", [time for target in targets for time in target.created_at]),
        ]
        if key.kind.value_type is not None:
            arguments.append(Array(key.kind.value_type, [s.value for s in settles for _ in s.targets.positions]))
        arguments.append(Array("int4", [length for target in targets for length in target.lengths]))
        outcomes, *died = await self._database.fetch_one(key.kind.procedure, *key.keys, *arguments)
        self._count(key, outcomes.count(SETTLED), *died)
        if key.kind is NACK:
            self._wakeups.changed(key.keys)
        if key.kind is not EXTEND:
            self.in_flight.settled(key.keys, targets, outcomes)
        answers = []
        start = 0
        for target in targets:
            end = start + sum(target.lengths)
            answers.append(outcomes[start:end])
            start = end
        return answers

    def _count(self, key: SettleKey, settled: int, died: int = 0) -> None:
        if key.kind is ACK:
            self._counters.acked(key.subscription_id, settled)
        elif key.kind is NACK:
            self._counters.nacked(key.subscription_id, settled)
            self._counters.dead_lettered(key.subscription_id, died)
        elif key.kind is REJECT:
            self._counters.rejected(key.subscription_id, settled)
            self._counters.dead_lettered(key.subscription_id, settled)

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
            await self._database.fetch_one("return_leases", *claim.keys, Array("int8", claim.positions), claim.token)
            self._wakeups.changed(claim.keys)
        except FastpubsubError:
            logger.warning("messages could not be given back; they come again after their ack deadline")
