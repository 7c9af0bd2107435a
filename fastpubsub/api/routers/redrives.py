"""Reprocessing or purging all dead letters that match, in the background."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from fastpubsub.api import bodies
from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import DeadLetterReasonList, NewRedrive, Redrive, RedriveList
from fastpubsub.services import redrives

router = APIRouter(prefix="/subscriptions/{subscription_id}", tags=["messages"], route_class=ScopedRoute)

CONSUME = requires("subscriptions:consume", "subscription_id")
RedriveId = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("/dlq/reasons", dependencies=[CONSUME])
async def list_dead_letter_reasons(request: Request, subscription_id: str) -> DeadLetterReasonList:
    """Count dead letters by reason, the most frequent first, up to 100 reasons."""
    state = request.app.state
    found = await redrives.list_reasons(state.database, state.directory, subscription_id)
    return DeadLetterReasonList(data=found)


@router.post(
    "/redrives",
    status_code=201,
    dependencies=[requires("subscriptions:consume", "subscription_id", limit=bodies.small)],
)
async def create_redrive(request: Request, subscription_id: str, body: NewRedrive) -> Redrive:
    """Reprocess or purge all dead letters that match, at a rate; it goes on in the background."""
    state = request.app.state
    created = await redrives.create_redrive(
        state.database, state.directory, subscription_id, body, await change_by(request)
    )
    state.redrives.look()
    return created


@router.get("/redrives", dependencies=[CONSUME])
async def list_redrives(request: Request, subscription_id: str) -> RedriveList:
    """List the redrives of a subscription, newest first: all that run, and the last 100 that have ended."""
    state = request.app.state
    found = await redrives.list_redrives(state.database, state.directory, subscription_id)
    return RedriveList(data=found)


@router.get("/redrives/{redrive_id}", dependencies=[CONSUME])
async def get_redrive(request: Request, subscription_id: str, redrive_id: RedriveId) -> Redrive:
    """Look how far a redrive has come."""
    state = request.app.state
    return await redrives.get_redrive(state.database, state.directory, subscription_id, redrive_id)


@router.delete("/redrives/{redrive_id}", status_code=204, response_class=Response, dependencies=[CONSUME])
async def cancel_redrive(request: Request, subscription_id: str, redrive_id: RedriveId) -> Response:
    """Cancel a redrive: what it has moved stays moved, the rest stays dead. One that has ended stays as it is."""
    state = request.app.state
    change = await change_by(request)
    await redrives.cancel_redrive(state.database, state.directory, subscription_id, redrive_id, change)
    return NO_CONTENT
