"""Messages that come later."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastpubsub.models.fields import NOT_BOOL, Time, UtcTime

MAX_MESSAGE_DELAY_SECONDS = 31_536_000
"""365 days."""

DELAYED_ID_PATTERN = r"^delayed-[1-9][0-9]{0,17}$"

DelaySeconds = Annotated[int, Field(ge=1, le=MAX_MESSAGE_DELAY_SECONDS), NOT_BOOL]


class DelayedTime(BaseModel):
    """A new time of a delayed message: one of the two."""

    model_config = ConfigDict(extra="forbid")

    deliver_at: Time | None = Field(None, description="when it arrives: a time with its zone, up to a year ahead")
    delay_seconds: DelaySeconds | None = Field(None, description="after how many seconds it arrives")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.deliver_at is None) == (self.delay_seconds is None):
            raise ValueError("give `deliver_at` or `delay_seconds`, one of them")
        return self


class DelayedMessage(BaseModel):
    id: str = Field(description="the id of the delayed message; the message gets its own when it is published")
    topic_id: str
    state: Literal["waiting", "held", "published"] = Field(
        description="`held`: it was overdue when a server came back, and waits until it is released"
    )
    deliver_at: UtcTime = Field(description="when it comes")
    created_at: UtcTime
    message_id: str | None = Field(None, description="the id of the message, once it is published")
    payload: dict[str, Any] | None = Field(None, description="needs `messages:read`")
    attributes: dict[str, str] | None = None
    ordering_key: str | None = None
    ttl_seconds: int | None = Field(None, description="how many seconds after it has come it expires")
    expires_at: UtcTime | None = Field(None, description="when it expires")


class DelayedMessageList(BaseModel):
    data: list[DelayedMessage]
    next_page_token: str | None = Field(None, description="for the next page; left out on the last one")


class Released(BaseModel):
    released: int = Field(description="how many messages come now")
