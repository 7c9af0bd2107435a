"""Publishing."""

from typing import Any

from pydantic import BaseModel, Field

from fastpubsub.models.delayed import DelaySeconds
from fastpubsub.models.fields import Time


class PublishedIds(BaseModel):
    ids: list[str] = Field(
        description="ids of the messages, in the order of the request; for a delayed one, `delayed-` and a number"
    )


MAX_ATTRIBUTES = 100
MAX_ORDERING_KEY = 128


def check_attributes(value: Any) -> Any:
    """Refused by one error, for there would be one for each that is wrong."""
    if isinstance(value, dict):
        if len(value) > MAX_ATTRIBUTES:
            raise ValueError(f"a message has at most {MAX_ATTRIBUTES} attributes")
        if not all(isinstance(one, str) for one in value.values()):
            raise ValueError("the values of attributes are strings")
    return value


class PayloadWithAttributes(BaseModel):
    payload: dict[str, Any]
    attributes: dict[str, str] | None = None
    ordering_key: str | None = Field(None, min_length=1, max_length=MAX_ORDERING_KEY)
    deliver_at: Time | None = Field(None, description="when it comes: a time with its zone, up to a year ahead")
    delay_seconds: DelaySeconds | None = Field(None, description="in how many seconds it comes")


class Envelope(BaseModel):
    messages: list[PayloadWithAttributes]
