"""Recorded changes."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class RecordedChange(BaseModel):
    at: datetime = Field(description="when it was made")
    client_id: str = Field(description="who made the change; `anonymous` without authentication")
    request_id: str | None = Field(
        description="of the request, as in the log; none of a command on the server's machine"
    )
    action: str = Field(description="the operation, such as `update_subscription`")
    object: Literal["topic", "subscription", "client"] = Field(description="what was changed")
    object_id: str = Field(description="its id")
    details: Any = Field(description="the body of the request, or its size when it has more than 4 KiB")


class ChangeList(BaseModel):
    data: list[RecordedChange]
    next_page_token: str | None = Field(None, description="the `page_token` of the next page, if there is one")
