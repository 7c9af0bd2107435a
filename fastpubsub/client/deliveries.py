"""A message in the hands of a consumer, and what becomes of it."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, PrivateAttr

from fastpubsub.client import requests
from fastpubsub.client.requests import Request
from fastpubsub.models import Message, Settled

logger = logging.getLogger("fastpubsub.client")


class Retry(Exception):
    """Raise it to get the message again: after so many seconds, or after the backoff of the subscription."""

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Reject(Exception):
    """Raise it when the message will never succeed: it becomes a dead letter at once, with the reason."""

    def __init__(self, reason: str = "rejected") -> None:
        super().__init__(reason)
        self.reason = reason


class Outcome(NamedTuple):
    """Of a delivery; equal ones travel together."""

    kind: Literal["ack", "nack", "reject"]
    delay_seconds: int | None = None
    reason: str = ""

    def request(self, subscription_id: str, ids: list[str]) -> Request[Settled]:
        if self.kind == "ack":
            return requests.ack(subscription_id, ids)
        if self.kind == "nack":
            return requests.nack(subscription_id, ids, delay_seconds=self.delay_seconds)
        return requests.reject(subscription_id, ids, reason=self.reason)


ACK = Outcome("ack")
NACK = Outcome("nack")
GIVE_BACK = Outcome("nack", 0)
MAX_DELAY_SECONDS = 604800


def retry(after: float | None) -> Outcome:
    return NACK if after is None else Outcome("nack", max(0, min(math.ceil(after), MAX_DELAY_SECONDS)))


def reject(reason: str) -> Outcome:
    return Outcome("reject", reason=reason[: requests.MAX_REASON])


def outcome_of(error: BaseException | None) -> Outcome:
    if error is None:
        return ACK
    if isinstance(error, Retry):
        return retry(error.after)
    if isinstance(error, Reject):
        return reject(error.reason)
    return NACK if isinstance(error, Exception) else GIVE_BACK


class Holder(NamedTuple):
    """Who keeps the lease of a delivery and settles it."""

    hold: Callable[["Delivery"], None]
    drop: Callable[["Delivery"], None]
    settle: Callable[["Delivery", Outcome], Awaitable[None]]


class Delivery(Message):
    """A message whose lease is extended by itself as long as it is worked on.

    `async with delivery:` acks it at the end. `Retry` and `Reject` do what they say and end there; any other exception
    gives the message back for its next attempt, and goes on.
    """

    _lost: bool = PrivateAttr(False)
    _settled: bool = PrivateAttr(False)
    _holder: Holder | None = PrivateAttr(None)

    @property
    def lease_lost(self) -> bool:
        """Somebody else may have the message by now: what is done for it further will be done twice."""
        return self._lost

    @property
    def is_settled(self) -> bool:
        return self._settled

    async def ack(self) -> None:
        await self._settle(ACK)

    async def nack(self, delay_seconds: int | None = None) -> None:
        await self._settle(Outcome("nack", delay_seconds))

    async def reject(self, reason: str = "rejected") -> None:
        await self._settle(reject(reason))

    async def __aenter__(self) -> Self:
        if self._holder is not None:
            self._holder.hold(self)
        return self

    async def __aexit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> bool:
        if not self._settled:
            await self._settle(outcome_of(error))
        return isinstance(error, Retry | Reject)

    async def _settle(self, outcome: Outcome) -> None:
        self._settled = True
        if self._holder is not None:
            self._holder.drop(self)
            await self._holder.settle(self, outcome)


class DeliveryList(BaseModel):
    data: list[Delivery]


def lose(delivery: Delivery) -> None:
    delivery._lost = True  # noqa: SLF001 - for the keeper of leases alone


def entrust(delivery: Delivery, holder: Holder) -> None:
    delivery._holder = holder  # noqa: SLF001 - for who pulled it alone
