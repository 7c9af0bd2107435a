"""Who may do what, on every route there is; and that it is decided before a body is read."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute, iter_route_contexts

from fastpubsub.api.app import create_app
from fastpubsub.api.security import ScopedRoute, public, requires
from fastpubsub.config import Settings
from fastpubsub.scopes import SCOPES
from tests.api.conftest import Tokens, app_of
from tests.attacks import ATTACKS, KEY
from tests.conftest import MakeSettings

pytestmark = pytest.mark.shared_application

EXPECTED = {
    "POST /topics": "topics:create",
    "POST /transactions": "subscriptions:consume",
    "GET /topics": "topics:read",
    "GET /topics/{topic_id}": "topics:read",
    "PATCH /topics/{topic_id}": "topics:create",
    "DELETE /topics/{topic_id}": "topics:delete",
    "POST /topics/{topic_id}/messages": "topics:publish",
    "GET /topics/{topic_id}/delayed": "topics:read",
    "GET /topics/{topic_id}/delayed/{delayed_id}": "topics:publish",
    "PATCH /topics/{topic_id}/delayed/{delayed_id}": "topics:publish",
    "DELETE /topics/{topic_id}/delayed/{delayed_id}": "topics:publish",
    "POST /topics/{topic_id}/release": "topics:publish",
    "GET /topics/{topic_id}/refused": "topics:read",
    "POST /topics/{topic_id}/refused/publish": "topics:publish",
    "DELETE /topics/{topic_id}/refused": "topics:publish",
    "POST /topics/{topic_id}/schedules": "topics:publish",
    "GET /topics/{topic_id}/schedules": "topics:read",
    "GET /topics/{topic_id}/schedules/{schedule_id}": "topics:read",
    "PATCH /topics/{topic_id}/schedules/{schedule_id}": "topics:publish",
    "DELETE /topics/{topic_id}/schedules/{schedule_id}": "topics:publish",
    "POST /topics/{topic_id}/schedules/{schedule_id}/pause": "topics:publish",
    "POST /topics/{topic_id}/schedules/{schedule_id}/resume": "topics:publish",
    "POST /topics/{topic_id}/schedules/{schedule_id}/fire": "topics:publish",
    "GET /topics/{topic_id}/stream": "topics:consume",
    "POST /subscriptions": "subscriptions:create",
    "GET /subscriptions": "subscriptions:read",
    "GET /subscriptions/{subscription_id}": "subscriptions:read",
    "PATCH /subscriptions/{subscription_id}": "subscriptions:create",
    "DELETE /subscriptions/{subscription_id}": "subscriptions:delete",
    "GET /subscriptions/{subscription_id}/metrics": "subscriptions:read",
    "POST /subscriptions/{subscription_id}/pause": "subscriptions:create",
    "POST /subscriptions/{subscription_id}/resume": "subscriptions:create",
    "POST /subscriptions/{subscription_id}/purge": "subscriptions:consume",
    "GET /subscriptions/{subscription_id}/attempts": "subscriptions:push",
    "POST /subscriptions/{subscription_id}/push/secrets": "subscriptions:push",
    "GET /subscriptions/{subscription_id}/push": "subscriptions:push",
    "POST /subscriptions/{subscription_id}/push/test": "subscriptions:push",
    "POST /subscriptions/{subscription_id}/push/resend": "subscriptions:push",
    "POST /subscriptions/{subscription_id}/seek": "subscriptions:consume",
    "GET /subscriptions/{subscription_id}/messages": "subscriptions:consume",
    "GET /topics/{topic_id}/messages": "topics:read",
    "POST /topics/{topic_id}/filter/test": "topics:read",
    "POST /subscriptions/{subscription_id}/filter/test": "subscriptions:read",
    "GET /subscriptions/{subscription_id}/messages/browse": "subscriptions:read",
    "GET /messages/{message_id}": "subscriptions:read",
    "GET /subscriptions/{subscription_id}/messages/{message_id}": "subscriptions:read",
    "GET /subscriptions/{subscription_id}/stream": "subscriptions:consume",
    "POST /subscriptions/{subscription_id}/acks": "subscriptions:consume",
    "POST /subscriptions/{subscription_id}/nacks": "subscriptions:consume",
    "POST /subscriptions/{subscription_id}/pulls": "subscriptions:consume",
    "DELETE /subscriptions/{subscription_id}/waits": "subscriptions:consume",
    "POST /subscriptions/{subscription_id}/rejects": "subscriptions:consume",
    "POST /subscriptions/{subscription_id}/leases": "subscriptions:consume",
    "GET /subscriptions/{subscription_id}/dlq": "subscriptions:consume",
    "DELETE /subscriptions/{subscription_id}/dlq": "subscriptions:consume",
    "GET /subscriptions/{subscription_id}/dlq/reasons": "subscriptions:consume",
    "POST /subscriptions/{subscription_id}/redrives": "subscriptions:consume",
    "GET /subscriptions/{subscription_id}/redrives": "subscriptions:consume",
    "GET /subscriptions/{subscription_id}/redrives/{redrive_id}": "subscriptions:consume",
    "DELETE /subscriptions/{subscription_id}/redrives/{redrive_id}": "subscriptions:consume",
    "POST /subscriptions/{subscription_id}/dlq/reprocess": "subscriptions:consume",
    "GET /subscriptions/{subscription_id}/consumers": "subscriptions:read",
    "GET /overview": "subscriptions:read",
    "GET /overview/history": "subscriptions:read",
    "GET /topics/{topic_id}/history": "topics:read",
    "GET /subscriptions/{subscription_id}/history": "subscriptions:read",
    "POST /clients": "clients:create",
    "GET /clients": "clients:read",
    "GET /clients/{client_id}": "clients:read",
    "PUT /clients/{client_id}": "clients:update",
    "DELETE /clients/{client_id}": "clients:delete",
    "POST /clients/{client_id}/secrets": "clients:update",
    "DELETE /clients/{client_id}/secrets/{which}": "clients:update",
    "POST /oauth/token": None,
    "POST /oauth/introspect": None,
    "GET /.well-known/jwks.json": None,
    "GET /.well-known/oauth-authorization-server": None,
    "GET /liveness": None,
    "GET /readiness": None,
    "GET /audit": "audit:read",
    "GET /metrics": "metrics:read",
    "GET /": None,
    "GET /console": None,
    "GET /console/{release}/{name:path}": None,
    "GET /docs": None,
    "GET /docs/static/{name}": None,
    "GET /redoc": None,
    "GET /openapi.json": None,
    "GET /guide": None,
    "GET /guide/{name:path}": None,
}
"""The scope of every route; None for those that are public."""

ALTERNATIVES = {"GET /overview": "topics:read", "GET /overview/history": "topics:read"}
"""Scopes that admit as well."""

SCOPED = {route: scope for route, scope in EXPECTED.items() if scope is not None}
OF_ANY = "GET /messages/{message_id}"
"""It names a message and shows the subscriptions that the caller may see, as lists do."""

MEMBERS = {route: scope for route, scope in SCOPED.items() if "{" in route and route != OF_ANY}
COLLECTIONS = {route: scope for route, scope in SCOPED.items() if route not in MEMBERS}
WITH_BODY = [
    route
    for route in SCOPED
    if route.startswith(("POST", "PUT", "PATCH", "DELETE /subscriptions/{subscription_id}/dlq"))
]

IGNORING_BODY = [f"POST /subscriptions/{{subscription_id}}/{verb}" for verb in ("pause", "resume", "purge")]
IGNORING_BODY += ["POST /topics/{topic_id}/release"]
IGNORING_BODY += [f"POST /topics/{{topic_id}}/schedules/{{schedule_id}}/{verb}" for verb in ("pause", "resume", "fire")]
READING_BODY = [route for route in WITH_BODY if route not in IGNORING_BODY]

MINE = "11111111-1111-4111-8111-111111111111"
OTHER = "11111111-1111-4111-8111-111111111112"
"""Names of objects that nobody has made: who gets through is told 404 or 422. UUIDs, so that they may be clients."""

BODIES = {"POST /topics": {"id": MINE}, "POST /subscriptions": {"id": MINE, "topic_id": "t"}}


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY, api_max_body_bytes=10_000)


async def send(client: httpx.AsyncClient, route: str, **options: Any) -> httpx.Response:
    method, path = route.split(" ")
    path = re.sub(r"{\w+}", MINE, path.replace("{which}", "old"))
    if route in WITH_BODY and "content" not in options:
        options.setdefault("json", BODIES.get(route, {}))
    return await client.request(method, path, **options)


def another_than(scope: str | None) -> str:
    return "topics:consume" if scope != "topics:consume" else "topics:read"


def is_refused(response: httpx.Response) -> bool:
    assert response.status_code < 500, response.text
    return response.status_code in (401, 403)


# the routes


def routes(settings: Settings) -> Iterator[tuple[str, APIRoute]]:
    app = create_app(settings)
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        assert isinstance(route, ScopedRoute), f"{context.path} decides by itself who may call it"
        for method in context.methods or ():
            yield f"{method} {context.path}", route


def test_every_route_declares_the_scope_that_is_expected(settings: Settings) -> None:
    declared = {name: route.access.verb for name, route in routes(settings) if isinstance(route, ScopedRoute)}
    assert declared == EXPECTED


def test_every_route_of_an_object_names_it(settings: Settings) -> None:
    for name, route in routes(settings):
        assert isinstance(route, ScopedRoute)
        if name in MEMBERS:
            assert route.access.parameter is not None, name
            assert f"{{{route.access.parameter}}}" in route.path


def test_a_route_without_a_declaration_cannot_be_made() -> None:
    router = APIRouter(route_class=ScopedRoute)
    for dependencies in ([], [public(), requires("topics:read")]):
        with pytest.raises(TypeError, match="/nowhere needs one of"):
            router.add_api_route("/nowhere", lambda: None, dependencies=dependencies)
    with pytest.raises(ValueError, match="no scope"):
        requires("topics:reed")


def test_the_document_names_the_scopes(settings: Settings) -> None:
    document = create_app(settings).openapi()
    assert document["components"]["securitySchemes"] == {
        "oauth2": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "oauth/token", "scopes": SCOPES}}}
    }
    described = {
        f"{method.upper()} {path}": operation.get("security")
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    for name, security in described.items():
        scope = EXPECTED[name]
        scopes = filter(None, (scope, ALTERNATIVES.get(name)))
        assert security == ([{"oauth2": [one]} for one in scopes] or None), name
    assert described.keys() >= SCOPED.keys() - {"GET /metrics"}


# scopes


async def test_global_scopes(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in SCOPED:
        allowed = {scope for scope in SCOPES if not is_refused(await send(client, route, headers=token(scope)))}
        assert allowed == {"*", EXPECTED[route], ALTERNATIVES.get(route, "*")}, route


async def test_object_scopes(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in MEMBERS:
        for scope in SCOPES:
            refused = is_refused(await send(client, route, headers=token(f"{scope}:{MINE}")))
            assert refused == (scope != EXPECTED[route]), (route, scope)
        for other in (OTHER, MINE[:-1], f"{MINE}0", MINE.upper() + "A"):
            assert is_refused(await send(client, route, headers=token(f"{EXPECTED[route]}:{other}"))), (route, other)


async def test_an_object_scope_creates_that_object(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in BODIES:
        assert not is_refused(await send(client, route, headers=token(f"{EXPECTED[route]}:{MINE}")))
        refused = await send(client, route, headers=token(f"{EXPECTED[route]}:{OTHER}"))
        assert refused.status_code == 403
        assert f'scope="{EXPECTED[route]}:{MINE}"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize(("collection", "verb"), [("topics", "topics:read"), ("subscriptions", "subscriptions:read")])
async def test_a_list_shows_what_may_be_seen(
    client: httpx.AsyncClient, token: Tokens, collection: str, verb: str
) -> None:
    for name in ("a", "ab", "b"):
        await client.post("/topics", json={"id": name}, headers=token("*"))
        await client.post("/subscriptions", json={"id": name, "topic_id": "a"}, headers=token("*"))

    async def seen(scopes: str) -> list[str]:
        response = await client.get(f"/{collection}", headers=token(scopes))
        return [one["id"] for one in response.json()["data"]]

    assert await seen(verb) == ["a", "ab", "b"]
    assert await seen(f"{verb}:a {verb}:b {verb}:unknown") == ["a", "b"]
    assert (await client.get(f"/{collection}", headers=token("topics:publish:a"))).status_code == 403


async def test_public_routes_need_no_token(client: httpx.AsyncClient) -> None:
    for route in [route for route, scope in EXPECTED.items() if scope is None]:
        assert not is_refused(await send(client, route)), route


async def test_behind_a_prefix(client: httpx.AsyncClient, token: Tokens) -> None:
    """With a root path, no request goes the short way."""
    transport = httpx.ASGITransport(app_of(client), root_path="/prefix", client=("192.0.2.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://fastpubsub/prefix") as prefixed:
        for route, scope in SCOPED.items():
            assert (await send(prefixed, route)).status_code == 401, route
            assert not is_refused(await send(prefixed, route, headers=token(scope))), route
            too_little = token(another_than(scope))
            assert is_refused(await send(prefixed, route, headers=too_little)), route
            assert is_refused(await send(prefixed, route, content=Body(), headers=JSON | too_little)), route


# challenges


async def test_without_a_token(client: httpx.AsyncClient) -> None:
    for route in SCOPED:
        response = await send(client, route)
        assert response.status_code == 401, route
        assert response.headers["www-authenticate"] == 'Bearer realm="fastpubsub"'
        assert response.headers["content-type"] == "application/problem+json"


async def test_with_a_bad_token(client: httpx.AsyncClient) -> None:
    for route in SCOPED:
        response = await send(client, route, headers={"Authorization": "Bearer bad"})
        assert response.status_code == 401, route
        assert response.headers["www-authenticate"].startswith(
            'Bearer realm="fastpubsub", error="invalid_token", error_description="the access token is '
        )


async def test_with_too_little_scope(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in SCOPED:
        response = await send(client, route, headers=token(another_than(EXPECTED[route])))
        assert response.status_code == 403, route
        scope = f"{EXPECTED[route]}:{MINE}" if route in MEMBERS else EXPECTED[route]
        expected = f'Bearer realm="fastpubsub", error="insufficient_scope", scope="{scope}"'
        assert response.headers["www-authenticate"] == expected


async def test_what_is_no_id_is_not_repeated(client: httpx.AsyncClient, token: Tokens) -> None:
    response = await client.get("/topics/%22%0d%0aX-Evil:%201", headers=token("topics:delete"))
    assert response.status_code == 403
    assert response.headers["www-authenticate"].endswith('scope="topics:read"')


async def test_attacks(client: httpx.AsyncClient) -> None:
    for name, attack in ATTACKS.items():
        response = await client.get("/topics", headers=[(b"Authorization", b"Bearer " + attack())])
        assert response.status_code == 401, name
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
        assert len(response.content) < 2048


async def test_the_scheme_may_be_written_in_any_way(client: httpx.AsyncClient, token: Tokens) -> None:
    value = token("topics:read")["Authorization"].removeprefix("Bearer")
    for scheme in ("Bearer", "bearer", "BEARER", "Bearer "):
        assert (await client.get("/topics", headers={"Authorization": scheme + value})).status_code == 200


async def test_two_authorization_headers(client: httpx.AsyncClient, token: Tokens) -> None:
    (header,) = token("*").items()
    response = await client.get("/topics", headers=[header, header])
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


async def test_another_scheme_is_no_token(client: httpx.AsyncClient) -> None:
    for value in ("Basic YTpi", "Digest x", "", "Bearerx"):
        response = await client.get("/topics", headers={"Authorization": value})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="fastpubsub"'


async def test_a_token_in_the_address_is_no_token(client: httpx.AsyncClient, token: Tokens) -> None:
    value = token("*")["Authorization"].removeprefix("Bearer ")
    assert (await client.get(f"/topics?access_token={value}")).status_code == 401


async def test_a_token_of_a_megabyte(client: httpx.AsyncClient) -> None:
    response = await client.get("/topics", headers={"Authorization": "Bearer " + "A" * 2**20})
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


# bodies


class Body:
    """Counts how much of it was read."""

    def __init__(self, chunk: bytes = b"[" * 1000, chunks: int = 20_000) -> None:
        self.chunk = chunk
        self.chunks = chunks
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.chunks):
            self.read += len(self.chunk)
            yield self.chunk


JSON = {"Content-Type": "application/json"}


async def test_authorization_comes_before_the_body(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in WITH_BODY:
        for headers, status in (({}, 401), (token("topics:consume"), 403)):
            body = Body()
            response = await send(client, route, content=body, headers=JSON | headers)
            assert (response.status_code, body.read) == (status, 0), route
            invalid = await send(client, route, content=b"{", headers=headers)
            assert invalid.status_code == status, route


async def test_a_body_without_an_end_is_cut_off(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in WITH_BODY:
        body = Body()
        response = await send(client, route, content=body, headers=JSON | token("*"))
        assert response.status_code == 413, route
        assert body.read <= 11_000


async def test_a_body_that_says_it_is_too_long_is_not_read(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in WITH_BODY:
        for length in ("10001", "9" * 4500):
            body = Body()
            response = await send(client, route, content=body, headers=JSON | token("*") | {"Content-Length": length})
            assert (response.status_code, body.read) == (413, 0), route


async def test_the_longest_body(client: httpx.AsyncClient, token: Tokens) -> None:
    body = b'{"id": "' + b"a" * 128 + b'"' + b" " * 10_000
    response = await client.post("/topics", content=body[:9_999] + b"}", headers=JSON | token("*"))
    assert response.status_code == 201


OTHER_TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/json",
    "json",
    "",
]


async def test_another_type_of_body(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in WITH_BODY:
        assert (await send(client, route, content=b"{}", headers=token("*"))).status_code == 415, route
        for other in OTHER_TYPES:
            headers = token("*") | {"Content-Type": other}
            assert (await send(client, route, content=b"{}", headers=headers)).status_code == 415, (route, other)


async def test_types_of_json(client: httpx.AsyncClient, token: Tokens) -> None:
    for number, kind in enumerate(("application/json; charset=utf-8", "Application/JSON", "application/x+json")):
        headers = token("*") | {"Content-Type": kind}
        assert (await client.post("/topics", content=b'{"id": "%d"}' % number, headers=headers)).status_code == 201


BAD_JSON = [
    b"{",
    b'{"id": "\xff"}',
    b'{"id": "\\u0000"}',
    b'{"id": "\\ud800"}',
    b'{"id": NaN}',
    b"[" * 5000,
    b"\xef\xbb\xbf{}",
]


async def test_bad_json(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in READING_BODY:
        for body in BAD_JSON:
            response = await send(client, route, content=body, headers=JSON | token("*"))
            assert response.status_code == 422, (route, body[:20], response.text)
            assert len(response.content) < 2048


async def test_of_repeated_names_the_last_counts(client: httpx.AsyncClient, token: Tokens) -> None:
    """For what is allowed and for what is done alike, so that nobody is shown one and does the other."""
    mine, reader = token("topics:create:mine"), token("clients:create topics:read")
    subscription = b'{"id": "s", "topic_id": "other", "topic_id": "mine", "filter": {"n": [2]}}'
    bodies = [
        ("/topics", mine, b'{"id": "mine", "id": "other"}', 403),
        ("/topics", mine, b'{"id": "other", "id": "mine"}', 201),
        ("/clients", reader, b'{"name": "n", "scopes": "topics:read", "scopes": "*"}', 403),
        ("/subscriptions", token("*"), subscription, 201),
        ("/topics/mine/messages", token("*"), b'[{"n": 2, "n": 1}, {"n": 1, "n": 2}]', 204),
    ]
    for path, headers, body, status in bodies:
        response = await client.post(path, content=body, headers=JSON | headers)
        assert response.status_code == status, (body, response.text)
    pulled = await client.get("/subscriptions/s/messages?consumer_id=c", headers=token("*"))
    assert [message["payload"] for message in pulled.json()["data"]] == [{"n": 2}]


async def test_no_body_at_all(client: httpx.AsyncClient, token: Tokens) -> None:
    for route in READING_BODY:
        assert (await send(client, route, content=b"", headers=token("*"))).status_code == 422, route


async def test_a_delete_may_have_a_type_and_no_body(client: httpx.AsyncClient, token: Tokens) -> None:
    assert (await client.delete("/topics/t", headers=token("*") | {"Content-Type": "text/plain"})).status_code == 404


# authentication off


@pytest.fixture
def open_settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


class TestOff:
    @pytest.fixture
    def settings(self, open_settings: Settings) -> Settings:
        return open_settings

    async def test_everything_is_allowed(self, client: httpx.AsyncClient) -> None:
        for route in SCOPED:
            assert not is_refused(await send(client, route)), route

    async def test_tokens_are_not_looked_at(self, client: httpx.AsyncClient) -> None:
        for value in ("Bearer bad", "Basic YTpi"):
            assert (await client.get("/topics", headers={"Authorization": value})).status_code == 200
