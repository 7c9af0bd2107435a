"""Limits wrong secrets: it slows down a guesser, and nobody else.

Two are counted: those of one client from one address, and those of one address. No bound is on the client alone, or
anybody could lock it out; and who presents a secret that was right lately is let through whatever others did, from the
same address as well. What is counted is in this process alone, and forgotten after a while or when it becomes too much.
"""

import ipaddress
import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

from fastpubsub.config import Settings
from fastpubsub.exceptions import TooManyRequests, Unauthenticated
from fastpubsub.models import TokenRequest
from fastpubsub.services.recent import Recent

MAX_COUNTED = 10_000
MAX_KNOWN = 10_000
MINUTE = 60.0
IPV6_PREFIX = 64
"""Bits; a customer gets at least so many addresses."""


@dataclass(slots=True)
class Bucket:
    """The attempts left, and when; below zero after simultaneous guesses, which delay later ones."""

    left: float
    at: float


class Allowance:
    """Allows so many failures at once, and then so many a minute, for each key."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: Recent[str, Bucket] = Recent(MAX_COUNTED)

    def wait_seconds(self, key: str) -> float:
        """Returns the seconds until the next attempt, 0 for now."""
        bucket = self._bucket(key)
        return max(0.0, 1 - bucket.left) * MINUTE / self._per_minute if bucket else 0.0

    def spend(self, key: str) -> None:
        if not self._per_minute:
            return
        bucket = self._bucket(key) or Bucket(self._per_minute, self._clock())
        bucket.left -= 1
        self._buckets.put(key, bucket)

    def _bucket(self, key: str) -> Bucket | None:
        bucket = self._buckets.get(key)
        if bucket is not None:
            now = self._clock()
            bucket.left = min(self._per_minute, bucket.left + (now - bucket.at) * self._per_minute / MINUTE)
            bucket.at = now
        return bucket


class LoginAttempts:
    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_clients = Allowance(settings.auth_max_failures_per_client, clock)
        self._of_addresses = Allowance(settings.auth_max_failures_per_address, clock)
        self._known: Recent[bytes, bool] = Recent(MAX_KNOWN)
        self._salt = secrets.token_bytes(32)

    @contextmanager
    def watch(self, request: TokenRequest, address: str | None) -> Iterator[None]:
        """Around the look at a secret, which raises Unauthenticated when it is wrong."""
        digest = blake2b(f"{request.client_id}\0{request.client_secret}".encode(), key=self._salt).digest()
        origin = _origin(address)
        pair = f"{origin} {_canonical(request.client_id)}"
        if not self._known.get(digest):
            self._check(pair, origin)
        try:
            yield
        except Unauthenticated:
            self._known.forget(digest)
            self._of_clients.spend(pair)
            self._of_addresses.spend(origin)
            raise
        self._known.put(digest, True)

    def _check(self, pair: str, origin: str) -> None:
        seconds = max(self._of_clients.wait_seconds(pair), self._of_addresses.wait_seconds(origin))
        if seconds > 0:
            raise TooManyRequests(
                "too many wrong client ids or client secrets came from this address; correct them, and try again later",
                math.ceil(seconds),
            )


def _canonical(client_id: str) -> str:
    """One name for all spellings of an id, and one for all that is none."""
    try:
        return UUID(client_id).hex
    except ValueError:
        return ""


def _origin(address: str | None) -> str:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
