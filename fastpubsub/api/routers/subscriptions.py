"""`/subscriptions`."""

from fastapi import APIRouter, Request, Response

from fastpubsub.api.render import NO_CONTENT
from fastpubsub.api.requests import Limit, Offset
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import (
    ChangedSubscription,
    NewSubscription,
    Seek,
    Subscription,
    SubscriptionList,
    SubscriptionMetrics,
)
from fastpubsub.payloads import member
from fastpubsub.services import subscriptions

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"], route_class=ScopedRoute)


@router.post("", status_code=201, dependencies=[requires("subscriptions:create")])
async def create_subscription(request: Request, body: NewSubscription) -> Subscription:
    """Create a subscription; it gets what is published from now on, unless `start_from` says otherwise."""
    request.state.caller.require("subscriptions:create", body.id)
    state = request.app.state
    filter_json = member(await request.body(), "filter")
    return await subscriptions.create_subscription(state.database, state.settings, body, filter_json)


@router.get("", dependencies=[requires("subscriptions:read")])
async def list_subscriptions(request: Request, offset: Offset = 0, limit: Limit = 10) -> SubscriptionList:
    """List subscriptions, ordered by id."""
    visible = request.state.caller.objects("subscriptions:read")
    data = await subscriptions.list_subscriptions(request.app.state.database, offset, limit, visible)
    return SubscriptionList(data=data)


@router.get("/{subscription_id}", dependencies=[requires("subscriptions:read", "subscription_id")])
async def get_subscription(request: Request, subscription_id: str) -> Subscription:
    """Get a subscription."""
    return await subscriptions.get_subscription(request.app.state.database, subscription_id)


@router.patch("/{subscription_id}", dependencies=[requires("subscriptions:create", "subscription_id")])
async def update_subscription(request: Request, subscription_id: str, body: ChangedSubscription) -> Subscription:
    """Change filter, attempts, backoff or deadline. What was not delivered yet is judged by the new filter."""
    filter_json = member(await request.body(), "filter")
    state = request.app.state
    changed = await subscriptions.update_subscription(state.database, subscription_id, body, filter_json)
    state.wakeups.changed(await state.directory.subscriptions.key(subscription_id))
    return changed


@router.delete(
    "/{subscription_id}",
    status_code=204,
    response_class=Response,
    dependencies=[requires("subscriptions:delete", "subscription_id")],
)
async def delete_subscription(request: Request, subscription_id: str) -> Response:
    """Delete a subscription and everything in it."""
    await subscriptions.delete_subscription(request.app.state.database, subscription_id)
    return NO_CONTENT


@router.post(
    "/{subscription_id}/seek",
    status_code=204,
    response_class=Response,
    dependencies=[requires("subscriptions:consume", "subscription_id")],
)
async def seek_subscription(request: Request, subscription_id: str, body: Seek) -> Response:
    """Replay or skip: what comes next is the message at `to`. Deliveries that are out end without effect."""
    state = request.app.state
    await subscriptions.seek_subscription(state.database, state.directory, subscription_id, body.to)
    state.wakeups.changed(await state.directory.subscriptions.key(subscription_id))
    return NO_CONTENT


@router.get("/{subscription_id}/metrics", dependencies=[requires("subscriptions:read", "subscription_id")])
async def get_metrics(request: Request, subscription_id: str) -> SubscriptionMetrics:
    """Count the messages of a subscription by state."""
    state = request.app.state
    return await subscriptions.get_metrics(state.database, state.directory, subscription_id)
