"""The body of a request: what it may be, told from the headers, and how much of it is read."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from fastpubsub.api.headers import by_name
from fastpubsub.config import Settings
from fastpubsub.exceptions import TooLarge, UnsupportedMediaType

FORM = "application/x-www-form-urlencoded"
CLOUDEVENTS = "application/cloudevents"
"""For the routes that know them: elsewhere their attributes would be taken for something else."""

MAX_LENGTH_DIGITS = 15
SMALL_BYTES = 16_384
ID_BYTES = 64
"""An ack_id in quotes, and what may stand between two of them."""

REASON_BYTES = 1_100
"""The reason of a nack in ASCII, and what belongs to it."""

SCHEDULED_BYTES = 65_536
"""What a schedule publishes."""

LARGE_BYTES = 262_144
"""Bodies up to here are parsed in the event loop: at worst it takes as long as a handful of requests."""

Limit = Callable[[Settings], int]
"""Bytes that a kind of body may have."""

Arguments = ParamSpec("Arguments")
Parsed = TypeVar("Parsed")


class LargeBodies:
    """Parsed in a thread, so that other requests are answered meanwhile.

    There is one thread for all: the parser holds the interpreter, so several would only take it from the event loop.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")

    async def parse(
        self, parse: Callable[Arguments, Parsed], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Parsed:
        call = functools.partial(parse, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def small(settings: Settings) -> int:
    return min(SMALL_BYTES, settings.api_max_body_bytes)


def messages(settings: Settings) -> int:
    return settings.api_max_body_bytes


def reasons(settings: Settings) -> int:
    """Of ids, each of which may have failed for a reason of its own."""
    return min(ids(settings) + REASON_BYTES * settings.settle_max_ids, settings.api_max_body_bytes)


def ids(settings: Settings) -> int:
    return min(SMALL_BYTES + ID_BYTES * settings.settle_max_ids, settings.api_max_body_bytes)


def topic(settings: Settings) -> int:
    return min(SMALL_BYTES + settings.schema_max_bytes, settings.api_max_body_bytes)


def schedule(settings: Settings) -> int:
    return min(SMALL_BYTES + SCHEDULED_BYTES, settings.api_max_body_bytes)


def subscription(settings: Settings) -> int:
    return min(SMALL_BYTES + settings.filter_max_bytes, settings.api_max_body_bytes)


def filter_test(settings: Settings) -> int:
    return min(subscription(settings) + LARGE_BYTES, settings.api_max_body_bytes)


def push_test(settings: Settings) -> int:
    return min(SMALL_BYTES + LARGE_BYTES, settings.api_max_body_bytes)


def check_headers(request: Request, limit: int, *, forms: bool = False, events: bool = False) -> None:
    headers = by_name(request.scope)
    length = headers.get(b"content-length", b"")
    if _is_above(length, limit):
        raise _too_large(limit)
    if headers.get(b"content-type") != b"application/json" and (
        length not in (b"", b"0") or b"transfer-encoding" in headers
    ):
        _check_media_type(media_type(request), forms, events)


async def receive_body(request: Request, limit: int) -> bytes:
    chunks = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _is_above(length: bytes, limit: int) -> bool:
    return length.isdigit() and (len(length) > MAX_LENGTH_DIGITS or int(length) > limit)


def media_type(request: Request) -> str:
    return by_name(request.scope).get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def _check_media_type(sent: str, forms: bool, events: bool) -> None:
    is_json = sent == "application/json" or (
        sent.startswith("application/") and sent.endswith("+json") and (events or not sent.startswith(CLOUDEVENTS))
    )
    if not is_json and not (forms and sent == FORM):
        accepted = f"application/json' or '{FORM}" if forms else "application/json"
        raise UnsupportedMediaType(f"the body must have the Content-Type '{accepted}'")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes; send smaller bodies")
