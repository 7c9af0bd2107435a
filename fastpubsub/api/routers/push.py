"""How subscriptions are pushed: secrets, requests by hand, and what became of those that were not."""

import json
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from fastpubsub.api import bodies
from fastpubsub.api.recording import change_by
from fastpubsub.api.requests import Limit, PageToken, after_page, is_position, page_token
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.json_text import member
from fastpubsub.models import (
    NewPushSecret,
    NewPushTest,
    PushAttemptList,
    PushSecret,
    PushStatus,
    PushTested,
    Resend,
)
from fastpubsub.push.signing import made_secret
from fastpubsub.services import breakers, push_attempts, pushing

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"], route_class=ScopedRoute)


@router.get("/{subscription_id}/push", dependencies=[requires("subscriptions:push", "subscription_id")])
async def get_push_status(request: Request, subscription_id: str) -> PushStatus:
    """See whether a subscription is pushed now, and whether its endpoint is spared because it fails."""
    state = request.app.state
    return await breakers.get_push_status(state.database, state.directory, subscription_id)


@router.post(
    "/{subscription_id}/push/secrets", status_code=201, dependencies=[requires("subscriptions:push", "subscription_id")]
)
async def rotate_push_secret(request: Request, subscription_id: str, body: NewPushSecret) -> PushSecret:
    """Sign what is pushed with another secret; the one before signs as well for a while."""
    state = request.app.state
    secret = made_secret(await pushing.signature_of(state.database, subscription_id))
    expires_at = await pushing.rotate_push_secret(
        state.database,
        state.dispatcher.sealer,
        subscription_id,
        secret.signs,
        body.old_secret_seconds,
        await change_by(request),
    )
    state.dispatcher.look()
    return PushSecret(secret=secret.verifies, old_secret_expires_at=expires_at)


@router.post(
    "/{subscription_id}/push/test",
    dependencies=[requires("subscriptions:push", "subscription_id", limit=bodies.push_test)],
)
async def test_push(request: Request, subscription_id: str, body: NewPushTest) -> PushTested:
    """Send a signed test to the endpoint now, whatever waits for it. No message of the subscription is touched."""
    given = member(await request.body(), "payload") if body.payload is not None else None
    change = (await change_by(request))._replace(body=None)  # payloads are not recorded
    tested: PushTested = await request.app.state.trials.test(subscription_id, given or _test(subscription_id), change)
    return tested


@router.post("/{subscription_id}/push/resend", dependencies=[requires("subscriptions:push", "subscription_id")])
async def resend_message(request: Request, subscription_id: str, body: Resend) -> PushTested:
    """Send a message to the endpoint once more, now, whatever became of it. It is not delivered by that."""
    sent: PushTested = await request.app.state.trials.resend(
        subscription_id, str(body.message_id), await change_by(request)
    )
    return sent


def _test(subscription_id: str) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": "fastpubsub.test", "subscription_id": subscription_id, "at": at}).encode()


@router.get("/{subscription_id}/attempts", dependencies=[requires("subscriptions:push", "subscription_id")])
async def list_push_attempts(
    request: Request,
    subscription_id: str,
    message_id: Annotated[UUID | None, Query(description="only those of this message")] = None,
    limit: Limit = 100,
    token: PageToken = None,
) -> PushAttemptList:
    """List what became of pushes, newest first, as long as it is kept."""
    state = request.app.state
    before = after_page(request, token, is_position)
    found = await push_attempts.list_push_attempts(
        state.database, state.directory, subscription_id, message_id, None if before is None else int(before), limit + 1
    )
    more = page_token(str(found[limit - 1][0])) if len(found) > limit else None
    return PushAttemptList(data=[attempt for _, attempt in found[:limit]], next_page_token=more)
