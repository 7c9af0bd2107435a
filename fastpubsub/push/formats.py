"""The forms of requests: headers and a body for a message."""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from fastpubsub.cloudevents import STRUCTURED, context_of

JSON = "application/json"
PROJECT = "fastpubsub"
"""Google's names of subscriptions have one."""

NOT_ESCAPED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""The HTTP binding of CloudEvents, section 3.1.3.2."""

WRITABLE = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
"""Whoever publishes may say anything, and must not write headers."""

TRACE = {
    "traceparent": re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?"),
}
"""W3C Trace Context."""

Headers = dict[str, str]


class PushedMessage(NamedTuple):
    id: str
    subscription_id: str
    attempt: int
    created_at: datetime
    payload: bytes
    attributes: bytes | None
    ordering_key: str | None = None
    position: int = 0
    """In the log; no request has it."""

    trace: Mapping[str, str] | None = None
    """What the request says of it in place of the attributes."""

    @property
    def created(self) -> str:
        return self.created_at.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def standard(message: PushedMessage) -> tuple[Headers, bytes]:
    return {"Content-Type": JSON}, message.payload


def binary_event(message: PushedMessage) -> tuple[Headers, bytes]:
    context = _context(message)
    kind = str(context.pop("datacontenttype"))
    headers = {"Content-Type": kind if WRITABLE.fullmatch(kind) else JSON}
    headers |= {f"ce-{name}": quote(str(value), safe=NOT_ESCAPED) for name, value in context.items()}
    return headers, message.payload


def structured_event(message: PushedMessage) -> tuple[Headers, bytes]:
    context = json.dumps(_context(message), ensure_ascii=False).encode()
    return {"Content-Type": STRUCTURED}, context[:-1] + b',"data":' + message.payload + b"}"


def pubsub(message: PushedMessage) -> tuple[Headers, bytes]:
    """As Google's Pub/Sub pushes wrapped messages."""
    attributes: Mapping[str, str] = json.loads(message.attributes) if message.attributes else {}
    wrapped: dict[str, object] = {
        "attributes": attributes,
        "data": b64encode(message.payload).decode(),
        "messageId": message.id,
        "message_id": message.id,
        "publishTime": message.created,
        "publish_time": message.created,
    }
    if message.ordering_key is not None:
        wrapped["orderingKey"] = message.ordering_key
    subscription = f"projects/{PROJECT}/subscriptions/{message.subscription_id}"
    body = {"message": wrapped, "subscription": subscription, "deliveryAttempt": message.attempt}
    return {"Content-Type": JSON}, json.dumps(body).encode()


def trace_headers(message: PushedMessage) -> Mapping[str, str]:
    """The trace of the message, for endpoints that know W3C Trace Context; none that breaks its rules."""
    if message.trace is not None:
        return message.trace
    if message.attributes is None or b'"traceparent"' not in message.attributes:
        return {}
    attributes: Mapping[str, str] = json.loads(message.attributes)
    headers = {name: value for name, form in TRACE.items() if form.fullmatch(value := attributes.get(name, ""))}
    return headers if "traceparent" in headers else {}


FORMATS: dict[str, Callable[[PushedMessage], tuple[Headers, bytes]]] = {
    "standard": standard,
    "cloudevents": binary_event,
    "cloudevents-structured": structured_event,
    "pubsub": pubsub,
}


def _context(message: PushedMessage) -> dict[str, object]:
    return context_of(message.attributes, message.ordering_key, message.id, message.subscription_id, message.created)
