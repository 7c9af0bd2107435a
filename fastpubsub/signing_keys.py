"""The keys of access tokens: what the settings say, made into what signs and checks, each with its name (`kid`)."""

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MIN_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, section 3.2: a key is at least as long as the hash."""

CURVES = {"ES256": "P-256", "EdDSA": "Ed25519"}
"""Of the algorithms whose keys have a public half."""

MAKERS = {
    "ES256": "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    "EdDSA": "openssl genpkey -algorithm ed25519",
}
PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
THUMBPRINT = ("crv", "kty", "x", "y")


@dataclass(frozen=True, slots=True)
class Key:
    kid: str
    verifying: Any
    signing: Any
    """None for the public half alone."""

    public: dict[str, str] | None
    """The JWK that others may know; never of a secret."""


def signing_key(text: str, algorithm: str) -> Key:
    """Raises ValueError with a sentence that does not repeat the key."""
    if algorithm in MIN_BYTES:
        return _secret(text, algorithm)
    key = _pair(text, algorithm)
    if key.signing is None:
        raise ValueError(f"this is a public key, and signing needs a private one; make one with: {MAKERS[algorithm]}")
    return key


def verification_keys(text: str, algorithm: str) -> Sequence[Key]:
    """Secrets are separated by spaces; of pairs each is a PEM, the public half or both."""
    if algorithm in MIN_BYTES:
        return [_secret(one, algorithm) for one in text.split()]
    found = [match[0] for match in PEM.finditer(_lines(text))]
    if text.strip() and not found:
        raise ValueError("this is not a key in PEM form: such a key begins with -----BEGIN")
    return [_pair(one, algorithm) for one in found]


def _secret(text: str, algorithm: str) -> Key:
    key = text.encode()
    if len(key) < MIN_BYTES[algorithm]:
        raise ValueError(
            f"authentication with {algorithm} needs a key of at least {MIN_BYTES[algorithm]} bytes, "
            f"and this one has {len(key)}; make one with: fastpubsub generate_secret_key"
        )
    return Key(hmac.digest(key, b"fastpubsub kid", "sha256").hex()[:16], key, key, None)


def _pair(text: str, algorithm: str) -> Key:
    try:
        verifying, signing, public = _halves(_lines(text), algorithm)
    except (ValueError, TypeError):
        raise ValueError(
            f"authentication with {algorithm} needs a private key of {CURVES[algorithm]} in PEM form without a "
            f"password, and this is not one; make one with: {MAKERS[algorithm]}"
        ) from None
    members = {name: public[name] for name in THUMBPRINT if name in public}
    kid = _thumbprint(members)
    return Key(kid, verifying, signing, members | {"kid": kid, "use": "sig", "alg": algorithm})


def _halves(text: str, algorithm: str) -> tuple[Any, Any, dict[str, str]]:
    import jwt

    kind = jwt.get_algorithm_by_name(algorithm)
    try:
        key: Any = kind.prepare_key(text)
    except jwt.PyJWTError as error:
        raise ValueError from error
    signing = key if hasattr(key, "sign") else None
    verifying = key if signing is None else key.public_key()
    public: dict[str, str] = json.loads(kind.to_jwk(verifying))
    if public["crv"] != CURVES[algorithm]:
        raise ValueError
    return verifying, signing, public


def _thumbprint(members: dict[str, str]) -> str:
    """RFC 7638."""
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _lines(text: str) -> str:
    """Restores line ends, which a variable of one line has as `\\n`."""
    return text.replace("\\n", "\n")
