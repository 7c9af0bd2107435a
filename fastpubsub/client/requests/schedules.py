"""Schedules: messages that are published again and again."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastpubsub.client.decimals import read_exactly, write_exactly
from fastpubsub.client.existing import require_same
from fastpubsub.client.requests.request import (
    UNSET,
    Page,
    Request,
    Unset,
    creating,
    deleting,
    only_given,
    path_to,
    write_json,
)
from fastpubsub.models import CatchUp, Schedule, ScheduleList


def create_schedule(
    topic_id: str,
    id: str,
    payload: Mapping[str, Any] | None = None,
    *,
    cron: str | None = None,
    time_zone: str | None = None,
    interval_seconds: int | None = None,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str | None = None,
    catch_up: CatchUp | None = None,
    exist_ok: bool = False,
) -> Request[Schedule]:
    """Creates a schedule, which publishes its payload at the times of `cron`, or every `interval_seconds`.

    `cron` is minute, hour, day of the month, month and day of the week, such as "0 9 * * MON-FRI", in a `time_zone` of
    the IANA database, UTC by default. `catch_up` says what happens to times at which no server ran: "once", which is
    the default, "all" or "none". With `exist_ok` it returns an existing schedule, and raises `AlreadyExists` when that
    differs.
    """
    body = only_given(
        id=id,
        payload=payload,
        attributes=attributes,
        ordering_key=ordering_key,
        cron=cron,
        time_zone=time_zone,
        interval_seconds=interval_seconds,
        catch_up=catch_up,
    )
    existing = get_schedule(topic_id, id) if exist_ok else None
    return creating(_path(topic_id), body, Schedule, existing, partial(require_same, "schedule"))


def list_schedules(topic_id: str, *, limit: int = 10, page_token: str | None = None) -> Request[Page[Schedule]]:
    """Lists up to 100 schedules of a topic, ordered by id."""
    params = {"limit": str(limit)} | ({} if page_token is None else {"page_token": page_token})
    return Request("GET", _path(topic_id), _read_page, params=params)


def get_schedule(topic_id: str, id: str) -> Request[Schedule]:
    """Gets a schedule; `upcoming` has the next five times at which it publishes."""
    return _one("GET", _path(topic_id, id))


def update_schedule(
    topic_id: str,
    id: str,
    *,
    payload: Mapping[str, Any] | Unset = UNSET,
    cron: str | Unset = UNSET,
    time_zone: str | Unset = UNSET,
    interval_seconds: int | Unset = UNSET,
    attributes: Mapping[str, str] | Unset | None = UNSET,
    ordering_key: str | Unset | None = UNSET,
    catch_up: CatchUp | Unset = UNSET,
) -> Request[Schedule]:
    """A missing argument keeps the present value; `cron` takes the place of `interval_seconds`, and the other way."""
    body = {
        "payload": payload,
        "cron": cron,
        "time_zone": time_zone,
        "interval_seconds": interval_seconds,
        "attributes": attributes,
        "ordering_key": ordering_key,
        "catch_up": catch_up,
    }
    given = {name: value for name, value in body.items() if not isinstance(value, Unset)}
    return _one("PATCH", _path(topic_id, id), write_exactly(given, write_json))


def pause_schedule(topic_id: str, id: str) -> Request[Schedule]:
    """Lets a schedule publish nothing until it is resumed. What it would publish meanwhile is not made up for."""
    return _one("POST", _path(topic_id, id, "pause"))


def resume_schedule(topic_id: str, id: str) -> Request[Schedule]:
    """Ends a pause: the schedule goes on with its next time from now."""
    return _one("POST", _path(topic_id, id, "resume"))


def fire_schedule(topic_id: str, id: str) -> Request[Schedule]:
    """Publishes the message of a schedule now, besides its times; `last_message_id` is its id.

    Not sent again when nobody knows whether it was done: that would publish twice.
    """
    return _one("POST", _path(topic_id, id, "fire"), repeatable=False)


def delete_schedule(topic_id: str, id: str) -> Request[None]:
    """Deletes a schedule. The messages that it has published stay."""
    return deleting(_path(topic_id, id))


def _path(topic_id: str, *parts: str) -> str:
    return path_to("topics", topic_id, "schedules", *parts)


def _one(method: str, path: str, content: bytes | None = None, *, repeatable: bool = True) -> Request[Schedule]:
    return Request(method, path, partial(read_exactly, Schedule), content, repeatable=repeatable)


def _read_page(answer: bytes) -> Page[Schedule]:
    read = read_exactly(ScheduleList, answer)
    page = Page(read.data)
    page.next_page_token = read.next_page_token
    return page
