"""Signs requests as Standard Webhooks 1.0 says (https://www.standardwebhooks.com)."""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    return PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    return b64decode(secret.removeprefix(PREFIX))


def sign(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """One signature for each key, separated by spaces."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests)
