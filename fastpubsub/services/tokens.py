"""Access tokens: JWTs of one algorithm; the newest key signs, and older ones may still check."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest, NotFound, PermissionDenied, Unauthenticated
from fastpubsub.models import Token, TokenRequest
from fastpubsub.scopes import Caller, covers, is_filtered, parse
from fastpubsub.services.hashing import NO_HASH, SecretHasher
from fastpubsub.services.login_attempts import LoginAttempts
from fastpubsub.signing_keys import Key

ISSUER = "fastpubsub"
"""Unless the server knows its address."""

AUDIENCE = "fastpubsub"
CLAIMS = {"iss": str, "aud": str, "sub": str, "exp": int, "iat": int, "jti": str, "scope": str, "version": int}
MAX_TOKEN_BYTES = 8192
MAX_FILTER_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Grant:
    """The claims of a token with a good signature."""

    caller: Caller
    version: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Credentials:
    """The stored credentials of a client; the defaults stand for an unknown client."""

    secret_hash: str = NO_HASH
    old_secret_hash: str | None = None
    scopes: str = ""
    is_active: bool = False
    version: int = 0


class Signer:
    """Signs with the first of the keys, and checks with that which the token names."""

    def __init__(self, keys: Sequence[Key], algorithm: str, lifetime: timedelta, issuer: str | None = None) -> None:
        self.lifetime_seconds = int(lifetime.total_seconds())
        self.issuer = issuer or ISSUER
        self.public_keys = list({key.kid: key.public for key in keys if key.public}.values())
        self._keys = {key.kid: key.verifying for key in keys}
        self._first = keys[0]
        self._algorithm = algorithm
        # A server whose clock is behind has to take the tokens of the others: `iat` is not compared with the clock.
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True, "require": list(CLAIMS), "verify_iat": False})

    def sign(self, client_id: UUID, scopes: str, version: int, filter_text: str | None = None) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {} if filter_text is None else {"filter": filter_text}
        claims |= {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": str(client_id),
            "exp": now + self.lifetime_seconds,
            "iat": now,
            "jti": secrets.token_hex(16),
            "scope": scopes,
            "version": version,
        }
        return self._jwt.encode(claims, self._first.signing, self._algorithm, {"kid": self._first.kid})

    def verify(self, token: bytes) -> Grant:
        try:
            # Nothing else of a header that nobody has checked counts.
            key = self._keys.get(jwt.get_unverified_header(token).get("kid", self._first.kid))
            if key is None:
                raise jwt.InvalidKeyError("from another server, or was removed")
            decoded = self._jwt.decode_complete(
                token,
                key,
                [self._algorithm],
                options={"strict_aud": True},
                audience=AUDIENCE,
                # Tokens from before the server was told its address are good until they end.
                issuer=[self.issuer, ISSUER],
            )
        except jwt.ExpiredSignatureError:
            raise invalid_token("is expired") from None
        except jwt.PyJWTError:
            raise invalid_token("is not from this server") from None
        claims = decoded["payload"]
        types = CLAIMS | ({"filter": str} if "filter" in claims else {})
        if decoded["header"].get("typ") != "JWT" or any(type(claims[name]) is not types[name] for name in types):
            raise invalid_token("is not from this server")
        try:
            client_id = str(UUID(claims["sub"]))
        except ValueError:
            raise invalid_token("is not from this server") from None
        caller = Caller(client_id, claims["scope"].split(" "), claims.get("filter"))
        return Grant(caller, claims["version"], claims["exp"])


def make_signer(settings: Settings) -> Signer | None:
    """Returns None without a valid key; with authentication on, the settings have refused that."""
    try:
        keys = settings.auth_keys()
    except ValueError:
        return None
    lifetime = timedelta(minutes=settings.auth_access_token_expire_minutes)
    return Signer(keys, settings.auth_algorithm, lifetime, settings.auth_issuer)


def invalid_token(why: str) -> Unauthenticated:
    return Unauthenticated(f"the access token {why}; get a new one at /oauth/token", "invalid_token")


async def issue_token(
    database: Database,
    hasher: SecretHasher,
    attempts: LoginAttempts,
    signer: Signer | None,
    request: TokenRequest,
    address: str | None = None,
    filter_text: str | None = None,
) -> Token:
    """`filter_text` is the filter of the request as it was written: numbers stay what they are."""
    if signer is None:
        raise InvalidRequest(
            "this server signs no tokens: authentication is off, and requests need none; turn it on with "
            "FASTPUBSUB_AUTH_ENABLED=true and a FASTPUBSUB_AUTH_SECRET_KEY made by `fastpubsub generate_secret_key`"
        )
    credentials = await authenticate_client(database, hasher, attempts, request, address)
    scopes = _narrow(credentials.scopes, request.scope)
    if filter_text is not None:
        _check_filter(filter_text, scopes)
    token = signer.sign(UUID(request.client_id), scopes, credentials.version, filter_text)
    return Token(access_token=token, token_type="Bearer", expires_in=signer.lifetime_seconds, scope=scopes)  # noqa: S106


async def authenticate_client(
    database: Database, hasher: SecretHasher, attempts: LoginAttempts, request: TokenRequest, address: str | None
) -> Credentials:
    """Wrong id, wrong secret and disabled client are refused alike, in words and in time."""
    with attempts.watch(request, address), hasher.place():
        credentials = await _find_credentials(database, request.client_id)
        is_right = await _is_right(hasher, credentials, request.client_secret)
        if not (is_right and credentials.is_active):
            raise Unauthenticated("the client id or the client secret is wrong, or the client is disabled")
    return credentials


async def _is_right(hasher: SecretHasher, credentials: Credentials, secret: str) -> bool:
    """Takes as long for a wrong secret with one secret, two, or none."""
    if await hasher.verify(credentials.secret_hash, secret):
        return True
    return await hasher.verify(credentials.old_secret_hash or NO_HASH, secret)


async def _find_credentials(database: Database, client_id: str) -> Credentials:
    try:
        return Credentials(*await database.fetch_one("find_client_credentials", UUID(client_id)))
    except (ValueError, NotFound):
        return Credentials()


def _check_filter(filter_text: str, scopes: str) -> None:
    """A filter that a scope went past would promise what does not hold."""
    if (size := len(filter_text.encode())) > MAX_FILTER_BYTES:
        raise InvalidRequest(f"the filter of a token has {size} bytes, more than {MAX_FILTER_BYTES}")
    unfiltered = [scope for scope in scopes.split(" ") if not is_filtered(scope)]
    if unfiltered:
        raise InvalidRequest(
            f"a token with a filter cannot have the scope {unfiltered[0]!r}, which no filter limits: "
            "ask in `scope` for topics:consume, or for topics:consume:<id> of each topic"
        )


def _narrow(granted: str, wanted: str | None) -> str:
    if not wanted:
        return granted
    scopes = parse(wanted)
    for scope in scopes:
        if not covers(frozenset(granted.split(" ")), scope):
            raise PermissionDenied(f"the client does not have the scope '{scope}'", scope=scope)
    return " ".join(scopes)
