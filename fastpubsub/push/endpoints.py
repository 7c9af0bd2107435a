"""An endpoint as it is stored, and the requests to it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from fastpubsub.config import Settings
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.push.formats import FORMATS, PushedMessage
from fastpubsub.push.signing import key_of, sign
from fastpubsub.push.wire import Origin
from fastpubsub.sealing import Sealer
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.pushing import headers_use, secret_use

USER_AGENT = "fastpubsub"
PORTS = {"http": 80, "https": 443}


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


def allowed_place(url: str, settings: Settings) -> Place:
    """Raises InvalidRequest when the settings do not allow what the URL says, whatever its name leads to."""
    try:
        place = Place(url)
    except ValueError:
        raise InvalidRequest("the endpoint of push has a port or an address that does not exist") from None
    if not place.origin.is_secure and not settings.push_allow_http:
        raise InvalidRequest(
            "the endpoint of push must begin with https://; FASTPUBSUB_PUSH_ALLOW_HTTP can allow others"
        )
    ports = settings.push_ports()
    if ports is not None and place.origin.port not in ports:
        raise InvalidRequest(
            f"the server does not push to port {place.origin.port}; FASTPUBSUB_PUSH_ALLOW_PORTS can allow it"
        )
    return place


@dataclass(frozen=True)
class Endpoint:
    keys: SubscriptionKey
    version: int
    subscription_id: str
    url: str
    format: str
    headers: Mapping[str, str]
    timeout_seconds: float
    max_concurrency: int
    reject_on: frozenset[int]
    secret: bytes
    old_secret: bytes | None
    old_until: float
    """By the clock of the loop."""

    @cached_property
    def place(self) -> Place:
        return Place(self.url)

    @property
    def is_asked_first(self) -> bool:
        """Whether it has to agree before it gets anything."""
        return self.format.startswith("cloudevents")

    def question(self, origin: str) -> bytes:
        headers = {
            "Host": self.place.host,
            "User-Agent": USER_AGENT,
            "WebHook-Request-Origin": origin,
            "WebHook-Request-Rate": "*",
        }
        return written("OPTIONS", self.place.path, {**headers, **self.headers})

    def request(self, message: PushedMessage, timestamp: int, now: float) -> bytes:
        """`timestamp` is Unix time, `now` the time of the loop."""
        headers, body = FORMATS[self.format](message)
        keys = [self.secret] if self.old_secret is None or now >= self.old_until else [self.secret, self.old_secret]
        headers |= {
            "Host": self.place.host,
            "Content-Length": str(len(body)),
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(keys, message.id, timestamp, body),
            "fastpubsub-subscription": message.subscription_id,
            "fastpubsub-attempt": str(message.attempt),
        }
        return written("POST", self.place.path, {**headers, **self.headers}, body)


def written(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("ascii") + body


def opened(row: Row, sealer: Sealer, now: float) -> Endpoint:
    """Raises Unreadable when it was sealed with another key."""
    topic_key, subscription_key, version, subscription_id, settings, headers, secret, old_secret, old_seconds = row
    known = json.loads(settings)
    return Endpoint(
        SubscriptionKey(topic_key, subscription_key),
        version,
        subscription_id,
        known["endpoint"],
        known["format"],
        json.loads(sealer.open(headers, headers_use(subscription_id))) if headers else {},
        known["timeout_seconds"],
        known["max_concurrency"],
        frozenset(known["reject_on"]),
        key_of(sealer.open(secret, secret_use(subscription_id)).decode()),
        key_of(sealer.open(old_secret, secret_use(subscription_id)).decode()) if old_secret else None,
        now + (old_seconds or 0),
    )
