"""Renders answers: messages as JSON, joined from the bytes that PostgreSQL stored."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel
from starlette.responses import Response

from fastpubsub.api.requests import REPRESENTATION
from fastpubsub.message_ids import MessageIds, hexadecimal
from fastpubsub.models import Settled
from fastpubsub.removable import REMOVABLE
from fastpubsub.services.changes import RecordedChange
from fastpubsub.services.claiming import Claim
from fastpubsub.services.dead_letters import Letter
from fastpubsub.services.delayed import Delayed
from fastpubsub.services.redrives import StoredRedrive
from fastpubsub.services.refused import Refused
from fastpubsub.services.schedules import StoredSchedule
from fastpubsub.services.settling import GONE, SETTLED, STALE
from fastpubsub.services.subscriptions import StoredSubscription
from fastpubsub.services.tails import Logged
from fastpubsub.services.topics import StoredTopic

Figures = Mapping[str, BaseModel]
"""By the id of a topic or subscription."""

NO_FIGURES: Figures = {}
NO_CONTENT = Response(status_code=204)

_ID = slice(7, 43)
"""Of a delivery: `{"id":"…` """

_LOW_BITS = 48
_LOW_MASK = (1 << _LOW_BITS) - 1
"""The last group of an id. A position has fewer bits, so the groups before it are those of the topic."""


def json_answer(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def claim_json(claim: Claim, subscription_id: str) -> bytes:
    end = b'],"paused":true}' if claim.is_paused else b"]}"
    return b'{"data":[' + b",".join(_deliveries(claim, subscription_id)) + end


def delivery_json(claim: Claim, subscription_id: str) -> Iterator[tuple[str, bytes]]:
    """Renders the messages of a stream one by one, each with its id."""
    for delivery in _deliveries(claim, subscription_id):
        yield delivery[_ID].decode(), delivery


def _deliveries(claim: Claim, subscription_id: str) -> Iterator[bytes]:
    """One operation writes each message. Without a delivery there is no token."""
    shape = b""
    base = 0
    created_at = None
    keys = claim.ordering_keys or [None] * len(claim.positions)
    for position, attempts, time, payload, attributes, key in zip(
        claim.positions, claim.attempts, claim.created_at, claim.payloads, claim.attributes, keys, strict=True
    ):
        if time != created_at:
            created_at = time
            shape, base = _shape(claim, subscription_id, time)
        low = b"%012x" % (base + position)
        more = b"" if attributes is None and key is None else _given_members(attributes, key)
        yield shape % (low, payload, attempts, low, more)


def _shape(claim: Claim, subscription_id: str, created_at: datetime) -> tuple[bytes, int]:
    """What messages that were created at once have alike, and what a position is added to: twelve digits of an id."""
    ids = MessageIds(claim.keys.topic_key, created_at)
    expires_at = "" if claim.expires_at is None else time_text(claim.expires_at)
    id_ = f"{ids.prefix}{ids.base >> _LOW_BITS:04x}-%b"
    shape = (
        f'{{"id":"{id_}","subscription_id":"{subscription_id}","payload":%b,"delivery_attempts":%d,'
        f'"created_at":"{time_text(created_at)}","ack_id":"{id_}.{hexadecimal(claim.token)}",'
        f'"lease_expires_at":"{expires_at}","lease_seconds":{claim.lease_seconds}%b}}'
    )
    return shape.encode(), ids.base & _LOW_MASK


def _given_members(attributes: bytes | None, ordering_key: str | None) -> bytes:
    """Of what a publisher may set, what it has set."""
    members = b"" if attributes is None else b',"attributes":' + attributes
    if ordering_key is not None:
        members += b',"ordering_key":' + json.dumps(ordering_key).encode()
    return members


def logged_json(message: Logged) -> tuple[str, bytes]:
    """A message as its topic has it, without a delivery, and its id."""
    message_id = MessageIds(message.topic_key, message.created_at).at(message.position)
    head = f'{{"id":"{message_id}","payload":'.encode()
    return message_id, b'%b%b,"created_at":"%b"%b}' % (
        head,
        message.payload,
        time_text(message.created_at).encode(),
        _given_members(message.attributes, message.ordering_key),
    )


def dead_letters_json(letters: Sequence[Letter], subscription_id: str, next_page_token: str | None) -> bytes:
    parts: list[bytes] = []
    for letter in letters:
        parts += (
            f'{{"id":"{letter.id}","subscription_id":"{subscription_id}","payload":'.encode(),
            letter.payload,
            f',"delivery_attempts":{letter.attempts},"created_at":"{time_text(letter.created_at)}",'
            f'"reason":{json.dumps(letter.reason)},"died_at":"{time_text(letter.died_at)}"'.encode(),
        )
        if letter.failures is not None:
            parts.append(b',"failures":' + letter.failures)
        parts += (_given_members(letter.attributes, letter.ordering_key), b"},")
    return _data(parts, next_page_token)


OPTIONAL = (*REMOVABLE, "push", "expires_at")
USUAL = {
    "ordered": False,
    "on_expired": "drop",
    "on_dead_letter": "continue",
    "on_full": "reject",
    **dict.fromkeys(OPTIONAL),
}
ABSENT = ("paused", "ttl_expired", "held_keys", "dropped", "refused")


def topic_json(topic: StoredTopic, figures: Figures = NO_FIGURES) -> bytes:
    return _stored_json(topic, figures)


def subscription_json(subscription: StoredSubscription, figures: Figures = NO_FIGURES, *, secret: str = "") -> bytes:
    """`secret`: of its push, when it was made just now."""
    if secret and subscription.push is not None:
        push = subscription.push.rstrip().removesuffix(b"}") + b',"secret":' + json.dumps(secret).encode() + b"}"
        subscription = subscription._replace(push=push)
    return _stored_json(subscription, figures)


def _stored_json(stored: StoredTopic | StoredSubscription, figures: Figures) -> bytes:
    """What is not so is left out: a pause, a push, that it is `ordered`, a limit, a topic of dead letters."""
    members = stored._asdict() | {"created_at": time_text(stored.created_at)}
    if (paused_at := members.pop("paused_at", None)) is not None:
        members |= {"is_paused": True, "paused_at": time_text(paused_at)}
    if members.get("expires_at") is not None:
        members["expires_at"] = time_text(members["expires_at"])
    for name, usual in USUAL.items():
        if members.get(name, b"") == usual:
            del members[name]
    if stored.id in figures:
        known = figures[stored.id]
        absent = {name for name in ABSENT if getattr(known, name, None) is None}
        members["metrics"] = known.model_dump_json(exclude=absent).encode()
    return json_object(members)


def redrive_json(stored: StoredRedrive) -> bytes:
    members = stored.redrive.model_dump_json(exclude={"filter"}).encode()
    return members[:-1] + b',"filter":' + (stored.filter or b"null") + b"}"


def delayed_json(message: Delayed, *, shows_payload: bool) -> bytes:
    members: dict[str, bytes | str | int | None] = {
        "id": message.id,
        "topic_id": message.topic_id,
        "state": message.state,
        "deliver_at": time_text(message.due_at),
        "created_at": time_text(message.created_at),
        "message_id": message.message_id,
        "ordering_key": message.ordering_key,
        "ttl_seconds": message.ttl_seconds,
        "expires_at": None if message.expires_at is None else time_text(message.expires_at),
    }
    if shows_payload:
        members |= {"payload": message.payload, "attributes": message.attributes}
    return json_object({name: value for name, value in members.items() if value is not None})


def refused_json(message: Refused, *, shows_payload: bool) -> bytes:
    """What is not there is left out."""
    times = ("refused_at", "deliver_at", "expires_at")
    members = {
        name: time_text(value) if name in times and value is not None else value
        for name, value in message._asdict().items()
    }
    if not shows_payload:
        del members["payload"], members["attributes"]
    return json_object({name: value for name, value in members.items() if value is not None})


def schedule_json(schedule: StoredSchedule, upcoming: Sequence[datetime] = (), *, shows_payload: bool) -> bytes:
    """What is not so is left out."""
    members: dict[str, bytes | str | int | None] = {
        "id": schedule.id,
        "topic_id": schedule.topic_id,
        **schedule.content._asdict(),
        **schedule.times._asdict(),
        "catch_up": schedule.catch_up,
        "created_at": time_text(schedule.created_at),
        "is_paused": None if schedule.paused_at is None else True,
        "paused_at": _time_or_none(schedule.paused_at),
        "next_at": _time_or_none(schedule.next_at),
        "upcoming": json.dumps([time_text(one) for one in upcoming]).encode() if upcoming else None,
        "last_fired_at": _time_or_none(schedule.last_fired_at),
        "last_message_id": schedule.last_message_id,
        "fired": schedule.fired,
        "missed": schedule.missed,
        "problem": schedule.problem,
    }
    if not shows_payload:
        members |= {"payload": None, "attributes": None}
    return json_object({name: value for name, value in members.items() if value is not None})


def _time_or_none(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)


def change_json(change: RecordedChange) -> bytes:
    return json_object(
        {
            "at": time_text(change.at),
            "client_id": change.client_id,
            "request_id": change.request_id,
            "action": change.action,
            "object": change.object,
            "object_id": change.object_id,
            "details": change.body,
        }
    )


def list_json(
    objects: Iterable[bytes], next_page_token: str | None = None, missing_topics: Sequence[str] = ()
) -> bytes:
    more = b"" if next_page_token is None else b',"next_page_token":' + json.dumps(next_page_token).encode()
    if missing_topics:
        more += b',"missing_topics":' + json.dumps(missing_topics).encode()
    return b'{"data":[' + b",".join(objects) + b"]" + more + b"}"


def json_object(members: Mapping[str, bytes | str | float | None]) -> bytes:
    """Bytes are JSON by themselves."""
    values = {
        name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in members.items()
    }
    return b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in values.items()) + b"}"


def _data(parts: list[bytes], next_page_token: str | None = None) -> bytes:
    if parts:
        parts[-1] = b"}"
    more = b"" if next_page_token is None else b',"next_page_token":' + json.dumps(next_page_token).encode()
    return b'{"data":[' + b"".join(parts) + b"]" + more + b"}"


def time_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def sort_ids(ids: Sequence[str], outcomes: Sequence[int], settled: Settled) -> None:
    lists = {SETTLED: settled.settled, GONE: settled.gone, STALE: settled.stale}
    for id_, outcome in zip(ids, outcomes, strict=True):
        lists[outcome].append(id_)


def representation(body: str | bytes) -> Response:
    """What was done, which the request asked for by `Prefer`."""
    return Response(body, 200, {"Preference-Applied": REPRESENTATION}, "application/json")
