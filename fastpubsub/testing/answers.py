"""What the bus in memory answers: payloads verbatim, times as the server writes them."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import ValidationError
from pydantic_core import to_json

from fastpubsub import message_ids
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.models import sentence
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.looking import of_failures
from fastpubsub.testing.store.records import Claimed, Dead, Stored

Seen = tuple[int, Stored, dict[str, Any]]


def delivery(cursor: Cursor, claimed: Claimed) -> bytes:
    position, message, lease = claimed
    more = {
        "delivery_attempts": lease.attempts,
        "ack_id": message_ids.ack_id(cursor.log.id_of(position, message), lease.token),
        "lease_expires_at": time_text(lease.expires_at),
        "lease_seconds": cursor.subscription.ack_deadline_seconds,
    }
    return _message(cursor, position, message, more)


def letter(cursor: Cursor, position: int, dead: Dead) -> bytes:
    more = {"delivery_attempts": dead.attempts, "reason": dead.reason, "died_at": time_text(dead.died_at)}
    more |= of_failures(cursor.failures.get(position))
    return _message(cursor, position, dead.message, more)


def _message(cursor: Cursor, position: int, stored: Stored, more: dict[str, Any]) -> bytes:
    """The payload verbatim."""
    fields = {
        "id": cursor.log.id_of(position, stored),
        "subscription_id": cursor.subscription.id,
        "created_at": time_text(stored.created_at),
        **more,
    }
    return with_content(fields, stored)


def with_content(fields: dict[str, Any], stored: Stored) -> bytes:
    if stored.ordering_key is not None:
        fields["ordering_key"] = stored.ordering_key
    attributes = b"" if stored.attributes is None else b',"attributes":' + stored.attributes
    return json.dumps(fields, default=time_text).encode()[:-1] + b',"payload":' + stored.payload + attributes + b"}"


def browsed(log: Log, found: list[Seen], **ends: int | str | None) -> bytes:
    parts = []
    for position, stored, more in found:
        fields = {"id": log.id_of(position, stored), "position": position, "created_at": time_text(stored.created_at)}
        if stored.expires_at is not None:
            fields["expires_at"] = time_text(stored.expires_at)
        parts.append(with_content(fields | more, stored))
    return listed(parts)[:-1] + b"," + to_json(ends)[1:]


def listed(parts: list[bytes]) -> bytes:
    return b'{"data":[' + b",".join(parts) + b"]}"


def time_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def problem(status: int, title: str, detail: str, **extra: Any) -> httpx.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "in-memory"}
    return httpx.Response(status, headers={"Content-Type": "application/problem+json"}, json=body | extra)


def invalid(error: ValidationError) -> httpx.Response:
    errors = [
        {"type": one["type"], "loc": ["body", *one["loc"]], "msg": sentence(one)}
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    where = ".".join(str(part) for part in errors[0]["loc"])
    return problem(422, InvalidRequest.title, f"{where}: {errors[0]['msg']}", errors=errors[:10])
