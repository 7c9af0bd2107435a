"""Dead letters and redrives."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from fastpubsub.models.explaining import FAILURES, Failure
from fastpubsub.models.fields import Time, UtcTime, WholeNumber
from fastpubsub.models.subscriptions import Filter

LONGEST_REASON = 1100
"""That of the last nack, up to 1,024 characters, behind how it died, as `nacked on delivery attempt 5 of 5: `."""


class DeadLetter(BaseModel):
    id: UUID
    subscription_id: str
    payload: dict[str, Any]
    delivery_attempts: int
    created_at: datetime
    reason: str
    died_at: datetime
    attributes: dict[str, str] | None = None
    ordering_key: str | None = None
    failures: list[Failure] | None = Field(None, description=FAILURES)


class DeadLetterList(BaseModel):
    data: list[DeadLetter]
    next_page_token: str | None = Field(None, description="the `page_token` of the next page; left out at the end")


class DeadLetterReason(BaseModel):
    reason: str
    count: int = Field(description="dead letters that have it")
    first_died_at: UtcTime
    last_died_at: UtcTime


class DeadLetterReasonList(BaseModel):
    data: list[DeadLetterReason]


class NewRedrive(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"action": "reprocess", "filter": {"country": ["BR"]}, "per_second": 100}]},
    )

    action: Literal["reprocess", "purge"] = "reprocess"
    reason: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_REASON,
        pattern=r"^[^\x00]*$",
        description="exactly this reason; any by default",
    )
    filter: Filter = Field(None, description="only those that match, as of a subscription; all by default")
    died_after: Time | None = Field(None, description="only those that died at this time or later")
    died_before: Time | None = Field(
        None, description="only those that died earlier; by default, before the redrive began"
    )
    per_second: WholeNumber | None = Field(
        None, ge=1, le=10000, description="messages a second at most; as fast as possible by default"
    )


class Redrive(BaseModel):
    """Dead letters that are reprocessed or purged in the background."""

    id: int
    subscription_id: str
    action: Literal["reprocess", "purge"]
    state: Literal["running", "done", "cancelled"]
    reason: str | None
    died_after: UtcTime | None
    died_before: UtcTime
    per_second: int | None
    matched: int | None = Field(
        description="dead letters that matched when it began; null when a filter had too many to judge"
    )
    done: int = Field(description="dead letters that it has reprocessed or purged")
    created_at: UtcTime
    ended_at: UtcTime | None
    filter: dict[str, Any] | None = None


class RedriveList(BaseModel):
    data: list[Redrive]


class Moved(BaseModel):
    ids: list[str] = Field(description="ids of the dead letters that existed")
