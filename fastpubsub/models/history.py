"""What happened, by interval."""

from pydantic import BaseModel, Field


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
