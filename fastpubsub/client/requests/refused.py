"""Messages from SQL that do not match the schema of their topic."""

from collections.abc import Sequence
from functools import partial

from fastpubsub import models
from fastpubsub.client.decimals import read_exactly
from fastpubsub.client.requests.request import REPRESENTATION, Request, path_to, write_json
from fastpubsub.models import RefusedMessageList


def list_refused(topic_id: str, *, limit: int = 10, page_token: str | None = None) -> Request[RefusedMessageList]:
    """Lists up to 100 messages from SQL that do not match the schema of a topic, in the order in which they were
    refused.
    """
    params = {"limit": str(limit)} | ({} if page_token is None else {"page_token": page_token})
    path = path_to("topics", topic_id, "refused")
    return Request("GET", path, partial(read_exactly, RefusedMessageList), params=params)


def publish_refused(topic_id: str, ids: Sequence[str]) -> Request[list[str]]:
    """Publishes those that match the schema by now, and returns their ids; the others stay."""
    return _move("POST", path_to("topics", topic_id, "refused", "publish"), ids)


def purge_refused(topic_id: str, ids: Sequence[str]) -> Request[list[str]]:
    """Deletes refused messages for good; returns those that existed."""
    return _move("DELETE", path_to("topics", topic_id, "refused"), ids)


def _move(method: str, path: str, ids: Sequence[str]) -> Request[list[str]]:
    return Request(
        method,
        path,
        lambda answer: models.Moved.model_validate_json(answer).ids,
        write_json(list(ids)),
        headers=REPRESENTATION,
    )
