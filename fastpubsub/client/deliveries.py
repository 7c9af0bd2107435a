"""A message that a consumer holds, and its outcome."""

import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ValidationError

from fastpubsub.client import requests
from fastpubsub.client.requests import Request, Settlement
from fastpubsub.client.transactions import Done, Statement, execute
from fastpubsub.models import MAX_DELAY_SECONDS, Message, Settled

logger = logging.getLogger("fastpubsub.client")


class Retry(Exception):
    """Raise it to get the message again, after the given seconds or after the backoff of the subscription.

    `after` is a number of seconds or a `timedelta`, from 0 to a week; a value outside is taken as the nearest of these,
    and a value that is not a number (NaN, a string) as the backoff.
    """

    after: float | timedelta | None = None

    def __init__(self, reason: object = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Reject(Exception):
    """Raise it when the message will never succeed: it becomes a dead letter at once, with the reason.

    The reason may be anything, such as the exception that was caught: it is written as text, up to 1,024 characters.
    """

    reason: object = "rejected"

    def __init__(self, reason: object = "rejected") -> None:
        super().__init__(reason)
        self.reason = reason


class Outcome(NamedTuple):
    """The outcome of a delivery; equal ones are settled together."""

    kind: Literal["ack", "nack", "reject", "return"]
    delay_seconds: int | None = None
    reason: str = ""

    def request(self, subscription_id: str, ids: list[str]) -> Request[Settled]:
        if self.kind == "ack":
            return requests.ack(subscription_id, ids)
        if self.kind == "nack":
            return requests.nack(subscription_id, ids, delay_seconds=self.delay_seconds, reason=self.reason or None)
        if self.kind == "return":
            return requests.nack(subscription_id, ids, undelivered=True)
        return requests.reject(subscription_id, ids, reason=self.reason)

    def add_to(self, settlement: Settlement, ids: list[str]) -> None:
        if self.kind == "ack":
            settlement.ack(ids)
        elif self.kind == "reject":
            settlement.reject(ids, reason=self.reason)
        else:
            returned = self.kind == "return"
            settlement.nack(ids, delay_seconds=self.delay_seconds, undelivered=returned, reason=self.reason or None)

    def statement(self, subscription_id: str, ack_id: str) -> Statement:
        """For a transaction of the application."""
        values = {"subscription": subscription_id, "ack_ids": [ack_id]}
        given = "cast({subscription} as text), cast({ack_ids} as text[])"
        if self.kind == "ack":
            return Statement(f"select fastpubsub.ack({given})", values)
        if self.kind == "reject":
            return Statement(
                f"select fastpubsub.reject({given}, cast({{reason}} as text))", {**values, "reason": self.reason}
            )
        return Statement(
            f"select fastpubsub.nack({given}, cast({{delay_seconds}} as integer), cast({{reason}} as text))",
            {**values, "delay_seconds": self.delay_seconds, "reason": self.reason or None},
        )


ACK = Outcome("ack")
NACK = Outcome("nack")
MAX_FAULTS = 5
GIVE_BACK = Outcome("nack", 0)
RETURN = Outcome("return")
"""Of what nobody has looked at."""


def retry(after: object, reason: object = None) -> Outcome:
    return Outcome("nack", _seconds(after), requests.as_reason(reason, ""))


def failed(error: BaseException) -> Outcome:
    """With the type and the text of the error, but not with what Pydantic shows of a payload."""
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FAULTS]
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in faults)
        return retry(None, f"{type(error).__name__}: {said}")
    return retry(None, error)


def _seconds(after: Any) -> int | None:
    """Returns the delay, or None, the backoff of the subscription, also for a value that is not a number."""
    if isinstance(after, timedelta):
        after = after.total_seconds()
    try:
        return None if after != after else math.ceil(max(0, min(after, MAX_DELAY_SECONDS)))
    except (TypeError, ValueError, ArithmeticError):
        return None


def reject(reason: object) -> Outcome:
    return Outcome("reject", reason=requests.as_reason(reason))


def outcome_of(error: BaseException | None) -> Outcome:
    if error is None:
        return ACK
    try:
        if isinstance(error, Retry):
            return retry(error.after, error.args[0] if error.args else None)
        if isinstance(error, Reject):
            return reject(error.reason)
    except BaseException:  # noqa: BLE001 - of a subclass of theirs
        return NACK
    return failed(error) if isinstance(error, Exception) else GIVE_BACK


class Holder(NamedTuple):
    """Keeps the lease of a delivery and settles it."""

    hold: Callable[["Delivery"], None]
    drop: Callable[["Delivery"], None]
    settle: Callable[["Delivery", Outcome], Awaitable[None]]
    is_in_memory: bool = False


@dataclass(slots=True)
class Hold:
    """What a consumer knows of a delivery besides the message."""

    lease_ends_at: float
    """By the monotonic clock."""
    renew_at: float = 0.0
    """By the clock of the event loop, as long as it is held."""
    holder: Holder | None = None
    is_lost: bool = False
    is_settled: bool = False
    in_transaction: Outcome | None = None
    """What a transaction of the application makes of it, if that commits."""
    is_validated: bool = False
    """Whether the payload is what the handler takes."""
    exact_payload: dict[str, Any] | None = None
    """With its numbers as they were written, if `payload` has rounded one and they were asked for."""

    @property
    def is_in_memory(self) -> bool:
        return self.holder is not None and self.holder.is_in_memory

    def left(self, outcome: Outcome) -> Outcome | None:
        """What a request has still to make of it: nothing, if a transaction did, and what that did in memory."""
        if self.in_transaction is None or outcome != ACK:
            return outcome
        return self.in_transaction if self.is_in_memory else None


class Delivery(Message):
    """A message whose lease is extended as long as it is being processed.

    `async with delivery:` acks it at the end. `Retry` and `Reject` do what they say and end there; any other exception
    gives the message back for its next attempt, and goes on.
    """

    __slots__ = ("_hold",)  # a private attribute of Pydantic takes four times as long to make as the rest of a message

    @property
    def lease_lost(self) -> bool:
        """Whether another consumer may have the message by now, so that further work on it is done twice."""
        return hold_of(self).is_lost

    @property
    def is_settled(self) -> bool:
        return hold_of(self).is_settled

    async def ack(self) -> None:
        await self._settle(ACK)

    async def nack(self, delay_seconds: float | timedelta | None = None, reason: object = None) -> None:
        await self._settle(retry(delay_seconds, reason))

    async def reject(self, reason: object = "rejected") -> None:
        await self._settle(reject(reason))

    def ack_in(self, session: Any) -> Awaitable[None]:
        """Acks in your own transaction in fastpubsub's database: exactly if it commits, and so exactly once.

        `session` is a session or a connection of SQLAlchemy or psycopg; await it if that is asynchronous. A delivery
        that is no longer held raises here or at the commit, so that your work is rolled back. With the bus in memory
        the message is settled when the handler ends.
        """
        return self._settle_in(session, ACK)

    def nack_in(
        self, session: Any, delay_seconds: float | timedelta | None = None, reason: object = None
    ) -> Awaitable[None]:
        """Gives the message back for another attempt, in your own transaction."""
        return self._settle_in(session, retry(delay_seconds, reason))

    def reject_in(self, session: Any, reason: object = "rejected") -> Awaitable[None]:
        """Makes the message a dead letter, in your own transaction."""
        return self._settle_in(session, reject(reason))

    def _settle_in(self, session: Any, outcome: Outcome) -> Awaitable[None]:
        hold = hold_of(self)
        hold.in_transaction = outcome
        if hold.is_in_memory:
            return Done()
        return execute(session, outcome.statement(self.subscription_id, self.ack_id))

    async def __aenter__(self) -> Self:
        if (holder := hold_of(self).holder) is not None:
            holder.hold(self)
        return self

    async def __aexit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> bool:
        await self._settle(outcome_of(error))
        return isinstance(error, Retry | Reject)

    async def _settle(self, outcome: Outcome) -> None:
        """The first word counts."""
        hold = hold_of(self)
        left = None if hold.is_settled else hold.left(outcome)
        hold.is_settled = True
        if hold.holder is not None:
            hold.holder.drop(self)
            if left is not None:
                await hold.holder.settle(self, left)


class DeliveryList(BaseModel):
    """The answer of a pull, and of one that settled before."""

    data: list[Delivery]
    paused: bool = False
    acks: Settled | None = None
    nacks: Settled | None = None
    rejects: Settled | None = None


def hold_of(delivery: Delivery) -> Hold:
    """For consumers alone."""
    try:
        hold: Hold = _get_hold(delivery)
    except AttributeError:  # nobody has pulled it, or not yet
        hold = Hold(time.monotonic() + delivery.lease_seconds)
        _set_hold(delivery, hold)
    return hold


_get_hold = Delivery._hold.__get__  # type: ignore[attr-defined]  # noqa: SLF001 - where Pydantic does not look
_set_hold = Delivery._hold.__set__  # type: ignore[attr-defined]  # noqa: SLF001


def entrust(deliveries: list[Delivery], holder: Holder) -> None:
    for delivery in deliveries:
        hold_of(delivery).holder = holder


def lease_left(delivery: Delivery) -> float:
    """Seconds left, from the `lease_seconds` of the server, by a monotonic clock."""
    return hold_of(delivery).lease_ends_at - time.monotonic()
