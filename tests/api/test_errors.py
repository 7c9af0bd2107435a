import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect

from fastpubsub import exceptions
from fastpubsub.api import errors
from fastpubsub.api.browsers import Browsers
from fastpubsub.api.middleware import RequestMiddleware
from fastpubsub.api.prometheus import RequestMetrics
from fastpubsub.api.request_log import RequestLog
from fastpubsub.config import Settings

SECRET = "hunter2"


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    count: int


def make_app(debug: bool = False) -> FastAPI:
    app = FastAPI()
    app.state.settings = Settings(_env_file=None, api_debug=debug)
    errors.install(app)
    router = APIRouter()

    @app.get("/refused/{name}")
    async def refused(name: str, request: Request) -> None:
        raise getattr(exceptions, name)("a sentence", **request.query_params)

    @app.post("/bodies")
    async def bodies(body: list[Body]) -> None: ...

    @router.get("/bodies")
    async def list_bodies(limit: int) -> None: ...

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError(SECRET)

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise ZeroDivisionError(SECRET)

        return StreamingResponse(parts())

    @app.get("/left")
    async def left() -> None:
        raise ClientDisconnect

    app.router.routes += router.routes
    return app


def around(app: FastAPI) -> RequestMiddleware:
    return RequestMiddleware(
        app, app, Browsers(Settings(_env_file=None)), RequestMetrics(CollectorRegistry()), RequestLog()
    )


@pytest.fixture
def debug() -> bool:
    return False


@pytest.fixture
async def api(debug: bool) -> AsyncIterator[httpx.AsyncClient]:
    app = around(make_app(debug))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == "about:blank"
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    assert SECRET not in response.text
    return body


@pytest.mark.parametrize(
    ("name", "status", "title"),
    [
        ("InvalidRequest", 422, "Unprocessable Content"),
        ("TooLarge", 413, "Content Too Large"),
        ("UnsupportedMediaType", 415, "Unsupported Media Type"),
        ("Unauthenticated", 401, "Unauthorized"),
        ("PermissionDenied", 403, "Forbidden"),
        ("NotFound", 404, "Not Found"),
        ("AlreadyExists", 409, "Conflict"),
        ("TooManyRequests", 429, "Too Many Requests"),
        ("Unavailable", 503, "Service Unavailable"),
        ("Overloaded", 503, "Service Unavailable"),
        ("OutcomeUnknown", 503, "Service Unavailable"),
    ],
)
async def test_every_refusal_is_a_problem(api: httpx.AsyncClient, name: str, status: int, title: str) -> None:
    response = await api.get(f"/refused/{name}")
    body = problem(response)
    assert (response.status_code, body["title"], body["detail"]) == (status, title, "a sentence")
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert (response.headers.get("connection") == "close") == (status == 413)


@pytest.mark.parametrize(
    ("name", "query", "challenge"),
    [
        ("Unauthenticated", {}, 'Bearer realm="fastpubsub"'),
        (
            "Unauthenticated",
            {"error": "invalid_token"},
            'Bearer realm="fastpubsub", error="invalid_token", error_description="a sentence"',
        ),
        (
            "PermissionDenied",
            {"scope": 'topics:read"\r\nX: é\\'},
            'Bearer realm="fastpubsub", error="insufficient_scope", scope="topics:read   X:   "',
        ),
    ],
)
async def test_challenges(api: httpx.AsyncClient, name: str, query: dict[str, str], challenge: str) -> None:
    assert (await api.get(f"/refused/{name}", params=query)).headers["www-authenticate"] == challenge


@pytest.mark.parametrize(
    ("body", "location", "message"),
    [
        (b'[{"id": NaN, "count": 1}]', ["body", 0, "id"], "Input should be a valid string"),
        (b'[{"id": "hunter2"}]', ["body", 0, "count"], "Field required"),
        (b'[{"id": "x", "count": 1e400}]', ["body", 0, "count"], "Input should be a finite number"),
        (b'[{"id": "\\ud800", "count": "hunter2"}]', ["body", 0, "count"], None),
        (b'[{"id": "x", "count": 1, "\\ud800": "hunter2"}]', ["body", 0], None),
        (b'"hunter2"', ["body"], "Input should be a valid list"),
        (b"", ["body"], "Field required"),
    ],
)
async def test_validation_names_the_place_and_not_the_input(
    api: httpx.AsyncClient, body: bytes, location: list[object], message: str | None
) -> None:
    response = await api.post("/bodies", content=body, headers={"content-type": "application/json"})
    found = problem(response)
    assert (response.status_code, found["title"]) == (422, "Unprocessable Content")
    first = found["errors"][0]
    assert set(first) == {"type", "loc", "msg"}
    assert first["loc"] == location
    assert message in {first["msg"], None}
    assert found["detail"] == f"{'.'.join(map(str, location))}: {first['msg']}"


async def test_thousands_of_errors_make_a_short_answer(api: httpx.AsyncClient) -> None:
    response = await api.post("/bodies", json=[{"k" * 5000: 1}] * 5000)
    assert response.status_code == 422
    assert len(response.content) < 5000


@pytest.mark.parametrize("path", ["/", "/nope", "/bodies/1/2", "/%ff", "/refused%2f"])
async def test_unknown_paths(api: httpx.AsyncClient, path: str) -> None:
    response = await api.get(path)
    assert (response.status_code, problem(response)["detail"]) == (404, "there is nothing at this path")


async def test_allow_names_all_methods_of_a_path(api: httpx.AsyncClient) -> None:
    response = await api.delete("/bodies")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")
    assert problem(response)["detail"] == "this path does not accept this method; it accepts GET, POST"


async def test_the_unexpected_is_logged_once_and_not_told(
    api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await api.get("/broken")
    body = problem(response)
    assert (response.status_code, body["detail"]) == (500, errors.INTERNAL_ERROR)
    assert set(body) == {"type", "title", "status", "detail", "request_id"}
    assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert body["request_id"] in logged.message
    assert caplog.text.count("ZeroDivisionError: hunter2") == 1


@pytest.mark.parametrize("debug", [True])
async def test_debug_mode_shows_the_traceback(api: httpx.AsyncClient) -> None:
    response = await api.get("/broken")
    assert response.headers["content-type"] == "application/problem+json"
    assert "ZeroDivisionError: hunter2" in response.json()["traceback"]


async def test_failing_in_the_middle_of_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    app = around(make_app())
    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/half", "headers": [], "query_string": b"", "state": {}}

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert [message.get("body", message.get("status")) for message in sent] == [200, b"half"]
    assert caplog.text.count("ZeroDivisionError: hunter2") == 1


async def test_who_leaves_is_no_error(api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await api.get("/left")
    await asyncio.sleep(0)
    (record,) = [one for one in caplog.records if one.name == "fastpubsub.requests"]
    assert (record.levelno, "status=499" in record.message) == (logging.INFO, True)


async def test_the_log_tells_why_something_was_unavailable(
    api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await api.get("/refused/Unavailable")
    (record,) = [one for one in caplog.records if one.name == "fastpubsub.requests"]
    assert record.levelno == logging.WARNING
    assert record.message.endswith(' error="a sentence"')


def test_problems_are_json_whatever_is_in_them() -> None:
    request = Request({"type": "http", "headers": []})
    body = bytes(errors.Problem(request, 422, 'lone \ud800, "quoted"\n').body)
    assert json.loads(body.decode())["detail"] == 'lone ?, "quoted"\n'
