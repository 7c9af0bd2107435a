"""What routes read from a request by themselves, because FastAPI would build an object for each of it."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError

from fastpubsub.cloudevents import BATCH, HEADER_PREFIX
from fastpubsub.exceptions import InvalidRequest

REPRESENTATION = "return=representation"
MAX_KEY_CHARACTERS = 255
EVENTS = b"application/cloudevents"

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


def text_parameter(request: Request, name: str, max_length: int) -> str:
    value = request.query_params.get(name)
    if value is None:
        raise _invalid(name, "Field required", "missing")
    if not 1 <= len(value) <= max_length:
        raise _invalid(name, f"String should have 1 to {max_length} characters", "string_length")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _invalid(name, "String should be valid unicode", "string_unicode")
    return value


def int_parameter(request: Request, name: str, default: int | None, low: int, high: int) -> int | None:
    value = request.query_params.get(name)
    if value is None:
        return default
    if not value.isdecimal() or not value.isascii() or len(value) > 10 or not low <= int(value) <= high:
        raise _invalid(name, f"Input should be a whole number from {low} to {high}", "int_parsing")
    return int(value)


def _invalid(name: str, message: str, kind: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("query", name), "msg": message}])
