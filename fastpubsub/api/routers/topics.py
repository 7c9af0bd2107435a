"""`/topics`, and publishing to them."""

import hashlib

from fastapi import APIRouter, Request, Response

from fastpubsub.api.cloud_events import envelope
from fastpubsub.api.events import MEDIA_TYPE, EventStream, tail_events
from fastpubsub.api.render import NO_CONTENT
from fastpubsub.api.requests import (
    MAX_RECENT,
    REPRESENTATION,
    Limit,
    Offset,
    has_event,
    idempotency_key,
    int_parameter,
    last_event_id,
    prefers_representation,
)
from fastpubsub.api.schemas import PUBLISH, TAIL
from fastpubsub.api.security import ScopedRoute, requires, stream_token
from fastpubsub.models import ChangedTopic, NewTopic, PublishedIds, Topic, TopicList
from fastpubsub.payloads import member, parse_batch
from fastpubsub.services import topics
from fastpubsub.services.messages import Idempotency

router = APIRouter(prefix="/topics", tags=["topics"], route_class=ScopedRoute)


@router.post("", status_code=201, dependencies=[requires("topics:create")])
async def create_topic(request: Request, body: NewTopic) -> Topic:
    """Create a topic."""
    request.state.caller.require("topics:create", body.id)
    state = request.app.state
    schema_json = member(await request.body(), "schema")
    return await topics.create_topic(state.database, state.settings, body, schema_json)


@router.get("", dependencies=[requires("topics:read")])
async def list_topics(request: Request, offset: Offset = 0, limit: Limit = 10) -> TopicList:
    """List topics, ordered by id."""
    visible = request.state.caller.objects("topics:read")
    return TopicList(data=await topics.list_topics(request.app.state.database, offset, limit, visible))


@router.get("/{topic_id}", dependencies=[requires("topics:read", "topic_id")])
async def get_topic(request: Request, topic_id: str) -> Topic:
    """Get a topic."""
    return await topics.get_topic(request.app.state.database, topic_id)


@router.patch("/{topic_id}", dependencies=[requires("topics:create", "topic_id")])
async def update_topic(request: Request, topic_id: str, body: ChangedTopic) -> Topic:
    """Change how long settled messages stay, or the schema of the payloads. What is in the topic stays as it is."""
    state = request.app.state
    schema_json = member(await request.body(), "schema")
    return await topics.update_topic(state.database, state.settings, topic_id, body, schema_json)


@router.delete(
    "/{topic_id}", status_code=204, response_class=Response, dependencies=[requires("topics:delete", "topic_id")]
)
async def delete_topic(request: Request, topic_id: str) -> Response:
    """Delete a topic, its subscriptions and everything in them."""
    await topics.delete_topic(request.app.state.database, topic_id)
    return NO_CONTENT


@router.post(
    "/{topic_id}/messages",
    status_code=204,
    response_class=Response,
    responses={201: {"model": PublishedIds, "description": "with `Prefer: return=representation`"}},
    openapi_extra=PUBLISH,
    dependencies=[requires("topics:publish", "topic_id", direct=True, events=True)],
)
async def publish_messages(request: Request) -> Response:
    """Publish messages; what is answered with 2xx is on disk for every subscription of the topic."""
    state = request.app.state
    body = await request.body()
    settings = state.settings
    if has_event(request):
        body = envelope(request, body)
    batch = parse_batch(body, max_messages=settings.publish_max_messages, max_depth=settings.payload_max_depth)
    key = idempotency_key(request)
    idempotency = None
    if key is not None:
        idempotency = Idempotency(request.state.caller.client_id, key, hashlib.sha256(body).digest())
    published = await state.messages.publish(request.path_params["topic_id"], batch, idempotency)
    if not prefers_representation(request):
        return NO_CONTENT
    ids = PublishedIds(ids=published.ids() if published is not None else [])
    headers = {"Preference-Applied": REPRESENTATION}
    return Response(ids.model_dump_json(), 201, headers, "application/json")


@router.get(
    "/{topic_id}/stream",
    status_code=200,
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    openapi_extra=TAIL,
    dependencies=[requires("topics:consume", "topic_id", direct=True)],
)
async def follow_topic(request: Request) -> Response:
    """Follow a topic from now on, or after `Last-Event-ID`, as Server-Sent Events; nothing is leased or settled."""
    state = request.app.state
    recent = int_parameter(request, "recent", 0, 0, MAX_RECENT) or 0
    tail = await state.tails.open(request.path_params["topic_id"], last_event_id(request), recent)
    return EventStream(state.streams, stream_token(request), tail_events(tail))
