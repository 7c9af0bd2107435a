"""Exchanging: what consumers have done for what they get next, settled and claimed in one call, coalesced."""

import sys
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest, NotFound
from fastpubsub.message_ids import parse_targets
from fastpubsub.services.claiming import Claim, Claiming, ClaimKey, ClaimRequest, nothing
from fastpubsub.services.coalescing import make_coalescer
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.settling import (
    KINDS,
    NACK,
    Kind,
    Settle,
    SettleKey,
    Settling,
    of_each,
    runs,
    split,
)
from fastpubsub.services.waiting_lines import WaitingLine
from fastpubsub.services.wakeups import Wakeups


class Part(NamedTuple):
    """Ids that are settled alike; `name` is where they stand in the request."""

    name: str
    kind: Kind
    ids: Sequence[str]
    value: int | str | None = None
    reason: str | None = None


class Exchanged(NamedTuple):
    """`outcomes` by part, for each id."""

    outcomes: list[Sequence[int]]
    claim: Claim
    is_all_taken: bool = False
    """There was nothing, and what comes is signaled to the line: to claim again before waiting would find nothing."""


class _Request(NamedTuple):
    settles: list[tuple[Kind, Settle]]
    claim: ClaimRequest


class _Place(NamedTuple):
    """A settle, and whose it is: which part of which request."""

    request: int
    part: int
    kind: Kind
    settle: Settle


class Exchanging:
    def __init__(
        self,
        database: Database,
        directory: Directory,
        settings: Settings,
        counters: Counters,
        wakeups: Wakeups,
        claiming: Claiming,
        settling: Settling,
    ) -> None:
        self._database = database
        self._directory = directory
        self._counters = counters
        self._wakeups = wakeups
        self._claiming = claiming
        self._settling = settling
        self._exchanging = make_coalescer(settings, self._call, lambda _key, answer: claiming.give_back(answer.claim))
        # For ordered subscriptions: one call in flight, in which who waits claims what is settled before.
        claiming.exchange, settling.exchange = self._claim, self._settle

    async def close(self) -> None:
        """Lets what was accepted finish."""
        await self._exchanging.drain()

    async def exchange(
        self, subscription_id: str, parts: Sequence[Part], limit: int, consumer_id: str, *, waits: bool = False
    ) -> Exchanged:
        """Settles all parts and claims up to `limit` messages, or does neither.

        One that `waits` for messages claims none while others wait, who come first.
        """

        async def exchange(keys: SubscriptionKey) -> Exchanged:
            settles = [(part.kind, _settle(part, keys)) for part in parts]
            rows = max(limit, sum(len(part.ids) for part in parts))
            yields = waits and self._others_wait(keys)
            if yields and (line := self._wakeups.lines.find_ordered(keys)) is not None:
                line.wake_for(sum(len(part.ids) for part in parts))
            request = _Request(settles, ClaimRequest(0 if yields else limit, consumer_id))
            line = self._wakeups.lines.find(keys) if waits and not yields else None
            key = ClaimKey(keys, subscription_id)
            if line is None or line.is_ordered:
                outcomes, claimed, is_all_taken = await self._exchanging.submit(key, request, rows=rows)
            else:
                outcomes, claimed, is_all_taken = await self._exchange_in(line, key, request, rows)
            of_all = [
                of_each(settle.targets, outcome, len(part.ids))
                for part, (_, settle), outcome in zip(parts, settles, outcomes, strict=True)
            ]
            return Exchanged(of_all, claimed, is_all_taken)

        exchanged = await self._directory.subscriptions.use(subscription_id, exchange)
        self._counters.delivered(subscription_id, len(exchanged.claim.positions))
        return exchanged

    async def _exchange_in(self, line: WaitingLine, key: ClaimKey, request: _Request, rows: int) -> Exchanged:
        """For a consumer that will wait in the line, as `Claiming` claims for one."""
        limit = request.claim.limit
        line.begin_claim()
        try:
            exchanged = await self._exchanging.submit(key, request, rows=rows)
        except NotFound:
            line.wake(sys.maxsize)
            raise
        except BaseException:
            line.wake(limit)
            raise
        claim = exchanged.claim
        self._claiming.tell(line, claim, limit)
        is_empty = not (claim.positions or claim.more or claim.is_paused or claim.is_ordered)
        is_known = self._wakeups.lines.find(key.keys) is line
        return exchanged._replace(is_all_taken=is_empty and is_known and claim.limited_seconds is None)

    async def _claim(self, key: ClaimKey, claim: ClaimRequest) -> Claim:
        exchanged = await self._exchanging.submit(key, _Request([], claim), rows=claim.limit)
        return exchanged.claim

    async def _settle(self, key: SettleKey, settle: Settle, ids: int) -> Sequence[int]:
        request = _Request([(key.kind, settle)], ClaimRequest(0, ""))
        exchanged = await self._exchanging.submit(ClaimKey(key.keys, key.subscription_id), request, rows=ids)
        return exchanged.outcomes[0]

    def _others_wait(self, keys: SubscriptionKey) -> bool:
        line = self._wakeups.lines.find(keys)
        return line is not None and line.is_waiting

    async def _call(self, key: ClaimKey, requests: Sequence[_Request]) -> list[Exchanged]:
        places = _in_order(requests)
        claims = [request.claim for request in requests if request.claim.limit]
        arguments = self._claiming.arguments(key, claims)
        if places:
            row = await self._database.fetch_one("settle_and_claim_2", *key.keys, *_arguments(places), *arguments)
        else:
            *claimed, ttl_expired, dead_lettered = await self._database.fetch_one(
                "claim_messages_2", *key.keys, *arguments
            )
            row = (None, 0, *claimed, False, ttl_expired, dead_lettered)
        outcomes, died, *claimed, freed, ttl_expired, dead_lettered = row
        answers = [Exchanged([()] * len(request.settles), nothing(key.keys)) for request in requests]
        self._settled(key, places, outcomes or [], died, answers)
        claimed_by = self._claiming.shares(key, claims, [*claimed, ttl_expired, dead_lettered]) if claims else []
        if freed:
            self._tell_freed(key, claims, claimed_by)
        shares = iter(claimed_by)
        return [
            answer._replace(claim=next(shares)) if request.claim.limit else answer
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _tell_freed(self, key: ClaimKey, asked: Sequence[ClaimRequest], claims: Sequence[Claim]) -> None:
        """Who has room left got nothing of the keys that go on: they go on later."""
        if all(claim.more or len(claim.positions) >= one.limit for claim, one in zip(claims, asked, strict=True)):
            self._wakeups.freed(key.keys)
        else:
            self._wakeups.changed(key.keys)

    def _settled(
        self, key: ClaimKey, places: Sequence[_Place], outcomes: Sequence[int], died: int, answers: Sequence[Exchanged]
    ) -> None:
        start = 0
        for kind, group in groupby(places, key=lambda place: place.kind):
            alike = list(group)
            targets = [place.settle.targets for place in alike]
            end = start + sum(sum(target.lengths) for target in targets)
            settle_key = SettleKey(key.keys, kind, key.subscription_id)
            self._settling.settled(settle_key, targets, outcomes[start:end], died if kind is NACK else 0)
            for place, outcome in zip(alike, split(targets, outcomes[start:end]), strict=True):
                answers[place.request].outcomes[place.part] = outcome
            start = end


def _settle(part: Part, keys: SubscriptionKey) -> Settle:
    try:
        return Settle(parse_targets(part.ids, keys.topic_key), part.value, part.reason)
    except InvalidRequest as error:
        raise InvalidRequest(f"{part.name}: {error.detail}") from None


def _in_order(requests: Sequence[_Request]) -> list[_Place]:
    """Kind by kind, as the procedure takes them."""
    places = [
        _Place(number, part, kind, settle)
        for number, request in enumerate(requests)
        for part, (kind, settle) in enumerate(request.settles)
    ]
    return sorted(places, key=lambda place: KINDS.index(place.kind))


def _arguments(places: Sequence[_Place]) -> tuple[Array, ...]:
    positions, tokens, created_at, lengths = runs([place.settle.targets for place in places])
    counts = dict.fromkeys(KINDS, 0)
    seconds: list[int | None] = []
    reasons: list[str | None] = []
    for _, _, kind, settle in places:
        count = len(settle.targets.positions)
        counts[kind] += count
        seconds += [settle.value if isinstance(settle.value, int) else None] * count
        reasons += [settle.value if isinstance(settle.value, str) else settle.reason] * count
    return (
        Array("int4", list(counts.values())),
        positions,
        tokens,
        created_at,
        Array("int4", seconds),
        Array("text", reasons),
        lengths,
    )
