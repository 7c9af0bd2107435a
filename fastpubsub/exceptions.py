"""Everything that can be refused, in one tree.

    FastpubsubError
    ├── InvalidRequest       422  FP422   the request says something that cannot be done
    ├── TooLarge             413          past a limit on size
    ├── UnsupportedMediaType 415
    ├── Unauthenticated      401          no, bad, expired or revoked token
    ├── PermissionDenied     403  FP403   too little scope
    ├── NotFound             404  FP404   unknown topic, subscription, client
    ├── AlreadyExists        409  FP409   the id is taken
    ├── NoLongerHeld         410  FP410   a transaction settles what is not held any more
    ├── TooManyRequests      429          wrong secrets, requests sent by hand
    │   └── BacklogFull      429  FP429   a subscription takes no more messages now; FP430: fewer than these
    └── Unavailable          503          nothing was stored; try again
        ├── SchemaChanged    503  FP428   while the payloads were checked; they are checked again a few times
        ├── Overloaded       503          a bounded queue is full
        └── OutcomeUnknown   503          the connection was lost before the answer: perhaps stored

`detail` is a sentence for the caller: what, why and the next step. It never carries a payload, a secret or a DSN.
"""

from collections.abc import Mapping, Sequence
from typing import Any


class FastpubsubError(Exception):
    status = 500
    title = "Internal Server Error"
    sqlstate: str | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(FastpubsubError):
    status = 422
    title = "Unprocessable Content"
    sqlstate = "FP422"

    def __init__(self, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        """`errors` says the same for programs, in the form of FastAPI's list."""
        super().__init__(detail)
        self.errors = errors


class TooLarge(FastpubsubError):
    status = 413
    title = "Content Too Large"


class UnsupportedMediaType(FastpubsubError):
    status = 415
    title = "Unsupported Media Type"


class Unauthenticated(FastpubsubError):
    status = 401
    title = "Unauthorized"

    def __init__(self, detail: str, error: str | None = None) -> None:
        """`error` is the code of RFC 6750, section 3.1; none when the request carried no credentials at all."""
        super().__init__(detail)
        self.error = error


class PermissionDenied(FastpubsubError):
    status = 403
    title = "Forbidden"
    sqlstate = "FP403"

    def __init__(self, detail: str, scope: str | None = None) -> None:
        super().__init__(detail)
        self.scope = scope


class NotFound(FastpubsubError):
    status = 404
    title = "Not Found"
    sqlstate = "FP404"


class AlreadyExists(FastpubsubError):
    status = 409
    title = "Conflict"
    sqlstate = "FP409"


class NoLongerHeld(FastpubsubError):
    status = 410
    title = "Gone"
    sqlstate = "FP410"


class TooManyRequests(FastpubsubError):
    status = 429
    title = "Too Many Requests"

    def __init__(self, detail: str, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class BacklogFull(TooManyRequests):
    sqlstate = "FP429"


class Unavailable(FastpubsubError):
    status = 503
    title = "Service Unavailable"
    retry_after_seconds = 1


class SchemaChanged(Unavailable):
    sqlstate = "FP428"


class Overloaded(Unavailable):
    pass


class OutcomeUnknown(Unavailable):
    pass
