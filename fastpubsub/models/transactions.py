"""Settling and publishing together."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, Field

from fastpubsub.models.fields import MAX_DELAY_SECONDS, ObjectId, WholeNumber
from fastpubsub.models.messages import Ids
from fastpubsub.models.publishing import PayloadWithAttributes
from fastpubsub.models.settling import NackReason, Reject


class DelayedNack(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    delay_seconds: WholeNumber | None = Field(
        None, ge=0, le=MAX_DELAY_SECONDS, description="instead of the backoff of the subscription"
    )
    reason: NackReason = None


class TransactionSettles(BaseModel):
    """What is settled of a subscription, by ack ids alone."""

    model_config = ConfigDict(extra="forbid")

    subscription_id: ObjectId
    acks: Ids = []
    nacks: Annotated[list[DelayedNack], FailFast()] = []
    rejects: Annotated[list[Reject], FailFast()] = []


class TransactionMessages(BaseModel):
    """What is published to a topic."""

    topic_id: ObjectId
    messages: list[PayloadWithAttributes]


class Transaction(BaseModel):
    """All of it happens, or nothing."""

    settles: list[TransactionSettles]
    publishes: list[TransactionMessages] = []
