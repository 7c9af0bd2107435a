"""The whole server."""

from typing import Literal

from pydantic import BaseModel, Field

from fastpubsub.models.fields import MissingTopics, UtcTime
from fastpubsub.models.subscriptions import SubscriptionRates
from fastpubsub.models.topics import TopicRates

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
    "at_limit",
    "expired_leases",
]


class Finding(BaseModel):
    """Something that needs attention."""

    kind: FindingKind = Field(description="what it is about")
    severity: Literal["warning", "error"] = Field(description="how bad it is")
    topic_id: str | None = Field(description="the topic that it is about")
    subscription_id: str | None = Field(description="the subscription that it is about")
    detail: str = Field(description="a sentence for people")
    since: UtcTime | None = Field(description="since when this has been so, if it is known")


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
    missing_topics: MissingTopics = None
