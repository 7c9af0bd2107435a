"""Pushes the messages of one subscription: claims as many as its endpoint can take, and settles what comes of them."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastpubsub.counters import Counters
from fastpubsub.exceptions import AlreadyExists, FastpubsubError, NotFound, Unavailable
from fastpubsub.message_ids import MessageIds, ack_id
from fastpubsub.push.answers import PushAnswer
from fastpubsub.push.endpoints import Endpoint
from fastpubsub.push.failures import PushFailed, Unreachable
from fastpubsub.push.formats import PushedMessage
from fastpubsub.push.outcomes import GONE, Outcome, outcome_of, refusal
from fastpubsub.push.pacing import Breaker, Concurrency, Gate
from fastpubsub.push.requests import ORIGIN
from fastpubsub.push.resolver import Resolver
from fastpubsub.push.tls import Tls
from fastpubsub.push.wire import Wire
from fastpubsub.services.breakers import CLOSED, Breakers, BreakerState
from fastpubsub.services.claiming import Claim, Claiming
from fastpubsub.services.push_attempts import Attempt, PushAttempts
from fastpubsub.services.settling import ACK, NACK, REJECT, RETURN, Kind, Settling
from fastpubsub.services.surviving import Surviving
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

CLAIM_MESSAGES = 100
ACKS_AT_ONCE = 1000
SETTLE_ATTEMPTS = 5
SETTLE_PAUSE_SECONDS = 1.0
TROUBLE_PAUSE_SECONDS = 1.0
LEASE_MARGIN_SECONDS = 1.0
MAX_REASON = 1024

KINDS: dict[str, Kind] = {"ack": ACK, "nack": NACK, "reject": REJECT, "return": RETURN}


@dataclass(frozen=True)
class Means:
    """What the pushers of a process share."""

    claiming: Claiming
    settling: Settling
    counters: Counters
    attempts: PushAttempts
    breakers: Breakers
    resolver: Resolver
    gate: Gate
    tls: Tls
    consumer_id: str
    pause: Callable[[str, str], Awaitable[None]]
    """Pauses a subscription, for a reason."""


class Pusher:
    def __init__(self, endpoint: Endpoint, means: Means) -> None:
        self.endpoint = endpoint
        self._means = means
        self._wire = Wire(endpoint.place.origin, means.resolver, means.tls)
        self._breaker = Breaker()
        self._concurrency = Concurrency(endpoint.max_concurrency)
        self._is_welcome = not endpoint.is_asked_first
        self._paused_at = -math.inf
        self._is_ending = False
        self._is_all_taken = False
        self._pushing = Tasks()
        self._acks: list[str] = []
        self._is_acking = False
        self._in_flight = 0
        self._ended = asyncio.Event()
        """One more has ended since it was cleared."""

    async def run(self) -> None:
        """Runs until it is cancelled, the server stops, or the subscription is not pushed any more."""
        self._means.breakers.note(self.endpoint.keys, CLOSED)
        is_over = False
        while not is_over:
            with Surviving(logger, "pushing"):
                try:
                    is_over = await self._claim_once()
                except (NotFound, AlreadyExists):
                    return
                continue
            await asyncio.sleep(TROUBLE_PAUSE_SECONDS)

    async def close(self) -> None:
        """Lets those on their way finish, or cuts them when it is cancelled; those come again at once."""
        self._is_ending = True
        try:
            await self._pushing.finish()
        finally:
            self._pushing.cancel()
            await self._pushing.finish()
            self._wire.close()

    async def _claim_once(self) -> bool:
        """Whether there is nothing more to do: the server stops."""
        means, endpoint = self._means, self.endpoint
        room = await self._room()
        if not self._is_welcome and not await self._ask_whether_welcome():
            return False
        limit = min(room, CLAIM_MESSAGES)
        is_all_taken, self._is_all_taken = self._is_all_taken, False  # a claim that fails has heard the signal
        claim = await means.claiming.pull(
            endpoint.subscription_id, limit, means.consumer_id, None, is_push=True, is_all_taken=is_all_taken
        )
        self._is_all_taken = claim.leaves_nothing(limit)
        if claim.keys != endpoint.keys:
            means.claiming.give_back(claim)
            return True
        received = asyncio.get_running_loop().time()
        self._start(claim, received)
        return not claim.positions

    def _start(self, claim: Claim, received: float) -> None:
        """All at once, but those of a key one after the other where order is promised."""
        last: dict[str, asyncio.Task[bool]] = {}
        keys = claim.ordering_keys if self.endpoint.is_ordered else None
        for index in range(len(claim.positions)):
            self._means.gate.active += self._in_flight == 0
            self._in_flight += 1
            key = keys[index] if keys else None
            task = asyncio.create_task(self._push(claim, index, received, last.get(key) if key else None))
            self._pushing.hold(task)
            if key:
                last[key] = task

    async def _room(self) -> int:
        """Waits until something may be pushed, and returns how much."""
        loop = asyncio.get_running_loop()
        while True:
            await self._means.gate.wait(is_suspect=self._breaker.is_suspect)
            if (seconds := self._breaker.seconds(loop.time())) > 0:
                await asyncio.sleep(seconds)
                continue
            limit = 1 if self._breaker.is_half_open else min(self._concurrency.limit, self._means.gate.share)
            if self._in_flight < limit:
                return limit - self._in_flight
            self._ended.clear()
            await self._ended.wait()

    async def _ask_whether_welcome(self) -> bool:
        """The handshake of the HTTP webhooks of CloudEvents; who refuses is asked again, as after a failure."""
        try:
            answer = await self._wire.send(self.endpoint.question(), self.endpoint.timeout_seconds)
        except PushFailed as error:
            reason: str | None = str(error)
        else:
            reason = refusal(answer, ORIGIN)
        self._is_welcome = reason is None
        if reason is not None:
            self._breaker.refused(asyncio.get_running_loop().time())
            self._note_breaker(reason)
        return self._is_welcome

    async def _push(self, claim: Claim, index: int, received: float, before: asyncio.Task[bool] | None) -> bool:
        """Whether the next message of its key may follow; it goes back unseen otherwise, as this does after `before`.

        After a dead letter the subscription says whether the key goes on, so what follows is claimed again.
        Whatever happens, the message is settled, or comes again after its deadline.
        """
        message = self._message(claim, index)
        outcome = Outcome("return", is_well=True)
        try:
            if before is None or await before:
                async with self._means.gate.place(1, is_suspect=self._breaker.is_suspect):
                    if self._has_time(claim, received, is_first=before is None):
                        outcome = Outcome("nack", is_well=True)
                        outcome = await self._outcome(message)
        finally:
            self._in_flight -= 1
            self._means.gate.active -= self._in_flight == 0
            self._ended.set()
            delivery = ack_id(message.id, claim.token)
            if outcome.does == "ack" and not self.endpoint.is_ordered:
                self._ack(delivery)
            else:  # the next one of its key waits for it
                await self._settle([delivery], outcome)
        return outcome.does == "ack"

    def _ack(self, delivery: str) -> None:
        """With all that is acked until the last call has returned."""
        self._acks.append(delivery)
        if not self._is_acking:
            self._is_acking = True
            self._pushing.start(self._ack_all())

    async def _ack_all(self) -> None:
        try:
            while self._acks:
                acks, self._acks = self._acks[:ACKS_AT_ONCE], self._acks[ACKS_AT_ONCE:]
                await self._settle(acks, Outcome("ack", is_well=True))
        finally:
            self._is_acking = False

    def _has_time(self, claim: Claim, received: float, *, is_first: bool) -> bool:
        """Whether the lease is longer than the answer may take; one without room for waiting is tried once."""
        seconds, needed = claim.lease_seconds or 0, self.endpoint.timeout_seconds + LEASE_MARGIN_SECONDS
        left = received + seconds - asyncio.get_running_loop().time()
        return left > needed or (is_first and seconds <= needed + LEASE_MARGIN_SECONDS)

    def _message(self, claim: Claim, index: int) -> PushedMessage:
        created_at, position = claim.created_at[index], claim.positions[index]
        return PushedMessage(
            MessageIds(claim.keys.topic_key, created_at).at(position),
            self.endpoint.subscription_id,
            claim.attempts[index],
            created_at,
            claim.payloads[index],
            claim.attributes[index],
            claim.ordering_keys[index] if claim.ordering_keys else None,
            position,
        )

    async def _outcome(self, message: PushedMessage) -> Outcome:
        loop = asyncio.get_running_loop()
        started = loop.time()
        request = self.endpoint.request(message, int(time.time()), started)
        answer = None
        try:
            answer = await self._wire.send(request, self.endpoint.timeout_seconds)
        except Unreachable as error:
            outcome = Outcome("return", is_well=False, reason=str(error))
        except PushFailed as error:
            outcome = Outcome("nack", is_well=False, is_overloaded=True, reason=str(error))
        else:
            outcome = outcome_of(answer, self.endpoint.reject_on, datetime.now(UTC))
            if answer.status == GONE:
                await self._pause(started)
        self._note(message, outcome, answer, loop.time() - started)
        self._learn(outcome, loop.time())
        return outcome

    async def _pause(self, started: float) -> None:
        """Once for all requests that were on their way by then; one that began later comes after a resume."""
        if started > self._paused_at:
            self._paused_at = math.inf
            await self._means.pause(self.endpoint.subscription_id, "its endpoint answered 410: it is gone")
            self._paused_at = asyncio.get_running_loop().time()

    def _note(self, message: PushedMessage, outcome: Outcome, answer: PushAnswer | None, seconds: float) -> None:
        self._means.counters.pushed(outcome.does, seconds)
        said = outcome.reason or "" if answer is None else answer.text
        self._means.attempts.add(
            Attempt(
                self.endpoint.keys,
                message.position,
                message.created_at,
                asyncio.get_running_loop().time(),
                message.attempt,
                outcome.does,
                None if answer is None else answer.status,
                int(seconds * 1000),
                said,
            )
        )

    def _learn(self, outcome: Outcome, now: float) -> None:
        was_open = self._breaker.is_half_open
        if outcome.is_well:
            self._breaker.succeeded()
            self._concurrency.succeeded()
        else:
            self._breaker.failed(now)
        if outcome.is_overloaded:
            self._concurrency.overloaded(now)
        if outcome.hold_seconds:
            self._breaker.hold(now + outcome.hold_seconds)
        if was_open or self._breaker.is_half_open:
            self._note_breaker(outcome.reason or "")

    def _note_breaker(self, reason: str) -> None:
        """Not of one that ends: its endpoint has changed, or is with another process."""
        breaker = self._breaker
        state = BreakerState(breaker.failures, breaker.closed_until, reason[:MAX_REASON])
        if not self._is_ending:
            self._means.breakers.note(self.endpoint.keys, state if breaker.is_half_open else CLOSED)

    async def _settle(self, deliveries: Sequence[str], outcome: Outcome) -> None:
        """A few times, for an ack that is lost is a message that comes again."""
        kind, said = KINDS[outcome.does], (outcome.reason or "")[:MAX_REASON]
        value = said if kind is REJECT else outcome.hold_seconds
        reason = (said or None) if kind is NACK else None
        for _ in range(SETTLE_ATTEMPTS):
            try:
                await self._means.settling.settle(
                    kind, self.endpoint.subscription_id, deliveries, value, reason, is_push=True
                )
            except Unavailable:
                await asyncio.sleep(SETTLE_PAUSE_SECONDS)
            except FastpubsubError:
                return  # the subscription is gone
            else:
                return
