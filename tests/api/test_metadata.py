"""`GET /.well-known/oauth-authorization-server`: RFC 8414, once the server was told where it is."""

import httpx
import jwt
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from fastpubsub.config import ConfigurationError, Settings, load_settings
from fastpubsub.scopes import SCOPES
from fastpubsub.services.tokens import make_signer
from tests.api.conftest import Tokens
from tests.attacks import CLIENT_ID, KEY, sign
from tests.conftest import MakeSettings
from tests.harness import opened

pytestmark = pytest.mark.shared_application

PATH = "/.well-known/oauth-authorization-server"
ISSUER = "https://bus.example/prefix"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY, auth_issuer=ISSUER)


async def test_what_is_announced(client: httpx.AsyncClient) -> None:
    """Whatever the request says about the address: it may come from anybody."""
    forged = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    response = await client.get(PATH, headers=forged)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    announced = response.json()
    assert announced == {
        "issuer": ISSUER,
        "token_endpoint": f"{ISSUER}/oauth/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "introspection_endpoint": f"{ISSUER}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": ["none"],
        "scopes_supported": list(SCOPES),
    }
    AuthorizationServerMetadata(announced).validate()


async def test_what_is_announced_is_there(client: httpx.AsyncClient) -> None:
    announced = (await client.get(PATH)).json()
    for name in ("token_endpoint", "introspection_endpoint", "jwks_uri"):
        response = await client.get(announced[name].removeprefix(ISSUER))
        assert response.status_code == (200 if name == "jwks_uri" else 405), name


async def test_tokens_name_the_issuer(client: httpx.AsyncClient, token: Tokens) -> None:
    """Those from before it was set are good until they end."""
    headers = token("*")
    claims = jwt.decode(headers["Authorization"].removeprefix("Bearer "), options={"verify_signature": False})
    assert (claims["iss"], claims["aud"]) == (ISSUER, "fastpubsub")
    assert (await client.get("/topics", headers=headers)).status_code == 200
    for issuer, status in (("fastpubsub", 200), ("https://bus.example", 401), (ISSUER + "/", 401)):
        old = sign(sub=str(token.client_id), iss=issuer).decode()
        assert (await client.get("/topics", headers={"Authorization": f"Bearer {old}"})).status_code == status, issuer


async def test_without_an_address_there_is_none(make_settings: MakeSettings) -> None:
    async with opened(make_settings(auth_enabled=True, auth_secret_key=KEY)) as client:
        response = await client.get(PATH)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert "FASTPUBSUB_AUTH_ISSUER" in response.json()["detail"]


GOOD = ["https://bus.example", "https://bus.example:8443/a/b-c.d", "http://localhost:8000", "http://[::1]:8000"]
BAD = [
    "bus.example",
    "ftp://bus.example",
    "https://",
    "https://bus.example/",
    "https://bus.example//a",
    "https://user@bus.example",
    "https://bus.example?a=b",
    "https://bus.example/#a",
    "https://bus.example/a b",
    "https://bus.example\n",
    "https://bus.example/" + "a" * 255,
]


@pytest.mark.parametrize("address", GOOD)
def test_addresses(address: str) -> None:
    signer = make_signer(Settings(_env_file=None, auth_secret_key=KEY, auth_issuer=address))
    assert signer is not None
    assert jwt.decode(signer.sign(CLIENT_ID, "*", 1), options={"verify_signature": False})["iss"] == address


@pytest.mark.parametrize("address", BAD)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigurationError, match="FASTPUBSUB_AUTH_ISSUER: this is not the address of a server"):
        load_settings(_env_file=None, auth_issuer=address)
