from dataclasses import dataclass
from datetime import datetime

from fastpubsub.database import Database


@dataclass(frozen=True, slots=True)
class SubscriptionGauges:
    subscription_id: str
    topic_id: str
    ahead: int
    waiting: int
    leased: int
    dead: int
    acked: int
    oldest_created_at: datetime | None
    """When the oldest message that waits for its first delivery was published."""


async def subscription_gauges(database: Database, limit: int) -> list[SubscriptionGauges]:
    return [SubscriptionGauges(*row) for row in await database.fetch_all("list_subscription_metrics", limit)]


async def published_totals(database: Database, limit: int) -> list[tuple[str, int]]:
    """Topic ids with the number of messages that were ever published to them."""
    return [(topic_id, published) for topic_id, published in await database.fetch_all("list_topic_metrics", limit)]
