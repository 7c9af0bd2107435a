"""Publishing."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from pydantic import BaseModel

from fastpubsub import models
from fastpubsub.client.errors import UnexpectedAnswer
from fastpubsub.client.requests.request import REPRESENTATION, Request, path_to, write_json

Payload: TypeAlias = Mapping[str, Any] | BaseModel | Any
"""A dict, a Pydantic model, a dataclass, a TypedDict, or anything else that Pydantic writes as a JSON object."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A payload with its own attributes."""

    payload: Payload
    attributes: Mapping[str, str] | None = None


def publish(
    topic_id: str,
    *payloads: Payload | Outgoing,
    attributes: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Request[list[str]]:
    """Stores all of them or none, and answers their ids; `attributes` go with each.

    A request that had to be repeated stores nothing twice. Give a key of your own, such as the id of an order, when
    your program may itself do it again, within 24 hours: the payloads must be the same then.
    """
    return publish_encoded(topic_id, [encode(payload, attributes) for payload in payloads], idempotency_key)


@dataclass(slots=True)
class Encoded:
    """Returns a message as JSON."""

    payload: bytes
    attributes: bytes | None

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.attributes or b"")


def encode(payload: Payload | Outgoing, attributes: Mapping[str, str] | None = None) -> Encoded:
    if isinstance(payload, Outgoing):
        attributes = {**(attributes or {}), **(payload.attributes or {})}
        payload = payload.payload
    return Encoded(write_json(payload), write_json(dict(attributes)) if attributes else None)


def publish_encoded(
    topic_id: str, messages: Iterable[Encoded], idempotency_key: str | None = None
) -> Request[list[str]]:
    messages = list(messages)
    if any(message.attributes for message in messages):
        wrapped = (b'{"payload":%b,"attributes":%b}' % (m.payload, m.attributes or b"null") for m in messages)
        content = b'{"messages":[%b]}' % b",".join(wrapped)
    else:
        content = b"[%b]" % b",".join(message.payload for message in messages)
    key = os.urandom(16).hex() if idempotency_key is None else idempotency_key
    return Request(
        "POST",
        path_to("topics", topic_id, "messages"),
        partial(_published, len(messages)),
        content,
        headers={**REPRESENTATION, "Idempotency-Key": key},
    )


def _published(count: int, answer: bytes) -> list[str]:
    ids = models.PublishedIds.model_validate_json(answer).ids
    if len(ids) != count:
        raise UnexpectedAnswer(f"{count} messages were published, and the answer has {len(ids)} ids")
    return ids
