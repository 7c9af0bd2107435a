"""`/audit`."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from fastpubsub.api.render import change_json, json_answer, list_json
from fastpubsub.api.requests import Limit
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import ChangeList, Time
from fastpubsub.services import changes

Kind = Literal["topic", "subscription", "client"]

router = APIRouter(tags=["audit"], route_class=ScopedRoute)


def _text(description: str) -> Any:
    return Query(min_length=1, max_length=128, description=description)


@router.get("/audit", response_model=ChangeList, dependencies=[requires("audit:read")])
async def list_changes(
    request: Request,
    object: Annotated[Kind | None, Query(description="only changes of such objects")] = None,  # noqa: A002
    object_id: Annotated[str | None, _text("only changes of objects with this id")] = None,
    client_id: Annotated[str | None, _text("only changes by this client")] = None,
    after: Annotated[Time | None, Query(description="only changes at that time or later")] = None,
    before: Annotated[Time | None, Query(description="only changes earlier than that")] = None,
    page_token: Annotated[str | None, _text("the `next_page_token` of the page before")] = None,
    limit: Limit = 10,
) -> Response:
    """List who created, changed, deleted, sought, purged or reprocessed what, newest first."""
    wanted = changes.Wanted(object, object_id, client_id, after, before)
    found, token = await changes.list_changes(request.app.state.database, wanted, page_token, limit)
    return json_answer(list_json(map(change_json, found), token))
