"""What became of a message."""

from fastapi import APIRouter, Request, Response

from fastpubsub.api.explanations import explanation_json, message_json
from fastpubsub.api.render import json_answer
from fastpubsub.api.requests import Limit, Offset
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.models import ExplainedMessage, Explanation
from fastpubsub.services import explaining

router = APIRouter(tags=["messages"], route_class=ScopedRoute)


@router.get("/messages/{message_id}", response_model=ExplainedMessage, dependencies=[requires("subscriptions:read")])
async def get_message(request: Request, message_id: str, offset: Offset = 0, limit: Limit = 10) -> Response:
    """Get a message and what became of it in the subscriptions of its topic, ordered by id."""
    caller = request.state.caller
    database = request.app.state.database
    found = await explaining.find_message(database, message_id)
    visible = caller.objects("subscriptions:read")
    explained = await explaining.explain_in_all(database, message_id, visible, offset, limit)
    shows_payload = caller.allows("messages:read", found.topic_id)
    if not explained and visible is not None and not shows_payload:
        raise explaining.unknown(message_id)
    message_id = message_id.lower()
    parts = [explanation_json(one, message_id, shows_payload=shows_payload) for one in explained]
    return json_answer(message_json(found, message_id, parts, shows_payload=shows_payload))


@router.get(
    "/subscriptions/{subscription_id}/messages/{message_id}",
    response_model=Explanation,
    dependencies=[requires("subscriptions:read", "subscription_id")],
)
async def explain_message(request: Request, subscription_id: str, message_id: str) -> Response:
    """Explain what became of a message in a subscription, and why."""
    state = request.app.state
    found, explained = await explaining.explain_in_one(state.database, state.directory, subscription_id, message_id)
    shows_payload = request.state.caller.allows("messages:read", found.topic_id)
    return json_answer(explanation_json(explained, message_id.lower(), shows_payload=shows_payload))
