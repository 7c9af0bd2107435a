"""Signs requests as Standard Webhooks 1.0 says (https://www.standardwebhooks.com)."""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    Key = hmac.HMAC | Ed25519PrivateKey

PREFIX = "whsec_"
PRIVATE_PREFIX, PUBLIC_PREFIX = "whsk_", "whpk_"
SECRET_BYTES = 32

Signature = Literal["hmac", "ed25519"]


class Secret(NamedTuple):
    signs: str
    """For the server."""

    verifies: str
    """For the service: the same, or a public key."""


def made_secret(signature: Signature) -> Secret:
    return _new_pair() if signature == "ed25519" else Secret(*[new_secret()] * 2)


def new_secret() -> str:
    return PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def key_of(secret: str) -> "Key":
    if secret.startswith(PRIVATE_PREFIX):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        seed = b64decode(secret.removeprefix(PRIVATE_PREFIX))[:SECRET_BYTES]
        return Ed25519PrivateKey.from_private_bytes(seed)
    return hmac.new(b64decode(secret.removeprefix(PREFIX)), digestmod=hashlib.sha256)


def sign(keys: "Iterable[Key]", message_id: str, timestamp: int, body: bytes) -> str:
    """One signature for each key, separated by spaces."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join([_signature(key, signed) for key in keys])


def _signature(key: "Key", signed: bytes) -> str:
    if isinstance(key, hmac.HMAC):
        keyed = key.copy()  # to make one takes four times as long as all that follows
        keyed.update(signed)
        return f"v1,{b64encode(keyed.digest()).decode()}"
    return f"v1a,{b64encode(key.sign(signed)).decode()}"


def _new_pair() -> Secret:
    """The private key is the seed and the public key, as the specification has it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return Secret(
        PRIVATE_PREFIX + b64encode(private.private_bytes_raw() + public).decode(),
        PUBLIC_PREFIX + b64encode(public).decode(),
    )
