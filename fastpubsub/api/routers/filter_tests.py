"""Filters tried before they are set."""

from fastapi import APIRouter, Request, Response

from fastpubsub.api import bodies
from fastpubsub.api.explanations import decision_members
from fastpubsub.api.render import json_answer, json_object
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.json_text import member
from fastpubsub.models import FilterTest, FilterTested
from fastpubsub.services import previews, subscriptions, topics
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.previews import Backlog, Decision, Judged

router = APIRouter(tags=["messages"], route_class=ScopedRoute)

DEFAULT_LAST = 100


@router.post(
    "/topics/{topic_id}/filter/test",
    response_model=FilterTested,
    dependencies=[requires("topics:read", "topic_id", limit=bodies.filter_test)],
)
async def test_filter_of_topic(request: Request, topic_id: str, body: FilterTest) -> Response:
    """Judge a payload, or the last messages of the topic, by a filter."""
    filter_json = subscriptions.filter_text(request.app.state.settings, member(await request.body(), "filter"))
    if body.payload is not None:
        await topics.get_topic(request.app.state.database, topic_id)
        return await _judge_payload(request, filter_json, body.ordering_key)

    async def judge(topic_key: int) -> Judged:
        return await _judge_last(request, topic_id, topic_key, filter_json, body.last)

    judged = await request.app.state.directory.topics.use(topic_id, judge)
    return _answer(judged, None, shows_payload=_shows(request, topic_id))


@router.post(
    "/subscriptions/{subscription_id}/filter/test",
    response_model=FilterTested,
    dependencies=[requires("subscriptions:read", "subscription_id", limit=bodies.filter_test)],
)
async def test_filter_of_subscription(request: Request, subscription_id: str, body: FilterTest) -> Response:
    """Judge a payload, or the last messages of the topic, by a filter, and estimate what would be ahead with it."""
    state = request.app.state
    filter_json = subscriptions.filter_text(state.settings, member(await request.body(), "filter"))
    topic_id = (await subscriptions.get_subscription(state.database, subscription_id)).topic_id
    if body.payload is not None:
        return await _judge_payload(request, filter_json, body.ordering_key)

    async def judge(keys: SubscriptionKey) -> tuple[Backlog, Judged]:
        # First what refuses the keys of a deleted subscription, whose topic may be another one.
        backlog = await previews.preview_filter(state.database, keys, filter_json)
        return backlog, await _judge_last(request, topic_id, keys.topic_key, filter_json, body.last)

    backlog, judged = await state.directory.subscriptions.use(subscription_id, judge)
    return _answer(judged, backlog, shows_payload=_shows(request, topic_id))


def _shows(request: Request, topic_id: str) -> bool:
    allowed: bool = request.state.caller.allows("messages:read", topic_id)
    return allowed


async def _judge_payload(request: Request, filter_json: str | None, ordering_key: str | None) -> Response:
    body = await request.body()
    payload, attributes = member(body, "payload") or b"null", member(body, "attributes")
    decision = await previews.judge_payload(request.app.state.database, filter_json, payload, attributes, ordering_key)
    return json_answer(json_object(_members(decision, shows_payload=True)))


async def _judge_last(
    request: Request, topic_id: str, topic_key: int, filter_json: str | None, last: int | None
) -> Judged:
    return await previews.judge_last_messages(
        request.app.state.database, topic_key, filter_json, last or DEFAULT_LAST, with_content=_shows(request, topic_id)
    )


def _members(decision: Decision, *, shows_payload: bool) -> dict[str, bytes | str | float | None]:
    why = {} if decision.passes else decision_members(decision, shows_payload=shows_payload)
    return {"passes": decision.passes, **why}


def _answer(judged: Judged, backlog: Backlog | None, *, shows_payload: bool) -> Response:
    passing, filtered = [], []
    for one in judged.examples:
        members = {"id": one.id} | ({} if one.payload is None else {"payload": one.payload})
        if one.decision.passes:
            passing.append(json_object(members))
        else:
            filtered.append(json_object(members | decision_members(one.decision, shows_payload=shows_payload)))
    lists = {name: b"[" + b",".join(parts) + b"]" for name, parts in (("passing", passing), ("filtered", filtered))}
    counts = {"looked_at": judged.looked_at, "passed": judged.passed}
    return json_answer(json_object(counts | lists | ({} if backlog is None else backlog._asdict())))
