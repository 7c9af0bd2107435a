"""Access tokens for the load, signed as the server signs them: asking it for each would take argon2 half a minute."""

import secrets
from datetime import timedelta
from uuid import UUID

from benchmarks.service import Service
from fastpubsub.services.hashing import NO_HASH
from fastpubsub.services.tokens import Signer
from fastpubsub.signing_keys import signing_key

CLIENTS = 100
SCOPES = "topics:publish subscriptions:consume"
LIFETIME = timedelta(days=1)


def make_key() -> str:
    return secrets.token_hex(32)


def make_tokens(service: Service, key: str, count: int) -> list[str]:
    """Of CLIENTS clients that the database knows, in turns."""
    signer = Signer([signing_key(key, "HS256")], "HS256", LIFETIME)
    clients = [_make_client(service, number) for number in range(CLIENTS)]
    return [signer.sign(clients[number % CLIENTS], SCOPES, version=1) for number in range(count)]


def _make_client(service: Service, number: int) -> UUID:
    (client_id,) = service.one(
        "select id from fastpubsub.create_client(%s, %s, %s, true)", f"client-{number}", SCOPES, NO_HASH
    )
    return UUID(str(client_id))
