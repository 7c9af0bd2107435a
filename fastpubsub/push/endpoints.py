"""An endpoint as it is stored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fastpubsub.config import Settings
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.push.formats import PushedMessage
from fastpubsub.push.requests import NO_MARKS, Place, asks_first, posted, question, replacing
from fastpubsub.push.signing import key_of
from fastpubsub.sealing import Sealer
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.pushing import headers_use, secret_use

if TYPE_CHECKING:
    from fastpubsub.push.signing import Key


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
    secret: "Key"
    old_secret: "Key | None"
    old_until: float
    """By the clock of the loop."""

    is_ordered: bool

    @cached_property
    def place(self) -> Place:
        return Place(self.url)

    @property
    def is_asked_first(self) -> bool:
        """Whether it has to agree before it gets anything."""
        return asks_first(self.format)

    def question(self) -> bytes:
        return question(self.place, self.headers)

    def request(self, message: PushedMessage, timestamp: int, now: float, marks: Mapping[str, str] = NO_MARKS) -> bytes:
        """`timestamp` is Unix time, `now` the time of the loop."""
        keys = [self.secret] if self.old_secret is None or now >= self.old_until else [self.secret, self.old_secret]
        return posted(self.place, self.headers, self.format, keys, message, timestamp, marks)


def opened(row: Row, sealer: Sealer, now: float) -> Endpoint:
    """Raises Unreadable when it was sealed with another key."""
    topic_key, subscription_key, version, subscription_id, settings, headers, *secrets, is_ordered = row
    secret, old_secret, old_seconds = secrets
    known = json.loads(settings)
    return Endpoint(
        SubscriptionKey(topic_key, subscription_key),
        version,
        subscription_id,
        known["endpoint"],
        known["format"],
        replacing(json.loads(sealer.open(headers, headers_use(subscription_id)))) if headers else {},
        known["timeout_seconds"],
        known["max_concurrency"],
        frozenset(known["reject_on"]),
        key_of(sealer.open(secret, secret_use(subscription_id)).decode()),
        key_of(sealer.open(old_secret, secret_use(subscription_id)).decode()) if old_secret else None,
        now + (old_seconds or 0),
        is_ordered,
    )
