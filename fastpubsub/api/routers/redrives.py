"""Reprocessing or purging all dead letters that match, in the background."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from fastpubsub.api import bodies
from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT, json_answer, list_json, redrive_json
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.json_text import member
from fastpubsub.models import DeadLetterReasonList, NewRedrive, Redrive, RedriveList
from fastpubsub.services import redrives, subscriptions

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
    response_model=Redrive,
    dependencies=[requires("subscriptions:consume", "subscription_id", limit=bodies.subscription)],
)
async def create_redrive(request: Request, subscription_id: str, body: NewRedrive) -> Response:
    """Reprocess or purge all dead letters that match, at a rate; it goes on in the background."""
    state = request.app.state
    filter_json = subscriptions.filter_text(state.settings, member(await request.body(), "filter"))
    created = await redrives.create_redrive(
        state.database, state.directory, subscription_id, body, await change_by(request), filter_json
    )
    state.redrives.look()
    return json_answer(redrive_json(created), 201)


@router.get("/redrives", response_model=RedriveList, dependencies=[CONSUME])
async def list_redrives(request: Request, subscription_id: str) -> Response:
    """List the redrives of a subscription, newest first: all that run, and the last 100 that have ended."""
    state = request.app.state
    found = await redrives.list_redrives(state.database, state.directory, subscription_id)
    return json_answer(list_json(map(redrive_json, found)))


@router.get("/redrives/{redrive_id}", response_model=Redrive, dependencies=[CONSUME])
async def get_redrive(request: Request, subscription_id: str, redrive_id: RedriveId) -> Response:
    """Look how far a redrive has come."""
    state = request.app.state
    return json_answer(
        redrive_json(await redrives.get_redrive(state.database, state.directory, subscription_id, redrive_id))
    )


@router.delete("/redrives/{redrive_id}", status_code=204, response_class=Response, dependencies=[CONSUME])
async def cancel_redrive(request: Request, subscription_id: str, redrive_id: RedriveId) -> Response:
    """Cancel a redrive: what it has moved stays moved, the rest stays dead. One that has ended stays as it is."""
    state = request.app.state
    change = await change_by(request)
    await redrives.cancel_redrive(state.database, state.directory, subscription_id, redrive_id, change)
    return NO_CONTENT
