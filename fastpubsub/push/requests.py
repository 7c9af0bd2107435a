"""The requests to an endpoint, to the byte."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastpubsub.push.formats import FORMATS, PushedMessage, trace_headers
from fastpubsub.push.signing import sign
from fastpubsub.push.wire import Origin

if TYPE_CHECKING:
    from fastpubsub.push.signing import Key

USER_AGENT = "fastpubsub"
ORIGIN = "fastpubsub"
"""What names the sender to endpoints that take CloudEvents."""

NO_MARKS: Mapping[str, str] = {}
PORTS = {"http": 80, "https": 443}
REPLACEABLE = {name.lower(): name for name in ("User-Agent", "traceparent", "tracestate")}
"""Headers of the server that users may set, as it writes them."""


class Place:
    """What a URL says: where to connect, and what to ask there for."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("no service listens at port 0")
        is_secure = parts.scheme.lower() == "https"
        self.origin = Origin(parts.hostname or "", parts.port or PORTS[parts.scheme.lower()], is_secure)
        self.host = parts.netloc
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def asks_first(form: str) -> bool:
    """Whether an endpoint has to agree before it gets anything."""
    return form.startswith("cloudevents")


def replacing(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of users, written so that they take the place of the server's."""
    return {REPLACEABLE.get(name.lower(), name): value for name, value in headers.items()}


def question(place: Place, headers: Mapping[str, str]) -> bytes:
    own = {
        "Host": place.host,
        "User-Agent": USER_AGENT,
        "WebHook-Request-Origin": ORIGIN,
        "WebHook-Request-Rate": "*",
    }
    return _written("OPTIONS", place.path, {**own, **headers})


def posted(
    place: Place,
    headers: Mapping[str, str],
    form: str,
    keys: "Iterable[Key]",
    message: PushedMessage,
    timestamp: int,
    marks: Mapping[str, str] = NO_MARKS,
) -> bytes:
    """`timestamp` is Unix time; `marks` are headers of a request that is no delivery."""
    own, body = FORMATS[form](message)
    own |= {
        "Host": place.host,
        "Content-Length": str(len(body)),
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
        "webhook-id": message.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(keys, message.id, timestamp, body),
        "fastpubsub-subscription": message.subscription_id,
        "fastpubsub-attempt": str(message.attempt),
        **trace_headers(message),
    }
    return _written("POST", place.path, {**own, **headers, **marks}, body)


def _written(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("ascii") + body
