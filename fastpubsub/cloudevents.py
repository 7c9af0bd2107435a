"""CloudEvents 1.0: `data` becomes the payload, everything around it attributes, and back.

The JSON format (one event, or a batch) and the binary mode of HTTP, with the context in `ce-` headers.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from fastpubsub.exceptions import InvalidRequest, UnsupportedMediaType
from fastpubsub.json_text import check_json, strings
from fastpubsub.models import MAX_ATTRIBUTES
from fastpubsub.payloads import Batch, Expiry, count_messages, make_batch

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
HEADER_PREFIX = b"ce-"
VERSION = "1.0"
MESSAGE_TYPE = "fastpubsub.message"
REQUIRED = ("specversion", "id", "source", "type")
DELIVERY = ("messageid", "subscriptionid", "ackid", "deliveryattempts", "leaseexpiresat", "publishedat")
"""Extensions that a pull adds; they say nothing of the event, so an event that is passed on leaves them behind."""

ORDERING_KEY = "partitionkey"
"""The extension of CloudEvents for what an ordering key is."""

EXPIRY = "expirytime"
"""The extension of CloudEvents for when an event is of no use any more."""

_JSON_TYPE = re.compile(r"application/(?:json|[\w.!#$&^-]+\+json)\s*(?:;.*)?", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9]{1,256}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SPACE = b" \t\r\n"
_RESERVED = ("data", "data_base64")

_MAX_MEMBERS = MAX_ATTRIBUTES + len(DELIVERY) + 1


class _Data(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()


_event = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_events = msgspec.json.Decoder(list[msgspec.Raw])
_raw_event = msgspec.json.Decoder(msgspec.Raw)
_event_data = msgspec.json.Decoder(_Data)

Attributes = dict[str, str]


def parse_events(body: bytes, media_type: str, *, max_messages: int, max_depth: int) -> Batch:
    """Reads an event, or a batch of events, in the JSON format."""
    if media_type not in (STRUCTURED, BATCH):
        raise UnsupportedMediaType(f"send events as {STRUCTURED} or {BATCH}, or in binary mode with `ce-` headers")
    check_json(body, max_depth=max_depth + 2)
    if media_type == BATCH:
        count_messages(body, max_messages)
    try:
        raws = _raw_events.decode(body) if media_type == BATCH else [_raw_event.decode(body)]
        events = [_decoded(index, raw) for index, raw in enumerate(raws)]
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body is not valid {media_type}: {error}") from None
    parts = [(_data(index, event), _context(index, _members(index, event))) for index, event in enumerate(events)]
    raws, attributes = [data for data, _ in parts], [context for _, context in parts]
    keys = [context.get(ORDERING_KEY) for context in attributes]
    batch = make_batch(body, raws, attributes, keys, max_messages=max_messages, max_depth=max_depth)
    return replace(batch, expiries=_expiries(attributes))


def _decoded(index: int, raw: msgspec.Raw) -> Mapping[str, msgspec.Raw]:
    """Members are counted first: all strings, without those of the data, are names and values of them."""
    if strings(raw) - strings(_event_data.decode(raw).data) > 2 * _MAX_MEMBERS:
        raise InvalidRequest(f"event {index} has more than {MAX_ATTRIBUTES} attributes")
    return _event.decode(raw)


def parse_binary_event(body: bytes, headers: Iterable[tuple[bytes, bytes]], *, max_depth: int) -> Batch:
    """Reads one event, whose body is its data and whose Content-Type is that of the data."""
    check_json(body, max_depth=max_depth + 1)
    context = _context(0, _from_headers(headers))
    keys = [context.get(ORDERING_KEY)]
    batch = make_batch(body, [body.strip(_SPACE)], [context], keys, max_messages=1, max_depth=max_depth)
    size = len(body) + sum(len(name) + len(value) for name, value in context.items())
    return replace(batch, size=size, expiries=_expiries([context]))


def _expiries(contexts: Sequence[Attributes]) -> list[Expiry] | None:
    if not any(EXPIRY in context for context in contexts):
        return None
    return [Expiry(_time(context[EXPIRY]) if EXPIRY in context else None, None) for context in contexts]


def context_of(
    attributes: bytes | None, ordering_key: str | None, message_id: str, subscription_id: str, created_at: str
) -> dict[str, Any]:
    """The context of a message as an event: what it was published with, or what stands in for it."""
    known: Attributes = json.loads(attributes) if attributes else {}
    context = {name: value for name, value in known.items() if _NAME.fullmatch(name) and name not in _RESERVED}
    is_event = context.get("specversion") == VERSION and all(context.get(name) for name in REQUIRED)
    if not is_event:
        default = {"source": f"/subscriptions/{subscription_id}", "type": MESSAGE_TYPE}
        own = {"specversion": VERSION, "id": message_id, "time": created_at}
        context = default | {name: value for name, value in context.items() if value} | own
    if ordering_key is not None:
        context[ORDERING_KEY] = ordering_key
    return {"datacontenttype": "application/json"} | context


def _data(index: int, event: Mapping[str, msgspec.Raw]) -> msgspec.Raw:
    if "data_base64" in event:
        raise InvalidRequest(f"event {index} has `data_base64`; send its data as a JSON object in `data`")
    if "data" not in event:
        raise InvalidRequest(f"event {index} has no `data`; it must be a JSON object")
    return event["data"]


def _members(index: int, event: Mapping[str, msgspec.Raw]) -> Attributes:
    members = {}
    for name, raw in event.items():
        text = bytes(raw) if name != "data" else b"null"
        value = None if text[:1] in (b"[", b"{") else json.loads(text)
        if isinstance(value, bool | int):
            value = json.dumps(value)
        if not isinstance(value, str) and text != b"null":
            raise InvalidRequest(f"an attribute of event {index} is not a string, a whole number or a boolean")
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
                raise InvalidRequest(
                    "a `ce-` header is repeated; send each one once, and the Content-Type for the data"
                )
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
            raise InvalidRequest(f"event {index} has no `{name}`; it must be a string that is not empty")
    if members["specversion"] != VERSION:
        raise InvalidRequest(f"event {index} is not of CloudEvents {VERSION}; see its `specversion`")
    for name, value in members.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"event {index} has an attribute whose name has characters other than `a-z` and `0-9`")
        if _CONTROL.search(value):
            raise InvalidRequest(f"the attribute `{name}` of event {index} has control characters")
    _check_optional(index, members)
    return {name: value for name, value in members.items() if name not in DELIVERY}


def _check_optional(index: int, members: Attributes) -> None:
    for name in ("subject", "dataschema"):
        if members.get(name) == "":
            raise InvalidRequest(f"the `{name}` of event {index} is empty; leave it out")
    if not _JSON_TYPE.fullmatch(members.get("datacontenttype", "application/json")):
        raise InvalidRequest(f"the data of event {index} is not JSON; see its `datacontenttype`")
    for name in ("time", EXPIRY):
        if name in members and not _is_time(members[name]):
            raise InvalidRequest(f"the `{name}` of event {index} does not have the form 2026-01-31T12:00:00Z")


def _is_time(text: str) -> bool:
    """Checks a time of RFC 3339, with the years and months that Python supports."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", text, re.ASCII):
        return False
    try:
        _time(text)
    except ValueError:
        return False
    return True


def _time(text: str) -> datetime:
    """Leaves out what is less than a second."""
    return datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper()).replace(":60", ":59"))
