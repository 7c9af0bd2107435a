"""Topics."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastpubsub.models.fields import NOT_BOOL, MissingTopics, ObjectId, UtcTime, explained

Retention = Annotated[
    int | None,
    Field(
        ge=0,
        le=315360000,
        description="seconds that settled messages are kept for replay; the server's setting by default",
    ),
    NOT_BOOL,
]

JsonSchema = Annotated[
    dict[str, Any] | bool | None,
    explained("give a JSON Schema of draft 2020-12: an object, true or false"),
    Field(alias="schema", description="JSON Schema, draft 2020-12, that every payload must match"),
]


class NewTopic(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: ObjectId
    retention_seconds: Retention = None
    payload_schema: JsonSchema = None


class ChangedTopic(BaseModel):
    """A missing member keeps its value."""

    model_config = ConfigDict(extra="forbid")

    retention_seconds: Retention = None
    payload_schema: JsonSchema = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give `retention_seconds` or `schema`")
        return self


class TopicRates(BaseModel):
    """Messages per second over the last minute."""

    published: float = Field(description="messages that were published")


class TopicFigures(BaseModel):
    published: int = Field(description="messages since the topic was created")
    kept: int = Field(description="messages that the topic still has")
    subscriptions: int = Field(description="how many subscriptions the topic has")
    refused: int | None = Field(
        None, description="messages from SQL that do not match its schema, 1,000 at most; left out for 0"
    )
    rates: TopicRates | None = Field(None, description="messages per second over the last minute")


class Topic(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: str
    created_at: UtcTime
    retention_seconds: int | None = None
    payload_schema: JsonSchema = None
    metrics: TopicFigures | None = Field(None, description="with `include=metrics`")


class TopicList(BaseModel):
    data: list[Topic]
    next_page_token: str | None = Field(None, description="for the next page; left out on the last one")
    missing_topics: MissingTopics = None
