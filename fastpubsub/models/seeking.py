"""Seeking."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from fastpubsub.models.fields import Time, UtcTime, explained


class Seek(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: Annotated[
        Literal["latest", "earliest"] | Time | UUID,
        explained("give `latest`, `earliest`, a time with its zone such as 2026-01-31T12:00:00Z, or a message id"),
    ] = Field(description="`earliest`, `latest`, a time, or the id of the message that comes next")
    dry_run: StrictBool = Field(False, description="changes nothing, and answers what it would do")


class SeekPreview(BaseModel):
    """What a seek would do."""

    ahead_now: int
    ahead_after: int
    is_estimated: bool = Field(description="whether a filter had more than 10,000 messages to judge")
    ends_leased: int = Field(description="deliveries that would end")
    ends_waiting: int = Field(description="messages that would not wait for a retry any more")
    from_time: UtcTime | None = Field(None, alias="from", description="when the next message was published")
    to_time: UtcTime | None = Field(None, alias="to", description="when the one that would be next was published")

    model_config = ConfigDict(populate_by_name=True)
