"""Builds every request and reads its answer, without input or output, once for all clients."""

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final, Generic, Literal, Self, TypeAlias, TypeVar
from urllib.parse import quote

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from fastpubsub import models
from fastpubsub.client.checks import check_headers, check_text
from fastpubsub.client.decimals import read_exactly, write_exactly
from fastpubsub.client.errors import UnexpectedAnswer
from fastpubsub.client.existing import CONFLICT, must_change, require_same
from fastpubsub.models import (
    BrowsedMessages,
    BrowsedState,
    BrowsedTopic,
    ChangeList,
    ClientCredentials,
    Consumer,
    ConsumerList,
    DeadLetter,
    DeadLetterReason,
    ExplainedMessage,
    Explanation,
    FilterTested,
    History,
    Message,
    Overview,
    PurgedSubscription,
    Redrive,
    RotatedSecret,
    SeekPreview,
    SeenMessage,
    Settled,
    SettledAndPulled,
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
NO_REASON = "rejected"


class Unset:
    """Stays as it is."""


UNSET: Final = Unset()

Payload: TypeAlias = Mapping[str, Any] | BaseModel | Any
"""A dict, a Pydantic model, a dataclass, a TypedDict, or anything else that Pydantic writes as a JSON object."""

Id: TypeAlias = str | uuid.UUID | Message | DeadLetter
Ids: TypeAlias = Id | Iterable[Id]
"""One or more. A pulled message stands for its `ack_id`, which settles nothing when another has the message by now."""


Place: TypeAlias = int | datetime | str | uuid.UUID | Message | DeadLetter | SeenMessage
"""A position of a topic, a time with its zone, or a message or its id."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A payload with its own attributes."""

    payload: Payload
    attributes: Mapping[str, str] | None = None


@dataclass(slots=True)  # not frozen: those take three times as long to make, and every call makes one
class Request(Generic[T]):
    """`read` makes the result of a 2xx answer.

    `repeatable`: doing it twice is the same as once, so it is sent again when nobody knows whether it was done.
    `instead`: what to send when the answer has this status; `reconcile` gets what was sent first, and what was answered
    then, and may say what to send next. `done`: a status that means that it is done already.
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
    reconcile: "Callable[[bytes, bytes], Request[T] | None]" = lambda _sent, _found: None
    done: int | None = None
    holds: float = 0.0

    def __post_init__(self) -> None:
        check_headers(self.headers)
        for name, value in self.params.items():
            check_text(name, value)


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
    key = os.urandom(16).hex() if idempotency_key is None else idempotency_key
    return Request(
        "POST",
        _path("topics", topic_id, "messages"),
        partial(_published, len(messages)),
        content,
        headers={**REPRESENTATION, "Idempotency-Key": key},
    )


def _published(count: int, answer: bytes) -> list[str]:
    ids = models.PublishedIds.model_validate_json(answer).ids
    if len(ids) != count:
        raise UnexpectedAnswer(f"{count} messages were published, and the answer has {len(ids)} ids")
    return ids


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


class Settlement:
    """What `settle_and_pull` settles: like the methods of the client, together. Each returns the settlement itself."""

    def __init__(self) -> None:
        self.body: dict[str, list[Any]] = {name: [] for name in models.Settles.model_fields}
        self.repeatable = True

    def ack(self, ids: Ids) -> Self:
        """The messages are done and do not come again."""
        self.body["acks"] += _ids(ids)
        return self

    def nack(self, ids: Ids, *, delay_seconds: int | None = None, undelivered: bool = False) -> Self:
        """The messages failed and come again, as after `nack` of the client."""
        options = _given(delay_seconds=delay_seconds, undelivered=undelivered or None)
        return self._add("nacks", ids, options)

    def reject(self, ids: Ids, *, reason: object = NO_REASON) -> Self:
        """The messages will never succeed: dead letters at once. The reason is cut after 1,024 characters."""
        return self._add("rejects", ids, {"reason": as_reason(reason)})

    def extend(self, ids: Ids, *, seconds: int) -> Self:
        """Moves the deadline of messages to `seconds` from now."""
        self.body["leases"].append({"ids": _ids(ids), "extend_seconds": seconds})
        return self

    def _add(self, member: str, ids: Ids, options: Mapping[str, Any]) -> Self:
        given = _ids(ids)
        self.body[member].append({"ids": given, **options})
        self.repeatable = self.repeatable and _are_ack_ids(given)
        return self


def settle_and_pull(
    subscription_id: str,
    settlement: Settlement,
    *,
    batch_size: int = 10,
    wait_seconds: int = 0,
    consumer_id: str | None = None,
) -> Request[SettledAndPulled]:
    """Settles messages and leases the next ones, in one request: both are done, or neither.

    With `wait_seconds` what is settled is so before it waits. When an answer is lost and the request is repeated, what
    the first one settled is `gone`, and the messages that it leased come again after their ack deadline.
    """
    read = SettledAndPulled.model_validate_json
    return pull_with(read, subscription_id, batch_size, wait_seconds, consumer_id, settlement)


@lru_cache(maxsize=1)
def _consumer_id(process: int) -> str:
    """Of a process, which the leases show."""
    return f"{socket.gethostname()[:200]}:{process}:{uuid.uuid4().hex[:8]}"


def pull_with(
    read: Callable[[bytes], T],
    subscription_id: str,
    batch_size: int,
    wait_seconds: int,
    consumer_id: str | None,
    settlement: Settlement | None = None,
) -> Request[T]:
    """Settles before, if there is something to settle."""
    params = {"consumer_id": consumer_id or _consumer_id(os.getpid()), "batch_size": str(batch_size)}
    if wait_seconds:
        params["wait_seconds"] = str(wait_seconds)
    if settlement is None:
        path = _path("subscriptions", subscription_id, "messages")
        return Request("GET", path, read, params=params, holds=wait_seconds)
    return Request(
        "POST",
        _path("subscriptions", subscription_id, "pulls"),
        read,
        _json(settlement.body),
        params,
        REPRESENTATION,
        settlement.repeatable,
        holds=wait_seconds,
    )


def end_waits(subscription_id: str, consumer_id: str | None = None) -> Request[None]:
    """Has pulls of this consumer that wait answered now."""
    params = {"consumer_id": consumer_id or _consumer_id(os.getpid())}
    return Request("DELETE", _path("subscriptions", subscription_id, "waits"), _nothing, params=params)


def ack(subscription_id: str, ids: Ids) -> Request[Settled]:
    """The messages are done and do not come again."""
    return _settle(subscription_id, "acks", _json(_ids(ids)))


def nack(
    subscription_id: str, ids: Ids, *, delay_seconds: int | None = None, undelivered: bool = False
) -> Request[Settled]:
    """The messages failed and come again, after the backoff of the subscription or after `delay_seconds`.

    `undelivered`: nobody has looked at them, so they come again at once, and the attempt does not count.
    """
    given = _ids(ids)
    params = {} if delay_seconds is None else {"delay_seconds": str(delay_seconds)}
    if undelivered:
        params["undelivered"] = "true"
    return _settle(subscription_id, "nacks", _json(given), params, repeatable=_are_ack_ids(given))


def reject(subscription_id: str, ids: Ids, *, reason: object = "rejected") -> Request[Settled]:
    """The messages will never succeed: dead letters at once. The reason is cut after 1,024 characters."""
    given = _ids(ids)
    body = _json({"ids": given, "reason": as_reason(reason)})
    return _settle(subscription_id, "rejects", body, repeatable=_are_ack_ids(given))


def as_reason(reason: object, instead: str = NO_REASON) -> str:
    """Returns 1 to 1,024 characters. NUL, and the lone surrogates of file names, are escaped."""
    if reason is None:
        return instead
    try:
        text = f"{type(reason).__name__}: {reason}".rstrip(": ") if isinstance(reason, BaseException) else str(reason)
        text = text[:MAX_REASON].encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    except BaseException:  # noqa: BLE001 - of an object of theirs
        text = type(reason).__name__
    return text[:MAX_REASON] or instead


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


def follow(
    topic_id: str, *, after: str | None = None, recent: int = 0, filter: Mapping[str, Any] | None = None
) -> Request[None]:
    """Opens a stream of Server-Sent Events: after a message, or from now on with the `recent` ones first."""
    headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
    params = {"recent": str(recent)} if recent else {}
    if filter:
        params["filter"] = write_exactly(filter, _json).decode()
    return Request("GET", _path("topics", topic_id, "stream"), _nothing, params=params, headers=headers)


# dead letters


class Page(list[T]):
    """A list with `next_page_token`, which is None on the last page. A page may be empty and not the last."""

    next_page_token: str | None = None


def list_dead_letters(
    subscription_id: str,
    *,
    reason: str | None = None,
    died_after: datetime | None = None,
    died_before: datetime | None = None,
    page_token: str | None = None,
    offset: int = 0,
    limit: int = 10,
) -> Request[Page[DeadLetter]]:
    """Lists up to 100, in the order in which they were published.

    `reason` is the exact one; `died_after` is included, `died_before` is not. `page_token` is `next_page_token` of the
    page before, instead of `offset`.
    """
    given = _given(reason=reason) | _place("died_after", died_after) | _place("died_before", died_before)
    page = _page(offset, limit) if page_token is None else {"page_token": page_token, "limit": str(limit)}
    path = _path("subscriptions", subscription_id, "dlq")
    return Request("GET", path, partial(_read_page, models.DeadLetterList), params=page | given)


def _read_page(model: type[Any], answer: bytes) -> Page[Any]:
    read = model.model_validate_json(answer)
    page = Page(read.data)
    page.next_page_token = read.next_page_token
    return page


def reprocess_dead_letters(subscription_id: str, ids: Ids) -> Request[list[str]]:
    """Gives dead letters to the consumers again, attempts counted from 1; answers those that were there."""
    return _move("POST", _path("subscriptions", subscription_id, "dlq", "reprocess"), ids)


def purge_dead_letters(subscription_id: str, ids: Ids) -> Request[list[str]]:
    """Deletes dead letters for good; answers those that were there."""
    return _move("DELETE", _path("subscriptions", subscription_id, "dlq"), ids)


def list_dead_letter_reasons(subscription_id: str) -> Request[list[DeadLetterReason]]:
    """Counts dead letters by reason, the most frequent first, up to 100 reasons."""
    return Request(
        "GET",
        _path("subscriptions", subscription_id, "dlq", "reasons"),
        lambda answer: models.DeadLetterReasonList.model_validate_json(answer).data,
    )


def create_redrive(
    subscription_id: str,
    action: Literal["reprocess", "purge"] = "reprocess",
    *,
    reason: str | None = None,
    died_after: datetime | None = None,
    died_before: datetime | None = None,
    per_second: int | None = None,
) -> Request[Redrive]:
    """Begins to reprocess or purge all dead letters that match, `per_second` at most, in the background of the server.

    It is not repeated after an answer was lost: look at `list_redrives` first.
    """
    given = {"reason": reason, "died_after": died_after, "died_before": died_before, "per_second": per_second}
    body = {"action": action} | {name: value for name, value in given.items() if value is not None}
    path = _path("subscriptions", subscription_id, "redrives")
    return Request("POST", path, Redrive.model_validate_json, _json(body), repeatable=False)


def list_redrives(subscription_id: str) -> Request[list[Redrive]]:
    """Lists the redrives of a subscription, newest first."""
    return Request(
        "GET",
        _path("subscriptions", subscription_id, "redrives"),
        lambda answer: models.RedriveList.model_validate_json(answer).data,
    )


def get_redrive(subscription_id: str, redrive_id: int) -> Request[Redrive]:
    """Looks how far a redrive has come."""
    path = _path("subscriptions", subscription_id, "redrives", str(redrive_id))
    return Request("GET", path, Redrive.model_validate_json)


def cancel_redrive(subscription_id: str, redrive_id: int) -> Request[None]:
    """Ends a redrive: what it has moved stays moved."""
    return Request("DELETE", _path("subscriptions", subscription_id, "redrives", str(redrive_id)), _nothing)


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
    """With `exist_ok` returns an existing one; raises `AlreadyExists` when it differs from the given settings."""
    body: dict[str, Any] = {"id": id} | ({} if retention_seconds is None else {"retention_seconds": retention_seconds})
    return _create("/topics", body, Topic, get_topic(id) if exist_ok else None, partial(require_same, "topic"))


def get_topic(id: str, *, include_metrics: bool = False) -> Request[Topic]:
    return Request("GET", _path("topics", id), partial(read_exactly, Topic), params=_metrics(include_metrics))


def list_topics(
    *, q: str | None = None, include_metrics: bool = False, offset: int = 0, limit: int = 10
) -> Request[list[Topic]]:
    """Lists up to 100, ordered by id; `q` is a part of their ids, without case."""
    return Request(
        "GET",
        "/topics",
        lambda answer: read_exactly(models.TopicList, answer).data,
        params=_page(offset, limit) | _given(q=q) | _metrics(include_metrics),
    )


def update_topic(id: str, *, retention_seconds: int | None) -> Request[Topic]:
    return Request(
        "PATCH", _path("topics", id), partial(read_exactly, Topic), _json({"retention_seconds": retention_seconds})
    )


def delete_topic(id: str) -> Request[None]:
    """Deletes the topic, its subscriptions and everything in them."""
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
    """None stands for the default of the server.

    With `exist_ok` returns an existing one; raises `AlreadyExists` when it differs from the given settings, except
    `start_from`.
    """
    given = _given(
        id=id,
        topic_id=topic_id,
        filter=filter,
        max_delivery_attempts=max_delivery_attempts,
        backoff_min_seconds=backoff_min_seconds,
        backoff_max_seconds=backoff_max_seconds,
        ack_deadline_seconds=ack_deadline_seconds,
        start_from=start_from,
    )
    existing = get_subscription(id) if exist_ok else None
    return _create("/subscriptions", given, Subscription, existing, partial(require_same, "subscription"))


def ensure_subscription(
    id: str,
    topic_id: str,
    *,
    filter: Mapping[str, Any] | None = None,
    max_delivery_attempts: int | None = None,
    backoff_min_seconds: int | None = None,
    backoff_max_seconds: int | None = None,
    ack_deadline_seconds: int | None = None,
    start_from: Literal["latest", "earliest"] | datetime = "latest",
) -> Request[Subscription]:
    """Creates it, or changes the given settings that differ, which is logged. `{}` means no filter.

    Raises `AlreadyExists` when it exists with another topic. `start_from` counts only when it is created.
    """
    settings = _given(
        filter=filter,
        max_delivery_attempts=max_delivery_attempts,
        backoff_min_seconds=backoff_min_seconds,
        backoff_max_seconds=backoff_max_seconds,
        ack_deadline_seconds=ack_deadline_seconds,
    )
    content = write_exactly({"id": id, "topic_id": topic_id, "start_from": start_from, **settings}, _json)
    return ensuring_subscription(id, content, write_exactly(settings, _json))


def ensuring_subscription(
    id: str, content: bytes, settings: bytes, must_change: Callable[[bytes, bytes], bool] = must_change
) -> Request[Subscription]:
    update = replace(update_subscription(id), content=settings)
    return replace(
        create_subscription(id, "", exist_ok=True),
        content=content,
        reconcile=lambda sent, found: update if must_change(sent, found) else None,
    )


def get_subscription(id: str, *, include_metrics: bool = False) -> Request[Subscription]:
    path = _path("subscriptions", id)
    return Request("GET", path, partial(read_exactly, Subscription), params=_metrics(include_metrics))


def list_subscriptions(
    *,
    topic_id: str | None = None,
    q: str | None = None,
    include_metrics: bool = False,
    has_dead_letters: bool = False,
    offset: int = 0,
    limit: int = 10,
) -> Request[list[Subscription]]:
    """Lists up to 100 of all topics, or of one, ordered by id; `q` is a part of their ids, without case.

    `has_dead_letters=True` lists only those with dead letters.
    """
    return Request(
        "GET",
        "/subscriptions",
        lambda answer: read_exactly(models.SubscriptionList, answer).data,
        params=_page(offset, limit)
        | _given(topic_id=topic_id, q=q, has_dead_letters="true" if has_dead_letters else None)
        | _metrics(include_metrics),
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
    """A missing argument keeps the present value."""
    body = {
        "filter": filter,
        "max_delivery_attempts": max_delivery_attempts,
        "backoff_min_seconds": backoff_min_seconds,
        "backoff_max_seconds": backoff_max_seconds,
        "ack_deadline_seconds": ack_deadline_seconds,
    }
    given = {name: value for name, value in body.items() if not isinstance(value, Unset)}
    return Request(
        "PATCH", _path("subscriptions", id), partial(read_exactly, Subscription), write_exactly(given, _json)
    )


def delete_subscription(id: str) -> Request[None]:
    """Deletes the subscription and everything in it, including dead letters."""
    return _delete(_path("subscriptions", id))


def seek(
    subscription_id: str,
    to: Literal["latest", "earliest"] | datetime | uuid.UUID | Message | str,
    *,
    dry_run: bool = False,
) -> Request[SeekPreview | None]:
    """Replays or skips: `to` is `earliest`, `latest`, a time with its zone, or the message that comes next.

    `dry_run`: returns what it would do, and changes nothing.
    """
    body = {"to": to.id if isinstance(to, Message) else to, **_given(dry_run=dry_run or None)}
    read = SeekPreview.model_validate_json if dry_run else _nothing
    return Request("POST", _path("subscriptions", subscription_id, "seek"), read, _json(body))


def test_filter(
    subscription_id: str,
    filter: Mapping[str, Any] | None,
    *,
    payload: Payload | None = None,
    attributes: Mapping[str, str] | None = None,
    last: int | None = None,
) -> Request[FilterTested]:
    """Judges a payload with its attributes, or the last messages (100, up to 1,000), by a filter; nothing changes.

    It also estimates how many messages would be ahead.
    """
    given = _given(payload=payload, attributes=attributes, last=last)
    return _test_filter(_path("subscriptions", subscription_id, "filter", "test"), filter, given)


def test_topic_filter(
    topic_id: str,
    filter: Mapping[str, Any] | None,
    *,
    payload: Payload | None = None,
    attributes: Mapping[str, str] | None = None,
    last: int | None = None,
) -> Request[FilterTested]:
    """Judges a payload with its attributes, or the last messages of a topic (100, up to 1,000), by a filter."""
    given = _given(payload=payload, attributes=attributes, last=last)
    return _test_filter(_path("topics", topic_id, "filter", "test"), filter, given)


def _test_filter(path: str, filter: Mapping[str, Any] | None, given: dict[str, Any]) -> Request[FilterTested]:
    body = {"filter": filter, **given}
    return Request("POST", path, FilterTested.model_validate_json, write_exactly(body, _json))


def pause(subscription_id: str) -> Request[Subscription]:
    """Lets pulls and streams get nothing until `resume`; what consumers hold they can settle."""
    return Request("POST", _path("subscriptions", subscription_id, "pause"), partial(read_exactly, Subscription))


def resume(subscription_id: str) -> Request[Subscription]:
    """Ends a pause."""
    return Request("POST", _path("subscriptions", subscription_id, "resume"), partial(read_exactly, Subscription))


def purge(subscription_id: str) -> Request[PurgedSubscription]:
    """Settles everything that is ahead, leased or waiting, and counts it; dead letters stay."""
    path = _path("subscriptions", subscription_id, "purge")
    return Request("POST", path, PurgedSubscription.model_validate_json, repeatable=False)


def metrics(subscription_id: str) -> Request[SubscriptionMetrics]:
    """Counts the messages of a subscription by state."""
    return Request("GET", _path("subscriptions", subscription_id, "metrics"), SubscriptionMetrics.model_validate_json)


def list_consumers(subscription_id: str, *, limit: int = 100, page_token: str | None = None) -> Request[Page[Consumer]]:
    """Lists up to 100 that hold messages or wait for some, ordered by id, at all servers.

    Who waits at another server process may have begun or ended it up to 5 seconds ago. `page_token` is
    `next_page_token` of the page before.
    """
    path = _path("subscriptions", subscription_id, "consumers")
    params = _texts(_given(limit=limit, page_token=page_token))
    return Request("GET", path, partial(_read_page, ConsumerList), params=params)


def overview() -> Request[Overview]:
    """Sums up what the client may see, and says what somebody should look at."""
    return Request("GET", "/overview", Overview.model_validate_json)


def history(
    subscription_id: str | None = None,
    *,
    topic_id: str | None = None,
    interval_seconds: Literal[5, 60] = 5,
    start: int | None = None,
    end: int | None = None,
) -> Request[History]:
    """Counts what happened to a subscription or a topic, or to everything, in intervals of 5 s of the last hour, or of
    60 s of the last day. `start` and `end` are Unix times. Columns that do not fit are empty.
    """
    if subscription_id is not None and topic_id is not None:
        raise ValueError("give a subscription or a topic, not both")
    path = _path("overview", "history")
    if subscription_id is not None:
        path = _path("subscriptions", subscription_id, "history")
    elif topic_id is not None:
        path = _path("topics", topic_id, "history")
    params = _given(interval_seconds=interval_seconds, to=end) | ({} if start is None else {"from": start})
    return Request("GET", path, History.model_validate_json, params=_texts(params))


def list_changes(
    *,
    object: Literal["topic", "subscription", "client"] | None = None,
    object_id: str | None = None,
    client_id: str | uuid.UUID | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    limit: int = 10,
    page_token: str | None = None,
) -> Request[ChangeList]:
    """Lists up to 100 changes of topics, subscriptions and clients, newest first: what, when, and by which client.

    Those of one kind of object, of one id, of one client, from `after` on, and earlier than `before`; both are times
    with a time zone. `page_token` is `next_page_token` of the page before. It needs the scope `audit:read`.
    """
    params = _given(object=object, object_id=object_id, client_id=client_id, limit=limit, page_token=page_token)
    params |= _place("after", after) | _place("before", before)
    return Request("GET", "/audit", ChangeList.model_validate_json, params=_texts(params))


def explain(subscription_id: str, message: Id) -> Request[Explanation]:
    """Says what became of a message in a subscription, and why."""
    path = _path("subscriptions", subscription_id, "messages", _message_id(message))
    return Request("GET", path, Explanation.model_validate_json)


def get_message(message: Id, *, offset: int = 0, limit: int = 10) -> Request[ExplainedMessage]:
    """Gets a message and what became of it in the subscriptions of its topic."""
    path = _path("messages", _message_id(message))
    return Request("GET", path, ExplainedMessage.model_validate_json, params=_page(offset, limit))


def browse_topic(
    topic_id: str,
    *,
    start_from: Place | None = None,
    before: Place | None = None,
    q: str | None = None,
    limit: int = 10,
) -> Request[BrowsedTopic]:
    """Looks at up to 100 messages, oldest first: from a place on, or the newest ones, or the newest before a place.

    A place is a position, a time, or a message. `q`: `payload.field=value`, `attributes.name=value`, or a text in the
    payload; it needs the scope `messages:read`, and so do payloads. A page ends early after 10,000 messages, or a
    quarter of a second: go on with `next` as `start_from`, or with `previous` as `before`.
    """
    params = _given(limit=limit, q=q) | _place("from", start_from) | _place("before", before)
    path = _path("topics", topic_id, "messages")
    return Request("GET", path, BrowsedTopic.model_validate_json, params=_texts(params))


def browse(
    subscription_id: str,
    state: BrowsedState = "ahead",
    *,
    start_from: Place | None = None,
    q: str | None = None,
    limit: int = 10,
) -> Request[BrowsedMessages]:
    """Looks at up to 100 messages in a state without taking them; go on with `next` as `start_from`.

    They come by position, the waiting ones by the time when they are due. Else like `browse_topic`.
    """
    params = _given(state=state, limit=limit, q=q) | _place("from", start_from)
    path = _path("subscriptions", subscription_id, "messages", "browse")
    return Request("GET", path, BrowsedMessages.model_validate_json, params=_texts(params))


# clients and tokens


def create_client(name: str, scopes: str, *, is_active: bool = True) -> Request[ClientCredentials]:
    """Scopes are separated by spaces. The secret is told only here."""
    body = {"name": name, "scopes": scopes, "is_active": is_active}
    return _create("/clients", body, ClientCredentials)


def get_client(id: str | uuid.UUID) -> Request[models.Client]:
    return Request("GET", _path("clients", str(id)), models.Client.model_validate_json)


def list_clients(*, offset: int = 0, limit: int = 10) -> Request[list[models.Client]]:
    """Lists up to 100, ordered by id."""
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
    """Returns another secret, only once; the previous one stays good for `old_secret_seconds`.

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
    path: str,
    body: Mapping[str, Any],
    model: type[Model],
    existing: Request[Model] | None = None,
    require_same: Callable[[bytes, bytes], None] = lambda _sent, _found: None,
) -> Request[Model]:
    """Not repeatable: the second time it would be refused, or done twice."""
    return Request(
        "POST",
        path,
        partial(read_exactly, model),
        write_exactly(body, _json),
        repeatable=existing is not None,
        instead={} if existing is None else {CONFLICT: existing},
        reconcile=require_same,
    )


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _delete(path: str) -> Request[None]:
    return Request("DELETE", path, _nothing, done=404)


@lru_cache
def _path(*parts: str) -> str:
    for part in parts:
        if part in ("", ".", ".."):
            raise ValueError(f"{part!r} is not an id")
        check_text("an id", part)
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _page(offset: int, limit: int) -> dict[str, str]:
    return {"offset": str(offset), "limit": str(limit)}


def _metrics(included: bool) -> dict[str, str]:
    return {"include": "metrics"} if included else {}


def _place(name: str, place: Place | None) -> dict[str, Any]:
    if isinstance(place, BaseModel):
        place = place.id
    return _given(**{name: place.isoformat() if isinstance(place, datetime) else place})


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}


def _nothing(_answer: bytes) -> None:
    return None


def _ids(ids: Ids) -> list[str]:
    several = [ids] if isinstance(ids, str | uuid.UUID | Message | DeadLetter) else ids
    return [one if type(one) is str else _id(one) for one in several]


def _id(one: Id) -> str:
    if isinstance(one, Message):
        return one.ack_id
    return str(one.id) if isinstance(one, DeadLetter) else str(one)


def _message_id(one: Id) -> str:
    """Also of an ack_id, which begins with it."""
    return str(one if isinstance(one, str | uuid.UUID) else one.id).partition(".")[0]


def _are_ack_ids(ids: Iterable[str]) -> bool:
    """An ack id is of one delivery, which cannot be settled twice; a bare message id might meet the next delivery."""
    return all("." in one for one in ids)


def _json(value: Any) -> bytes:
    """NaN and infinities stay what they are, so that the server refuses them, instead of becoming null."""
    try:
        return to_json(value, by_alias=True, inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise ValueError(f"this value cannot be written as JSON: {error}") from None
