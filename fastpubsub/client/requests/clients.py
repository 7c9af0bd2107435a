"""Clients and tokens."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from fastpubsub import models
from fastpubsub.client.requests.request import Request, creating, deleting, no_result, page_params, path_to, write_json
from fastpubsub.models import ClientCredentials, RotatedSecret, Token


def create_client(name: str, scopes: str, *, is_active: bool = True) -> Request[ClientCredentials]:
    """Creates a client; scopes are separated by spaces. The secret is returned only here."""
    body = {"name": name, "scopes": scopes, "is_active": is_active}
    return creating("/clients", body, ClientCredentials)


def get_client(id: str | uuid.UUID) -> Request[models.Client]:
    return Request("GET", path_to("clients", str(id)), models.Client.model_validate_json)


def list_clients(*, offset: int = 0, limit: int = 10) -> Request[list[models.Client]]:
    """Lists up to 100, ordered by id."""
    return Request(
        "GET",
        "/clients",
        lambda answer: models.ClientList.model_validate_json(answer).data,
        params=page_params(offset, limit),
    )


def update_client(
    id: str | uuid.UUID,
    *,
    name: str,
    scopes: str,
    is_active: bool | None = None,
) -> Request[models.Client]:
    """Changes a client and ends its tokens; `is_active` stays as it is unless given."""
    body = {"name": name, "scopes": scopes, "is_active": is_active}
    return Request("PUT", path_to("clients", str(id)), models.Client.model_validate_json, write_json(body))


def rotate_client_secret(id: str | uuid.UUID, *, old_secret_seconds: int = 86400) -> Request[RotatedSecret]:
    """Returns another secret, only once; the previous one stays valid for `old_secret_seconds`.

    For a stolen secret, use 0, which ends all earlier secrets and all tokens now. Refused while there are two secrets.
    """
    body = {"old_secret_seconds": old_secret_seconds}
    return creating(path_to("clients", str(id), "secrets"), body, RotatedSecret)


def revoke_client_secret(id: str | uuid.UUID, which: Literal["old", "new"]) -> Request[None]:
    """Ends one of two secrets early, and all tokens. Refused when there are not two secrets."""
    return Request("DELETE", path_to("clients", str(id), "secrets", which), no_result, repeatable=False)


def delete_client(id: str | uuid.UUID) -> Request[None]:
    """Deletes a client and ends its tokens."""
    return deleting(path_to("clients", str(id)))


def create_token(
    client_id: str, client_secret: str, *, scope: str | None = None, filter: Mapping[str, Any] | None = None
) -> Request[Token]:
    """Makes a token to hand out, such as to a browser. The client itself needs none: give it the id and the secret.

    `scope`: fewer scopes than the client has, separated by spaces. `filter` applies to the streams of topics that are
    opened with the token, such as `{"$attributes": {"user": ["42"]}}`; it allows no scope but `topics:consume`.
    """
    wanted = {"scope": scope, "filter": filter}
    body: dict[str, Any] = {"client_id": client_id, "client_secret": client_secret}
    body |= {name: value for name, value in wanted.items() if value is not None}
    return Request("POST", "/oauth/token", Token.model_validate_json, write_json(body))
