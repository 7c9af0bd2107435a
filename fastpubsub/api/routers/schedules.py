"""`/topics/{topic_id}/schedules`: messages that are published again and again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from fastpubsub.api import bodies
from fastpubsub.api.recording import change_by
from fastpubsub.api.render import NO_CONTENT, json_answer, list_json, schedule_json
from fastpubsub.api.requests import Limit, PageToken, after_page, page_token
from fastpubsub.api.security import ScopedRoute, requires
from fastpubsub.json_text import member
from fastpubsub.models import ChangedSchedule, NewSchedule, Schedule, ScheduleList
from fastpubsub.payloads import make_batch
from fastpubsub.services.schedules import Content, StoredSchedule

router = APIRouter(prefix="/topics/{topic_id}/schedules", tags=["messages"], route_class=ScopedRoute)

READ = requires("topics:read", "topic_id")
PUBLISH = requires("topics:publish", "topic_id")
WRITE = requires("topics:publish", "topic_id", limit=bodies.schedule)


@router.post("", status_code=201, response_model=Schedule, dependencies=[WRITE])
async def create_schedule(request: Request, topic_id: str, body: NewSchedule) -> Response:
    """Create a schedule: it publishes its message at the times of a cron expression, or at an interval."""
    content = await _content(request, body, Content(b"{}", None, None))
    created = await request.app.state.schedules.create(topic_id, body, content, await change_by(request))
    return _answer(request, created, 201)


@router.get("", response_model=ScheduleList, dependencies=[READ])
async def list_schedules(request: Request, topic_id: str, limit: Limit = 10, token: PageToken = None) -> Response:
    """List the schedules of a topic, ordered by id."""
    after = after_page(request, token)
    found = await request.app.state.schedules.list_(topic_id, after=after, limit=limit + 1)
    more = page_token(found[limit - 1].id) if len(found) > limit else None
    return json_answer(list_json([_json(request, one) for one in found[:limit]], more))


@router.get("/{schedule_id}", response_model=Schedule, dependencies=[READ])
async def get_schedule(request: Request, topic_id: str, schedule_id: str) -> Response:
    """Get a schedule, with the next times at which it publishes."""
    return _answer(request, await request.app.state.schedules.get(topic_id, schedule_id))


@router.patch("/{schedule_id}", response_model=Schedule, dependencies=[WRITE])
async def update_schedule(request: Request, topic_id: str, schedule_id: str, body: ChangedSchedule) -> Response:
    """Change what a schedule publishes, or when. With other times it begins anew, from now on."""
    given = body.model_fields_set
    new = await _content(request, body, Content(b"{}", None, None))

    def content(there: Content) -> Content:
        return Content(*(getattr(new if name in given else there, name) for name in Content._fields))

    change = await change_by(request)
    return _answer(request, await request.app.state.schedules.update(topic_id, schedule_id, body, content, change))


@router.delete("/{schedule_id}", status_code=204, response_class=Response, dependencies=[PUBLISH])
async def delete_schedule(request: Request, topic_id: str, schedule_id: str) -> Response:
    """Delete a schedule. The messages that it has published stay."""
    await request.app.state.schedules.delete(topic_id, schedule_id, await change_by(request))
    return NO_CONTENT


@router.post("/{schedule_id}/pause", response_model=Schedule, dependencies=[PUBLISH])
async def pause_schedule(request: Request, topic_id: str, schedule_id: str) -> Response:
    """Let a schedule publish nothing until it is resumed. What it would publish meanwhile is not made up for."""
    return await _pause(request, topic_id, schedule_id, is_paused=True)


@router.post("/{schedule_id}/resume", response_model=Schedule, dependencies=[PUBLISH])
async def resume_schedule(request: Request, topic_id: str, schedule_id: str) -> Response:
    """End a pause: the schedule goes on with its next time from now."""
    return await _pause(request, topic_id, schedule_id, is_paused=False)


@router.post("/{schedule_id}/fire", response_model=Schedule, dependencies=[PUBLISH])
async def fire_schedule(request: Request, topic_id: str, schedule_id: str) -> Response:
    """Publish the message of a schedule now, besides its times; `last_message_id` is its id."""
    return _answer(request, await request.app.state.schedules.fire(topic_id, schedule_id, await change_by(request)))


async def _pause(request: Request, topic_id: str, schedule_id: str, *, is_paused: bool) -> Response:
    change = await change_by(request)
    state = request.app.state
    return _answer(request, await state.schedules.pause(topic_id, schedule_id, is_paused=is_paused, change=change))


def _answer(request: Request, schedule: StoredSchedule, status: int = 200) -> Response:
    return json_answer(_json(request, schedule, schedule.upcoming()), status)


def _json(request: Request, schedule: StoredSchedule, upcoming: Sequence[datetime] = ()) -> bytes:
    shows_payload = request.state.caller.allows("messages:read", schedule.topic_id)
    return schedule_json(schedule, upcoming, shows_payload=shows_payload)


async def _content(request: Request, body: NewSchedule | ChangedSchedule, default: Content) -> Content:
    """Checked as a publish is, and its payload as it was written."""
    text = await request.body()
    given: Any = body.payload
    payload = default.payload if given is None else member(text, "payload") or default.payload
    settings = request.app.state.settings
    batch = make_batch(
        text, [payload], [body.attributes], [body.ordering_key], max_messages=1, max_depth=settings.payload_max_depth
    )
    return Content(batch.payloads[0], (batch.attributes or [None])[0], body.ordering_key)
