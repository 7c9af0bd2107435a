"""What became of a message."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

State = Literal[
    "ahead",
    "leased",
    "waiting",
    "dead",
    "settled",
    "filtered",
    "skipped",
    "purged",
    "before_subscription",
    "trimmed",
    "unknown",
]

WHY = (
    "why the message is a dead letter, or why it waits: `nacked` (and the reason of the nack), `lease expired`, "
    "`returned` (given back undelivered), `reprocessed` (it was a dead letter) or `expired`"
)


FAILURES = "the deliveries that failed, the oldest first, up to the last 20; left out when there are none"


class Failure(BaseModel):
    """A delivery of a message that failed."""

    failed_at: datetime = Field(description="when the consumer gave it up, or its deadline was found to be over")
    delivery_attempt: int = Field(description="1 for the first delivery")
    cause: Literal["nacked", "rejected", "lease expired"] = Field(description="how it ended")
    reason: str | None = Field(None, description="what the consumer gave as the reason")
    consumer_id: str = Field(description="the consumer that had it")


class Explanation(BaseModel):
    """What became of a message in a subscription. Members that do not fit the state are left out."""

    message_id: UUID
    subscription_id: str
    state: State
    detail: str = Field(description="why, as a sentence for people")
    before: int | None = Field(None, description="messages that come first; of a message that is ahead")
    before_is_estimated: bool | None = None
    delivery_attempts: int | None = None
    consumer_id: str | None = Field(None, description="the holder of the lease")
    leased_at: datetime | None = Field(None, description="when the holder got the message")
    lease_expires_at: datetime | None = None
    due_at: datetime | None = Field(None, description="when a waiting message may be delivered again")
    died_at: datetime | None = None
    reason: str | None = Field(None, description=WHY)
    filter: dict[str, Any] | None = Field(None, description="the filter that judged the message")
    field: str | None = Field(None, description="the first field of the filter that keeps the message out")
    expected: Any = Field(None, description="what the filter takes there")
    actual: Any = Field(None, description="the value of the message there; needs the scope `messages:read`")
    similar_field: str | None = Field(None, description="a field of the message whose name differs only in case")
    sought_at: datetime | None = Field(
        None, description="when a seek or a purge passed the message or ended its deliveries"
    )
    paused_at: datetime | None = Field(
        None, description="since when the subscription hands out nothing, if it is paused"
    )
    at_limit: int | None = Field(None, description="`max_in_flight`, if consumers hold as many messages")
    at_rate_limit: float | None = Field(
        None, description="`rate_limit`, if consumers get messages as fast as it lets them"
    )
    failures: list[Failure] | None = Field(None, description=FAILURES)
    expired_at: datetime | None = Field(None, description="when the message expired, unless a consumer holds it")
    held_by: UUID | None = Field(
        None, description="the dead letter that holds the ordering key of the message; it may be itself"
    )


class ExplainedMessage(BaseModel):
    """A message of a topic, with its payload where the caller may see it, in each of the subscriptions."""

    id: UUID
    topic_id: str
    created_at: datetime
    payload: dict[str, Any] | None = Field(None, description="needs the scope `messages:read`")
    attributes: dict[str, str] | None = None
    ordering_key: str | None = None
    expires_at: datetime | None = Field(None, description="when it expires, or has")
    subscriptions: list[Explanation]
