"""`/subscriptions`."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fastpubsub.api import bodies
from fastpubsub.api.pushed import given_push
from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT, NO_FIGURES, Figures, json_answer, list_json, subscription_json
from fastpubsub.api.requests import Include, Limit, Offset, PageToken, Part, after_page, page_token
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.json_text import member
from fastpubsub.models import (
    ChangedSubscription,
    NewSubscription,
    ObjectId,
    PurgedSubscription,
    Seek,
    Subscription,
    SubscriptionList,
    SubscriptionMetrics,
)
from fastpubsub.services import figures, previews, subscriptions

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"], route_class=ScopedRoute)


@router.post(
    "",
    status_code=201,
    response_model=Subscription,
    dependencies=[requires("subscriptions:create", limit=bodies.subscription)],
)
async def create_subscription(request: Request, body: NewSubscription) -> Response:
    """Create a subscription; it gets what is published from now on, unless `start_from` or `fork_of` says otherwise."""
    for named in filter(None, (body.id, body.fork_of)):
        request.state.caller.require("subscriptions:create", named)
    state = request.app.state
    _check_dead_letter_topic(request, await _dead_letter_topic(request, body))
    filter_json = member(await request.body(), "filter")
    push, secret = await given_push(request, body.id, body.push) if body.push else (None, "")
    created = await subscriptions.create_subscription(
        state.database, state.settings, body, filter_json, await change_by(request, body.id), push
    )
    if push is not None:
        state.dispatcher.look()
    return json_answer(subscription_json(created, secret=secret), 201)


@router.get("", response_model=SubscriptionList, dependencies=[requires("subscriptions:read")])
async def list_subscriptions(
    request: Request,
    offset: Offset = 0,
    limit: Limit = 10,
    topic_id: ObjectId | None = None,
    token: PageToken = None,
    part: Part = None,
    include: Include = None,
    has_dead_letters: Annotated[bool, Query(description="`true`: only those with dead letters")] = False,
) -> Response:
    """List the subscriptions of all topics or of one, ordered by id."""
    visible = request.state.caller.objects("subscriptions:read")
    after = after_page(request, token)
    found, missing = await subscriptions.list_subscriptions(
        request.app.state.database,
        offset,
        limit + 1,
        visible,
        topic_id,
        part=part,
        after=after,
        has_dead_letters=has_dead_letters,
    )
    known = await _figures(request, [one.id for one in found[:limit]], include)
    more = page_token(found[limit - 1].id) if len(found) > limit else None
    return json_answer(list_json([subscription_json(one, known) for one in found[:limit]], more, missing))


@router.get(
    "/{subscription_id}", response_model=Subscription, dependencies=[requires("subscriptions:read", "subscription_id")]
)
async def get_subscription(request: Request, subscription_id: str, include: Include = None) -> Response:
    """Get a subscription."""
    found = await subscriptions.get_subscription(request.app.state.database, subscription_id)
    return json_answer(subscription_json(found, await _figures(request, [subscription_id], include)))


@router.patch(
    "/{subscription_id}",
    response_model=Subscription,
    dependencies=[requires("subscriptions:create", "subscription_id", limit=bodies.subscription)],
)
async def update_subscription(request: Request, subscription_id: str, body: ChangedSubscription) -> Response:
    """Change filter, attempts, backoff or deadline. The new filter applies to messages that are not delivered yet."""
    _check_dead_letter_topic(request, body.dead_letter_topic)
    filter_json = member(await request.body(), "filter")
    state = request.app.state
    is_push_given = "push" in body.model_fields_set
    push, secret = await given_push(request, subscription_id, body.push) if is_push_given else (None, "")
    changed, is_new_secret = await subscriptions.update_subscription(
        state.database, state.settings, subscription_id, body, filter_json, await change_by(request), push
    )
    state.wakeups.changed(await state.directory.subscriptions.key(subscription_id))
    if is_push_given:
        state.dispatcher.look()
    return json_answer(subscription_json(changed, secret=secret if is_new_secret else ""))


@router.delete(
    "/{subscription_id}",
    status_code=204,
    response_class=Response,
    dependencies=[requires("subscriptions:delete", "subscription_id")],
)
async def delete_subscription(request: Request, subscription_id: str) -> Response:
    """Delete a subscription and everything in it."""
    await subscriptions.delete_subscription(request.app.state.database, subscription_id, await change_by(request))
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
    if body.dry_run:
        preview = await previews.preview_seek(state.database, state.directory, subscription_id, body.to)
        return json_answer(preview.model_dump_json(by_alias=True).encode())
    await subscriptions.seek_subscription(
        state.database, state.directory, subscription_id, body.to, await change_by(request)
    )
    state.wakeups.changed(await state.directory.subscriptions.key(subscription_id))
    return NO_CONTENT


@router.post(
    "/{subscription_id}/pause",
    response_model=Subscription,
    dependencies=[requires("subscriptions:create", "subscription_id")],
)
async def pause_subscription(request: Request, subscription_id: str) -> Response:
    """Let pulls and streams get nothing until it is resumed. What consumers hold they can settle."""
    return await _pause(request, subscription_id, is_paused=True)


@router.post(
    "/{subscription_id}/resume",
    response_model=Subscription,
    dependencies=[requires("subscriptions:create", "subscription_id")],
)
async def resume_subscription(request: Request, subscription_id: str) -> Response:
    """End a pause."""
    return await _pause(request, subscription_id, is_paused=False)


async def _pause(request: Request, subscription_id: str, *, is_paused: bool) -> Response:
    state = request.app.state
    change = await change_by(request)
    found = await subscriptions.pause_subscription(state.database, subscription_id, is_paused=is_paused, change=change)
    state.wakeups.changed(await state.directory.subscriptions.key(subscription_id))
    return json_answer(subscription_json(found))


@router.post("/{subscription_id}/purge", dependencies=[requires("subscriptions:consume", "subscription_id")])
async def purge_subscription(request: Request, subscription_id: str) -> PurgedSubscription:
    """Settle everything that is ahead, leased or waiting. Dead letters stay."""
    state = request.app.state
    purged = await subscriptions.purge_subscription(
        state.database, state.directory, subscription_id, await change_by(request)
    )
    state.wakeups.changed(await state.directory.subscriptions.key(subscription_id))
    return purged


@router.get(
    "/{subscription_id}/metrics",
    response_model_exclude_none=True,
    dependencies=[requires("subscriptions:read", "subscription_id")],
)
async def get_metrics(request: Request, subscription_id: str) -> SubscriptionMetrics:
    """Count the messages of a subscription by state."""
    state = request.app.state
    return await subscriptions.get_metrics(state.database, state.directory, subscription_id)


async def _dead_letter_topic(request: Request, new: NewSubscription) -> str | None:
    """That of a new subscription: of a fork it is that of the other unless it is given."""
    if new.fork_of is None or new.dead_letter_topic is not None:
        return new.dead_letter_topic
    return (await subscriptions.get_subscription(request.app.state.database, new.fork_of)).dead_letter_topic


def _check_dead_letter_topic(request: Request, topic_id: str | None) -> None:
    """Whoever lets a subscription publish to a topic may do so."""
    if topic_id:
        request.state.caller.require("topics:publish", topic_id)


async def _figures(request: Request, ids: list[str], include: str | None) -> Figures:
    return await figures.subscription_figures(request.app.state.database, ids) if include else NO_FIGURES
