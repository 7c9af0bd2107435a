"""Tokens, and what OAuth 2 publishes about the server."""

from typing import Literal

from pydantic import BaseModel, Field

from fastpubsub.models.subscriptions import Filter


class TokenRequest(BaseModel):
    client_id: str
    client_secret: str
    scope: str | None = Field(None, description="fewer scopes than the client has, separated by spaces")
    filter: Filter = Field(
        None, description="what the streams of topics that the token opens let pass; it needs a scope topics:consume"
    )


class Token(BaseModel):
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int = Field(description="seconds")
    scope: str


class Introspection(BaseModel):
    """RFC 7662, section 2.2; of a token that is not good, nothing but that."""

    active: bool
    client_id: str | None = None
    sub: str | None = None
    scope: str | None = None
    token_type: Literal["Bearer"] | None = None
    exp: int | None = Field(None, description="Unix time")
    filter: str | None = Field(None, description="the JSON of the filter that the token is bound to")


class AuthorizationServer(BaseModel):
    """RFC 8414, section 2."""

    issuer: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic", "client_secret_post"]
    introspection_endpoint: str
    introspection_endpoint_auth_methods_supported: list[str] = ["client_secret_basic", "client_secret_post"]
    jwks_uri: str
    grant_types_supported: list[str] = ["client_credentials"]
    response_types_supported: list[str] = Field(
        ["none"], description="required by RFC 8414; there is no authorization endpoint"
    )
    scopes_supported: list[str]


class PublicKeys(BaseModel):
    """A JSON Web Key Set, RFC 7517."""

    keys: list[dict[str, str]]
