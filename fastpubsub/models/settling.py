"""Settling deliveries."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, StrictBool, model_validator

from fastpubsub.models.fields import MAX_DELAY_SECONDS, NOT_BOOL, WholeNumber
from fastpubsub.models.messages import Ids, Message

UNDELIVERED_AND_DELAYED = "undelivered messages are due at once: leave out delay_seconds, or undelivered"

UNDELIVERED_WITH_REASON = "undelivered messages did not fail: leave out reason, or undelivered"


class Settled(BaseModel):
    settled: list[str]
    gone: list[str] = Field(description="without a lease: settled earlier, expired, or never handed out")
    stale: list[str] = Field(description="held by another delivery")


class Reject(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    reason: str = Field("rejected", min_length=1, max_length=1024)


class Extend(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    extend_seconds: Annotated[int, Field(ge=1, le=43200), NOT_BOOL]


NackReason = Annotated[
    str | None, Field(min_length=1, max_length=1024, description="why; shown while the message waits, and when it dies")
]


class Nack(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    delay_seconds: WholeNumber | None = Field(
        None, ge=0, le=MAX_DELAY_SECONDS, description="instead of the backoff of the subscription"
    )
    undelivered: StrictBool = Field(False, description="not looked at: due at once, and uncounted")
    reason: NackReason = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.undelivered and self.delay_seconds is not None:
            raise ValueError(UNDELIVERED_AND_DELAYED)
        if self.undelivered and self.reason is not None:
            raise ValueError(UNDELIVERED_WITH_REASON)
        return self


class Settles(BaseModel):
    """What is settled before the pull. Of ids that come twice the first counts: acks, nacks, rejects, leases."""

    model_config = ConfigDict(extra="forbid")

    acks: Ids = []
    nacks: Annotated[list[Nack], FailFast()] = []
    rejects: Annotated[list[Reject], FailFast()] = []
    leases: Annotated[list[Extend], FailFast()] = []


class SettledAndPulled(BaseModel):
    """With `Prefer: return=representation` also what became of the ids, by member of the request."""

    data: list[Message]
    paused: bool = Field(False, description="true while the subscription is paused; else left out")
    acks: Settled | None = None
    nacks: Settled | None = None
    rejects: Settled | None = None
    leases: Settled | None = None


class Extended(BaseModel):
    ids: list[str] = Field(description="ids of the deliveries that are still held")
