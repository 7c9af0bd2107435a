"""`POST /oauth/introspect`: RFC 7662, for any client that shows its secret."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from fastpubsub.config import Settings
from fastpubsub.models import ClientCredentials
from fastpubsub.services.tokens import MAX_TOKEN_BYTES, Signer
from tests.api.conftest import app_of
from tests.api.test_oauth import FORM, assert_refused, in_body, make_client
from tests.attacks import ATTACKS, KEY
from tests.conftest import MakeSettings

SCOPES = "topics:read topics:publish:a"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY, auth_max_failures_per_client=100)


@pytest.fixture
async def asking(client: httpx.AsyncClient) -> ClientCredentials:
    return await make_client(client, scopes="topics:create")


@pytest.fixture
async def asked(client: httpx.AsyncClient) -> ClientCredentials:
    """The client whose tokens are asked about."""
    return await make_client(client, scopes=SCOPES)


@pytest.fixture
async def administrator(client: httpx.AsyncClient) -> dict[str, str]:
    token = await get_token(client, await make_client(client, scopes="*"))
    return {"Authorization": f"Bearer {token}"}


async def get_token(client: httpx.AsyncClient, of: ClientCredentials) -> str:
    response = await client.post("/oauth/token", data=in_body(of))
    return str(response.raise_for_status().json()["access_token"])


def signer_of(client: httpx.AsyncClient) -> Signer:
    signer: Signer = app_of(client).state.authenticator.signer
    return signer


async def post(client: httpx.AsyncClient, **options: Any) -> httpx.Response:
    response = await client.post("/oauth/introspect", **options)
    assert response.headers.get_list("cache-control") == ["no-store"]
    assert response.headers["pragma"] == "no-cache"
    return response


async def ask(client: httpx.AsyncClient, asking: ClientCredentials, token: str | bytes) -> Any:
    response = await post(client, data={"token": token}, auth=(str(asking.id), asking.secret))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def test_a_good_token(client: httpx.AsyncClient, asking: ClientCredentials, asked: ClientCredentials) -> None:
    token = await get_token(client, asked)
    said = await ask(client, asking, token)
    assert said == {
        "active": True,
        "client_id": str(asked.id),
        "sub": str(asked.id),
        "scope": "topics:publish:a topics:read",
        "token_type": "Bearer",
        "exp": signer_of(client).verify(token.encode()).expires_at,
    }
    form = {"token": token, "token_type_hint": "refresh_token", "client_id": str(asking.id)}
    assert (await post(client, data=form | {"client_secret": asking.secret})).json() == said


async def test_all_that_is_not_good_looks_alike(client: httpx.AsyncClient, asking: ClientCredentials) -> None:
    tokens = {name: attack() for name, attack in ATTACKS.items() if attack()}
    tokens |= {"of nobody": signer_of(client).sign(uuid4(), "*", 1).encode(), "long": b"a" * (MAX_TOKEN_BYTES + 1)}
    signer_of(client).lifetime_seconds = -1
    tokens["expired"] = signer_of(client).sign(asking.id, "topics:create", 1).encode()
    for name, token in tokens.items():
        assert await ask(client, asking, token) == {"active": False}, name


@pytest.mark.parametrize("how", ["changed", "disabled", "deleted", "secret stolen"])
async def test_a_token_that_was_ended(
    client: httpx.AsyncClient,
    asking: ClientCredentials,
    asked: ClientCredentials,
    administrator: dict[str, str],
    how: str,
) -> None:
    token = await get_token(client, asked)
    assert (await ask(client, asking, token))["active"] is True
    path = f"/clients/{asked.id}"
    if how == "deleted":
        done = await client.delete(path, headers=administrator)
    elif how == "secret stolen":
        done = await client.post(f"{path}/secrets", json={"old_secret_seconds": 0}, headers=administrator)
    else:
        body = {"name": "name", "scopes": SCOPES, "is_active": how == "changed"}
        done = await client.put(path, json=body, headers=administrator)
    assert done.is_success
    assert await ask(client, asking, token) == {"active": False}


async def test_only_who_shows_a_secret_may_ask(
    client: httpx.AsyncClient, asking: ClientCredentials, asked: ClientCredentials
) -> None:
    """All others are refused alike, whatever the token is worth."""
    disabled = await make_client(client, is_active=False)
    token = await get_token(client, asked)
    wrong = [(str(asking.id), "x"), (str(uuid4()), "x"), ("x", asking.secret), (str(disabled.id), disabled.secret)]
    answers = set()
    for auth in wrong:
        for about in (token, "x"):
            refused = await post(client, data={"token": about}, auth=auth)
            assert_refused(refused, 401, "invalid_client")
            answers.add(refused.text)
    assert len(answers) == 1
    bearer = {"Authorization": f"Bearer {token}"}
    assert_refused(await post(client, data={"token": token}, headers=bearer), 401, "invalid_client")
    assert_refused(await post(client, data={"token": token}), 401, "invalid_client")


async def test_a_form_that_does_not_fit(client: httpx.AsyncClient, asking: ClientCredentials) -> None:
    auth = (str(asking.id), asking.secret)
    for body in (b"", b"token=", b"token=a&token=b", b"token=%ff", b"token", b"x=a"):
        assert_refused(await post(client, content=body, headers=FORM, auth=auth), 400, "invalid_request")
    token = {"token": "x"}
    assert_refused(await post(client, json=token, auth=auth), 400, "invalid_request")
    assert_refused(await post(client, params=token, auth=auth), 400, "invalid_request")
    assert_refused(await post(client, params=token, data=token, auth=auth), 400, "invalid_request")
    assert_refused(await post(client, data=token | {"client_secret": "x"}, auth=auth), 400, "invalid_request")
    too_large = await post(client, content=b"token=" + b"x" * 16_384, headers=FORM, auth=auth)
    assert too_large.status_code == 413


class TestGuessing:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY, auth_max_failures_per_client=2)

    async def test_wrong_secrets_count_as_at_the_token_endpoint(
        self, client: httpx.AsyncClient, asking: ClientCredentials
    ) -> None:
        wrong = asking.model_copy(update={"secret": "wrong"})
        statuses = [
            (await post(client, data=in_body(wrong, token="x"))).status_code,
            (await client.post("/oauth/token", data=in_body(wrong))).status_code,
            (await post(client, data=in_body(wrong, token="x"))).status_code,
            (await client.post("/oauth/token", data=in_body(wrong))).status_code,
        ]
        assert statuses == [401, 401, 429, 429]
        refused = await post(client, data=in_body(wrong, token="x"))
        assert refused.json()["error"] == "temporarily_unavailable"
        assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_too_many_at_once(client: httpx.AsyncClient, asking: ClientCredentials) -> None:
    app_of(client).state.authenticator.hasher._free_places = 0
    refused = await post(client, data=in_body(asking, token="x"))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0


class TestOffWithoutAKey:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings()

    async def test_no_token_is_good(self, client: httpx.AsyncClient, asking: ClientCredentials) -> None:
        for attack in ("x", Signer.__name__, str(UUID(int=0))):
            assert await ask(client, asking, attack) == {"active": False}
