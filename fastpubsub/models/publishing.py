"""Publishing."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from fastpubsub.models.delayed import DelaySeconds
from fastpubsub.models.fields import NOT_BOOL, Time


class PublishedIds(BaseModel):
    ids: list[str] = Field(
        description="ids of the messages, in the order of the request; for a delayed one, `delayed-` and a number"
    )


MAX_ATTRIBUTES = 100
MAX_ORDERING_KEY = 128
MAX_TTL_SECONDS = 31_536_000
"""365 days."""


def check_attributes(value: Any) -> Any:
    """Refused by one error, for there would be one for each that is wrong."""
    if isinstance(value, dict):
        if len(value) > MAX_ATTRIBUTES:
            raise ValueError(f"a message has at most {MAX_ATTRIBUTES} attributes")
        if not all(isinstance(one, str) for one in value.values()):
            raise ValueError("the values of attributes are strings")
    return value


TtlSeconds = Annotated[int, Field(ge=1, le=MAX_TTL_SECONDS), NOT_BOOL]


class PayloadWithAttributes(BaseModel):
    payload: dict[str, Any]
    attributes: dict[str, str] | None = None
    ordering_key: str | None = Field(None, min_length=1, max_length=MAX_ORDERING_KEY)
    deliver_at: Time | None = Field(None, description="when it comes: a time with its zone, up to a year ahead")
    delay_seconds: DelaySeconds | None = Field(None, description="in how many seconds it comes")
    ttl_seconds: TtlSeconds | None = Field(
        None, description="how many seconds after it was published, or after a delay, it is not delivered any more"
    )
    expires_at: Time | None = Field(None, description="from when on it is not delivered any more: a time with its zone")


class Envelope(BaseModel):
    messages: list[PayloadWithAttributes]
