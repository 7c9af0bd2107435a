"""What every call sends and how its answer is read: no input or output here, so it is written once for all clients."""

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from fastpubsub import models
from fastpubsub.models import (
    ClientCredentials,
    DeadLetter,
    Message,
    RotatedSecret,
    Settled,
    Subscription,
    SubscriptionMetrics,
    Token,
    Topic,
)

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

REPRESENTATION = {"Prefer": "return=representation"}
MAX_WAIT_SECONDS = 20
MAX_REASON = 1024

CONSUMER_ID = f"{socket.gethostname()[:200]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
"""Of this process, for those who look who holds a message."""


class Unset:
    """Stays as it is."""


UNSET: Final = Unset()

Payload: TypeAlias = Mapping[str, Any] | BaseModel | Any
"""A dict, a Pydantic model, a dataclass, or a TypedDict: whatever Pydantic writes as a JSON object."""

Id: TypeAlias = str | uuid.UUID | Message | DeadLetter
Ids: TypeAlias = Id | Iterable[Id]
"""One or more. A pulled message stands for its `ack_id`, which settles nothing when another has the message by now."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A payload with attributes of its own."""

    payload: Payload
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """`read` makes the result of a 2xx answer.

    `repeatable`: doing it twice is the same as once, so it is sent again when nobody knows whether it was done.
    `instead`: what to send when the answer has this status. `done`: a status that means that it is done already.
    `holds`: seconds that the server may take on purpose.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    content: bytes | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    instead: "Mapping[int, Request[T]]" = field(default_factory=dict)
    done: int | None = None
    holds: float = 0.0


# messages


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


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message as JSON."""

    payload: bytes
    attributes: bytes | None

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.attributes or b"")


def encode(payload: Payload | Outgoing, attributes: Mapping[str, str] | None = None) -> Encoded:
    if isinstance(payload, Outgoing):
        attributes = {**(attributes or {}), **(payload.attributes or {})}
        payload = payload.payload
    return Encoded(_json(payload), _json(dict(attributes)) if attributes else None)


def publish_encoded(
    topic_id: str, messages: Iterable[Encoded], idempotency_key: str | None = None
) -> Request[list[str]]:
    messages = list(messages)
    if any(message.attributes for message in messages):
        wrapped = (b'{"payload":%b,"attributes":%b}' % (m.payload, m.attributes or b"null") for m in messages)
        content = b'{"messages":[%b]}' % b",".join(wrapped)
    else:
        content = b"[%b]" % b",".join(message.payload for message in messages)
    key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
    return Request(
        "POST",
        _path("topics", topic_id, "messages"),
        lambda answer: models.PublishedIds.model_validate_json(answer).ids if answer else [],
        content,
        headers={**REPRESENTATION, "Idempotency-Key": key},
    )


def pull(
    subscription_id: str, *, batch_size: int = 10, wait_seconds: int = 0, consumer_id: str | None = None
) -> Request[list[Message]]:
    """Leases up to 100 messages. With `wait_seconds`, up to 20, an empty subscription answers when something comes."""
    return pull_with(
        lambda answer: models.MessageList.model_validate_json(answer).data,
        subscription_id,
        batch_size,
        wait_seconds,
        consumer_id,
    )


def pull_with(
    read: Callable[[bytes], T], subscription_id: str, batch_size: int, wait_seconds: int, consumer_id: str | None
) -> Request[T]:
    params = {"consumer_id": consumer_id or CONSUMER_ID, "batch_size": str(batch_size)}
    if wait_seconds:
        params["wait_seconds"] = str(wait_seconds)
    return Request("GET", _path("subscriptions", subscription_id, "messages"), read, params=params, holds=wait_seconds)


def ack(subscription_id: str, ids: Ids) -> Request[Settled]:
    """The messages are done and do not come again."""
    return _settle(subscription_id, "acks", _json(_ids(ids)))


def nack(subscription_id: str, ids: Ids, *, delay_seconds: int | None = None) -> Request[Settled]:
    """The messages failed and come again, after the backoff of the subscription or after `delay_seconds`."""
    given = _ids(ids)
    params = {} if delay_seconds is None else {"delay_seconds": str(delay_seconds)}
    return _settle(subscription_id, "nacks", _json(given), params, repeatable=_are_ack_ids(given))


def reject(subscription_id: str, ids: Ids, *, reason: str = "rejected") -> Request[Settled]:
    """The messages will never succeed: dead letters at once. The reason is cut after 1,024 characters."""
    given = _ids(ids)
    body = _json({"ids": given, "reason": reason[:MAX_REASON] or "rejected"})
    return _settle(subscription_id, "rejects", body, repeatable=_are_ack_ids(given))


def extend(subscription_id: str, ids: Ids, *, seconds: int) -> Request[list[str]]:
    """Moves the deadline of messages to `seconds` from now; answers those that are still held."""
    return Request(
        "POST",
        _path("subscriptions", subscription_id, "leases"),
        lambda answer: models.Extended.model_validate_json(answer).ids,
        _json({"ids": _ids(ids), "extend_seconds": seconds}),
    )


def _settle(
    subscription_id: str, how: str, content: bytes, params: Mapping[str, str] | None = None, *, repeatable: bool = True
) -> Request[Settled]:
    return Request(
        "POST",
        _path("subscriptions", subscription_id, how),
        Settled.model_validate_json,
        content,
        params or {},
        REPRESENTATION,
        repeatable,
    )


def follow(topic_id: str, *, after: str | None = None, recent: int = 0) -> Request[None]:
    """Server-Sent Events, to be opened as a stream: after a message, or from now on with the recent ones first."""
    headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
    params = {"recent": str(recent)} if recent else {}
    return Request("GET", _path("topics", topic_id, "stream"), _nothing, params=params, headers=headers)


# dead letters


def list_dead_letters(subscription_id: str, *, offset: int = 0, limit: int = 10) -> Request[list[DeadLetter]]:
    """The message published first at the top; up to 100."""
    return Request(
        "GET",
        _path("subscriptions", subscription_id, "dlq"),
        lambda answer: models.DeadLetterList.model_validate_json(answer).data,
        params=_page(offset, limit),
    )


def reprocess_dead_letters(subscription_id: str, ids: Ids) -> Request[list[str]]:
    """Gives dead letters to the consumers again, attempts counted from 1; answers those that were there."""
    return _move("POST", _path("subscriptions", subscription_id, "dlq", "reprocess"), ids)


def purge_dead_letters(subscription_id: str, ids: Ids) -> Request[list[str]]:
    """Deletes dead letters for good; answers those that were there."""
    return _move("DELETE", _path("subscriptions", subscription_id, "dlq"), ids)


def _move(method: str, path: str, ids: Ids) -> Request[list[str]]:
    return Request(
        method,
        path,
        lambda answer: models.Moved.model_validate_json(answer).ids,
        _json(_ids(ids)),
        headers=REPRESENTATION,
    )


# topics


def create_topic(id: str, *, retention_seconds: int | None = None, exist_ok: bool = False) -> Request[Topic]:
    """With `exist_ok` a topic that is there already is answered as it is."""
    body = {"id": id, "retention_seconds": retention_seconds}
    return _create("/topics", body, Topic, get_topic(id) if exist_ok else None)


def get_topic(id: str) -> Request[Topic]:
    return Request("GET", _path("topics", id), Topic.model_validate_json)


def list_topics(*, offset: int = 0, limit: int = 10) -> Request[list[Topic]]:
    """Ordered by id; up to 100."""
    return Request(
        "GET", "/topics", lambda answer: models.TopicList.model_validate_json(answer).data, params=_page(offset, limit)
    )


def update_topic(id: str, *, retention_seconds: int | None) -> Request[Topic]:
    return Request(
        "PATCH", _path("topics", id), Topic.model_validate_json, _json({"retention_seconds": retention_seconds})
    )


def delete_topic(id: str) -> Request[None]:
    """With its subscriptions and everything in them."""
    return _delete(_path("topics", id))


# subscriptions


def create_subscription(
    id: str,
    topic_id: str,
    *,
    filter: Mapping[str, Any] | None = None,
    max_delivery_attempts: int | None = None,
    backoff_min_seconds: int | None = None,
    backoff_max_seconds: int | None = None,
    ack_deadline_seconds: int | None = None,
    start_from: Literal["latest", "earliest"] | datetime = "latest",
    exist_ok: bool = False,
) -> Request[Subscription]:
    """What is None is a default of the server. With `exist_ok` one that is there already is answered as it is."""
    body = {
        "id": id,
        "topic_id": topic_id,
        "filter": filter,
        "max_delivery_attempts": max_delivery_attempts,
        "backoff_min_seconds": backoff_min_seconds,
        "backoff_max_seconds": backoff_max_seconds,
        "ack_deadline_seconds": ack_deadline_seconds,
        "start_from": start_from,
    }
    given = {name: value for name, value in body.items() if value is not None}
    return _create("/subscriptions", given, Subscription, get_subscription(id) if exist_ok else None)


def get_subscription(id: str) -> Request[Subscription]:
    return Request("GET", _path("subscriptions", id), Subscription.model_validate_json)


def list_subscriptions(*, offset: int = 0, limit: int = 10) -> Request[list[Subscription]]:
    """Of all topics, ordered by id; up to 100."""
    return Request(
        "GET",
        "/subscriptions",
        lambda answer: models.SubscriptionList.model_validate_json(answer).data,
        params=_page(offset, limit),
    )


def update_subscription(
    id: str,
    *,
    filter: Mapping[str, Any] | Unset | None = UNSET,
    max_delivery_attempts: int | Unset = UNSET,
    backoff_min_seconds: int | Unset = UNSET,
    backoff_max_seconds: int | Unset = UNSET,
    ack_deadline_seconds: int | Unset = UNSET,
) -> Request[Subscription]:
    """What is left out stays as it is."""
    body = {
        "filter": filter,
        "max_delivery_attempts": max_delivery_attempts,
        "backoff_min_seconds": backoff_min_seconds,
        "backoff_max_seconds": backoff_max_seconds,
        "ack_deadline_seconds": ack_deadline_seconds,
    }
    given = {name: value for name, value in body.items() if not isinstance(value, Unset)}
    return Request("PATCH", _path("subscriptions", id), Subscription.model_validate_json, _json(given))


def delete_subscription(id: str) -> Request[None]:
    """With everything in it, dead letters too."""
    return _delete(_path("subscriptions", id))


def seek(
    subscription_id: str, to: Literal["latest", "earliest"] | datetime | uuid.UUID | Message | str
) -> Request[None]:
    """Replays or skips: `to` is `earliest`, `latest`, a time with its zone, or the message that comes next."""
    target = to.id if isinstance(to, Message) else to
    return Request("POST", _path("subscriptions", subscription_id, "seek"), _nothing, _json({"to": target}))


def metrics(subscription_id: str) -> Request[SubscriptionMetrics]:
    """How many messages are where."""
    return Request("GET", _path("subscriptions", subscription_id, "metrics"), SubscriptionMetrics.model_validate_json)


# clients and tokens


def create_client(name: str, scopes: str, *, is_active: bool = True) -> Request[ClientCredentials]:
    """Scopes are separated by spaces. The secret is told only here."""
    body = {"name": name, "scopes": scopes, "is_active": is_active}
    return _create("/clients", body, ClientCredentials)


def get_client(id: str | uuid.UUID) -> Request[models.Client]:
    return Request("GET", _path("clients", str(id)), models.Client.model_validate_json)


def list_clients(*, offset: int = 0, limit: int = 10) -> Request[list[models.Client]]:
    """Up to 100."""
    return Request(
        "GET",
        "/clients",
        lambda answer: models.ClientList.model_validate_json(answer).data,
        params=_page(offset, limit),
    )


def update_client(
    id: str | uuid.UUID,
    *,
    name: str,
    scopes: str,
    is_active: bool | None = None,
) -> Request[models.Client]:
    """Ends its tokens; `is_active` stays as it is unless given."""
    body = {"name": name, "scopes": scopes, "is_active": is_active}
    return Request("PUT", _path("clients", str(id)), models.Client.model_validate_json, _json(body))


def rotate_client_secret(id: str | uuid.UUID, *, old_secret_seconds: int = 86400) -> Request[RotatedSecret]:
    """Another secret, told only here; the one before stays good for so long.

    With 0 all secrets before end now, and all tokens: for one that was stolen. Refused while there are two.
    """
    body = {"old_secret_seconds": old_secret_seconds}
    return _create(_path("clients", str(id), "secrets"), body, RotatedSecret)


def revoke_client_secret(id: str | uuid.UUID, which: Literal["old", "new"]) -> Request[None]:
    """Ends one of two secrets before its time, and all tokens. Refused when there are not two."""
    return Request("DELETE", _path("clients", str(id), "secrets", which), _nothing, repeatable=False)


def delete_client(id: str | uuid.UUID) -> Request[None]:
    """Ends its tokens."""
    return _delete(_path("clients", str(id)))


def fetch_token(client_id: str, client_secret: str) -> Request[Token]:
    body = {"client_id": client_id, "client_secret": client_secret}
    return Request("POST", "/oauth/token", Token.model_validate_json, _json(body))


# what they are made of


def _create(
    path: str, body: Mapping[str, Any], model: type[Model], existing: Request[Model] | None = None
) -> Request[Model]:
    """Not repeatable as such: the second time it would be refused, or done twice."""
    return Request(
        "POST",
        path,
        model.model_validate_json,
        _json(body),
        repeatable=existing is not None,
        instead={} if existing is None else {409: existing},
    )


def _delete(path: str) -> Request[None]:
    return Request("DELETE", path, _nothing, done=404)


def _path(*parts: str) -> str:
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"{part!r} is no id")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _page(offset: int, limit: int) -> dict[str, str]:
    return {"offset": str(offset), "limit": str(limit)}


def _nothing(_answer: bytes) -> None:
    return None


def _ids(ids: Ids) -> list[str]:
    several = [ids] if isinstance(ids, str | uuid.UUID | Message | DeadLetter) else ids
    return [_id(one) for one in several]


def _id(one: Id) -> str:
    if isinstance(one, Message):
        return one.ack_id
    return str(one.id) if isinstance(one, DeadLetter) else str(one)


def _are_ack_ids(ids: Iterable[str]) -> bool:
    """Of a delivery each, which cannot be settled twice; a bare message id might meet the next delivery."""
    return all("." in one for one in ids)


def _json(value: Any) -> bytes:
    """NaN and infinities stay what they are, so that the server refuses them, instead of becoming null."""
    try:
        return to_json(value, by_alias=True, inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise ValueError(f"this cannot be written as JSON: {error}") from None
