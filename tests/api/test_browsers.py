"""Without authentication no page of another site may act through the browser of somebody who can reach the server."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from fastpubsub.api import sockets
from fastpubsub.api.browsers import MAX_REMEMBERED, PROBES, Browsers
from fastpubsub.config import Settings
from tests import harness
from tests.api.calls import problem
from tests.api.conftest import app_of
from tests.attacks import KEY
from tests.conftest import MakeSettings
from tests.together import together

LOCAL = "127.0.0.1"
ELSEWHERE = "192.0.2.7"
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "surprise"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost"},
    {"Origin": "null"},
    {"Origin": "localhost:8000"},
    {"Origin": ""} | {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example:8000"},
    {"Host": "evil.example", "Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    {"Host": "evil.example:8000"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "0.0.0.0:8000"},
    {"Host": "192.0.2.7"},
    {"Host": "localhostx"},
]
OURS: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8000"},
    {"Origin": "HTTP://LOCALHOST:8000"},
    *[
        {"Host": host}
        for host in ("127.0.0.1:8000", "127.8.8.8", "[::1]:8000", "LocalHost", "localhost.", "a.localhost")
    ],
]


def scope_of(headers: dict[str, str], address: str = LOCAL, **more: Any) -> dict[str, Any]:
    sent = {"Host": "localhost:8000"} | headers
    encoded = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
    return {"path": "/topics", "method": "GET", "headers": encoded, "server": (address, 8000), "type": "http"} | more


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for context in iter_route_contexts(app.routes):
        for method in context.methods or ():
            yield method, re.sub(r"\{\w+\}", "x", str(context.path))


@together("headers", FOREIGN)
async def test_no_route_but_probes_answers_another_site(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    transport = httpx.ASGITransport(app_of(client))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{LOCAL}:8000") as victim:
        walked = 0
        for method, path in routes(app_of(client)):
            response = await victim.request(method, path, headers={"Host": "localhost:8000"} | headers)
            if path in PROBES:
                assert response.status_code in (200, 503)
            else:
                assert problem(response, 403).startswith("without authentication, "), (method, path)
            walked += 1
        assert walked > 30
        assert (await victim.get("/nowhere", headers={"Host": "localhost:8000"} | headers)).status_code == 403


@together("headers", FOREIGN)
async def test_no_websocket_opens_for_another_site(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = scope_of(headers, type="websocket", path=sockets.PATH, query_string=b"consumer_id=c", subprotocols=[])
    await app_of(client)(scope, send, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 403
    assert b"without authentication" in sent[1]["body"]


@pytest.mark.parametrize("headers", OURS, ids=str)
def test_programs_and_pages_of_the_server(headers: dict[str, str]) -> None:
    browsers = Browsers(Settings(_env_file=None))
    for _ in range(2):  # remembered the second time
        assert browsers.refusal(scope_of(headers)) is None


def test_a_program_may_leave_the_host_out() -> None:
    scope = scope_of({})
    scope["headers"] = []
    assert Browsers(Settings(_env_file=None)).refusal(scope) is None


def test_what_was_taken_once_is_judged_again() -> None:
    browsers = Browsers(Settings(_env_file=None))
    for _ in range(2):
        assert browsers.refusal(scope_of({"Host": "bus.example"}, ELSEWHERE)) is None
        assert browsers.refusal(scope_of({"Host": "bus.example"})) is not None
        assert browsers.refusal(scope_of({"Sec-Fetch-Site": "cross-site"})) is not None
        assert browsers.refusal(scope_of({})) is None


def test_what_is_remembered_is_bounded() -> None:
    browsers = Browsers(Settings(_env_file=None))
    for number in range(2 * MAX_REMEMBERED):
        assert browsers.refusal(scope_of({"Host": f"host{number}"}, ELSEWHERE)) is None
    assert browsers.refusal(scope_of({"Host": "h" * 30_000}, ELSEWHERE)) is None
    assert len(browsers._taken) == MAX_REMEMBERED


@pytest.mark.parametrize("path", ["/console", "/docs", "/redoc"])
def test_a_link_to_a_page_may_stand_anywhere(path: str) -> None:
    """And does nothing; all else is no page, though it is followed by a click."""
    browsers = Browsers(Settings(_env_file=None))
    click = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert browsers.refusal(scope_of(click, path=path)) is None
    assert browsers.refusal(scope_of(click, path=f"/bus{path}", root_path="/bus")) is None
    assert browsers.refusal(scope_of(click, path=path, method="POST")) is not None
    assert browsers.refusal(scope_of(click | {"Host": "evil.example"}, path=path)) is not None
    for changed in ({"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "no-cors"}):
        assert browsers.refusal(scope_of(click | changed, path=path)) is not None
    for other in ("/topics", "/openapi.json", "/subscriptions/s/messages", f"{path}/", f"{path}/static/swagger.js"):
        assert browsers.refusal(scope_of(click, path=other)) is not None, other


def test_on_other_addresses_every_name_is_taken_until_some_are_named() -> None:
    everywhere = Browsers(Settings(_env_file=None))
    named = Browsers(Settings(_env_file=None, api_allowed_hosts="bus.example, [2001:db8::1]:8000"))
    for host in ("bus.example", "BUS.example:8000", "bus.example.", "localhost:8000", "10.0.0.1:8000", "[::1]"):
        assert everywhere.refusal(scope_of({"Host": host}, ELSEWHERE)) is None, host
        assert named.refusal(scope_of({"Host": host}, ELSEWHERE)) is None, host
    for host in ("evil.example", "xbus.example", "bus.example.evil"):
        assert everywhere.refusal(scope_of({"Host": host}, ELSEWHERE)) is None, host
        assert named.refusal(scope_of({"Host": host}, ELSEWHERE)) is not None, host
    for address in (LOCAL, "::1", "::ffff:127.0.0.1"):
        assert everywhere.refusal(scope_of({"Host": "bus.example"}, address)) is not None
        assert named.refusal(scope_of({"Host": "bus.example"}, address)) is None


def test_a_page_whose_host_is_named() -> None:
    browsers = Browsers(Settings(_env_file=None, api_allowed_hosts="bus.example,localhost:3000"))
    for origin in ("https://bus.example", "https://bus.example:8443", "http://localhost:3000"):
        assert browsers.refusal(scope_of({"Origin": origin, "Sec-Fetch-Site": "cross-site"})) is None, origin
    for origin in ("https://bus.example.evil", "http://localhost:3001", "http://localhost", "null"):
        assert browsers.refusal(scope_of({"Origin": origin})) is not None, origin


async def test_with_authentication_tokens_decide(make_settings: MakeSettings) -> None:
    async with harness.opened(make_settings(auth_enabled=True, auth_secret_key=KEY)) as client:
        for headers in FOREIGN:
            assert (await client.get("/topics", headers=headers)).status_code == 401, headers
