"""How a request is carried out: tokens, repetitions, deadlines.

A generator that yields what is to be done, and does none of it: so the two clients are two short loops.
"""

import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from fastpubsub.client.errors import BusError, ConnectionFailed, Refused, UnexpectedAnswer, refusal
from fastpubsub.client.requests import Request, fetch_token
from fastpubsub.models import Token

T = TypeVar("T")

UNAUTHORIZED = 401
TOO_MANY = 429
REPEATED = frozenset({502, 503, 504})
"""Perhaps it was done, perhaps not; after 429 it was not."""

RENEW_SECONDS = 60.0
RENEW_SHARE = 0.1
"""A token is renewed when this much of its life is left, but at most RENEW_SECONDS."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds. `timeout` is for a whole call with all its repetitions, `attempt_timeout` for one of them.

    `attempts` is how many there are at most.
    """

    timeout: float = 60.0
    attempt_timeout: float = 15.0
    backoff: float = 0.1
    max_backoff: float = 10.0
    attempts: int | None = None

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Full jitter, so that a thousand clients do not come back at once."""
        longest = min(self.max_backoff, self.backoff * 2 ** min(attempt, 30))
        return (retry_after or 0.0) + random.uniform(0, longest)  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True)
class Send:
    request: Request[Any]
    token: str | None
    timeout: float


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Authorize:
    """Answer a token other than `refused`; only one of those who ask at a time may fetch."""

    tokens: "Tokens"
    refused: str | None


Effect: TypeAlias = Send | Pause | Authorize


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """There was no answer; `sent` unless it is certain that the server saw nothing."""

    reason: str
    sent: bool


Flow: TypeAlias = Generator[Effect, Any, T]


class Tokens:
    """The token of a client id and secret, as long as it is good."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._token: str | None = None
        self._renew_at = 0.0

    def current(self, refused: str | None) -> str | None:
        fresh = time.monotonic() < self._renew_at and self._token != refused
        return self._token if fresh else None

    def fetch(self, policy: Policy) -> Flow[str]:
        token: Token = yield from exchange(fetch_token(self._client_id, self._client_secret), policy)
        self._token = token.access_token
        self._renew_at = time.monotonic() + token.expires_in - min(RENEW_SECONDS, RENEW_SHARE * token.expires_in)
        return token.access_token


def exchange(request: Request[T], policy: Policy, tokens: Tokens | None = None) -> Flow[T]:
    """Repeats what may be repeated until the deadline; the last refusal is raised then."""
    deadline = time.monotonic() + policy.timeout + request.holds
    attempt = 0
    refused: str | None = None
    in_doubt = False
    while True:
        token: str | None = None if tokens is None else (yield Authorize(tokens, refused))
        left = deadline - time.monotonic()
        result = yield Send(request, token, max(min(policy.attempt_timeout + request.holds, left), 0.1))
        if isinstance(result, Answer):
            if result.status < 300 or (in_doubt and result.status == request.done):
                return _read(request, result)
            if result.status == UNAUTHORIZED and token is not None and refused is None:
                refused = token
                continue
            if result.status in request.instead:
                request = request.instead[result.status]
                continue
        error, pause = _judge(request, result, policy, attempt)
        attempt += 1
        if pause is None or attempt == policy.attempts or time.monotonic() + pause >= deadline:
            raise error
        in_doubt = in_doubt or not isinstance(result, Answer) or result.status != TOO_MANY
        yield Pause(pause)


def _judge(request: Request[Any], result: Answer | Lost, policy: Policy, attempt: int) -> tuple[BusError, float | None]:
    """The error, and after how many seconds to try again if it makes sense."""
    if isinstance(result, Lost):
        again = request.repeatable or not result.sent
        return ConnectionFailed(result.reason), policy.pause(attempt, None) if again else None
    if result.status < 400:
        return UnexpectedAnswer(f"{request.method} {request.path} was answered with {result.status}"), None
    error = answered(result)
    again = result.status == TOO_MANY or (result.status in REPEATED and request.repeatable)
    return error, policy.pause(attempt, error.retry_after) if again else None


def answered(answer: Answer) -> Refused:
    return refusal(answer.status, answer.content, _retry_after(answer.headers.get("retry-after")))


def _read(request: Request[T], answer: Answer) -> T:
    if answer.status >= 400:
        return request.read(b"")
    try:
        return request.read(answer.content)
    except ValidationError as error:
        raise UnexpectedAnswer(
            f"{request.method} {request.path} was not answered as a fastpubsub server would: {error.errors()[0]['msg']}"
        ) from None


def _retry_after(value: str | None) -> float | None:
    """Seconds, or a date as some proxies send."""
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except ValueError:
        return None
