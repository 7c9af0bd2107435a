"""What happened in the last hour and the last day."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from fastpubsub.api.routers.overview import SEEING
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import OverviewHistory, SubscriptionHistory, TopicHistory
from fastpubsub.services import subscriptions, topics
from fastpubsub.services.history import read_history

router = APIRouter(tags=["overview"], route_class=ScopedRoute)

MAX_TIME = 2**40

Interval = Annotated[Literal["5", "60"], Query(description="5 for the last hour, 60 for the last day")]
From = Annotated[int | None, Query(alias="from", ge=0, le=MAX_TIME, description="Unix time of the first interval")]
To = Annotated[int | None, Query(ge=0, le=MAX_TIME, description="Unix time before which it ends")]
Ids = Iterable[str] | None


@router.get("/topics/{topic_id}/history", dependencies=[requires("topics:read", "topic_id")])
async def topic_history(
    request: Request, topic_id: str, interval_seconds: Interval = "5", start: From = None, to: To = None
) -> TopicHistory:
    """Count what was published to a topic, by interval."""
    await topics.get_topic(request.app.state.database, topic_id)
    return TopicHistory(**await _read(request, [topic_id], [], interval_seconds, start, to))


@router.get(
    "/subscriptions/{subscription_id}/history", dependencies=[requires("subscriptions:read", "subscription_id")]
)
async def subscription_history(
    request: Request, subscription_id: str, interval_seconds: Interval = "5", start: From = None, to: To = None
) -> SubscriptionHistory:
    """Count what happened in a subscription, by interval."""
    await subscriptions.get_subscription(request.app.state.database, subscription_id)
    return SubscriptionHistory(**await _read(request, [], [subscription_id], interval_seconds, start, to))


@router.get("/overview/history", dependencies=[SEEING])
async def overview_history(
    request: Request, interval_seconds: Interval = "5", start: From = None, to: To = None
) -> OverviewHistory:
    """Count what happened in everything that the caller may see, by interval."""
    caller = request.state.caller
    visible = caller.objects("topics:read"), caller.objects("subscriptions:read")
    return OverviewHistory(**await _read(request, *visible, interval_seconds, start, to))


async def _read(
    request: Request, topic_ids: Ids, subscription_ids: Ids, interval: str, start: int | None, to: int | None
) -> dict[str, Any]:
    history = await read_history(request.app.state.database, topic_ids, subscription_ids, int(interval), start, to)
    return {"interval_seconds": int(interval), **history}
