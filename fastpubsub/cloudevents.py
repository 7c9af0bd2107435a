"""CloudEvents 1.0: `data` becomes the payload, everything around it attributes, and back.

The JSON format (one event, or a batch) and the binary mode of HTTP, with the context in `ce-` headers.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from fastpubsub.exceptions import InvalidRequest, UnsupportedMediaType
from fastpubsub.payloads import check_json

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
HEADER_PREFIX = b"ce-"
VERSION = "1.0"
MESSAGE_TYPE = "fastpubsub.message"
REQUIRED = ("specversion", "id", "source", "type")
DELIVERY = ("messageid", "subscriptionid", "ackid", "deliveryattempts", "leaseexpiresat", "publishedat")
"""Extensions that a pull adds; they say nothing of the event, so an event that is passed on leaves them behind."""

_JSON_TYPE = re.compile(r"application/(?:json|[\w.!#$&^-]+\+json)\s*(?:;.*)?", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9]{1,256}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_RESERVED = ("data", "data_base64")

_event = msgspec.json.Decoder(dict[str, msgspec.Raw])
_events = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])

Attributes = dict[str, str]


def envelope_of_events(body: bytes, media_type: str, *, max_depth: int) -> bytes:
    """One event, or a batch of them, in the JSON format, as the envelope of an ordinary publish."""
    if media_type not in (STRUCTURED, BATCH):
        raise UnsupportedMediaType(f"events come as {STRUCTURED} or {BATCH}, or in binary mode with `ce-` headers")
    check_json(body, max_depth=max_depth + 2)
    try:
        events = _events.decode(body) if media_type == BATCH else [_event.decode(body)]
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body is not of {media_type}: {error}") from None
    return _envelope((_data(index, event), _members(index, event)) for index, event in enumerate(events))


def envelope_of_binary(body: bytes, headers: Iterable[tuple[bytes, bytes]], *, max_depth: int) -> bytes:
    """One event; the body is its data, the Content-Type is that of the data."""
    check_json(body, max_depth=max_depth + 1)
    return _envelope([(body, _from_headers(headers))])


def _envelope(events: Iterable[tuple[bytes, Attributes]]) -> bytes:
    messages = (
        b'{"payload":' + data + b',"attributes":' + json.dumps(_context(index, members)).encode() + b"}"
        for index, (data, members) in enumerate(events)
    )
    return b'{"messages":[' + b",".join(messages) + b"]}"


def context_of(attributes: bytes | None, message_id: str, subscription_id: str, created_at: str) -> dict[str, Any]:
    """The context of a message as an event: what it was published with, or what stands in for it."""
    known: Attributes = json.loads(attributes) if attributes else {}
    context = {name: value for name, value in known.items() if _NAME.fullmatch(name) and name not in _RESERVED}
    is_event = context.get("specversion") == VERSION and all(context.get(name) for name in REQUIRED)
    if not is_event:
        default = {"source": f"/subscriptions/{subscription_id}", "type": MESSAGE_TYPE}
        own = {"specversion": VERSION, "id": message_id, "time": created_at}
        context = default | {name: value for name, value in context.items() if value} | own
    return {"datacontenttype": "application/json"} | context


def _data(index: int, event: Mapping[str, msgspec.Raw]) -> bytes:
    if "data_base64" in event:
        raise InvalidRequest(f"event {index} has `data_base64`; send its data as a JSON object in `data`")
    if "data" not in event:
        raise InvalidRequest(f"event {index} has no `data`; it must be a JSON object")
    return bytes(event["data"])


def _members(index: int, event: Mapping[str, msgspec.Raw]) -> Attributes:
    members = {}
    for name, raw in event.items():
        value = json.loads(bytes(raw)) if name != "data" else None
        if isinstance(value, bool | int):
            value = json.dumps(value)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"an attribute of event {index} is no text, whole number or boolean")
        if value is not None:
            members[name] = value
    return members


def _from_headers(headers: Iterable[tuple[bytes, bytes]]) -> Attributes:
    members: Attributes = {}
    for name, value in headers:
        member = name.removeprefix(HEADER_PREFIX).decode("latin-1")
        if name == b"content-type":
            members["datacontenttype"] = value.decode("latin-1")
        elif name.startswith(HEADER_PREFIX):
            if member in members or member == "datacontenttype":
                raise InvalidRequest("a `ce-` header comes twice; send each once, and the Content-Type for the data")
            members[member] = _unescaped(value)
    return members


def _unescaped(value: bytes) -> str:
    """Quoted strings of HTTP, then one round of percent-decoding, as the HTTP binding has it."""
    text = value.decode("latin-1").strip()
    if quoted := _QUOTED.fullmatch(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("a `ce-` header is not UTF-8 with percent-encoding") from None


def _context(index: int, members: Attributes) -> Attributes:
    for name in REQUIRED:
        if not members.get(name):
            raise InvalidRequest(f"event {index} has no `{name}`; it must be a text that is not empty")
    if members["specversion"] != VERSION:
        raise InvalidRequest(f"event {index} is not of CloudEvents {VERSION}, by its `specversion`")
    for name, value in members.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"event {index} has an attribute whose name is not of `a-z` and `0-9`")
        if _CONTROL.search(value):
            raise InvalidRequest(f"the attribute `{name}` of event {index} has control characters")
    _check_optional(index, members)
    return {name: value for name, value in members.items() if name not in DELIVERY}


def _check_optional(index: int, members: Attributes) -> None:
    for name in ("subject", "dataschema"):
        if members.get(name) == "":
            raise InvalidRequest(f"the `{name}` of event {index} is empty; leave it out")
    if not _JSON_TYPE.fullmatch(members.get("datacontenttype", "application/json")):
        raise InvalidRequest(f"the data of event {index} is not JSON, by its `datacontenttype`")
    if "time" in members and not _is_time(members["time"]):
        raise InvalidRequest(f"the `time` of event {index} is not of the form 2026-01-31T12:00:00Z")


def _is_time(text: str) -> bool:
    """RFC 3339; years, months and so on as Python knows them."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", text, re.ASCII):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper()).replace(":60", ":59"))
    except ValueError:
        return False
    return True
