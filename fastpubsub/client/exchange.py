"""Carries out a request: tokens, repetitions, deadlines.

A generator that yields what is to be done, and does none of it: so the two clients are two short loops.
"""

import random
import re
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from fastpubsub.client.errors import BusError, ConnectionFailed, Refused, UnexpectedAnswer, refusal
from fastpubsub.client.requests import Request, create_token
from fastpubsub.client.waiting import Waiting, Watch
from fastpubsub.models import Token

T = TypeVar("T")

UNAUTHORIZED = 401
TOO_MANY = 429
REPEATED = frozenset({502, 503, 504})
"""Perhaps it was done, perhaps not; after 429 it was not."""

READ_HEADERS = frozenset({"date", "retry-after"})

_TOKEN = re.compile(r"[!-~]+")
MAX_TOKEN_SECONDS = 10 * 366 * 86400

RENEW_SECONDS = 60.0
RENEW_SHARE = 0.1
"""A token is renewed when this much of its life is left, but at most RENEW_SECONDS."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`timeout` is the seconds for a whole call with all its repetitions, `attempt_timeout` those for one of them.

    `attempts` is the highest number of attempts, `max_answer_bytes` the largest size of an answer. `is_aloud`:
    whether calls that take long are logged.
    """

    timeout: float = 60.0
    attempt_timeout: float = 15.0
    backoff: float = 0.1
    max_backoff: float = 10.0
    attempts: int | None = None
    max_answer_bytes: int = 64 << 20
    is_aloud: bool = True

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Returns the seconds to wait, with full jitter, so that a thousand clients do not come back at once."""
        longest = min(self.max_backoff, self.backoff * 2 ** min(attempt, 30))
        return (retry_after or 0.0) + random.uniform(0, longest)  # noqa: S311 - no secret


@dataclass(slots=True)  # as every call makes one: a frozen one takes three times as long to make
class Send:
    request: Request[Any]
    token: str | None
    timeout: float

    @property
    def headers(self) -> dict[str, str]:
        """Of the request, its body and the token."""
        headers = dict(self.request.headers)
        if self.request.content is not None:
            headers["Content-Type"] = "application/json"
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Authorize:
    """Return a token other than `refused`; only one caller at a time may fetch one."""

    tokens: "Tokens"
    refused: str | None


Effect: TypeAlias = Send | Pause | Authorize


@dataclass(slots=True)
class Answer:
    """Of the headers at least `READ_HEADERS`."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """There was no answer; `sent` unless it is certain that the server saw nothing."""

    reason: str
    sent: bool


Flow: TypeAlias = Generator[Effect, Any, T]

UNWATCHED = Watch()


class Tokens:
    """The token of a client id and secret, as long as it is good."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self._token: str | None = None
        self._renew_at = 0.0

    @property
    def fresh_seconds(self) -> float:
        """For how long the token is used from now on."""
        return self._renew_at - time.monotonic()

    def current(self, refused: str | None) -> str | None:
        fresh = time.monotonic() < self._renew_at and self._token != refused
        return self._token if fresh else None

    def fetch(self, policy: Policy, watch: Watch = UNWATCHED) -> Flow[str]:
        token: Token = yield from exchange(create_token(self.client_id, self.client_secret), policy, None, watch)
        taken = None
        if 0 <= token.expires_in <= MAX_TOKEN_SECONDS:
            seconds = token.expires_in - min(RENEW_SECONDS, RENEW_SHARE * token.expires_in)
            taken = self.take(token.access_token, seconds)
        if taken is None:
            raise UnexpectedAnswer("POST /oauth/token was answered with a token that no fastpubsub server makes")
        return taken

    def take(self, token: object, seconds: float) -> str | None:
        """Uses this token for so long; returns None for what cannot be one."""
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return None
        self._token = token
        self._renew_at = time.monotonic() + seconds
        return token


def exchange(request: Request[T], policy: Policy, tokens: Tokens | None = None, watch: Watch = UNWATCHED) -> Flow[T]:
    """Repeats what may be repeated until the deadline; the last refusal is raised then."""
    started = time.monotonic()
    deadline = started + policy.timeout + request.holds
    waiting = Waiting(request, started, deadline if policy.attempts != 1 else started + policy.attempt_timeout)
    if policy.is_aloud:
        watch.begin(waiting)
    try:
        result = yield from _attempts(request, policy, tokens, deadline, waiting)
    finally:
        watch.end(waiting)
    if result.status in request.instead:
        rest = replace(policy, timeout=max(deadline - time.monotonic(), 0.0))
        return (yield from _with_existing(request, request.instead[result.status], rest, tokens, watch))
    return _read(request, result)


def _attempts(
    request: Request[Any], policy: Policy, tokens: Tokens | None, deadline: float, waiting: Waiting
) -> Flow[Answer]:
    """Returns an answer that is no refusal."""
    attempt = 0
    refused: str | None = None
    in_doubt = False
    while True:
        token: str | None = None if tokens is None else (yield Authorize(tokens, refused))
        left = deadline - time.monotonic()
        result = yield Send(request, token, max(min(policy.attempt_timeout + request.holds, left), 0.1))
        if isinstance(result, Answer):
            if result.status < 300 or (in_doubt and result.status == request.done):
                waiting.is_over()
                return result
            if result.status == UNAUTHORIZED and token is not None and refused is None:
                refused = token
                continue
            if result.status in request.instead:
                return result
        error, pause = _judge(request, result, policy, attempt)
        attempt += 1
        if pause is None or attempt == policy.attempts or time.monotonic() + pause >= deadline:
            raise error
        waiting.failed(error)
        in_doubt = in_doubt or not isinstance(result, Answer) or result.status != TOO_MANY
        yield Pause(pause)


def _with_existing(
    request: Request[T], existing: Request[T], policy: Policy, tokens: Tokens | None, watch: Watch
) -> Flow[T]:
    """Looks at what is there instead of what was sent, and changes it if the request says so."""
    found = yield from exchange(_raw(existing), policy, tokens, watch)
    change = request.reconcile(request.content or b"", found)
    if change is not None:
        found = yield from exchange(_raw(change), policy, tokens, watch)
    return _read(existing, Answer(200, {}, found))


def _raw(request: Request[Any]) -> Request[bytes]:
    return replace(request, read=bytes)


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
    retry_after = _retry_after(answer.headers.get("retry-after"), answer.headers.get("date"))
    return refusal(answer.status, answer.content, retry_after)


def _read(request: Request[T], answer: Answer) -> T:
    if answer.status >= 400:
        return request.read(b"")
    try:
        return request.read(answer.content)
    except ValidationError as error:
        raise UnexpectedAnswer(
            f"{request.method} {request.path} was not answered as a fastpubsub server would: {error.errors()[0]['msg']}"
        ) from None


def _retry_after(value: str | None, date: str | None) -> float | None:
    """Reads seconds, or a date, which is compared with the date of the answer because clocks differ."""
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    until, now = _date(value), _date(date or "") or datetime.now(UTC)
    return None if until is None else max(0.0, (until - now).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
        return date.replace(tzinfo=UTC) - (date.utcoffset() or timedelta())
    except (ValueError, OverflowError):
        return None
