"""Publishing."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

from pydantic import BaseModel

from fastpubsub import models
from fastpubsub.client.errors import UnexpectedAnswer
from fastpubsub.client.requests.request import REPRESENTATION, Request, path_to, write_json
from fastpubsub.client.topics import AnyTopic, Topic

Payload: TypeAlias = Mapping[str, Any] | BaseModel | Any
"""A dict, a Pydantic model, a dataclass, a TypedDict, or anything else that Pydantic writes as a JSON object."""


Attributes: TypeAlias = Mapping[str, str] | None
Context: TypeAlias = Callable[[Attributes], Attributes]
_context: Context | None = None


def carry(context: Context | None) -> None:
    """From now on `context` gets the attributes of each message before it is published, and returns those that go."""
    global _context  # noqa: PLW0603 - a look at one name is all that those pay who carry nothing
    _context = context


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A payload with its own attributes, ordering key, time or delay in seconds, and expiry."""

    payload: Payload
    attributes: Mapping[str, str] | None = None
    ordering_key: str | None = None
    deliver_at: datetime | None = None
    delay_seconds: int | None = None
    ttl_seconds: int | None = None
    expires_at: datetime | None = None


def publish(
    topic_id: AnyTopic,
    *payloads: Payload | Outgoing,
    attributes: Mapping[str, str] | None = None,
    ordering_key: str | None = None,
    deliver_at: datetime | None = None,
    delay_seconds: int | None = None,
    ttl_seconds: int | None = None,
    expires_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Request[list[str]]:
    """Stores all messages or none, and returns their ids; `attributes` and `ordering_key` go with each.

    A `Topic` in place of its id takes only payloads of its type, and raises `TypeError` for others.

    With `deliver_at`, a time with its zone, or `delay_seconds`, up to a year, messages are delayed: the ids are those
    of delayed messages, for `get_delayed`, `move_delayed` and `cancel_delayed`.

    Messages that no consumer has taken by `expires_at`, a time with its zone, or for `ttl_seconds`, up to a year, are
    not delivered any more. For a delayed message the seconds begin when it arrives.

    A request that had to be repeated stores nothing twice. Give a key of your own, such as the id of an order, when
    your program may itself do it again, within 24 hours: the payloads must be the same then.
    """
    # A repetition under a key of theirs must be the same to the byte, also when it comes from elsewhere.
    is_carrying = idempotency_key is None
    common = (attributes, ordering_key, deliver_at, delay_seconds, ttl_seconds, expires_at)
    messages = [encode(payload, *common, is_carrying=is_carrying) for payload in payloads]
    return publish_encoded(address(topic_id, *payloads), messages, idempotency_key)


NO_TIMES = (None, None, None, None)


@dataclass(slots=True)
class Encoded:
    """A message as JSON, each of its members by itself."""

    payload: bytes
    attributes: bytes | None = None
    ordering_key: bytes | None = None
    deliver_at: bytes | None = None
    delay_seconds: bytes | None = None
    ttl_seconds: bytes | None = None
    expires_at: bytes | None = None

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.attributes or b"") + len(self.ordering_key or b"")

    @property
    def is_bare(self) -> bool:
        times = (self.deliver_at, self.delay_seconds, self.ttl_seconds, self.expires_at)
        return self.attributes is None and self.ordering_key is None and times == NO_TIMES

    def enveloped(self) -> bytes:
        members = {
            b"payload": self.payload,
            b"attributes": self.attributes,
            b"ordering_key": self.ordering_key,
            b"deliver_at": self.deliver_at,
            b"delay_seconds": self.delay_seconds,
            b"ttl_seconds": self.ttl_seconds,
            b"expires_at": self.expires_at,
        }
        return b"{%b}" % b",".join(b'"%b":%b' % (name, json) for name, json in members.items() if json is not None)


def address(topic: AnyTopic, *payloads: Payload | Outgoing) -> str:
    """Returns the id of a topic; raises `TypeError` when it is a `Topic` of payloads of another type."""
    if not isinstance(topic, Topic):
        return topic
    for payload in payloads:
        topic.check(payload.payload if isinstance(payload, Outgoing) else payload)
    return topic.id


def encode(
    payload: Payload | Outgoing,
    attributes: Attributes = None,
    ordering_key: str | None = None,
    deliver_at: datetime | None = None,
    delay_seconds: int | None = None,
    ttl_seconds: int | None = None,
    expires_at: datetime | None = None,
    *,
    is_carrying: bool = True,
) -> Encoded:
    if isinstance(payload, Outgoing):
        attributes = {**(attributes or {}), **(payload.attributes or {})}
        ordering_key = ordering_key if payload.ordering_key is None else payload.ordering_key
        if payload.deliver_at is not None or payload.delay_seconds is not None:
            deliver_at, delay_seconds = payload.deliver_at, payload.delay_seconds
        if payload.ttl_seconds is not None or payload.expires_at is not None:
            ttl_seconds, expires_at = payload.ttl_seconds, payload.expires_at
        payload = payload.payload
    if _context is not None and is_carrying:
        attributes = _context(attributes)
    return Encoded(
        write_json(payload),
        write_json(dict(attributes)) if attributes else None,
        None if ordering_key is None else write_json(ordering_key),
        None if deliver_at is None else write_json(deliver_at),
        None if delay_seconds is None else write_json(delay_seconds),
        None if ttl_seconds is None else write_json(ttl_seconds),
        None if expires_at is None else write_json(expires_at),
    )


def publish_encoded(
    topic_id: str, messages: Iterable[Encoded], idempotency_key: str | None = None
) -> Request[list[str]]:
    messages = list(messages)
    if all(message.is_bare for message in messages):
        content = b"[%b]" % b",".join(message.payload for message in messages)
    else:
        content = b'{"messages":[%b]}' % b",".join(message.enveloped() for message in messages)
    key = os.urandom(16).hex() if idempotency_key is None else idempotency_key
    carried = (_context(None) if _context is not None else None) or {}
    return Request(
        "POST",
        path_to("topics", topic_id, "messages"),
        partial(_published, len(messages)),
        content,
        headers={**REPRESENTATION, "Idempotency-Key": key, **carried},
    )


def _published(count: int, answer: bytes) -> list[str]:
    ids = models.PublishedIds.model_validate_json(answer).ids
    if len(ids) != count:
        raise UnexpectedAnswer(f"{count} messages were published, and the answer has {len(ids)} ids")
    return ids
