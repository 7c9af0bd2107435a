"""Schedules: messages that are published again and again."""

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fastpubsub.models.fields import NOT_BOOL, ObjectId, UtcTime
from fastpubsub.models.publishing import MAX_ORDERING_KEY, check_attributes

MAX_INTERVAL_SECONDS = 31_536_000
"""365 days."""

SCHEDULE_ATTRIBUTES = ("schedule_id", "scheduled_at")
"""What each message of a schedule gets besides its own attributes."""

CatchUp: TypeAlias = Literal["once", "all", "none"]


def _check_own(value: Any) -> Any:
    if isinstance(value, dict) and (taken := [name for name in SCHEDULE_ATTRIBUTES if name in value]):
        raise ValueError(f"the schedule itself sets the attribute `{taken[0]}`; use another name")
    return check_attributes(value)


Attributes = Annotated[
    dict[str, str] | None,
    BeforeValidator(_check_own),
    Field(description="attributes of each message; `schedule_id` and `scheduled_at` are added"),
]
Payload = Annotated[dict[str, Any], Field(description="the payload of each message; `{}` by default")]
OrderingKey = Annotated[str | None, Field(min_length=1, max_length=MAX_ORDERING_KEY)]
Cron = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=256,
        description="minute, hour, day of the month, month and day of the week, such as `0 9 * * MON-FRI`",
    ),
]
TimeZone = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=64,
        description="where the clock of `cron` hangs: a name of the IANA database, such as `Europe/Berlin`; "
        "UTC by default",
    ),
]
Interval = Annotated[
    int | None,
    Field(ge=1, le=MAX_INTERVAL_SECONDS, description="seconds between two times, instead of `cron`"),
    NOT_BOOL,
]
CATCH_UP = (
    "what happens to times that were missed because no server ran: `once` publishes one message for all of them, "
    "`all` one for each, `none` none"
)


class NewSchedule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: ObjectId
    payload: Payload = {}
    attributes: Attributes = None
    ordering_key: OrderingKey = None
    cron: Cron = None
    time_zone: TimeZone = None
    interval_seconds: Interval = None
    catch_up: CatchUp = Field("once", description=CATCH_UP)

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if (self.cron is None) == (self.interval_seconds is None):
            raise ValueError("give `cron` or `interval_seconds`, one of them")
        if self.time_zone is not None and self.cron is None:
            raise ValueError("`time_zone` belongs to `cron`; an interval has none")
        return self


class ChangedSchedule(BaseModel):
    """A missing member keeps its value; `cron` takes the place of `interval_seconds`, and the other way around."""

    model_config = ConfigDict(extra="forbid")

    payload: Payload | None = None
    attributes: Attributes = None
    ordering_key: OrderingKey = None
    cron: Cron = None
    time_zone: TimeZone = None
    interval_seconds: Interval = None
    catch_up: CatchUp | None = Field(None, description=CATCH_UP)

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give what is to change, such as `cron`")
        if "payload" in self.model_fields_set and self.payload is None:
            raise ValueError("`payload` is a JSON object, not null")
        if self.interval_seconds is not None and (self.cron or self.time_zone) is not None:
            raise ValueError("give `cron` with `time_zone`, or `interval_seconds`, one of them")
        return self


class Schedule(BaseModel):
    id: str
    topic_id: str
    payload: dict[str, Any] | None = Field(None, description="the payload of each message; needs `messages:read`")
    attributes: dict[str, str] | None = Field(None, description="attributes of each message; needs `messages:read`")
    ordering_key: str | None = None
    cron: str | None = Field(None, description="the cron expression")
    time_zone: str | None = Field(None, description="the time zone of `cron`")
    interval_seconds: int | None = Field(None, description="seconds between two times, instead of `cron`")
    catch_up: CatchUp = Field(description=CATCH_UP)
    created_at: UtcTime
    is_paused: bool = Field(False, description="whether it is paused, and publishes nothing")
    paused_at: UtcTime | None = None
    next_at: UtcTime | None = Field(None, description="when it publishes next; left out while it is paused")
    upcoming: list[UtcTime] | None = Field(
        None, description="the next five times, `next_at` first; left out of lists, and while it is paused"
    )
    last_fired_at: UtcTime | None = Field(None, description="when it published last")
    last_message_id: str | None = Field(None, description="the id of the message that it published last")
    fired: int = Field(description="how many messages it has published")
    missed: int = Field(description="how many times came without a message; up to 1,000 are counted at once")
    problem: str | None = Field(None, description="why its last time came without a message")


class ScheduleList(BaseModel):
    data: list[Schedule]
    next_page_token: str | None = Field(None, description="for the next page; left out on the last one")
