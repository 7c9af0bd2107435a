"""OAuth 2 clients of others, as they come, against the real server: RFC 6749 and RFC 6750 as they understand them."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuth2Client
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from oauthlib.oauth2 import BackendApplicationClient
from oauthlib.oauth2.rfc6749 import errors as oauthlib_errors
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from tests.attacks import KEY
from tests.conftest import Run, StartServer
from tests.harness import free_port

SCOPES = "topics:create topics:read"


class Service:
    """A server with one client."""

    def __init__(self, base_url: str, client_id: str, secret: str) -> None:
        self.issuer = base_url
        self.topics = f"{base_url}/topics"
        self.token_url = f"{base_url}/oauth/token"
        self.client_id = client_id
        self.secret = secret


@pytest.fixture
def service(server: StartServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> Service:
    # oauthlib refuses to send secrets without TLS, which is a proxy's task here.
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    settings = {"auth_enabled": True, "auth_secret_key": KEY, "auth_issuer": issuer, "api_port": port}
    made = dict(re.findall(r"^(client_\w+)=(.*)$", run("create_client", "shop", SCOPES).stdout, re.MULTILINE))
    return Service(server(**settings).base_url, made["client_id"], made["client_secret"])


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib(service: Service, method: str) -> None:
    with OAuth2Client(service.client_id, service.secret, token_endpoint_auth_method=method) as client:
        token = client.fetch_token(service.token_url, grant_type="client_credentials")
        assert (token["token_type"], token["scope"], token.is_expired()) == ("Bearer", SCOPES, False)
        assert client.post(service.topics, json={"id": "t"}).status_code == 201
        assert client.get(service.topics).json()["data"][0]["id"] == "t"
        refused = client.delete(f"{service.topics}/t")
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    refusals = [
        ({"client_secret": "wrong"}, "client_credentials", "invalid_client"),
        ({"client_id": "nobody"}, "client_credentials", "invalid_client"),
        ({"scope": "topics:delete"}, "client_credentials", "invalid_scope"),
        ({"scope": "everything"}, "client_credentials", "invalid_scope"),
        ({}, "password", "unsupported_grant_type"),
    ]
    for change, grant, error in refusals:
        options = {"client_id": service.client_id, "client_secret": service.secret} | change
        with OAuth2Client(token_endpoint_auth_method=method, **options) as client:
            with pytest.raises(OAuthError) as raised:
                client.fetch_token(service.token_url, grant_type=grant)
            assert raised.value.error == error
            assert raised.value.description


async def test_authlib_gets_tokens_by_itself_and_again(service: Service) -> None:
    async with AsyncOAuth2Client(
        service.client_id,
        service.secret,
        scope="topics:read",
        token_endpoint=service.token_url,
        grant_type="client_credentials",
    ) as client:
        client.token = {"access_token": "expired", "token_type": "Bearer", "expires_at": 1}
        assert (await client.get(service.topics)).status_code == 200
        assert client.token["scope"] == "topics:read"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_finds_the_endpoints_and_asks_about_tokens(service: Service, method: str) -> None:
    """It begins with the address of the issuer, and takes every other from the metadata."""
    metadata = AuthorizationServerMetadata(httpx.get(get_well_known_url(service.issuer, external=True)).json())
    metadata.validate()
    assert metadata.issuer == service.issuer
    assert method in metadata.token_endpoint_auth_methods_supported
    assert httpx.get(metadata.jwks_uri).json() == {"keys": []}
    with OAuth2Client(service.client_id, service.secret, token_endpoint_auth_method=method) as client:
        (grant_type,) = metadata.grant_types_supported
        token = client.fetch_token(metadata.token_endpoint, grant_type=grant_type)["access_token"]
        asked = client.introspect_token(metadata.introspection_endpoint, token=token, token_type_hint="access_token")
        assert (asked.status_code, asked.json()["active"], asked.json()["scope"]) == (200, True, SCOPES)
        asked = client.introspect_token(metadata.introspection_endpoint, token="another")
        assert (asked.status_code, asked.json()) == (200, {"active": False})


def in_basic(service: Service) -> dict[str, Any]:
    return {"auth": HTTPBasicAuth(service.client_id, service.secret)}


def in_body(service: Service) -> dict[str, Any]:
    return {"include_client_id": True, "client_secret": service.secret}


@pytest.mark.parametrize("credentials", [in_basic, in_body])
def test_oauthlib(service: Service, credentials: Callable[[Service], dict[str, Any]]) -> None:
    with OAuth2Session(client=BackendApplicationClient(service.client_id)) as session:
        token = session.fetch_token(service.token_url, **credentials(service))
        assert token["token_type"] == "Bearer"
        assert session.post(service.topics, json={"id": "t"}).status_code == 201
        assert session.get(service.topics).json()["data"][0]["id"] == "t"
        assert session.delete(f"{service.topics}/t").status_code == 403


def test_oauthlib_asks_for_less_and_understands_what_is_refused(service: Service) -> None:
    wanted = BackendApplicationClient(service.client_id, scope=["topics:read"])
    with OAuth2Session(client=wanted) as session:
        assert session.fetch_token(service.token_url, **in_basic(service))["scope"] == ["topics:read"]
        assert session.post(service.topics, json={"id": "t"}).status_code == 403
    unwanted = BackendApplicationClient(service.client_id, scope=["topics:delete"])
    with OAuth2Session(client=unwanted) as session, pytest.raises(oauthlib_errors.InvalidScopeError):
        session.fetch_token(service.token_url, **in_basic(service))
    with OAuth2Session(client=wanted) as session, pytest.raises(oauthlib_errors.InvalidClientError):
        session.fetch_token(service.token_url, auth=HTTPBasicAuth(service.client_id, "wrong"))


def test_guessing_is_slowed_down_in_words_that_clients_know(service: Service) -> None:
    with OAuth2Client(service.client_id, "wrong", token_endpoint_auth_method="client_secret_post") as client:
        errors: list[str] = []
        while "temporarily_unavailable" not in errors:
            with pytest.raises((OAuthError, httpx.HTTPStatusError)) as raised:
                client.fetch_token(service.token_url, grant_type="client_credentials")
            errors.append(getattr(raised.value, "error", ""))
            assert len(errors) <= 100
        assert set(errors) == {"invalid_client", "temporarily_unavailable"}
