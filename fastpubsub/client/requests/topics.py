"""Topics."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastpubsub import models
from fastpubsub.client.decimals import read_exactly, write_exactly
from fastpubsub.client.existing import require_same
from fastpubsub.client.requests.request import (
    UNSET,
    Request,
    Unset,
    creating,
    deleting,
    metrics_params,
    only_given,
    page_params,
    path_to,
    write_json,
)
from fastpubsub.models import Topic


def create_topic(
    id: str,
    *,
    retention_seconds: int | None = None,
    exist_ok: bool = False,
    schema: Mapping[str, Any] | None = None,
) -> Request[Topic]:
    """Creates a topic. With `exist_ok` it returns an existing one, and raises `AlreadyExists` when that differs.

    `schema` is a JSON Schema that every payload must match.
    """
    body = only_given(id=id, retention_seconds=retention_seconds, schema=schema)
    return creating("/topics", body, Topic, get_topic(id) if exist_ok else None, partial(require_same, "topic"))


def get_topic(id: str, *, include_metrics: bool = False) -> Request[Topic]:
    return Request("GET", path_to("topics", id), partial(read_exactly, Topic), params=metrics_params(include_metrics))


def list_topics(
    *, q: str | None = None, include_metrics: bool = False, offset: int = 0, limit: int = 10
) -> Request[list[Topic]]:
    """Lists up to 100 topics, ordered by id; `q` is a part of their ids, without case."""
    return Request(
        "GET",
        "/topics",
        lambda answer: read_exactly(models.TopicList, answer).data,
        params=page_params(offset, limit) | only_given(q=q) | metrics_params(include_metrics),
    )


def update_topic(
    id: str,
    *,
    retention_seconds: int | Unset | None = UNSET,
    schema: Mapping[str, Any] | Unset | None = UNSET,
) -> Request[Topic]:
    """A missing argument keeps the present value; None is the server's retention, or no schema."""
    body = {"retention_seconds": retention_seconds, "schema": schema}
    given = {name: value for name, value in body.items() if not isinstance(value, Unset)}
    return Request("PATCH", path_to("topics", id), partial(read_exactly, Topic), write_exactly(given, write_json))


def delete_topic(id: str) -> Request[None]:
    """Deletes the topic, its subscriptions and everything in them."""
    return deleting(path_to("topics", id))
