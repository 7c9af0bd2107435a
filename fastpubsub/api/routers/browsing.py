"""Looking at messages without taking them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fastpubsub.api.browsed import browsed_messages_json, browsed_topic_json
from fastpubsub.api.render import json_answer
from fastpubsub.api.requests import Limit
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.models import BrowsedMessages, BrowsedState, BrowsedTopic
from fastpubsub.searches import parse_search
from fastpubsub.services import browsing, subscriptions
from fastpubsub.services.browsing import Page

router = APIRouter(tags=["messages"], route_class=ScopedRoute)

MAX_PLACE = 64
MAX_SEARCH = 256
From = Annotated[
    str | None, Query(alias="from", max_length=MAX_PLACE, description="a position, a message id, or a time")
]
Before = Annotated[
    str | None, Query(max_length=MAX_PLACE, description="instead of `from`: the newest ones before this place")
]
Search = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_SEARCH,
        description="`payload.field=value`, `attributes.name=value`, or a text in the payload; needs `messages:read`",
    ),
]


@router.get(
    "/topics/{topic_id}/messages", response_model=BrowsedTopic, dependencies=[requires("topics:read", "topic_id")]
)
async def browse_topic(
    request: Request,
    topic_id: str,
    start: From = None,
    before: Before = None,
    limit: Limit = 10,
    q: Search = None,
) -> Response:
    """Look at the messages of a topic: the newest, or from a place on; nothing is leased."""
    if start is not None and before is not None:
        raise InvalidRequest("query.before: give it or `from`, not both")
    state = request.app.state
    page = _page(request, topic_id, limit, q)
    browsed = await browsing.browse_topic(state.database, state.directory, topic_id, start, before, page)
    return json_answer(browsed_topic_json(browsed, backwards=start is None))


@router.get(
    "/subscriptions/{subscription_id}/messages/browse",
    response_model=BrowsedMessages,
    dependencies=[requires("subscriptions:read", "subscription_id")],
)
async def browse_subscription(
    request: Request,
    subscription_id: str,
    state: BrowsedState = "ahead",
    start: From = None,
    limit: Limit = 10,
    q: Search = None,
) -> Response:
    """Look at the messages of a subscription that are in a state, as a pull would see them; nothing is leased."""
    of_app = request.app.state
    found = await subscriptions.get_subscription(of_app.database, subscription_id)
    page = _page(request, found.topic_id, limit, q)
    browsed = await browsing.browse_subscription(of_app.database, of_app.directory, subscription_id, state, start, page)
    return json_answer(browsed_messages_json(browsed, state))


def _page(request: Request, topic_id: str, limit: int, q: str | None) -> Page:
    caller = request.state.caller
    if q is not None:
        caller.require("messages:read", topic_id)
    search = None if q is None else parse_search(q)
    return Page(limit, request.app.state.settings.pull_max_bytes, caller.allows("messages:read", topic_id), search)
