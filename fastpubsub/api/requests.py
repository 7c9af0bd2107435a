"""What routes read from a request by themselves, because FastAPI would build an object for each of it."""

import functools
import re
from typing import Annotated

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import QueryParams

from fastpubsub.cloudevents import BATCH, HEADER_PREFIX
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.message_ids import MessageId, parse

REPRESENTATION = "return=representation"
MAX_KEY_CHARACTERS = 255
MAX_WAIT_SECONDS = 20
MAX_CONSUMER_ID = 255
DEFAULT_IN_FLIGHT = 100
MAX_IN_FLIGHT = 1000
MAX_RECENT = 1000
EVENTS = b"application/cloudevents"
MAX_REMEMBERED = 300
"""Bytes of a query."""

_WAIT = re.compile(rb"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)

Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=100)]


def prefers_representation(request: Request) -> bool:
    """RFC 7240."""
    for name, value in request.scope["headers"]:
        if name == b"prefer" and REPRESENTATION in (
            part.strip() for part in value.decode("latin-1").lower().split(",")
        ):
            return True
    return False


def wait_seconds(request: Request) -> int:
    """Of the parameter, which must be right, or of `Prefer: wait=…`, which is a wish."""
    if (asked := int_parameter(request, "wait_seconds", None, 0, MAX_WAIT_SECONDS)) is not None:
        return asked
    for name, value in request.scope["headers"]:
        if name == b"prefer" and (wish := _WAIT.search(value)):
            return min(int(wish[1]), MAX_WAIT_SECONDS)
    return 0


def has_event(request: Request) -> bool:
    """Whether a publish is of CloudEvents, in the body or with `ce-` headers around it."""
    for name, value in request.scope["headers"]:
        if name[:3] == HEADER_PREFIX or (name == b"content-type" and EVENTS in value.lower()):
            return True
    return False


def wants_events(request: Request) -> bool:
    """The JSON format in batches is the only one in which several messages fit an answer."""
    return any(name == b"accept" and BATCH.encode() in value.lower() for name, value in request.scope["headers"])


def idempotency_key(request: Request) -> str | None:
    keys = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not keys:
        return None
    if len(keys) > 1 or not 1 <= len(keys[0]) <= MAX_KEY_CHARACTERS:
        raise InvalidRequest(f"send one Idempotency-Key of 1 to {MAX_KEY_CHARACTERS} characters")
    return str(keys[0])


@functools.lru_cache(maxsize=1024)
def _query_params(query: bytes) -> QueryParams:
    return QueryParams(query)


def _parameter(request: Request, name: str) -> str | None:
    """Consumers ask the same question again and again."""
    # Of a WebSocket it is empty by now, and was read before.
    query = request.scope["query_string"]
    params = _query_params(query) if 0 < len(query) <= MAX_REMEMBERED else request.query_params
    return params.get(name)


def text_parameter(request: Request, name: str, max_length: int) -> str:
    value = _parameter(request, name)
    if value is None:
        raise _invalid(name, "Field required", "missing")
    if not 1 <= len(value) <= max_length:
        raise _invalid(name, f"String should have 1 to {max_length} characters", "string_length")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _invalid(name, "String should be valid unicode", "string_unicode")
    return value


def int_parameter(request: Request, name: str, default: int | None, low: int, high: int) -> int | None:
    value = _parameter(request, name)
    if value is None:
        return default
    if not value.isdecimal() or not value.isascii() or len(value) > 10 or not low <= int(value) <= high:
        raise _invalid(name, f"Input should be a whole number from {low} to {high}", "int_parsing")
    return int(value)


def stream_parameters(request: Request) -> tuple[str, int]:
    """Who consumes, and how many deliveries may be in flight."""
    consumer_id = text_parameter(request, "consumer_id", MAX_CONSUMER_ID)
    max_in_flight = int_parameter(request, "max_in_flight", DEFAULT_IN_FLIGHT, 1, MAX_IN_FLIGHT)
    return consumer_id, max_in_flight or DEFAULT_IN_FLIGHT


def last_event_id(request: Request) -> MessageId | None:
    values = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"last-event-id" and value]
    if not values:
        return None
    found = parse(values[-1])
    if found is None:
        raise InvalidRequest("Last-Event-ID is no message id; leave it out to start now")
    return found


def _invalid(name: str, message: str, kind: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("query", name), "msg": message}])
