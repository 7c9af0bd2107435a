"""Reads parameters and headers for routes, because FastAPI would build an object for each."""

import base64
import binascii
import functools
import re
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import QueryParams

from fastpubsub import filters
from fastpubsub.api.errors import MAX_ERRORS
from fastpubsub.api.headers import by_name, every
from fastpubsub.cloudevents import BATCH, HEADER_PREFIX
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.message_ids import MessageId, parse
from fastpubsub.scopes import is_object_id

REPRESENTATION = "return=representation"
MAX_KEY_CHARACTERS = 255
MAX_WAIT_SECONDS = 20
MAX_CONSUMER_ID = 255
MAX_DIGITS = 18
"""Of a position in a token, so that it is one."""

DEFAULT_IN_FLIGHT = 100
MAX_IN_FLIGHT = 1000
MAX_RECENT = 1000
JSON = b"application/json"
EVENTS = b"application/cloudevents"
MAX_REMEMBERED = 300
"""Bytes of a query."""

_WAIT = re.compile(rb"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)

Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=100)]
PageToken = Annotated[
    str | None,
    Query(
        alias="page_token", max_length=256, description="`next_page_token` of the answer before, instead of `offset`"
    ),
]
Part = Annotated[
    str | None, Query(alias="q", min_length=1, max_length=128, description="a part of the id, without case")
]
Include = Annotated[Literal["metrics"] | None, Query(description="`metrics` adds figures")]


def page_token(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def after_page(request: Request, token: str | None, is_possible: Callable[[str], object] = is_object_id) -> str | None:
    """Returns the last id of the page before."""
    if token is None:
        return None
    if _parameter(request, "offset") is not None:
        raise InvalidRequest("query.page_token: give it or `offset`, not both")
    try:
        last = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)).decode()
    except (binascii.Error, ValueError):
        last = ""
    if not is_possible(last) or page_token(last) != token:
        raise InvalidRequest("query.page_token: take it as it is from `next_page_token` of an answer")
    return last


def is_consumer_id(text: str) -> bool:
    return 1 <= len(text) <= MAX_CONSUMER_ID and "\0" not in text


def is_position(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def prefers_representation(request: Request) -> bool:
    """RFC 7240."""
    return any(
        REPRESENTATION in (part.strip() for part in value.decode("latin-1").lower().split(","))
        for value in every(request.scope, b"prefer")
    )


def wait_seconds(request: Request) -> int:
    """Reads the parameter, which must be valid, or `Prefer: wait=…`, which may be ignored."""
    if (asked := int_parameter(request, "wait_seconds", None, 0, MAX_WAIT_SECONDS)) is not None:
        return asked
    for value in every(request.scope, b"prefer"):
        if wish := _WAIT.search(value):
            return min(int(wish[1]), MAX_WAIT_SECONDS)
    return 0


def has_event(request: Request) -> bool:
    """Returns whether a publish has CloudEvents, in the body or in `ce-` headers."""
    headers = by_name(request.scope)
    media = headers.get(b"content-type", b"")
    if media != JSON and EVENTS in media.lower():
        return True
    # One search in all names instead of a comparison of each.
    return b" " + HEADER_PREFIX in b" ".join((b"", *headers))


def wants_events(request: Request) -> bool:
    """The JSON format in batches is the only one in which several messages fit an answer."""
    return any(BATCH.encode() in value.lower() for value in every(request.scope, b"accept"))


def idempotency_key(request: Request) -> str | None:
    keys = every(request.scope, b"idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not 1 <= len(keys[0]) <= MAX_KEY_CHARACTERS:
        raise InvalidRequest(f"send one Idempotency-Key of 1 to {MAX_KEY_CHARACTERS} characters")
    return keys[0].decode("latin-1")


@functools.lru_cache(maxsize=1024)
def _query_params(query: bytes) -> QueryParams:
    return QueryParams(query)


def _query(request: Request) -> QueryParams:
    """Consumers ask the same question again and again."""
    # Of a WebSocket it is empty by now, and was read before.
    query = request.scope["query_string"]
    return _query_params(query) if 0 < len(query) <= MAX_REMEMBERED else request.query_params


def check_query(request: Request, known: frozenset[str]) -> None:
    """A parameter that is not known may be one that is misspelt, and the answer another than the one asked for."""
    if known.issuperset(query := _query(request)):
        return
    taken = f"takes {', '.join(sorted(known))}" if known else "takes none"
    unknown = [name for name in query if name not in known][:MAX_ERRORS]
    raise RequestValidationError(
        [
            {"type": "extra_forbidden", "loc": ("query", name), "msg": f"this parameter is unknown; the path {taken}"}
            for name in unknown
        ]
    )


def _parameter(request: Request, name: str) -> str | None:
    return _query(request).get(name)


def text_parameter(request: Request, name: str, max_length: int) -> str:
    value = _parameter(request, name)
    if value is None:
        raise _invalid(name, "Field required", "missing")
    if not 1 <= len(value) <= max_length:
        raise _invalid(name, f"String should have 1 to {max_length} characters", "string_length")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _invalid(name, "String should be valid unicode", "string_unicode")
    return value


def filter_parameter(request: Request) -> str | None:
    """The JSON of a filter."""
    text = _parameter(request, "filter")
    try:
        filters.check(None if text is None else filters.read(text))
        if text is not None:
            text.encode()
    except (RecursionError, ValueError) as error:
        message = "nests too deep" if isinstance(error, RecursionError) else str(error)
        raise _invalid("filter", message, "filter") from None
    return text


def int_parameter(request: Request, name: str, default: int | None, low: int, high: int) -> int | None:
    value = _parameter(request, name)
    if value is None:
        return default
    if not value.isdecimal() or not value.isascii() or len(value) > 10 or not low <= int(value) <= high:
        raise _invalid(name, f"Input should be a whole number from {low} to {high}", "int_parsing")
    return int(value)


def flag_parameter(request: Request, name: str) -> bool:
    value = _parameter(request, name)
    if value not in (None, "true", "false"):
        raise _invalid(name, "Input should be true or false", "bool_parsing")
    return value == "true"


def stream_parameters(request: Request) -> tuple[str, int]:
    """The consumer of a stream, and how many deliveries it may have in flight."""
    consumer_id = text_parameter(request, "consumer_id", MAX_CONSUMER_ID)
    max_in_flight = int_parameter(request, "max_in_flight", DEFAULT_IN_FLIGHT, 1, MAX_IN_FLIGHT)
    return consumer_id, max_in_flight or DEFAULT_IN_FLIGHT


def last_event_id(request: Request) -> MessageId | None:
    values = [value.decode("latin-1") for value in every(request.scope, b"last-event-id") if value]
    if not values:
        return None
    found = parse(values[-1])
    if found is None:
        raise InvalidRequest("Last-Event-ID is not a message id; leave it out to start with new messages")
    return found


def _invalid(name: str, message: str, kind: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("query", name), "msg": message}])
