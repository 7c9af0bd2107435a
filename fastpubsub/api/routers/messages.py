"""Pulling, settling and dead letters of a subscription."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from fastpubsub.api import schemas
from fastpubsub.api.cloud_events import events_json
from fastpubsub.api.events import MEDIA_TYPE, EventStream, delivery_events
from fastpubsub.api.leaving import cancelled_by_leaving
from fastpubsub.api.render import NO_CONTENT, claim_json, dead_letters_json
from fastpubsub.api.requests import (
    MAX_CONSUMER_ID,
    REPRESENTATION,
    Limit,
    Offset,
    int_parameter,
    prefers_representation,
    stream_parameters,
    text_parameter,
    wait_seconds,
    wants_events,
)
from fastpubsub.api.security import ScopedRoute, requires, stream_token
from fastpubsub.cloudevents import BATCH
from fastpubsub.database import Database
from fastpubsub.exceptions import TooLarge
from fastpubsub.models import DeadLetterList, Extend, Extended, MessageList, Moved, Reject, Settled
from fastpubsub.payloads import parse_ids
from fastpubsub.services import dead_letters
from fastpubsub.services.directory import Directory
from fastpubsub.services.messages import ACK, EXTEND, GONE, NACK, REJECT, SETTLED, STALE, Kind

router = APIRouter(prefix="/subscriptions/{subscription_id}", tags=["messages"], route_class=ScopedRoute)

CONSUME = requires("subscriptions:consume", "subscription_id")
CONSUME_DIRECTLY = requires("subscriptions:consume", "subscription_id", direct=True)
MAX_BATCH = 100
MAX_DELAY_SECONDS = 604800
SLOW_SECONDS = 0.05
"""A pull that took longer looks whether the consumer is still there; looking costs as much as a quick answer."""

Move = Callable[[Database, Directory, str, Sequence[str]], Awaitable[list[str]]]

SETTLED_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Settled, "description": "with `Prefer: return=representation`"}
}
MOVED_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Moved, "description": "with `Prefer: return=representation`"}
}


@router.get(
    "/messages",
    response_class=Response,
    responses={200: {"model": MessageList, "content": schemas.EVENTS}},
    openapi_extra=schemas.PULL,
    dependencies=[CONSUME_DIRECTLY],
)
async def pull_messages(request: Request) -> Response:
    """Lease messages to a consumer; due retries come first, then what was published, in its order."""
    messages = request.app.state.messages
    subscription_id = request.path_params["subscription_id"]
    consumer_id = text_parameter(request, "consumer_id", MAX_CONSUMER_ID)
    batch_size = int_parameter(request, "batch_size", 10, 1, MAX_BATCH)
    started = time.monotonic()
    if seconds := wait_seconds(request):
        async with cancelled_by_leaving(request):
            claim = await request.app.state.consumers.pull(subscription_id, batch_size, consumer_id, seconds)
    else:
        claim = await messages.pull(subscription_id, batch_size, consumer_id)
        if time.monotonic() - started > SLOW_SECONDS and await request.is_disconnected():
            messages.give_back(claim)
    if wants_events(request):
        return Response(events_json(claim, subscription_id), media_type=BATCH)
    return Response(claim_json(claim, subscription_id), media_type="application/json")


@router.get(
    "/stream",
    status_code=200,
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    openapi_extra=schemas.STREAM,
    dependencies=[CONSUME_DIRECTLY],
)
async def stream_messages(request: Request) -> Response:
    """Lease messages to a consumer as they come, as Server-Sent Events; settle them by the ordinary requests."""
    state = request.app.state
    subscription_id = request.path_params["subscription_id"]
    consumer_id, max_in_flight = stream_parameters(request)
    await state.messages.require(subscription_id)
    deliveries = state.deliveries.stream(subscription_id, consumer_id, max_in_flight)
    return EventStream(state.streams, stream_token(request), delivery_events(deliveries, subscription_id))


@router.post(
    "/acks",
    status_code=204,
    response_class=Response,
    responses=SETTLED_RESPONSES,
    openapi_extra=schemas.SETTLE,
    dependencies=[CONSUME_DIRECTLY],
)
async def ack_messages(request: Request) -> Response:
    """Settle messages for good, by message id or by ack_id."""
    return await _settle(request, ACK)


@router.post(
    "/nacks",
    status_code=204,
    response_class=Response,
    responses=SETTLED_RESPONSES,
    openapi_extra=schemas.NACK,
    dependencies=[CONSUME_DIRECTLY],
)
async def nack_messages(request: Request) -> Response:
    """Give messages back for another attempt after the backoff, or after `delay_seconds`."""
    return await _settle(request, NACK, int_parameter(request, "delay_seconds", None, 0, MAX_DELAY_SECONDS))


@router.post(
    "/rejects",
    status_code=204,
    response_class=Response,
    responses=SETTLED_RESPONSES,
    openapi_extra=schemas.REJECT,
    dependencies=[CONSUME],
)
async def reject_messages(request: Request, body: Reject) -> Response:
    """Make messages dead letters at once, with the reason."""
    return await _settled(request, REJECT, _bounded(request, body.ids), body.reason)


@router.post("/leases", dependencies=[CONSUME])
async def extend_leases(request: Request, subscription_id: str, body: Extend) -> Extended:
    """Move the deadline of messages to `extend_seconds` from now; answers those that are still held."""
    ids = _bounded(request, body.ids)
    outcomes = await request.app.state.messages.settle(EXTEND, subscription_id, ids, body.extend_seconds)
    return Extended(ids=[id_ for id_, outcome in zip(ids, outcomes, strict=True) if outcome == SETTLED])


@router.get("/dlq", response_class=Response, responses={200: {"model": DeadLetterList}}, dependencies=[CONSUME])
async def list_dead_letters(request: Request, subscription_id: str, offset: Offset = 0, limit: Limit = 10) -> Response:
    """List dead letters, oldest message first."""
    state = request.app.state
    letters = await dead_letters.list_dead_letters(
        state.database, state.directory, subscription_id, offset, limit, state.settings.pull_max_bytes
    )
    return Response(dead_letters_json(letters, subscription_id), media_type="application/json")


@router.post(
    "/dlq/reprocess",
    status_code=204,
    response_class=Response,
    responses=MOVED_RESPONSES,
    openapi_extra=schemas.SETTLE,
    dependencies=[CONSUME],
)
async def reprocess_dead_letters(request: Request) -> Response:
    """Move dead letters back to the consumers; their attempts start again."""
    response = await _move(request, dead_letters.reprocess_dead_letters)
    state = request.app.state
    state.wakeups.changed(await state.directory.subscriptions.key(request.path_params["subscription_id"]))
    return response


@router.delete(
    "/dlq",
    status_code=204,
    response_class=Response,
    responses=MOVED_RESPONSES,
    openapi_extra=schemas.SETTLE,
    dependencies=[CONSUME],
)
async def purge_dead_letters(request: Request) -> Response:
    """Delete dead letters for good."""
    return await _move(request, dead_letters.purge_dead_letters)


async def _settle(request: Request, kind: Kind, value: int | None = None) -> Response:
    ids = parse_ids(await request.body(), max_ids=request.app.state.settings.settle_max_ids)
    return await _settled(request, kind, ids, value)


async def _settled(request: Request, kind: Kind, ids: Sequence[str], value: int | str | None) -> Response:
    outcomes = await request.app.state.messages.settle(kind, request.path_params["subscription_id"], ids, value)
    if not prefers_representation(request):
        return NO_CONTENT
    settled = Settled(settled=[], gone=[], stale=[])
    lists = {SETTLED: settled.settled, GONE: settled.gone, STALE: settled.stale}
    for id_, outcome in zip(ids, outcomes, strict=True):
        lists[outcome].append(id_)
    return _representation(settled.model_dump_json())


async def _move(request: Request, move: Move) -> Response:
    state = request.app.state
    ids = parse_ids(await request.body(), max_ids=state.settings.settle_max_ids)
    moved = await move(state.database, state.directory, request.path_params["subscription_id"], ids)
    if not prefers_representation(request):
        return NO_CONTENT
    return _representation(Moved(ids=moved).model_dump_json())


def _bounded(request: Request, ids: list[str]) -> list[str]:
    limit = request.app.state.settings.settle_max_ids
    if len(ids) > limit:
        raise TooLarge(f"{len(ids)} ids are more than the {limit} of one request; send several")
    return ids


def _representation(body: str) -> Response:
    return Response(body, 200, {"Preference-Applied": REPRESENTATION}, "application/json")
