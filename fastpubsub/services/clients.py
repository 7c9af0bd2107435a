"""Manages clients, which may call the API with their scopes."""

import secrets
from uuid import UUID

from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.database.connections import Row
from fastpubsub.models import ChangedClient, Client, ClientCredentials, NewClient, RotatedSecret
from fastpubsub.scopes import Caller, parse
from fastpubsub.services.authenticator import Authenticator
from fastpubsub.services.hashing import SecretHasher

SECRET_BYTES = 24


async def create_client(
    database: Database, hasher: SecretHasher, client: NewClient, caller: Caller, change: Change | None = None
) -> ClientCredentials:
    """The secret is in this answer and nowhere else; what is stored is its hash."""
    scopes = parse(client.scopes)
    caller.require_grant(scopes)
    secret, secret_hash = await _make_secret(hasher)
    (client_id,) = await database.fetch_one(
        "create_client", client.name, " ".join(scopes), secret_hash, client.is_active, change=change
    )
    return ClientCredentials(id=client_id, secret=secret)


async def get_client(database: Database, client_id: UUID) -> Client:
    return _client(await database.fetch_one("get_client", client_id))


async def list_clients(database: Database, caller: Caller, offset: int, limit: int) -> list[Client]:
    """Lists the clients that the caller may read."""
    ids = caller.objects("clients:read")
    visible = None if ids is None else [UUID(client_id) for client_id in ids]
    return [_client(row) for row in await database.fetch_all("list_clients", offset, limit, visible)]


async def update_client(
    database: Database,
    authenticator: Authenticator,
    client_id: UUID,
    client: ChangedClient,
    caller: Caller,
    change: Change | None = None,
) -> Client:
    """Ends all tokens of the client."""
    scopes = parse(client.scopes)
    caller.require_grant(scopes)
    try:
        return _client(
            await database.fetch_one(
                "update_client",
                client_id,
                client.name,
                " ".join(scopes),
                client.is_active,
                caller.grants(),
                change=change,
            )
        )
    finally:
        authenticator.forget(client_id)


async def rotate_client_secret(
    database: Database,
    authenticator: Authenticator,
    client_id: UUID,
    old_seconds: int,
    caller: Caller,
    change: Change | None = None,
) -> RotatedSecret:
    """The one before it lives on for that long; with 0 all end now, and the tokens of the client too."""
    secret, secret_hash = await _make_secret(authenticator.hasher)
    try:
        (expires_at,) = await database.fetch_one(
            "rotate_client_secret", client_id, secret_hash, old_seconds, caller.grants(), change=change
        )
    finally:
        authenticator.forget(client_id)
    return RotatedSecret(id=client_id, secret=secret, old_secret_expires_at=expires_at)


async def revoke_client_secret(
    database: Database,
    authenticator: Authenticator,
    client_id: UUID,
    newest: bool,
    caller: Caller,
    change: Change | None = None,
) -> None:
    """Ends the newest or the old one of two secrets, and all tokens of the client."""
    try:
        await database.fetch_one("revoke_client_secret", client_id, newest, caller.grants(), change=change)
    finally:
        authenticator.forget(client_id)


async def delete_client(
    database: Database, authenticator: Authenticator, client_id: UUID, caller: Caller, change: Change | None = None
) -> None:
    try:
        await database.fetch_one("delete_client", client_id, caller.grants(), change=change)
    finally:
        authenticator.forget(client_id)


async def _make_secret(hasher: SecretHasher) -> tuple[str, str]:
    """Returns a new secret and its hash."""
    secret = f"fps_{secrets.token_urlsafe(SECRET_BYTES)}"
    with hasher.place():
        return secret, await hasher.hash(secret)


def _client(row: Row) -> Client:
    return Client.model_validate(dict(zip(Client.model_fields, row, strict=True)))
