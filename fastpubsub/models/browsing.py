"""Looking at messages without taking them."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from fastpubsub.models.explaining import FAILURES, WHY, Failure


class SeenMessage(BaseModel):
    """A message as its topic has it."""

    id: UUID
    position: int = Field(description="1, 2, 3, … in the topic")
    created_at: datetime
    payload: dict[str, Any] | None = Field(None, description="needs the scope `messages:read`")
    attributes: dict[str, str] | None = Field(None, description="needs the scope `messages:read`")
    ordering_key: str | None = Field(None, description="needs the scope `messages:read`")
    expires_at: datetime | None = Field(None, description="when it expires, or has")


class BrowsedTopic(BaseModel):
    data: list[SeenMessage]
    looked_at: int = Field(description="messages that were looked at: with `q`, how far the search came")
    next: int | None = Field(description="the next value for `from`; null at the end")
    previous: int | None = Field(description="the next value for `before`; null at the beginning")


BrowsedState = Literal["ahead", "leased", "waiting", "dead"]


class BrowsedMessage(SeenMessage):
    """A message of a subscription. Members that do not fit the state are left out."""

    state: BrowsedState
    delivery_attempts: int
    due_at: datetime | None = Field(None, description="when a waiting message may be delivered again")
    consumer_id: str | None = Field(None, description="the holder of the lease")
    leased_at: datetime | None = Field(None, description="when the holder got the message")
    lease_expires_at: datetime | None = None
    died_at: datetime | None = None
    reason: str | None = Field(None, description=WHY)
    failures: list[Failure] | None = Field(None, description=FAILURES)


class BrowsedMessages(BaseModel):
    data: list[BrowsedMessage]
    looked_at: int = Field(description="messages that were looked at: with `q`, how far the search came")
    next: int | str | None = Field(description="the next value for `from`; null at the end")
