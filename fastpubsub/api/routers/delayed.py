"""`/topics/{topic_id}/delayed`: messages before they come."""

from typing import Literal

from fastapi import APIRouter, Request, Response

from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT, delayed_json, json_answer, list_json, time_text
from fastpubsub.api.requests import Limit, PageToken, after_page, page_token
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import DelayedMessage, DelayedMessageList, DelayedTime, Released
from fastpubsub.services import delayed

router = APIRouter(prefix="/topics/{topic_id}", tags=["messages"], route_class=ScopedRoute)

PUBLISH = requires("topics:publish", "topic_id")


@router.get("/delayed", response_model=DelayedMessageList, dependencies=[requires("topics:read", "topic_id")])
async def list_delayed_messages(
    request: Request,
    topic_id: str,
    state: Literal["waiting", "held"] = "waiting",
    limit: Limit = 10,
    token: PageToken = None,
) -> Response:
    """List the delayed messages, the next one first."""
    app = request.app.state
    last = after_page(request, token, delayed.Place.is_possible)
    found, end = await delayed.list_delayed(
        app.database,
        app.directory,
        topic_id,
        held=state == "held",
        after=None if last is None else delayed.Place.parse(last),
        limit=limit,
        max_bytes=app.settings.pull_max_bytes,
    )
    more = None if end is None else page_token(f"{time_text(end.due_at)}/{end.key}")
    return json_answer(list_json([delayed_json(one, shows_payload=_shows(request, topic_id)) for one in found], more))


@router.get("/delayed/{delayed_id}", response_model=DelayedMessage, dependencies=[PUBLISH])
async def get_delayed_message(request: Request, topic_id: str, delayed_id: str) -> Response:
    """Get a message that comes later, or the id that it got when it was published, for a day."""
    state = request.app.state
    return _answer(request, await delayed.get_delayed(state.database, state.directory, topic_id, delayed_id))


@router.patch("/delayed/{delayed_id}", response_model=DelayedMessage, dependencies=[PUBLISH])
async def move_delayed_message(request: Request, topic_id: str, delayed_id: str, body: DelayedTime) -> Response:
    """Let a message that waits or is held come at another time."""
    state = request.app.state
    return _answer(request, await delayed.move_delayed(state.database, state.directory, topic_id, delayed_id, body))


@router.delete("/delayed/{delayed_id}", status_code=204, response_class=Response, dependencies=[PUBLISH])
async def cancel_delayed_message(request: Request, topic_id: str, delayed_id: str) -> Response:
    """Cancel a message that waits or is held: it never comes."""
    state = request.app.state
    await delayed.cancel_delayed(state.database, state.directory, topic_id, delayed_id)
    return NO_CONTENT


@router.post("/release", dependencies=[PUBLISH])
async def release_delayed_messages(request: Request, topic_id: str) -> Released:
    """Let all messages of a topic come now that are held, because they were overdue when a server came back."""
    state = request.app.state
    change = await change_by(request)
    return Released(released=await delayed.release_delayed(state.database, state.directory, topic_id, change))


def _answer(request: Request, found: delayed.Delayed) -> Response:
    return json_answer(delayed_json(found, shows_payload=_shows(request, found.topic_id)))


def _shows(request: Request, topic_id: str) -> bool:
    return bool(request.state.caller.allows("messages:read", topic_id))
