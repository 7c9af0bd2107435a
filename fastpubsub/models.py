"""The models of requests and answers."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StrictBool,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from fastpubsub import filters


def _explained(sentence: str) -> WrapValidator:
    """Gives one sentence instead of an error for every alternative."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(sentence) from None

    return WrapValidator(validate)


def _written_out(value: Any) -> Any:
    """A number, or a string of one, would be taken for seconds since 1970: `2020` is not the year."""
    if not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]", str(value)):
        raise ValueError("write a time as 2026-01-31T12:00:00Z")
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
    is_active: StrictBool | None = Field(None, description="unchanged by default")


class ClientCredentials(BaseModel):
    id: UUID
    secret: str = Field(description="shown only in this answer")


class NewSecret(BaseModel):
    model_config = ConfigDict(extra="forbid")

    old_secret_seconds: WholeNumber = Field(
        86400,
        ge=0,
        le=2592000,
        description="how long the previous secret stays good; 0 ends all earlier secrets, and all tokens, now",
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
        ["none"], description="required by RFC 8414; there is no authorization endpoint"
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
        description="seconds that settled messages are kept for replay; the server's setting by default",
    ),
    NOT_BOOL,
]


JsonSchema = Annotated[
    dict[str, Any] | bool | None,
    _explained("give a JSON Schema of draft 2020-12: an object, true or false"),
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


class PublishedIds(BaseModel):
    ids: list[str] = Field(description="ids of the messages, in the order of the request")


# subscriptions

Filter = Annotated[
    dict[str, Any] | None,
    Field(
        description="every field must have one of its values, by JSON type and value, or do what an operator says",
        examples=[{"country": ["BR", "US"]}, {"total": [{"numeric": [">=", 100]}]}],
    ),
    BeforeValidator(filters.check),
]
MAX_LEASE_SECONDS = 43_200
"""Twelve hours."""

AckDeadline = Annotated[
    int, Field(ge=1, le=MAX_LEASE_SECONDS, description="seconds that a consumer has to settle a message"), NOT_BOOL
]
Attempts = Annotated[
    int, Field(ge=1, le=1000, description="deliveries until a message becomes a dead letter"), NOT_BOOL
]
MAX_DELAY_SECONDS = 604_800
"""A week: of a delay, and of a backoff."""

Backoff = Annotated[int, Field(ge=0, le=MAX_DELAY_SECONDS), NOT_BOOL]


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
    """A missing member keeps its value."""

    model_config = ConfigDict(extra="forbid")

    filter: Filter = None
    max_delivery_attempts: Attempts | None = None
    backoff_min_seconds: Backoff | None = None
    backoff_max_seconds: Backoff | None = None
    ack_deadline_seconds: AckDeadline | None = None


class SubscriptionMetrics(BaseModel):
    subscription_id: str
    available: int = Field(description="messages ready to be consumed, or waiting for a retry")
    delivered: int = Field(description="messages leased to consumers")
    acked: int = Field(description="messages acknowledged since the subscription was created")
    dlq: int = Field(description="dead letters")
    estimated: bool = Field(description="whether `available` is an estimate, as it is for a filter over many messages")
    filtered: int = Field(0, description="messages that the filter kept out since the subscription was created")
    paused: bool | None = Field(None, description="true while the subscription is paused; else left out")


class SubscriptionRates(BaseModel):
    """Messages per second over the last minute."""

    delivered: float = Field(description="messages that were handed to consumers")
    acked: float = Field(description="messages that were acknowledged")
    nacked: float = Field(description="messages that consumers gave back")
    rejected: float = Field(description="messages that consumers made dead letters at once")
    expired: float = Field(description="leases that expired")
    dead_lettered: float = Field(description="messages that became dead letters")
    filtered: float = Field(description="messages that the filter kept out")


class SubscriptionFigures(SubscriptionMetrics):
    ahead: int = Field(description="messages that wait for their first delivery")
    waiting: int = Field(description="messages that wait for a retry")
    ahead_is_estimated: bool = Field(description="whether a filter has still to judge messages that are ahead")
    oldest_ahead_seconds: float | None = Field(
        description="age of the oldest message that waits for its first delivery"
    )
    oldest_leased_seconds: float | None = Field(description="age of the oldest message that a consumer holds")
    oldest_waiting_seconds: float | None = Field(description="age of the oldest message that waits for a retry")
    rates: SubscriptionRates | None = Field(None, description="messages per second over the last minute")


class Subscription(BaseModel):
    id: str
    topic_id: str
    filter: dict[str, Any] | None
    max_delivery_attempts: int
    backoff_min_seconds: int
    backoff_max_seconds: int
    ack_deadline_seconds: int
    created_at: UtcTime
    is_paused: bool = Field(False, description="whether nothing is handed out; left out when it is not paused")
    paused_at: UtcTime | None = None
    metrics: SubscriptionFigures | None = Field(None, description="with `include=metrics`")


class PurgedSubscription(BaseModel):
    purged: int = Field(description="messages that were ahead, leased or waiting")
    is_estimated: bool = Field(description="whether a filter had more than 10,000 messages to judge")


class SubscriptionList(BaseModel):
    data: list[Subscription]
    next_page_token: str | None = Field(None, description="for the next page; left out on the last one")


class Seek(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: Annotated[
        Literal["latest", "earliest"] | Time | UUID,
        _explained("give `latest`, `earliest`, a time with its zone such as 2026-01-31T12:00:00Z, or a message id"),
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


MAX_ATTRIBUTES = 100


def _texts(value: Any) -> Any:
    """Refused by one error, for there would be one for each that is wrong."""
    if isinstance(value, dict):
        if len(value) > MAX_ATTRIBUTES:
            raise ValueError(f"a message has at most {MAX_ATTRIBUTES} attributes")
        if not all(isinstance(one, str) for one in value.values()):
            raise ValueError("the values of attributes are strings")
    return value


class FilterTest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"filter": {"country": ["BR"]}}]})

    filter: Filter
    payload: dict[str, Any] | None = Field(None, description="the payload to judge, instead of the last messages")
    attributes: Annotated[dict[str, str] | None, BeforeValidator(_texts)] = Field(
        None, description="the attributes that are judged with the payload"
    )
    last: WholeNumber | None = Field(None, ge=1, le=1000, description="messages to judge, default 100")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.payload is not None and self.last is not None:
            raise ValueError("give `payload` or `last`, not both")
        if self.payload is None and self.attributes is not None:
            raise ValueError("give `attributes` only with a `payload`")
        return self


class FilteredExample(BaseModel):
    id: UUID
    payload: dict[str, Any] | None = Field(None, description="needs the scope `messages:read`")
    field: str | None = None
    expected: Any = None
    actual: Any = None
    similar_field: str | None = None
    detail: str | None = None


class FilterTested(BaseModel):
    """Of a payload `passes`, and why it does not; of the last messages the counts, and examples of both kinds."""

    passes: bool | None = None
    field: str | None = None
    expected: Any = None
    actual: Any = None
    similar_field: str | None = None
    detail: str | None = None
    looked_at: int | None = None
    passed: int | None = None
    passing: list[FilteredExample] | None = None
    filtered: list[FilteredExample] | None = None
    ahead_now: int | None = None
    ahead_after: int | None = None
    is_estimated: bool | None = None


# messages

UNDELIVERED_AND_DELAYED = "undelivered messages are due at once: leave out delay_seconds, or undelivered"

ID_PATTERN = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}([.][0-9a-fA-F]{16})?$"
"""A message id or an ack_id."""

Id = Annotated[str, WithJsonSchema({"type": "string", "pattern": ID_PATTERN})]
Ids = Annotated[list[Id], FailFast()]


class Message(BaseModel):
    id: UUID
    subscription_id: str
    payload: dict[str, Any]
    delivery_attempts: int
    created_at: datetime
    ack_id: str = Field(description="id of this delivery; settles nothing once another delivery holds the message")
    lease_expires_at: datetime = Field(description="by the clock of the database")
    lease_seconds: int = Field(ge=0, le=MAX_LEASE_SECONDS, description="seconds from handing out to `lease_expires_at`")
    attributes: dict[str, str] | None = None


class TopicMessage(BaseModel):
    """A message as followers of a topic get it."""

    id: UUID
    payload: dict[str, Any]
    created_at: datetime
    attributes: dict[str, str] | None = None
    missed: bool = Field(False, description="messages before this one were deleted before they could be read")


class MessageList(BaseModel):
    data: list[Message]
    paused: bool = Field(False, description="true while the subscription is paused; else left out")


State = Literal[
    "ahead",
    "leased",
    "waiting",
    "dead",
    "settled",
    "filtered",
    "skipped",
    "purged",
    "before_subscription",
    "trimmed",
    "unknown",
]


WHY = (
    "why the message is a dead letter, or why it waits: `nacked`, `lease expired`, `returned` (given back undelivered) "
    "or `reprocessed` (it was a dead letter)"
)


class Explanation(BaseModel):
    """What became of a message in a subscription. Members that do not fit the state are left out."""

    message_id: UUID
    subscription_id: str
    state: State
    detail: str = Field(description="why, as a sentence for people")
    before: int | None = Field(None, description="messages that come first; of a message that is ahead")
    before_is_estimated: bool | None = None
    delivery_attempts: int | None = None
    consumer_id: str | None = Field(None, description="the holder of the lease")
    leased_at: datetime | None = Field(None, description="when the holder got the message")
    lease_expires_at: datetime | None = None
    due_at: datetime | None = Field(None, description="when a waiting message may be delivered again")
    died_at: datetime | None = None
    reason: str | None = Field(None, description=WHY)
    filter: dict[str, Any] | None = Field(None, description="the filter that judged the message")
    field: str | None = Field(None, description="the first field of the filter that keeps the message out")
    expected: Any = Field(None, description="what the filter takes there")
    actual: Any = Field(None, description="the value of the message there; needs the scope `messages:read`")
    similar_field: str | None = Field(None, description="a field of the message whose name differs only in case")
    sought_at: datetime | None = Field(
        None, description="when a seek or a purge passed the message or ended its deliveries"
    )
    paused_at: datetime | None = Field(
        None, description="since when the subscription hands out nothing, if it is paused"
    )


class ExplainedMessage(BaseModel):
    """A message of a topic, with its payload where the caller may see it, in each of the subscriptions."""

    id: UUID
    topic_id: str
    created_at: datetime
    payload: dict[str, Any] | None = Field(None, description="needs the scope `messages:read`")
    attributes: dict[str, str] | None = None
    subscriptions: list[Explanation]


class SeenMessage(BaseModel):
    """A message as its topic has it."""

    id: UUID
    position: int = Field(description="1, 2, 3, … in the topic")
    created_at: datetime
    payload: dict[str, Any] | None = Field(None, description="needs the scope `messages:read`")
    attributes: dict[str, str] | None = Field(None, description="needs the scope `messages:read`")


class BrowsedTopic(BaseModel):
    data: list[SeenMessage]
    looked_at: int = Field(description="messages that were looked at: with `q`, how far the search came")
    next: int | None = Field(description="the next value for `from`; null at the end")
    previous: int | None = Field(description="the next value for `before`; null at the beginning")


BrowsedState = Literal["ahead", "leased", "waiting", "dead"]


class BrowsedMessage(SeenMessage):
    """A message of a subscription. Members that do not fit the state are left out."""

    state: BrowsedState
    delivery_attempts: int
    due_at: datetime | None = Field(None, description="when a waiting message may be delivered again")
    consumer_id: str | None = Field(None, description="the holder of the lease")
    leased_at: datetime | None = Field(None, description="when the holder got the message")
    lease_expires_at: datetime | None = None
    died_at: datetime | None = None
    reason: str | None = Field(None, description=WHY)


class BrowsedMessages(BaseModel):
    data: list[BrowsedMessage]
    looked_at: int = Field(description="messages that were looked at: with `q`, how far the search came")
    next: int | str | None = Field(description="the next value for `from`; null at the end")


class Consumer(BaseModel):
    """Who holds messages of a subscription or waits for some, at any of the servers."""

    consumer_id: str = Field(description="the name that it gave")
    leased: int = Field(description="messages that it holds")
    oldest_leased_at: UtcTime | None = Field(description="when it got the one that it has held for the longest time")
    pulls: int = Field(description="pulls that wait")
    streams: int = Field(description="open streams")
    waits_since: UtcTime | None = Field(description="when the oldest of its waiting pulls and streams began")
    seen_at: UtcTime = Field(
        description="when it got the newest message that it holds, or was last seen to wait or to have a stream"
    )


class ConsumerList(BaseModel):
    data: list[Consumer]
    next_page_token: str | None = Field(None, description="the `page_token` of the next page; left out at the end")


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
        json_schema_extra={"examples": [{"action": "reprocess", "reason": "unknown country", "per_second": 100}]},
    )

    action: Literal["reprocess", "purge"] = "reprocess"
    reason: str | None = Field(
        None, min_length=1, max_length=1024, pattern=r"^[^\x00]*$", description="exactly this reason; any by default"
    )
    died_after: Time | None = Field(None, description="only what died then or later")
    died_before: Time | None = Field(None, description="only what died earlier; by default when the redrive began")
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
    matched: int = Field(description="dead letters that matched when it began")
    done: int = Field(description="dead letters that it has reprocessed or purged")
    created_at: UtcTime
    ended_at: UtcTime | None


class RedriveList(BaseModel):
    data: list[Redrive]


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


class PayloadWithAttributes(BaseModel):
    payload: dict[str, Any]
    attributes: dict[str, str] | None = None


class Envelope(BaseModel):
    messages: list[PayloadWithAttributes]


class Moved(BaseModel):
    ids: list[str] = Field(description="ids of the dead letters that existed")


class Settled(BaseModel):
    settled: list[str]
    gone: list[str] = Field(description="without a lease: settled earlier, expired, or never handed out")
    stale: list[str] = Field(description="held by another delivery")


class Reject(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    reason: str = Field("rejected", min_length=1, max_length=1024)


class Extend(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    extend_seconds: Annotated[int, Field(ge=1, le=43200), NOT_BOOL]


class Nack(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Ids
    delay_seconds: WholeNumber | None = Field(
        None, ge=0, le=MAX_DELAY_SECONDS, description="instead of the backoff of the subscription"
    )
    undelivered: StrictBool = Field(False, description="not looked at: due at once, and uncounted")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.undelivered and self.delay_seconds is not None:
            raise ValueError(UNDELIVERED_AND_DELAYED)
        return self


class Settles(BaseModel):
    """What is settled before the pull. Of ids that come twice the first counts: acks, nacks, rejects, leases."""

    model_config = ConfigDict(extra="forbid")

    acks: Ids = []
    nacks: Annotated[list[Nack], FailFast()] = []
    rejects: Annotated[list[Reject], FailFast()] = []
    leases: Annotated[list[Extend], FailFast()] = []


class SettledAndPulled(BaseModel):
    """With `Prefer: return=representation` also what became of the ids, by member of the request."""

    data: list[Message]
    paused: bool = Field(False, description="true while the subscription is paused; else left out")
    acks: Settled | None = None
    nacks: Settled | None = None
    rejects: Settled | None = None
    leases: Settled | None = None


class SettleFrame(BaseModel):
    """A frame of a WebSocket."""

    model_config = ConfigDict(extra="forbid")

    ids: Ids
    ref: str | None = Field(None, max_length=128, description="asks for an answer, which repeats it")


class AckFrame(SettleFrame):
    type: Literal["ack"]


class NackFrame(SettleFrame):
    type: Literal["nack"]
    delay_seconds: WholeNumber | None = Field(None, ge=0, le=MAX_DELAY_SECONDS)
    undelivered: StrictBool = Field(False, description="not seen by the consumer: due at once, and uncounted")


class RejectFrame(SettleFrame):
    type: Literal["reject"]
    reason: str = Field("rejected", min_length=1, max_length=1024)


class ExtendFrame(SettleFrame):
    type: Literal["extend"]
    extend_seconds: WholeNumber = Field(ge=1, le=43200)


class Extended(BaseModel):
    ids: list[str] = Field(description="ids of the deliveries that are still held")


# the whole server

FindingKind = Literal[
    "held_snapshot",
    "backlog_grows",
    "old_backlog",
    "old_lease",
    "old_waiting",
    "dead_letters",
    "pins_the_log",
    "consumers_silent",
    "publishers_silent",
    "paused",
    "expired_leases",
]


class Finding(BaseModel):
    """Something that somebody should look at."""

    kind: FindingKind = Field(description="what it is about")
    severity: Literal["warning", "error"] = Field(description="how bad it is")
    topic_id: str | None = Field(description="the topic that it is about")
    subscription_id: str | None = Field(description="the subscription that it is about")
    detail: str = Field(description="a sentence for people")
    since: UtcTime | None = Field(description="since when it is so, as far as it is known")


class Rates(TopicRates, SubscriptionRates):
    """Messages per second over the last minute."""


class Overview(BaseModel):
    """Sums over everything that the caller may see."""

    topics: int = Field(description="how many topics there are")
    subscriptions: int = Field(description="how many subscriptions there are")
    published: int = Field(description="messages since the topics were created")
    ahead: int = Field(description="messages after the cursors; for a filter, including those that it will keep out")
    ahead_is_estimated: bool = Field(description="whether filters have still to judge some of `ahead`")
    leased: int = Field(description="messages that consumers hold")
    waiting: int = Field(description="messages that wait for a retry")
    dlq: int = Field(description="dead letters")
    rates: Rates | None = Field(None, description="messages per second over the last minute")
    is_authentication_on: bool = Field(description="whether requests need an access token")
    version: str = Field(description="the version of the server")
    server_time: UtcTime = Field(description="the time on the server's clock")
    findings: list[Finding] = Field(description="the worst first, at most 100")


class TopicHistory(BaseModel):
    """Lists of the same length."""

    interval_seconds: int = Field(description="the length of an interval")
    times: list[int] = Field(description="Unix time of the beginning of each interval")
    published: list[int] = Field(description="messages that were published")


class SubscriptionHistory(BaseModel):
    """Lists of the same length."""

    interval_seconds: int = Field(description="the length of an interval")
    times: list[int] = Field(description="Unix time of the beginning of each interval")
    delivered: list[int] = Field(description="messages that were handed to consumers")
    acked: list[int] = Field(description="messages that were acknowledged")
    nacked: list[int] = Field(description="messages that consumers gave back")
    rejected: list[int] = Field(description="messages that consumers made dead letters at once")
    expired: list[int] = Field(description="leases that expired")
    dead_lettered: list[int] = Field(description="messages that became dead letters")
    filtered: list[int] = Field(description="messages that the filter kept out")


class OverviewHistory(SubscriptionHistory):
    published: list[int] = Field(description="messages that were published")


class History(BaseModel):
    """Lists of one length, or empty where they do not fit: a topic has only `published`, a subscription the others."""

    interval_seconds: int
    times: list[int]
    published: list[int] = []
    delivered: list[int] = []
    acked: list[int] = []
    nacked: list[int] = []
    rejected: list[int] = []
    expired: list[int] = []
    dead_lettered: list[int] = []
    filtered: list[int] = []


def sentence(error: Mapping[str, Any]) -> str:
    """What is wrong, of an error of Pydantic, which puts words before those of our own."""
    return str(error["msg"]).removeprefix("Value error, ")
