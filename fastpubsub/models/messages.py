"""Messages as consumers and followers get them."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, FailFast, Field, WithJsonSchema

from fastpubsub.models.fields import MAX_LEASE_SECONDS

ID_PATTERN = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}([.][0-9a-fA-F]{16})?$"
"""A message id or an ack_id."""

Id = Annotated[str, WithJsonSchema({"type": "string", "pattern": ID_PATTERN})]
Ids = Annotated[list[Id], FailFast()]


class Message(BaseModel):
    id: UUID
    subscription_id: str
    payload: dict[str, Any]
    delivery_attempts: int
    created_at: datetime
    ack_id: str = Field(description="id of this delivery; settles nothing once another delivery holds the message")
    lease_expires_at: datetime = Field(description="by the clock of the database")
    lease_seconds: int = Field(ge=0, le=MAX_LEASE_SECONDS, description="seconds from handing out to `lease_expires_at`")
    attributes: dict[str, str] | None = None
    ordering_key: str | None = None


class TopicMessage(BaseModel):
    """A message as followers of a topic get it."""

    id: UUID
    payload: dict[str, Any]
    created_at: datetime
    attributes: dict[str, str] | None = None
    ordering_key: str | None = None
    missed: bool = Field(False, description="messages before this one were deleted before they could be read")


class MessageList(BaseModel):
    data: list[Message]
    paused: bool = Field(False, description="true while the subscription is paused; else left out")
