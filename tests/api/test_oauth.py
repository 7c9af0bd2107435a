"""`POST /oauth/token`: the spec's JSON, and RFC 6749's client credentials as a form."""

import base64
from typing import Any
from uuid import uuid4

import httpx
import pytest

from fastpubsub.config import Settings
from fastpubsub.models import ClientCredentials, NewClient
from fastpubsub.scopes import ADMINISTRATOR
from fastpubsub.services import clients
from tests.api.conftest import app_of
from tests.attacks import KEY
from tests.conftest import MakeSettings

GRANT = {"grant_type": "client_credentials"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY)


async def make_client(client: httpx.AsyncClient, **values: Any) -> ClientCredentials:
    state = app_of(client).state
    body = NewClient(**({"name": "name", "scopes": "topics:create topics:read"} | values))
    return await clients.create_client(state.database, state.authenticator.hasher, body, ADMINISTRATOR)


@pytest.fixture
async def made(client: httpx.AsyncClient) -> ClientCredentials:
    return await make_client(client)


async def post(client: httpx.AsyncClient, **options: Any) -> httpx.Response:
    response = await client.post("/oauth/token", **options)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert len(response.headers.get_list("cache-control")) == 1
    return response


def in_body(made: ClientCredentials, **more: str) -> dict[str, str]:
    return GRANT | {"client_id": str(made.id), "client_secret": made.secret} | more


def assert_refused(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["error"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error", "error_description"}
    assert ("www-authenticate" in response.headers) == (status == 401)


# the spec


async def test_json(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    response = await post(client, json={"client_id": str(made.id), "client_secret": made.secret})
    assert response.status_code == 201
    body = response.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 1800, "topics:create topics:read")
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await client.get("/topics", headers=headers)).status_code == 200
    assert (await client.delete("/topics/t", headers=headers)).status_code == 403


async def test_json_with_fewer_scopes(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    body = {"client_id": str(made.id), "client_secret": made.secret}
    assert (await post(client, json=body | {"scope": "topics:read"})).json()["scope"] == "topics:read"
    assert (await post(client, json=body | {"scope": "topics:delete"})).status_code == 403
    assert (await post(client, json=body | {"scope": "everything"})).status_code == 422


async def test_json_with_wrong_credentials(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    disabled = await make_client(client, is_active=False)
    wrong = [
        (str(made.id), "wrong"),
        (str(uuid4()), made.secret),
        ("x", made.secret),
        (str(disabled.id), disabled.secret),
    ]
    answers = set()
    for client_id, secret in wrong:
        response = await post(client, json={"client_id": client_id, "client_secret": secret})
        assert response.status_code == 401
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"] == 'Bearer realm="fastpubsub"'
        answers.add(response.json()["detail"])
    assert len(answers) == 1


async def test_json_has_the_credentials_in_it_and_nowhere_else(
    client: httpx.AsyncClient, made: ClientCredentials
) -> None:
    body = {"client_id": str(made.id), "client_secret": made.secret}
    elsewhere: list[dict[str, Any]] = [{"auth": (str(made.id), made.secret)}, {"params": {"client_secret": "canary"}}]
    for options in elsewhere:
        response = await post(client, json=body, **options)
        assert response.status_code == 422, options
        assert "canary" not in response.text
    assert (await post(client, json=body, headers={"Authorization": "Bearer old"})).status_code == 201


async def test_json_that_does_not_fit(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"[]", b"{}", b'{"client_id": 1, "client_secret": 2}', b'{"client_id": "\\ud800"}'):
        response = await post(client, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, body
    secret = {"client_secret": "canary"}
    assert "canary" not in (await post(client, json=secret)).text


async def test_other_bodies(client: httpx.AsyncClient) -> None:
    assert (await post(client, content=b"x", headers={"Content-Type": "text/plain"})).status_code == 415
    assert (await post(client, content=b"x" * 16_385, headers=FORM)).status_code == 413


# RFC 6749


async def test_a_form(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    response = await post(client, data=in_body(made))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"access_token", "token_type", "expires_in", "scope"}
    headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
    assert (await client.get("/topics", headers=headers)).status_code == 200


async def test_http_basic(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    assert (await post(client, data=GRANT, auth=(str(made.id), made.secret))).status_code == 200
    named = GRANT | {"client_id": str(made.id)}
    assert (await post(client, data=named, auth=(str(made.id), made.secret))).status_code == 200


async def test_http_basic_is_decoded_as_a_form(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in made.secret.encode())
    assert (await post(client, data=GRANT, auth=(str(made.id), quoted))).status_code == 200


async def test_what_swagger_sends(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    """Authorize without and with scopes chosen."""
    auth = (str(made.id), made.secret)
    chosen = await post(client, data=GRANT | {"scope": "topics:read topics:create"}, auth=auth)
    assert chosen.json()["scope"] == "topics:read topics:create"
    none = await post(client, content=b"grant_type=client_credentials&scope=", headers=FORM, auth=auth)
    assert none.json()["scope"] == "topics:create topics:read"


async def test_scope_narrows(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    assert (await post(client, data=in_body(made, scope="topics:read:a"))).json()["scope"] == "topics:read:a"
    for scope in ("topics:delete", "*", "topics:read topics:delete", "everything", "topics:create:é\x00"):
        assert_refused(await post(client, data=in_body(made, scope=scope)), 400, "invalid_scope")


async def test_wrong_credentials(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    disabled = await make_client(client, is_active=False)
    answers = set()
    for client_id, secret in ((str(made.id), "x"), (str(uuid4()), "x"), (str(disabled.id), disabled.secret)):
        ways: dict[str, dict[str, Any]] = {
            "Bearer": {"data": GRANT | {"client_id": client_id, "client_secret": secret}},
            "Basic": {"data": GRANT, "auth": (client_id, secret)},
        }
        for scheme, options in ways.items():
            response = await post(client, **options)
            assert_refused(response, 401, "invalid_client")
            assert response.headers["www-authenticate"] == f'{scheme} realm="fastpubsub"'
            answers.add(response.text)
    assert len(answers) == 1


BAD_FORMS = {
    b"": "invalid_request",
    b"scope=x": "invalid_request",
    b"grant_type=": "invalid_request",
    b"grant_type=password": "unsupported_grant_type",
    b"grant_type=client_credentials&grant_type=client_credentials": "invalid_request",
    b"grant_type=client_credentials&scope=a&scope=a": "invalid_request",
    b"grant_type=client_credentials&x=\xff": "invalid_request",
    b"grant_type=client_credentials&x=%ff": "invalid_request",
    b"grant_type": "invalid_request",
    b"&".join(b"a%d=1" % number for number in range(100)): "invalid_request",
}


async def test_a_form_that_does_not_fit(client: httpx.AsyncClient) -> None:
    for body, code in BAD_FORMS.items():
        assert_refused(await post(client, content=body, headers=FORM), 400, code)


async def test_credentials_are_sent_in_one_way(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    auth = (str(made.id), made.secret)
    twice: list[dict[str, Any]] = [
        {"data": in_body(made), "auth": auth},
        {"data": GRANT | {"client_id": str(uuid4())}, "auth": auth},
        {"data": GRANT | {"client_id": str(made.id)}, "params": {"client_secret": made.secret}},
        {"content": b"grant_type=client_credentials", "headers": [*FORM.items(), *[basic(b"a:b")] * 2]},
    ]
    for options in twice:
        assert_refused(await post(client, **options), 400, "invalid_request")


def basic(value: bytes) -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(value).decode()


async def test_broken_http_basic(client: httpx.AsyncClient) -> None:
    for header in (("Authorization", "Basic"), ("Authorization", "Basic !"), *map(basic, (b"a", b"\xff:x", b"%ff:x"))):
        response = await post(client, content=b"grant_type=client_credentials", headers=[*FORM.items(), header])
        assert_refused(response, 401, "invalid_client")
        assert response.headers["www-authenticate"] == 'Basic realm="fastpubsub"'


async def test_without_credentials(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    for form in (GRANT, GRANT | {"client_id": str(made.id)}, GRANT | {"client_secret": made.secret}):
        response = await post(client, data=form)
        assert_refused(response, 401, "invalid_client")
        assert response.headers["www-authenticate"] == 'Bearer realm="fastpubsub"'


async def test_too_many_at_once(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    app_of(client).state.authenticator.hasher._free_places = 0
    response = await post(client, data=in_body(made))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert (await client.get("/liveness")).status_code == 200


# wrong secrets


async def test_too_many_wrong_secrets(client: httpx.AsyncClient, made: ClientCredentials) -> None:
    """In both forms; a client that is known here is let through all the same, and everybody from elsewhere."""
    wrong = {"client_id": str(made.id), "client_secret": "wrong"}
    right = wrong | {"client_secret": made.secret}
    assert (await post(client, json=right)).status_code == 201
    while (refused := await post(client, json=wrong)).status_code == 401:
        pass
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    form = await post(client, data=GRANT | wrong)
    assert (form.status_code, form.json()["error"]) == (429, "temporarily_unavailable")
    assert 1 <= int(form.headers["retry-after"]) <= 60
    assert (await post(client, json=right)).status_code == 201
    transport = httpx.ASGITransport(app_of(client), client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://fastpubsub") as elsewhere:
        assert (await post(elsewhere, json=wrong)).status_code == 401
        assert (await post(elsewhere, json=right)).status_code == 201


# authentication off


class TestOff:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings()

    async def test_without_a_key(self, client: httpx.AsyncClient, made: ClientCredentials) -> None:
        response = await post(client, json={"client_id": str(made.id), "client_secret": made.secret})
        assert response.status_code == 422
        assert "generate_secret_key" in response.json()["detail"]
        assert_refused(await post(client, data=in_body(made)), 400, "invalid_request")


class TestOffWithAKey:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_secret_key=KEY)

    async def test_tokens_are_issued_all_the_same(self, client: httpx.AsyncClient, made: ClientCredentials) -> None:
        response = await post(client, json={"client_id": str(made.id), "client_secret": made.secret})
        assert response.status_code == 201
        headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
        assert (await client.get("/topics", headers=headers)).status_code == 200
