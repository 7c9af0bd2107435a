"""Consumers."""

from pydantic import BaseModel, Field

from fastpubsub.models.fields import UtcTime


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
