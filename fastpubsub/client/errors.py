"""Everything that a call of the client can raise, in one tree.

    BusError
    ├── Refused                     the server answered no: `status`, `detail`, `errors`, `request_id`
    │   ├── BadRequest         400
    │   ├── Unauthenticated    401  no, bad or revoked credentials
    │   ├── PermissionDenied   403  the client lacks a scope
    │   ├── NotFound           404
    │   ├── AlreadyExists      409
    │   ├── NoLongerHeld       410  a transaction settles what is not held any more; nothing was done
    │   ├── TooLarge           413
    │   ├── InvalidRequest     422  nothing was stored
    │   ├── TooManyRequests    429
    │   ├── ServerError        500
    │   └── Unavailable        503, 502, 504
    ├── ConnectionFailed            no answer: it may have been done, or not
    ├── UnexpectedAnswer            an answer that no fastpubsub gives; is the address right?
    └── Closed                      the publisher was closed

What could be repeated safely was repeated until the deadline before `Unavailable`, `TooManyRequests` or
`ConnectionFailed` is raised.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json


class BusError(Exception):
    """The base of everything that a call of the client raises because of the server or the network."""


class ConnectionFailed(BusError):
    """The server gave no answer in time. What was asked for may have been done, or not."""


class UnexpectedAnswer(BusError):
    """The answer is none that fastpubsub gives: the address may be that of another server."""


class Closed(BusError):
    """The publisher was closed before the message was published."""


class Refused(BusError):
    """The server refused the request.

    `detail` is a sentence for people: what, why and the next step. Decide by the class or the status.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: list[dict[str, Any]] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.errors = errors or []
        self.request_id = request_id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.detail, self.errors, self.request_id, self.retry_after)


class BadRequest(Refused):
    """400: the request cannot be read."""


class Unauthenticated(Refused):
    """401: the credentials are missing, wrong or revoked."""


class PermissionDenied(Refused):
    """403: the client lacks a scope."""


class NotFound(Refused):
    """404: the object does not exist."""


class AlreadyExists(Refused):
    """409: an object with this id exists, or something else that is there forbids it."""


class NoLongerHeld(Refused):
    """410: a transaction settles messages that are not held any more. Nothing was done."""


class TooLarge(Refused):
    """413: the request is larger than the server takes."""


class InvalidRequest(Refused):
    """422: something in the request is not allowed. Nothing was stored."""


class TooManyRequests(Refused):
    """429: there were too many requests. `retry_after` is the number of seconds to wait."""


class ServerError(Refused):
    """500: the server failed. Its log has the `request_id`."""


class Unavailable(Refused):
    """502, 503 or 504: the server, or its database, cannot answer now."""


BY_STATUS: Mapping[int, type[Refused]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: AlreadyExists,
    410: NoLongerHeld,
    413: TooLarge,
    422: InvalidRequest,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}

_SHOWN = 200
"""Characters of an answer that is not one of our problems, such as a proxy's page."""

_SHOWN_DETAIL = 10_000


def refusal(status: int, content: bytes, retry_after: float | None) -> Refused:
    kind = BY_STATUS.get(status, ServerError if status >= 500 else Refused)
    try:
        problem = from_json(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail = problem.get("detail") or problem.get("error_description")
    if not isinstance(detail, str):
        detail = content[:_SHOWN].decode(errors="replace") or "the server gave no reason"
    errors, request_id = problem.get("errors"), problem.get("request_id")
    return kind(
        status,
        detail[:_SHOWN_DETAIL],
        [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else None,
        request_id if isinstance(request_id, str) else None,
        retry_after,
    )
