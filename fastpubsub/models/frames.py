"""Frames of a WebSocket."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from fastpubsub.models.fields import MAX_DELAY_SECONDS, WholeNumber
from fastpubsub.models.messages import Ids
from fastpubsub.models.settling import NackReason


class SettleFrame(BaseModel):
    """A frame of a WebSocket."""

    model_config = ConfigDict(extra="forbid")

    ids: Ids
    ref: str | None = Field(None, max_length=128, description="asks for an answer, which repeats it")


class AckFrame(SettleFrame):
    type: Literal["ack"]


class NackFrame(SettleFrame):
    type: Literal["nack"]
    delay_seconds: WholeNumber | None = Field(None, ge=0, le=MAX_DELAY_SECONDS)
    undelivered: StrictBool = Field(False, description="not seen by the consumer: due at once, and uncounted")
    reason: NackReason = None


class RejectFrame(SettleFrame):
    type: Literal["reject"]
    reason: str = Field("rejected", min_length=1, max_length=1024)


class ExtendFrame(SettleFrame):
    type: Literal["extend"]
    extend_seconds: WholeNumber = Field(ge=1, le=43200)
