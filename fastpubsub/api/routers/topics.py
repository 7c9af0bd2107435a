"""`/topics`, and publishing to them."""

import hashlib

from fastapi import APIRouter, Request, Response

from fastpubsub.api import bodies
from fastpubsub.api.cloud_events import parse_published
from fastpubsub.api.events import MEDIA_TYPE, EventStream, tail_events
from fastpubsub.api.openapi import PUBLISH, TAIL
from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT, NO_FIGURES, Figures, json_answer, list_json, topic_json
from fastpubsub.api.requests import (
    MAX_RECENT,
    REPRESENTATION,
    Include,
    Limit,
    Offset,
    PageToken,
    Part,
    after_page,
    filter_parameter,
    has_event,
    idempotency_key,
    int_parameter,
    last_event_id,
    page_token,
    prefers_representation,
)
from fastpubsub.api.security import ScopedRoute, lasting_token, requires
from fastpubsub.config import Settings
from fastpubsub.json_text import member
from fastpubsub.models import ChangedTopic, NewTopic, PublishedIds, Topic, TopicList
from fastpubsub.payloads import Batch, parse_batch
from fastpubsub.services import figures, subscriptions, topics
from fastpubsub.services.publishing import Idempotency
from fastpubsub.services.sifting import Sieve

router = APIRouter(prefix="/topics", tags=["topics"], route_class=ScopedRoute)


@router.post("", status_code=201, response_model=Topic, dependencies=[requires("topics:create", limit=bodies.topic)])
async def create_topic(request: Request, body: NewTopic) -> Response:
    """Create a topic."""
    request.state.caller.require("topics:create", body.id)
    state = request.app.state
    schema_json = member(await request.body(), "schema")
    topic = await topics.create_topic(
        state.database, state.settings, body, schema_json, await change_by(request, body.id)
    )
    return json_answer(topic_json(topic), 201)


@router.get("", response_model=TopicList, dependencies=[requires("topics:read")])
async def list_topics(
    request: Request,
    offset: Offset = 0,
    limit: Limit = 10,
    token: PageToken = None,
    part: Part = None,
    include: Include = None,
) -> Response:
    """List topics, ordered by id."""
    visible = request.state.caller.objects("topics:read")
    after = after_page(request, token)
    found, missing = await topics.list_topics(
        request.app.state.database, offset, limit + 1, visible, part=part, after=after
    )
    known = await _figures(request, [topic.id for topic in found[:limit]], include)
    more = page_token(found[limit - 1].id) if len(found) > limit else None
    return json_answer(list_json([topic_json(topic, known) for topic in found[:limit]], more, missing))


@router.get("/{topic_id}", response_model=Topic, dependencies=[requires("topics:read", "topic_id")])
async def get_topic(request: Request, topic_id: str, include: Include = None) -> Response:
    """Get a topic."""
    topic = await topics.get_topic(request.app.state.database, topic_id)
    return json_answer(topic_json(topic, await _figures(request, [topic_id], include)))


@router.patch(
    "/{topic_id}", response_model=Topic, dependencies=[requires("topics:create", "topic_id", limit=bodies.topic)]
)
async def update_topic(request: Request, topic_id: str, body: ChangedTopic) -> Response:
    """Change how long settled messages stay, or the schema of the payloads. What is in the topic stays as it is."""
    state = request.app.state
    schema_json = member(await request.body(), "schema")
    topic = await topics.update_topic(
        state.database, state.settings, topic_id, body, schema_json, await change_by(request)
    )
    return json_answer(topic_json(topic))


@router.delete(
    "/{topic_id}", status_code=204, response_class=Response, dependencies=[requires("topics:delete", "topic_id")]
)
async def delete_topic(request: Request, topic_id: str) -> Response:
    """Delete a topic, its subscriptions and everything in them."""
    await topics.delete_topic(request.app.state.database, topic_id, await change_by(request))
    return NO_CONTENT


@router.post(
    "/{topic_id}/messages",
    status_code=204,
    response_class=Response,
    responses={201: {"model": PublishedIds, "description": "with `Prefer: return=representation`"}},
    openapi_extra=PUBLISH,
    dependencies=[requires("topics:publish", "topic_id", limit=bodies.messages, direct=True, events=True)],
)
async def publish_messages(request: Request) -> Response:
    """Publish messages; what is answered with 2xx is on disk for every subscription of the topic."""
    state = request.app.state
    body = await request.body()
    if len(body) <= bodies.LARGE_BYTES:
        batch, idempotency = _parse(request, body)
    else:
        batch, idempotency = await state.large_bodies.parse(_parse, request, body)
    published = await state.publishing.publish(request.path_params["topic_id"], batch, idempotency)
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
    sieve = _sieve(state.settings, filter_parameter(request), request.state.caller.filter_text)
    tail = await state.tails.open(request.path_params["topic_id"], last_event_id(request), recent, sieve)
    return EventStream(state.streams, lasting_token(request), tail_events(tail))


def _sieve(settings: Settings, wanted: str | None, bound: str | None) -> Sieve | None:
    """Of the filter that is asked for, and of the one that the token is bound to."""
    text = subscriptions.filter_text(settings, None if wanted is None else wanted.encode())
    given = [one for one in (bound, text) if one is not None]
    return Sieve.of(*given) if given else None


async def _figures(request: Request, ids: list[str], include: str | None) -> Figures:
    return await figures.topic_figures(request.app.state.database, ids) if include else NO_FIGURES


def _parse(request: Request, body: bytes) -> tuple[Batch, Idempotency | None]:
    settings = request.app.state.settings
    is_event = has_event(request)
    limits = {"max_messages": settings.publish_max_messages, "max_depth": settings.payload_max_depth}
    batch = parse_published(request, body) if is_event else parse_batch(body, **limits)
    key = idempotency_key(request)
    if key is None:
        return batch, None
    # The context of an event may have come in headers.
    context = filter(None, batch.attributes or []) if is_event else ()
    digest = hashlib.sha256(b"".join([body, *context])).digest()
    return batch, Idempotency(request.state.caller.client_id, key, digest)
