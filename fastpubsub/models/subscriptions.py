"""Subscriptions."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from fastpubsub import filters
from fastpubsub.models.fields import (
    MAX_DELAY_SECONDS,
    MAX_LEASE_SECONDS,
    NOT_BOOL,
    MissingTopics,
    ObjectId,
    Time,
    UtcTime,
    explained,
)
from fastpubsub.models.push import NewPush, Push

Filter = Annotated[
    dict[str, Any] | None,
    Field(
        description="every field must have one of its values, by JSON type and value, or do what an operator says",
        examples=[{"country": ["BR", "US"]}, {"total": [{"numeric": [">=", 100]}]}],
    ),
    BeforeValidator(filters.check),
]

AckDeadline = Annotated[
    int, Field(ge=1, le=MAX_LEASE_SECONDS, description="seconds that a consumer has to settle a message"), NOT_BOOL
]

Attempts = Annotated[
    int, Field(ge=1, le=1000, description="deliveries until a message becomes a dead letter"), NOT_BOOL
]

InFlight = Annotated[
    int, Field(ge=0, le=1_000_000, description="messages that all consumers together may hold; 0 is no limit"), NOT_BOOL
]

LEAST_RATE = 0.00001
"""A message in 28 hours."""


def _not_too_slow(rate: float) -> float:
    if 0 < rate < LEAST_RATE:
        raise ValueError(f"at least {LEAST_RATE:.5f} messages a second, or 0 for no limit; pause it to stop it")
    return rate


RateLimit = Annotated[
    float,
    Field(
        ge=0,
        le=100_000,
        allow_inf_nan=False,
        description="messages a second that all consumers together get; 0 is no limit",
    ),
    AfterValidator(_not_too_slow),
    NOT_BOOL,
]

DeadLetterTopic = Annotated[
    str,
    Field(
        pattern=r"^[a-zA-Z0-9._-]{0,128}$", description="a topic that gets a copy of each dead letter; empty is none"
    ),
]

LEAST_EXPIRY_SECONDS = 60


def _not_too_soon(seconds: int) -> int:
    if 0 < seconds < LEAST_EXPIRY_SECONDS:
        raise ValueError(f"at least {LEAST_EXPIRY_SECONDS} seconds, or 0 for never")
    return seconds


ExpireAfter = Annotated[
    int,
    Field(
        ge=0,
        le=31_536_000,
        description="seconds without a pull after which the subscription is deleted; 0 is never",
    ),
    AfterValidator(_not_too_soon),
    NOT_BOOL,
]

OnExpired = Literal["drop", "dead_letter"]
ON_EXPIRED = "what becomes of a message that expires before a consumer has settled it"

OnDeadLetter = Literal["continue", "hold"]
ON_DEAD_LETTER = (
    "what becomes of the ordering key of a dead letter: it goes on, or nothing of it comes until the dead letter is "
    "reprocessed or purged"
)

MaxBacklog = Annotated[
    int,
    Field(ge=0, le=1_000_000_000, description="messages of the topic that may come after its cursor; 0 is no limit"),
    NOT_BOOL,
]

OnFull = Literal["reject", "drop_oldest", "dead_letter"]
ON_FULL = (
    "what happens when there are more than `max_backlog`: a publish is refused, or the oldest are dropped or "
    "become dead letters"
)

Backoff = Annotated[int, Field(ge=0, le=MAX_DELAY_SECONDS), NOT_BOOL]

LEAST_JITTER = 0.01


def _not_too_little(share: float) -> float:
    if 0 < share < LEAST_JITTER:
        raise ValueError(f"at least {LEAST_JITTER}, or 0 for none")
    return share


Jitter = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="the part of each wait that is left to chance, so that what failed together comes apart; 0 is none",
    ),
    AfterValidator(_not_too_little),
    NOT_BOOL,
]

ORDERED = "whether messages with the same ordering key come one after the other"

MAX_FAIR_ATTRIBUTE = 128
FairBy = Annotated[
    str,
    Field(pattern=rf"^(ordering_key|attributes\.[^\x00]{{1,{MAX_FAIR_ATTRIBUTE}}})?$"),
    explained(
        "give `ordering_key`, or `attributes.` with the name of an attribute of up to "
        f"{MAX_FAIR_ATTRIBUTE} characters, as in `attributes.tenant`"
    ),
]
FAIR_BY = "by what messages are shared, `ordering_key` or `attributes.tenant`: those that wait get equally many"


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
        explained("give `latest`, `earliest`, or a time with its zone such as 2026-01-31T12:00:00Z"),
    ] = "latest"
    push: NewPush | None = Field(None, description="where messages are pushed, instead of being pulled")
    ordered: StrictBool = Field(False, description=ORDERED)
    fork_of: ObjectId | None = None
    max_in_flight: InFlight | None = None
    rate_limit: RateLimit | None = None
    dead_letter_topic: DeadLetterTopic | None = None
    expire_after_seconds: ExpireAfter | None = None
    on_expired: OnExpired | None = Field(None, description=ON_EXPIRED)
    on_dead_letter: OnDeadLetter | None = Field(None, description=ON_DEAD_LETTER)
    max_backlog: MaxBacklog | None = None
    on_full: OnFull | None = Field(None, description=ON_FULL)
    fair_by: FairBy | None = Field(None, description=f"{FAIR_BY}; empty is nothing")
    backoff_jitter: Jitter | None = None

    @model_validator(mode="after")
    def _begin_once(self) -> Self:
        if self.fork_of is not None and "start_from" in self.model_fields_set:
            raise ValueError("give either start_from or fork_of")
        return self


class ChangedSubscription(BaseModel):
    """A missing member keeps its value."""

    model_config = ConfigDict(extra="forbid")

    filter: Filter = None
    max_delivery_attempts: Attempts | None = None
    backoff_min_seconds: Backoff | None = None
    backoff_max_seconds: Backoff | None = None
    ack_deadline_seconds: AckDeadline | None = None
    push: NewPush | None = Field(None, description="where messages are pushed; null lets them be pulled again")
    max_in_flight: InFlight | None = None
    rate_limit: RateLimit | None = None
    dead_letter_topic: DeadLetterTopic | None = None
    expire_after_seconds: ExpireAfter | None = None
    on_expired: OnExpired | None = Field(None, description=ON_EXPIRED)
    on_dead_letter: OnDeadLetter | None = Field(None, description=ON_DEAD_LETTER)
    max_backlog: MaxBacklog | None = None
    on_full: OnFull | None = Field(None, description=ON_FULL)
    backoff_jitter: Jitter | None = None

    def limit(self, name: str) -> float | None:
        """Returns 0 for one that is removed, None for one that stays."""
        value: float | None = getattr(self, name)
        return 0 if value is None and name in self.model_fields_set else value

    def name(self, name: str) -> str | None:
        """Returns an empty one for one that is removed, None for one that stays."""
        value: str | None = getattr(self, name)
        return "" if value is None and name in self.model_fields_set else value


class SubscriptionMetrics(BaseModel):
    subscription_id: str
    available: int = Field(description="messages ready to be consumed, or waiting for a retry")
    delivered: int = Field(description="messages leased to consumers")
    acked: int = Field(description="messages acknowledged since the subscription was created")
    dlq: int = Field(description="dead letters")
    estimated: bool = Field(description="whether `available` is an estimate, as it is for a filter over many messages")
    filtered: int = Field(0, description="messages that the filter kept out since the subscription was created")
    ttl_expired: int | None = Field(
        None, description="messages that expired before they were settled, and were dropped; left out without any"
    )
    held_keys: int | None = Field(
        None, description="ordering keys that a dead letter holds, by `on_dead_letter`; left out without any"
    )
    dropped: int | None = Field(
        None, description="messages that were dropped because there were more than `max_backlog`; left out without any"
    )
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
    ordered: bool = Field(False, description=ORDERED)
    is_paused: bool = Field(False, description="whether nothing is handed out; left out when it is not paused")
    paused_at: UtcTime | None = None
    push: Push | None = Field(None, description="where messages are pushed; left out when they are pulled")
    max_in_flight: int | None = Field(
        None, description="messages that all consumers together may hold; left out without a limit"
    )
    rate_limit: float | None = Field(
        None, description="messages a second that all consumers together get; left out without a limit"
    )
    dead_letter_topic: str | None = Field(
        None, description="the topic that gets a copy of each dead letter; left out when there is none"
    )
    expire_after_seconds: int | None = Field(
        None, description="seconds without a pull after which it is deleted; left out when it never is"
    )
    expires_at: UtcTime | None = Field(
        None, description="when it is deleted if nobody pulls until then; left out while it is paused or pushed"
    )
    on_expired: OnExpired = Field("drop", description=f"{ON_EXPIRED}; left out when it is `drop`")
    on_dead_letter: OnDeadLetter = Field("continue", description=f"{ON_DEAD_LETTER}; left out when it is `continue`")
    max_backlog: int | None = Field(
        None, description="messages of the topic that may come after its cursor; left out without a limit"
    )
    on_full: OnFull = Field("reject", description=f"{ON_FULL}; left out when it is `reject`")
    fair_by: str | None = Field(None, description=f"{FAIR_BY}; left out when it is not set")
    backoff_jitter: float | None = Field(
        None, description="the part of each wait that is left to chance; left out without any"
    )
    metrics: SubscriptionFigures | None = Field(None, description="with `include=metrics`")


class PurgedSubscription(BaseModel):
    purged: int = Field(description="messages that were ahead, leased or waiting")
    is_estimated: bool = Field(description="whether a filter had more than 10,000 messages to judge")


class SubscriptionList(BaseModel):
    data: list[Subscription]
    next_page_token: str | None = Field(None, description="for the next page; left out on the last one")
    missing_topics: MissingTopics = None
