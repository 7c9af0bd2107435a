"""Messages that were published from SQL and do not match the schema of their topic."""

from typing import Any

from pydantic import BaseModel, Field

from fastpubsub.models.fields import UtcTime

REFUSED_ID_PATTERN = r"^refused-[1-9][0-9]{0,17}$"


class RefusedMessage(BaseModel):
    id: str = Field(description="the id of the refused message; it gets the id of a message when it is published")
    topic_id: str
    reason: str = Field(description="where it does not match the schema; shows no value of the payload")
    refused_at: UtcTime = Field(description="when a server found that it does not match")
    payload: dict[str, Any] | None = Field(None, description="needs `messages:read`")
    attributes: dict[str, str] | None = None
    ordering_key: str | None = None
    deliver_at: UtcTime | None = Field(None, description="when it was to come, if it was delayed")
    delayed_id: str | None = Field(None, description="the id that `fastpubsub.publish` answered, if it was delayed")
    ttl_seconds: int | None = Field(None, description="how many seconds after it is published it expires")
    expires_at: UtcTime | None = Field(None, description="when it expires")


class RefusedMessageList(BaseModel):
    data: list[RefusedMessage]
    next_page_token: str | None = Field(None, description="for the next page; left out on the last one")
