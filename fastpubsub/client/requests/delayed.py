"""Delayed messages."""

from datetime import datetime
from functools import partial
from typing import Literal

from fastpubsub.client.decimals import read_exactly
from fastpubsub.client.requests.request import Request, deleting, path_to, write_json
from fastpubsub.models import DelayedMessage, DelayedMessageList, Released


def list_delayed(
    topic_id: str,
    *,
    state: Literal["waiting", "held"] = "waiting",
    limit: int = 10,
    page_token: str | None = None,
) -> Request[DelayedMessageList]:
    """Lists up to 100 delayed messages of a topic, the next one first, or those that are held."""
    params = {"state": state, "limit": str(limit)} | ({} if page_token is None else {"page_token": page_token})
    return Request(
        "GET", path_to("topics", topic_id, "delayed"), partial(read_exactly, DelayedMessageList), params=params
    )


def get_delayed(topic_id: str, delayed_id: str) -> Request[DelayedMessage]:
    """Gets a delayed message; for a day after it was published, the answer has its `message_id`."""
    return Request("GET", path_to("topics", topic_id, "delayed", delayed_id), partial(read_exactly, DelayedMessage))


def move_delayed(
    topic_id: str, delayed_id: str, *, deliver_at: datetime | None = None, delay_seconds: int | None = None
) -> Request[DelayedMessage]:
    """Moves a delayed message to another time. Raises `AlreadyExists` when it was already published."""
    given = {"deliver_at": deliver_at, "delay_seconds": delay_seconds}
    return Request(
        "PATCH",
        path_to("topics", topic_id, "delayed", delayed_id),
        partial(read_exactly, DelayedMessage),
        write_json({name: value for name, value in given.items() if value is not None}),
    )


def cancel_delayed(topic_id: str, delayed_id: str) -> Request[None]:
    """Cancels a delayed message. Raises `AlreadyExists` when it was already published."""
    return deleting(path_to("topics", topic_id, "delayed", delayed_id))


def release_delayed(topic_id: str) -> Request[int]:
    """Publishes the held messages of a topic, which were overdue when a server came back."""
    return Request(
        "POST",
        path_to("topics", topic_id, "release"),
        lambda answer: Released.model_validate_json(answer).released,
    )
