"""Push: where messages are posted to."""

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fastpubsub.models.fields import NOT_BOOL, UtcTime, WholeNumber

MAX_PUSH_HEADERS = 20
MAX_ENDPOINT_CHARACTERS = 2048
MAX_PUSH_SECONDS = 60

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]{0,4094}[!-~])?")
_OWN_HEADER = re.compile(
    r"host|content-.*|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-.*|accept-encoding"
    r"|webhook-.*|ce-.*|fastpubsub-.*",
    re.IGNORECASE,
)
_ENDPOINT = re.compile(
    r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]{1,253})(:[0-9]{1,5})?([/?][!-\"$-\[\]-~]*)?", re.IGNORECASE
)


def _check_endpoint(endpoint: str) -> str:
    if len(endpoint) > MAX_ENDPOINT_CHARACTERS or not _ENDPOINT.fullmatch(endpoint):
        raise ValueError(
            "this is not an address such as https://example.com/hook, in ASCII, without a user, a password and a "
            f"fragment, of up to {MAX_ENDPOINT_CHARACTERS} characters"
        )
    return endpoint


def _check_push_headers(headers: dict[str, str]) -> dict[str, str]:
    """Its errors do not repeat values, which may be secrets."""
    if len(headers) > MAX_PUSH_HEADERS or len({name.lower() for name in headers}) < len(headers):
        raise ValueError(f"at most {MAX_PUSH_HEADERS} headers, each of them once")
    for number, (name, value) in enumerate(headers.items(), 1):
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"the name of header {number} is not 1 to 100 letters, digits and signs such as '-'")
        if _OWN_HEADER.fullmatch(name):
            raise ValueError(f"the header {name} is the server's own; leave it out")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of header {number} is not 1 to 4096 printable ASCII characters")
    return headers


PushFormat = Literal["standard", "cloudevents", "cloudevents-structured", "pubsub"]
PushSignature = Literal["hmac", "ed25519"]


class NewPush(BaseModel):
    """Where and how messages are pushed; what is left out takes its default."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"endpoint": "https://example.com/hook", "format": "standard"}]}
    )

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = Field(description="the URL that messages are posted to")
    format: PushFormat = Field("standard", description="the form of the requests")
    signature: PushSignature = Field(
        "hmac", description="`hmac` signs with a secret that the service has as well, `ed25519` with a private key"
    )
    headers: Annotated[dict[str, str], AfterValidator(_check_push_headers)] = Field(
        {}, description="headers of each request, such as `Authorization`; their values are never shown"
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_PUSH_SECONDS), NOT_BOOL] = Field(
        10, description="until when the endpoint has to answer"
    )
    max_concurrency: Annotated[int, Field(ge=1, le=1000), NOT_BOOL] = Field(
        10, description="requests that may be on their way at once"
    )
    reject_on: Annotated[list[Annotated[int, Field(ge=400, le=499), NOT_BOOL]], Field(max_length=20)] = Field(
        [], description="statuses that make a message a dead letter at once, such as 400 and 422"
    )


class Push(BaseModel):
    """Where and how messages are pushed."""

    endpoint: str = Field(description="the URL that messages are posted to")
    format: PushFormat = Field(description="the form of the requests")
    signature: PushSignature = Field("hmac", description="how requests are signed")
    header_names: list[str] = Field(description="headers of each request whose values are not shown")
    timeout_seconds: float = Field(description="until when the endpoint has to answer")
    max_concurrency: int = Field(description="requests that may be on their way at once")
    reject_on: list[int] = Field(description="statuses that make a message a dead letter at once")
    secret: str | None = Field(
        None, description="what requests are verified with, a public key for `ed25519`; shown only when it is made"
    )


class PushStatus(BaseModel):
    """How the pushing of a subscription goes."""

    is_held: bool = Field(description="whether a process pushes it now")
    breaker: Literal["closed", "open", "half-open"] = Field(
        description="`open` while the endpoint gets nothing after failures in a row, `half-open` when it is tried again"
    )
    failures: int = Field(description="in a row, when the breaker opened or a trial failed last; 0 when it is closed")
    breaker_opened_at: UtcTime | None = Field(description="since when it is not closed")
    next_try_at: UtcTime | None = Field(description="when the endpoint gets one message as a trial")
    last_failure: str | None = Field(description="why the last one failed, up to 1 KiB; null when it is closed")
    old_secret_expires_at: UtcTime | None = Field(description="until when the previous secret signs as well")


class PushAttempt(BaseModel):
    message_id: str
    at: UtcTime = Field(description="when the answer came, or the time was over")
    attempt: int = Field(description="how often the message was delivered, including this time")
    outcome: Literal["ack", "nack", "reject", "return"] = Field(
        description="the outcome of the message; `return` when the request was not sent, which does not count"
    )
    status: int | None = Field(description="of the answer; null when there was none")
    milliseconds: int = Field(description="until the answer came, or the time was over")
    said: str = Field(description="the beginning of the answer, up to 1 KiB, or why there was none")


class PushAttemptList(BaseModel):
    data: list[PushAttempt]
    next_page_token: str | None = Field(None, description="the `page_token` of the next page; left out at the end")


class NewPushTest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    payload: dict[str, Any] | None = Field(
        None, description="what is sent; without it, an object that says that it is a test"
    )


class Resend(BaseModel):
    model_config = ConfigDict(extra="forbid")

    message_id: UUID = Field(description="the id of a message that the topic still has")


class PushTested(BaseModel):
    """What the endpoint answered to a request that was sent by hand."""

    message_id: str = Field(description="the `webhook-id` of the request")
    status: int | None = Field(description="of the answer; null when there was none")
    milliseconds: int = Field(description="until the answer came, or the time was over")
    said: str = Field(description="the beginning of the answer, up to 1 KiB, or why there was none")


class PushSecret(BaseModel):
    secret: str = Field(
        description="what requests are verified with from now on, a public key for `ed25519`; shown only in this answer"
    )
    old_secret_expires_at: UtcTime | None = Field(description="until when the previous secret signs as well")


class NewPushSecret(BaseModel):
    model_config = ConfigDict(extra="forbid")

    old_secret_seconds: WholeNumber = Field(
        86400, ge=0, le=2592000, description="how long the previous secret signs as well; 0 ends it now"
    )
