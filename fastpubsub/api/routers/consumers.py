"""The consumers of a subscription."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from fastpubsub.api.requests import Limit, after_page, is_consumer_id, page_token
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import ConsumerList

router = APIRouter(prefix="/subscriptions/{subscription_id}", tags=["subscriptions"], route_class=ScopedRoute)

MAX_TOKEN = 1400
"""Of a consumer id of 255 characters that take 4 bytes each."""

Token = Annotated[
    str | None, Query(alias="page_token", max_length=MAX_TOKEN, description="`next_page_token` of the answer before")
]


@router.get(
    "/consumers",
    response_model_exclude_unset=True,
    dependencies=[requires("subscriptions:read", "subscription_id")],
)
async def list_consumers(
    request: Request, subscription_id: str, limit: Limit = 100, token: Token = None
) -> ConsumerList:
    """List who holds messages or waits for some in a pull or a stream, at all servers, ordered by id."""
    after = after_page(request, token, is_consumer_id)
    found = await request.app.state.consumers.find(subscription_id, after, limit + 1)
    if len(found) <= limit:
        return ConsumerList(data=found)
    return ConsumerList(data=found[:limit], next_page_token=page_token(found[limit - 1].consumer_id))
