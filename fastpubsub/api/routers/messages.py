"""Pulling, settling and dead letters of a subscription."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from fastpubsub.api import bodies, openapi
from fastpubsub.api.events import MEDIA_TYPE, EventStream, delivery_events
from fastpubsub.api.pulls import Asked, check_slow, exchanged_json, messages, parts_of, pull, read_body
from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT, dead_letters_json, representation, sort_ids
from fastpubsub.api.requests import (
    MAX_CONSUMER_ID,
    Limit,
    Offset,
    PageToken,
    after_page,
    flag_parameter,
    int_parameter,
    is_position,
    page_token,
    prefers_representation,
    stream_parameters,
    text_parameter,
    wants_events,
)
from fastpubsub.api.security import ScopedRoute, lasting_token, requires
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.exceptions import InvalidRequest, TooLarge
from fastpubsub.json_text import is_object
from fastpubsub.models import (
    MAX_DELAY_SECONDS,
    UNDELIVERED_AND_DELAYED,
    DeadLetterList,
    Extend,
    Extended,
    MessageList,
    Moved,
    Nack,
    Reject,
    Settled,
    SettledAndPulled,
    Time,
)
from fastpubsub.models.dead_letters import LONGEST_REASON
from fastpubsub.payloads import parse_ids
from fastpubsub.services import dead_letters
from fastpubsub.services.directory import Directory
from fastpubsub.services.settling import (
    ACK,
    EXTEND,
    NACK,
    REJECT,
    RETURN,
    SETTLED,
    Kind,
)

router = APIRouter(prefix="/subscriptions/{subscription_id}", tags=["messages"], route_class=ScopedRoute)

CONSUME = requires("subscriptions:consume", "subscription_id")
CONSUME_DIRECTLY = requires("subscriptions:consume", "subscription_id", direct=True)
SETTLE = requires("subscriptions:consume", "subscription_id", limit=bodies.ids)
SETTLE_DIRECTLY = requires("subscriptions:consume", "subscription_id", limit=bodies.ids, direct=True)
FAIL_DIRECTLY = requires("subscriptions:consume", "subscription_id", limit=bodies.reasons, direct=True)
Move = Callable[[Database, Directory, str, Sequence[str], Change], Awaitable[list[str]]]

SETTLED_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Settled, "description": "with `Prefer: return=representation`"}
}
MOVED_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Moved, "description": "with `Prefer: return=representation`"}
}


@router.get(
    "/messages",
    response_class=Response,
    responses={200: {"model": MessageList, "content": openapi.EVENTS}},
    openapi_extra=openapi.PULL,
    dependencies=[CONSUME_DIRECTLY],
)
async def pull_messages(request: Request) -> Response:
    """Lease messages to a consumer; due retries come first, then what was published, in its order."""
    return messages(request, await pull(request, Asked.by(request)))


@router.post(
    "/pulls",
    response_class=Response,
    responses={200: {"model": SettledAndPulled, "content": openapi.EVENTS}},
    openapi_extra=openapi.SETTLE_AND_PULL,
    dependencies=[FAIL_DIRECTLY],
)
async def settle_and_pull(request: Request) -> Response:
    """Settle messages and lease the next ones in one step; with `wait_seconds` what is settled is so at once."""
    asked = Asked.by(request)
    parts = parts_of(request, await request.body())
    if not any(part.ids for part in parts):
        claim, outcomes = await pull(request, asked), [()] * len(parts)
    else:
        started = time.monotonic()
        outcomes, claim, is_all_taken = await request.app.state.exchanging.exchange(
            asked.subscription_id, parts, asked.limit, asked.consumer_id, waits=asked.seconds > 0
        )
        if claim.positions:
            await check_slow(request, claim, started)
        elif asked.seconds or claim.more:
            claim = await pull(request, asked, is_all_taken=is_all_taken)
    if not prefers_representation(request) or wants_events(request):
        return messages(request, claim)
    return representation(exchanged_json(parts, outcomes, claim, asked.subscription_id))


@router.get(
    "/stream",
    status_code=200,
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    openapi_extra=openapi.STREAM,
    dependencies=[CONSUME_DIRECTLY],
)
async def stream_messages(request: Request) -> Response:
    """Lease messages to a consumer as they come, as Server-Sent Events; settle them by the ordinary requests."""
    state = request.app.state
    subscription_id = request.path_params["subscription_id"]
    consumer_id, max_in_flight = stream_parameters(request)
    await state.claiming.require(subscription_id)
    deliveries = state.deliveries.stream(subscription_id, consumer_id, max_in_flight)
    return EventStream(state.streams, lasting_token(request), delivery_events(deliveries, subscription_id))


@router.post(
    "/acks",
    status_code=204,
    response_class=Response,
    responses=SETTLED_RESPONSES,
    openapi_extra=openapi.SETTLE,
    dependencies=[SETTLE_DIRECTLY],
)
async def ack_messages(request: Request) -> Response:
    """Settle messages for good, by message id or by ack_id."""
    return await _settle(request, ACK)


@router.post(
    "/nacks",
    status_code=204,
    response_class=Response,
    responses=SETTLED_RESPONSES,
    openapi_extra=openapi.NACK,
    dependencies=[SETTLE_DIRECTLY],
)
async def nack_messages(request: Request) -> Response:
    """Give messages back for another attempt after the backoff, or after `delay_seconds`; or uncounted."""
    delay_seconds = int_parameter(request, "delay_seconds", None, 0, MAX_DELAY_SECONDS)
    is_undelivered = flag_parameter(request, "undelivered")
    if is_object(await request.body()):
        nack = await _nack(request, delay_seconds, is_undelivered)
        kind = RETURN if nack.undelivered else NACK
        return await _settled(request, kind, nack.ids, nack.delay_seconds, nack.reason)
    if not is_undelivered:
        return await _settle(request, NACK, delay_seconds)
    if delay_seconds is not None:
        raise InvalidRequest(UNDELIVERED_AND_DELAYED)
    return await _settle(request, RETURN)


@router.delete(
    "/waits",
    status_code=204,
    response_class=Response,
    openapi_extra=openapi.LEAVE,
    dependencies=[CONSUME_DIRECTLY],
)
async def end_waits(request: Request) -> Response:
    """Answer the pulls of a consumer that wait now, with nothing: it stops, and wants to know what it has."""
    consumer_id = text_parameter(request, "consumer_id", MAX_CONSUMER_ID)
    await request.app.state.claiming.leave(request.path_params["subscription_id"], consumer_id)
    return NO_CONTENT


@router.post(
    "/rejects",
    status_code=204,
    response_class=Response,
    responses=SETTLED_RESPONSES,
    openapi_extra=openapi.REJECT,
    dependencies=[SETTLE],
)
async def reject_messages(request: Request, body: Reject) -> Response:
    """Make messages dead letters at once, with the reason."""
    return await _settled(request, REJECT, _bounded(request, body.ids), body.reason)


@router.post("/leases", dependencies=[SETTLE])
async def extend_leases(request: Request, subscription_id: str, body: Extend) -> Extended:
    """Move the deadline of messages to `extend_seconds` from now; answers those that are still held."""
    ids = _bounded(request, body.ids)
    outcomes = await request.app.state.settling.settle(EXTEND, subscription_id, ids, body.extend_seconds)
    return Extended(ids=[id_ for id_, outcome in zip(ids, outcomes, strict=True) if outcome == SETTLED])


@router.get("/dlq", response_class=Response, responses={200: {"model": DeadLetterList}}, dependencies=[CONSUME])
async def list_dead_letters(
    request: Request,
    subscription_id: str,
    offset: Offset = 0,
    limit: Limit = 10,
    token: PageToken = None,
    reason: Annotated[
        str | None, Query(min_length=1, max_length=LONGEST_REASON, description="only those with exactly this reason")
    ] = None,
    died_after: Annotated[Time | None, Query(description="only those that died then or later")] = None,
    died_before: Annotated[Time | None, Query(description="only those that died earlier")] = None,
) -> Response:
    """List dead letters, oldest message first; all, or those of a reason, or that died in a time."""
    state = request.app.state
    after = after_page(request, token, is_position)
    letters, end = await dead_letters.list_dead_letters(
        state.database,
        state.directory,
        subscription_id,
        dead_letters.Wanted(reason, died_after, died_before),
        offset,
        None if after is None else int(after),
        limit,
        state.settings.pull_max_bytes,
    )
    more = None if end is None else page_token(str(end))
    return Response(dead_letters_json(letters, subscription_id, more), media_type="application/json")


@router.post(
    "/dlq/reprocess",
    status_code=204,
    response_class=Response,
    responses=MOVED_RESPONSES,
    openapi_extra=openapi.SETTLE,
    dependencies=[SETTLE],
)
async def reprocess_dead_letters(request: Request) -> Response:
    """Move dead letters back to the consumers; their attempts start again."""
    return await _move(request, dead_letters.reprocess_dead_letters)


@router.delete(
    "/dlq",
    status_code=204,
    response_class=Response,
    responses=MOVED_RESPONSES,
    openapi_extra=openapi.SETTLE,
    dependencies=[SETTLE],
)
async def purge_dead_letters(request: Request) -> Response:
    """Delete dead letters for good."""
    return await _move(request, dead_letters.purge_dead_letters)


async def _settle(request: Request, kind: Kind, value: int | None = None) -> Response:
    ids = parse_ids(await request.body(), max_ids=request.app.state.settings.settle_max_ids)
    return await _settled(request, kind, ids, value)


async def _nack(request: Request, delay_seconds: int | None, is_undelivered: bool) -> Nack:
    if delay_seconds is not None or is_undelivered:
        raise InvalidRequest("give delay_seconds and undelivered in the object of the body, not in the query")
    nack = read_body(Nack, await request.body())
    _bounded(request, nack.ids)
    return nack


async def _settled(
    request: Request, kind: Kind, ids: Sequence[str], value: int | str | None, reason: str | None = None
) -> Response:
    subscription_id = request.path_params["subscription_id"]
    outcomes = await request.app.state.settling.settle(kind, subscription_id, ids, value, reason)
    if not prefers_representation(request):
        return NO_CONTENT
    settled = Settled(settled=[], gone=[], stale=[])
    sort_ids(ids, outcomes, settled)
    return representation(settled.model_dump_json())


async def _move(request: Request, move: Move) -> Response:
    state = request.app.state
    ids = parse_ids(await request.body(), max_ids=state.settings.settle_max_ids)
    change = await change_by(request)
    subscription_id = request.path_params["subscription_id"]
    moved = await move(state.database, state.directory, subscription_id, ids, change)
    # Also a purge gives consumers something: the key that a dead letter held goes on.
    state.wakeups.changed(await state.directory.subscriptions.key(subscription_id))
    if not prefers_representation(request):
        return NO_CONTENT
    return representation(Moved(ids=moved).model_dump_json())


def _bounded(request: Request, ids: list[str]) -> list[str]:
    limit = request.app.state.settings.settle_max_ids
    if len(ids) > limit:
        raise TooLarge(f"the body has more ids than the {limit} of one request; send several")
    return ids
