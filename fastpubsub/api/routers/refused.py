"""`/topics/{topic_id}/refused`: messages from SQL that do not match the schema of their topic."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from fastpubsub.api import bodies, openapi
from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT, json_answer, list_json, refused_json
from fastpubsub.api.requests import (
    REPRESENTATION,
    Limit,
    PageToken,
    after_page,
    is_position,
    page_token,
    prefers_representation,
)
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import Moved, RefusedMessageList
from fastpubsub.payloads import parse_ids

router = APIRouter(prefix="/topics/{topic_id}/refused", tags=["topics"], route_class=ScopedRoute)

CHANGE = requires("topics:publish", "topic_id", limit=bodies.ids)
MOVED_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Moved, "description": "with `Prefer: return=representation`"}
}


@router.get("", response_model=RefusedMessageList, dependencies=[requires("topics:read", "topic_id")])
async def list_refused_messages(
    request: Request, topic_id: str, limit: Limit = 10, token: PageToken = None
) -> Response:
    """List messages from SQL that do not match the schema of the topic, in the order in which they were refused."""
    after = after_page(request, token, is_position)
    found, end = await request.app.state.refused.list_(topic_id, None if after is None else int(after), limit)
    shows = bool(request.state.caller.allows("messages:read", topic_id))
    more = None if end is None else page_token(str(end))
    return json_answer(list_json([refused_json(one, shows_payload=shows) for one in found], more))


@router.post(
    "/publish",
    status_code=204,
    response_class=Response,
    responses=MOVED_RESPONSES,
    openapi_extra=openapi.REFUSED,
    dependencies=[CHANGE],
)
async def publish_refused_messages(request: Request) -> Response:
    """Publish refused messages that match the schema of the topic by now; the others stay."""
    return await _move(request, request.app.state.refused.publish)


@router.delete(
    "",
    status_code=204,
    response_class=Response,
    responses=MOVED_RESPONSES,
    openapi_extra=openapi.REFUSED,
    dependencies=[CHANGE],
)
async def purge_refused_messages(request: Request) -> Response:
    """Delete refused messages for good."""
    return await _move(request, request.app.state.refused.purge)


async def _move(request: Request, move: Callable[..., Awaitable[list[str]]]) -> Response:
    ids = parse_ids(await request.body(), max_ids=request.app.state.settings.settle_max_ids)
    moved = await move(request.path_params["topic_id"], ids, await change_by(request))
    if not prefers_representation(request):
        return NO_CONTENT
    headers = {"Preference-Applied": REPRESENTATION}
    return Response(Moved(ids=moved).model_dump_json(), 200, headers, "application/json")
