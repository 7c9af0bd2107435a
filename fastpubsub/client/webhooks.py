"""Checks that a request is a push of your server, as Standard Webhooks 1.0 says (https://www.standardwebhooks.com).

message_id = verify(request.headers, body, secrets=["whsec_…"])
"""

import hmac
import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PREFIX = "whsec_"
PUBLIC_PREFIX = "whpk_"
TOLERANCE_SECONDS = 300
"""That the clocks of the server and of the service may differ."""

SHORTEST_SECRET = 24
"""Bytes, as Standard Webhooks has it: whoever can guess the secret can sign."""

MAX_SIGNATURES = 20
MAX_REMEMBERED = 100_000


class InvalidWebhook(Exception):
    """The request is not a push of your server, or an old one; the text says which."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: str | Iterable[str],
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> str:
    """Returns the id of the message, which is the same each time it is pushed; raises InvalidWebhook.

    `headers` find values by any case of their names, as those of frameworks do, or have lowercase names. `body` is what
    came, before anybody parsed it. `secrets` begin with `whsec_`; two while they are rotated. Public keys, which
    begin with `whpk_`, need the package cryptography; what is neither raises ValueError. `now` is Unix time.
    """
    message_id, timestamp, signatures = (_header(headers, name) for name in ("id", "timestamp", "signature"))
    _check_time(timestamp, tolerance_seconds, time.time() if now is None else now)
    signed = _encoded(f"{message_id}.{timestamp}.") + body
    checks = [_check(secret, signed) for secret in listed(secrets)]
    # All are compared, so that the time tells nothing.
    found = [check(one) for one in signatures.split(" ")[:MAX_SIGNATURES] for check in checks]
    if True not in found:
        raise InvalidWebhook("no signature was made with one of the secrets")
    return message_id


def listed(secrets: str | Iterable[str]) -> list[str]:
    return [secrets] if isinstance(secrets, str) else list(secrets)


def require_secrets(secrets: Iterable[str]) -> None:
    """Raises ValueError when there is none, or one that cannot be a secret of the server."""
    known = listed(secrets)
    if not known:
        raise ValueError("there is no secret to verify pushes with; give the one that the server showed")
    for secret in known:
        _check(secret, b"")


class Handled:
    """The ids of messages that were handled in the last seconds, to skip messages that are pushed again or replayed.

    It covers this process only. Work that must never happen twice belongs in the same transaction as the id.
    """

    def __init__(self, seconds: float = TOLERANCE_SECONDS * 2) -> None:
        self._seconds = seconds
        self._until: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, message_id: str) -> bool:
        return self._until.get(message_id, 0.0) > time.monotonic()

    def add(self, message_id: str) -> None:
        now = time.monotonic()
        self._until[message_id] = now + self._seconds
        self._until.move_to_end(message_id)
        while len(self._until) > MAX_REMEMBERED or (self._until and next(iter(self._until.values())) <= now):
            self._until.popitem(last=False)


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(f"webhook-{name}")
    if not value:
        raise InvalidWebhook(f"there is no header webhook-{name}")
    return value


def _check_time(timestamp: str, tolerance_seconds: float, now: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        raise InvalidWebhook("the header webhook-timestamp is not a Unix time")
    if abs(now - int(timestamp)) > tolerance_seconds:
        raise InvalidWebhook(f"it was signed more than {tolerance_seconds:g} seconds ago, or a clock is wrong")


def _check(secret: str, signed: bytes) -> Callable[[str], bool]:
    """Whether a signature was made with this secret, or with the private key of this public one."""
    if secret.startswith(PUBLIC_PREFIX):
        return partial(_is_of, _public_key(secret), signed)
    return partial(_is_same, sign(secret, signed))


def sign(secret: str, signed: bytes) -> bytes:
    """Raises ValueError for what cannot be a secret."""
    key = _decoded(secret, PREFIX)
    if len(key) < SHORTEST_SECRET:
        raise ValueError(f"a secret has {SHORTEST_SECRET} bytes or more, and this one {len(key)}; is it set?")
    return b"v1," + b64encode(hmac.digest(key, signed, "sha256"))


def _decoded(secret: str, prefix: str) -> bytes:
    try:
        return b64decode(secret.removeprefix(prefix), validate=True)
    except ValueError:
        raise ValueError(f"a secret is {prefix} and base64, as the server showed it") from None


def _encoded(text: str) -> bytes:
    """Of a header, which some frameworks read with surrogates in place of what is not UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def _is_same(expected: bytes, signature: str) -> bool:
    return hmac.compare_digest(_encoded(signature), expected)


def _public_key(secret: str) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(_decoded(secret, PUBLIC_PREFIX))


def _is_of(key: "Ed25519PublicKey", signed: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature

    version, _, text = signature.partition(",")
    try:
        key.verify(b64decode(text, validate=True), signed)
    except (ValueError, InvalidSignature):
        return False
    return version == "v1a"
