"""What requests and answers look like."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)


def _explained(sentence: str) -> WrapValidator:
    """One sentence in place of an error for every alternative."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(sentence) from None

    return WrapValidator(validate)


def _written_out(value: Any) -> Any:
    """A number, or a string of one, would be taken for seconds since 1970: `2020` is not the year."""
    if not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]", str(value)):
        raise ValueError("a time is written as 2026-01-31T12:00:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_written_out)]
UtcTime = Annotated[datetime, AfterValidator(lambda time: time.astimezone(UTC))]


def _not_bool(value: Any) -> Any:
    """Pydantic reads `false` as 0, which for a retention is the opposite of what somebody meant."""
    if isinstance(value, bool):
        raise ValueError("a whole number, not true or false")  # noqa: TRY004 - which pydantic does not catch
    return value


NOT_BOOL = BeforeValidator(_not_bool)
"""Comes after the bounds, or the OpenAPI document does not have them."""

WholeNumber = Annotated[int, NOT_BOOL]

# clients

ClientName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Scopes = Annotated[str, Field(description="separated by spaces", examples=["topics:create topics:publish:my-topic"])]


class NewClient(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ClientName
    scopes: Scopes
    is_active: StrictBool = True


class ChangedClient(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ClientName
    scopes: Scopes
    is_active: StrictBool | None = Field(None, description="as it is, unless given")


class ClientCredentials(BaseModel):
    id: UUID
    secret: str = Field(description="shown only here")


class NewSecret(BaseModel):
    model_config = ConfigDict(extra="forbid")

    old_secret_seconds: WholeNumber = Field(
        86400,
        ge=0,
        le=2592000,
        description="how long the secret before stays good; 0 ends all before, and all tokens, now",
    )


class RotatedSecret(ClientCredentials):
    old_secret_expires_at: UtcTime | None


class Client(BaseModel):
    id: UUID
    name: str
    scopes: str
    is_active: bool
    token_version: int
    created_at: UtcTime
    updated_at: UtcTime


class ClientList(BaseModel):
    data: list[Client]


class TokenRequest(BaseModel):
    client_id: str
    client_secret: str
    scope: str | None = Field(None, description="fewer scopes than the client has, separated by spaces")


class Token(BaseModel):
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int = Field(description="seconds")
    scope: str


class Introspection(BaseModel):
    """RFC 7662, section 2.2; of a token that is not good, nothing but that."""

    active: bool
    client_id: str | None = None
    sub: str | None = None
    scope: str | None = None
    token_type: Literal["Bearer"] | None = None
    exp: int | None = Field(None, description="Unix time")


class AuthorizationServer(BaseModel):
    """RFC 8414, section 2."""

    issuer: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic", "client_secret_post"]
    introspection_endpoint: str
    introspection_endpoint_auth_methods_supported: list[str] = ["client_secret_basic", "client_secret_post"]
    jwks_uri: str
    grant_types_supported: list[str] = ["client_credentials"]
    response_types_supported: list[str] = Field(
        ["none"], description="there has to be one; there is no authorization endpoint"
    )
    scopes_supported: list[str]


class PublicKeys(BaseModel):
    """A JSON Web Key Set, RFC 7517."""

    keys: list[dict[str, str]]


# topics


def _not_dots(value: str) -> str:
    if value in (".", ".."):
        raise ValueError("an id cannot be `.` or `..`")
    return value


ObjectId = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z0-9._-]{1,128}$", description="letters, digits, `.`, `_` and `-`; not `.` or `..`"),
    AfterValidator(_not_dots),
]
Retention = Annotated[
    int | None,
    Field(
        ge=0,
        le=315360000,
        description="seconds that settled messages stay for replay; the server's setting unless given",
    ),
    NOT_BOOL,
]


JsonSchema = Annotated[
    dict[str, Any] | bool | None,
    _explained("give an object (or true or false), a JSON Schema of draft 2020-12"),
    Field(alias="schema", description="JSON Schema, draft 2020-12, that every payload must match"),
]


class NewTopic(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"id": "user-events"}]})

    id: ObjectId
    retention_seconds: Retention = None
    payload_schema: JsonSchema = None


class ChangedTopic(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"retention_seconds": 86400}]})

    retention_seconds: Retention = None
    payload_schema: JsonSchema = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give `retention_seconds` or `schema`")
        return self


class Topic(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: str
    created_at: UtcTime
    retention_seconds: int | None = None
    payload_schema: JsonSchema = None


class TopicList(BaseModel):
    data: list[Topic]


class PublishedIds(BaseModel):
    ids: list[str] = Field(description="of the messages, in the order of the request")


# subscriptions

Filter = Annotated[
    dict[str, list[str | bool | int | float]] | None,
    Field(
        description="every field must be there and equal one of its values, by JSON type and value",
        examples=[{"country": ["BR", "US"]}],
    ),
]
AckDeadline = Annotated[
    int, Field(ge=1, le=43200, description="seconds that a consumer has to settle a message"), NOT_BOOL
]
Attempts = Annotated[int, Field(ge=1, le=1000, description="deliveries before a message is a dead letter"), NOT_BOOL]
Backoff = Annotated[int, Field(ge=0, le=604800, description="seconds"), NOT_BOOL]


class NewSubscription(BaseModel):
    """Settings left out take the server's defaults."""

    model_config = ConfigDict(extra="forbid")

    id: ObjectId
    topic_id: ObjectId
    filter: Filter = None
    max_delivery_attempts: Attempts | None = None
    backoff_min_seconds: Backoff | None = None
    backoff_max_seconds: Backoff | None = None
    ack_deadline_seconds: AckDeadline | None = None
    start_from: Annotated[
        Literal["latest", "earliest"] | Time,
        _explained("give `latest`, `earliest`, or a time with its zone such as 2026-01-31T12:00:00Z"),
    ] = "latest"


class ChangedSubscription(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid")

    filter: Filter = None
    max_delivery_attempts: Attempts | None = None
    backoff_min_seconds: Backoff | None = None
    backoff_max_seconds: Backoff | None = None
    ack_deadline_seconds: AckDeadline | None = None


class Subscription(BaseModel):
    id: str
    topic_id: str
    filter: dict[str, Any] | None
    max_delivery_attempts: int
    backoff_min_seconds: int
    backoff_max_seconds: int
    ack_deadline_seconds: int
    created_at: UtcTime


class SubscriptionList(BaseModel):
    data: list[Subscription]


class Seek(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"to": "earliest"}]})

    to: Annotated[
        Literal["latest", "earliest"] | Time | UUID,
        _explained("give `latest`, `earliest`, a time with its zone such as 2026-01-31T12:00:00Z, or a message id"),
    ] = Field(description="`earliest`, `latest`, a time, or the id of the message that comes next")


class SubscriptionMetrics(BaseModel):
    subscription_id: str
    available: int = Field(description="messages ready to be consumed, or waiting for a retry")
    delivered: int = Field(description="messages leased to consumers")
    acked: int = Field(description="messages acknowledged since the subscription exists")
    dlq: int = Field(description="messages in the dead letter queue")
    estimated: bool = Field(description="whether `available` is an estimate, as it is for a filter over many messages")


# messages

ID_PATTERN = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}([.][0-9a-fA-F]{16})?$"
"""A message id or an ack_id."""

Id = Annotated[str, WithJsonSchema({"type": "string", "pattern": ID_PATTERN})]
Ids = Annotated[list[Id], Field(examples=[["550e8400-e29b-41d4-a716-446655440000"]])]


class Message(BaseModel):
    id: UUID
    subscription_id: str
    payload: dict[str, Any]
    delivery_attempts: int
    created_at: datetime
    ack_id: str = Field(description="this delivery: settles nothing when another delivery holds the message by then")
    lease_expires_at: datetime
    attributes: dict[str, str] | None = None


class TopicMessage(BaseModel):
    """As those get it who follow a topic."""

    id: UUID
    payload: dict[str, Any]
    created_at: datetime
    attributes: dict[str, str] | None = None
    missed: bool = Field(False, description="messages before this one were deleted before they could be read")


class MessageList(BaseModel):
    data: list[Message]


class DeadLetter(BaseModel):
    id: UUID
    subscription_id: str
    payload: dict[str, Any]
    delivery_attempts: int
    created_at: datetime
    reason: str
    died_at: datetime
    attributes: dict[str, str] | None = None


class DeadLetterList(BaseModel):
    data: list[DeadLetter]


class PayloadWithAttributes(BaseModel):
    payload: dict[str, Any]
    attributes: dict[str, str] | None = None


class Envelope(BaseModel):
    messages: list[PayloadWithAttributes]


class Moved(BaseModel):
    ids: list[str] = Field(description="of the dead letters that were there")


class Settled(BaseModel):
    settled: list[str]
    gone: list[str] = Field(description="no lease any more: settled earlier, expired, or never handed out")
    stale: list[str] = Field(description="held by another delivery")


class Reject(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    reason: str = Field("rejected", min_length=1, max_length=1024)


class Extend(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    extend_seconds: Annotated[int, Field(ge=1, le=43200), NOT_BOOL]


class SettleFrame(BaseModel):
    """Of a WebSocket."""

    model_config = ConfigDict(extra="forbid")

    ids: Ids
    ref: str | None = Field(None, max_length=128, description="wants an answer, which repeats it")


class AckFrame(SettleFrame):
    type: Literal["ack"]


class NackFrame(SettleFrame):
    type: Literal["nack"]
    delay_seconds: WholeNumber | None = Field(None, ge=0, le=604800)


class RejectFrame(SettleFrame):
    type: Literal["reject"]
    reason: str = Field("rejected", min_length=1, max_length=1024)


class ExtendFrame(SettleFrame):
    type: Literal["extend"]
    extend_seconds: WholeNumber = Field(ge=1, le=43200)


class Extended(BaseModel):
    ids: list[str] = Field(description="those still held")
