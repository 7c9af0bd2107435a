"""Whatever is sent to whatever route: no 5xx, a problem as every other, nothing of the payload in it, nothing done."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fastpubsub.api.app import create_app
from fastpubsub.config import Settings
from tests.api.calls import JSON, Calls, Json, success
from tests.api.good import GOOD, SECRET, UUID
from tests.conftest import MakeSettings

pytestmark = pytest.mark.shared_application

MAX_BODY = 100_000
SECONDS = 10.0
"""Of the processor, for one request: a busy machine fails nobody."""


WITH_BODY = [good for good in GOOD if good.body is not None]
WITH_NAME = [good for good in GOOD if "{" in good.route]
READS = [good for good in GOOD if good.method == "GET"]


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(api_max_body_bytes=MAX_BODY)


@pytest.fixture(autouse=True)
async def accepted(client: httpx.AsyncClient, calls: Calls) -> Any:
    """Around each test: the topic, the subscription and the message that is there are all that there is at the end.

    Unless the test adds to this list a request that turned out to be a good one.
    """
    await calls.topic_and_subscription()
    await calls.publish({"a": SECRET})
    before = await everything(client, calls)
    good: list[str] = []
    yield good
    assert good or await everything(client, calls) == before


async def everything(client: httpx.AsyncClient, calls: Calls) -> list[Any]:
    listed = [success(await client.get(f"/{kind}"), 200) for kind in ("topics", "subscriptions", "clients")]
    return [*listed, await calls.counts()]


async def send(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    """Checks what holds for each answer."""
    started = time.process_time()
    response = await client.request(method, path, **options)
    what = f"{method} {path[:200]} {str(options)[:200]} → {response.status_code} {response.text[:500]}"
    assert time.process_time() - started < SECONDS, what
    assert response.status_code < 500, what
    if response.status_code >= 400:
        assert len(response.content) < 4096, what
        assert SECRET not in response.text, what
        if path.startswith("/oauth/") and response.headers["content-type"] == "application/json":
            assert response.json().keys() == {"error", "error_description"}, what
        else:
            assert response.headers["content-type"] == "application/problem+json", what
            problem: Json = response.json()
            assert {"type", "title", "status", "detail"} <= problem.keys(), what
            assert problem["status"] == response.status_code, what
            assert not contains(problem, "input"), what
    return response


def contains(value: Any, name: str) -> bool:
    if isinstance(value, dict):
        return name in value or any(contains(one, name) for one in value.values())
    return isinstance(value, list) and any(contains(one, name) for one in value)


def test_each_route_is_here(settings: Settings) -> None:
    app = create_app(settings)
    found = {f"{method} {one.path}" for one in iter_route_contexts(app.routes) for method in one.methods or ()}
    assert found == {good.route for good in GOOD}


# bodies


def bodies() -> Iterator[tuple[str, bytes]]:
    """JSON that nobody may accept."""
    secret = SECRET.encode()
    yield "nothing", b""
    yield "a space", b" "
    yield "no JSON", secret
    yield "half", b'{"id": "' + secret
    yield "two", b"{}{}"
    yield "trailing", b'[]"%b"' % secret
    yield "NUL", b"\x00"
    yield "NUL inside", b'{"id": "%b\x00"}' % secret
    yield "not UTF-8", b'{"id": "%b\xff"}' % secret
    yield "latin-1", '["é"]'.encode("latin-1")
    yield "BOM", b'\xef\xbb\xbf{"id": "%b"}' % secret
    yield "UTF-16", json.dumps({"id": SECRET}).encode("utf-16")
    yield "UTF-32", json.dumps({"id": SECRET}).encode("utf-32")
    for name, value in {
        "NaN": b"NaN",
        "Infinity": b"Infinity",
        "-Infinity": b"-Infinity",
        "NUL escape": rb'"\u0000"',
        "lone surrogate": rb'"\ud800"',
        "reversed surrogates": rb'"\udc00\ud800"',
        "1e1001": b"1e1001",
        "1e200000": b"1e200000",
        "5,000 digits": b"1" * 5000,
        "deep list": b"[" * 5000 + b"]" * 5000,
        "very deep list": b"[" * 45_000 + b"]" * 45_000,
        "deep object": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "no end": b"[" * 90_000,
    }.items():
        for member in (b"id", b"x", b"ids", b"payload"):
            yield f"{name} in {member.decode()}", b'{"%b": %b, "y": "%b"}' % (member, value, secret)
            yield f"{name} in {member.decode()} in a list", b'[{"%b": %b, "y": "%b"}]' % (member, value, secret)
        yield f"{name} in a list", b"[%b]" % value
        yield f"{name} in a key", b'{%b: "%b"}' % (value, secret)
        yield name, value


async def test_bodies(client: httpx.AsyncClient) -> None:
    for good in WITH_BODY:
        for name, body in bodies():
            response = await send(client, good.method, good.path, content=body, headers=JSON)
            assert response.status_code in (400, 401, 413, 422), (good.route, name, response.text)


WRONG: list[Any] = [None, True, 0, -1, 1.5, 2**31, 2**63, 2**64, 10**400]
WRONG += ["", SECRET, "x" * 50_000, "\x7f\x01", "é" * 300, "1", "NaN", "null"]
WRONG += [[], [[]], [None], [SECRET], [[SECRET]], {}, {"k": None}, {"a": []}, {"a": {"b": {}}}, {"a": [SECRET, None]}]


NEW = {"id", "scopes"}
"""What names something new when it is right by accident; the tests of topics, subscriptions and clients have it."""


async def test_members_of_the_wrong_kind(client: httpx.AsyncClient) -> None:
    for good in WITH_BODY:
        candidates: list[Any] = [*WRONG, *([wrong] for wrong in WRONG), *({"messages": wrong} for wrong in WRONG)]
        if isinstance(good.body, dict):
            candidates += [good.body | {name: wrong} for name in good.body for wrong in WRONG if name not in NEW]
            candidates += [{name: good.body[name] for name in good.body if name != left_out} for left_out in good.body]
            candidates.append(good.body | {"unknown": SECRET})
        for body in candidates:
            await send(client, good.method, good.path, content=json.dumps(body).encode(), headers=JSON)


async def test_large_bodies(client: httpx.AsyncClient) -> None:
    for good in WITH_BODY:
        body = json.dumps([SECRET, "x" * MAX_BODY]).encode()
        response = await send(client, good.method, good.path, content=body, headers=JSON)
        assert response.status_code == 413, good.route
        assert response.headers["connection"] == "close"


async def test_encodings_and_media_types(client: httpx.AsyncClient) -> None:
    for good in WITH_BODY:
        body = json.dumps(good.body).encode()
        for encoding in ("gzip", "br", "deflate", "gzip, gzip", "x", SECRET):
            headers = {**JSON, "Content-Encoding": encoding}
            response = await send(client, good.method, good.path, content=body, headers=headers)
            assert response.status_code == 415, (good.route, encoding)
        kinds = [
            "",
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/xml",
            "application/jsonx",
            ";",
            "\xff",
        ]
        for kind in kinds:
            headers_: Any = [(b"Content-Type", kind.encode("latin-1"))]
            response = await send(client, good.method, good.path, content=body, headers=headers_)
            assert response.status_code == 415, (good.route, kind)


# names and queries

NAMES = ["%00", "x%00", "%2F", "%2E%2E", "%2E", "%C3%A9", "%FF", "%ED%A0%80", "%", "%zz", "%0A", "s%0A", "a%20b"]
NAMES += [
    "x" * 129,
    "x" * 8000,
    "9" * 400,
    "%27%3B--",
    "%22",
    "*",
    "%3Cscript%3E",
    "{topic_id}",
    "%25s",
    "%5C",
    "-1",
    UUID,
]


async def test_names(client: httpx.AsyncClient) -> None:
    for good in WITH_NAME:
        for name in NAMES:
            path = good.with_name(name) if UUID not in good.path else good.path.replace(UUID, name)
            response = await send(client, good.method, f"{path}?{good.query}", json=good.body)
            assert response.status_code in (404, 405, 422), (good.route, name, response.text)


QUERIES = [
    "%00",
    "%00=1",
    "x=%00",
    "offset=%00",
    "offset=-1",
    "limit=0",
    f"offset={2**31}",
    f"offset={2**63}",
    f"limit={10**30}",
    "offset=1.5",
    "offset=x&limit=y",
    "limit=" + "9" * 5000,
    "limit=%F0%9D%9F%99",
    "consumer_id=%00",
    "consumer_id=",
    "consumer_id=" + "x" * 5000,
    "consumer_id=c&batch_size=0",
    f"consumer_id=c&batch_size={2**63}",
    "consumer_id=c&batch_size=%D9%A1",
    f"delay_seconds={2**31}",
    "delay_seconds=-1",
    "delay_seconds=%00",
]
HARMLESS = [
    "x=1",
    "offset=%31",
    "offset=0&offset=1",
    "limit=1&limit=2&limit=3",
    "&&&",
    "=",
    "x",
    "%FF=%FF",
    "a=" + "&a=" * 1000,
]


async def test_queries(client: httpx.AsyncClient) -> None:
    for good in READS:
        for query in [*QUERIES, *HARMLESS]:
            if not good.path.endswith("/messages"):
                await send(client, good.method, f"{good.path}?{query}")
    for query in QUERIES:
        response = await send(client, "GET", f"/subscriptions/s/messages?{query}")
        assert response.status_code == 422, query
        if "delay" in query:
            for body in ([UUID], []):
                response = await send(client, "POST", f"/subscriptions/s/nacks?{query}", json=body)
                assert response.status_code == 422, query


async def test_of_repeated_parameters_the_last_counts_or_all_are_refused(
    client: httpx.AsyncClient, calls: Calls
) -> None:
    listed = success(await send(client, "GET", "/topics?offset=0&offset=1"), 200)
    assert listed == {"data": []}
    assert (await send(client, "GET", "/topics?offset=0&offset=-1")).status_code == 422
    assert (await send(client, "GET", "/subscriptions/s/messages?consumer_id=c&consumer_id=")).status_code == 422
    query = "consumer_id=c&batch_size=1&batch_size=0"
    assert (await send(client, "GET", f"/subscriptions/s/messages?{query}")).status_code == 422


# methods and paths

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW", "X" * 100]


async def test_methods(client: httpx.AsyncClient) -> None:
    taken: dict[str, set[str]] = {}
    for good in GOOD:
        taken.setdefault(good.with_name("s" if "sub" in good.route else "t"), set()).add(good.method)
    for path, methods in taken.items():
        for method in set(METHODS) - methods:
            response = await send(client, method, path, json={"id": SECRET} if method == "POST" else None)
            assert response.status_code == 405, (method, path)
            assert set(response.headers["allow"].split(", ")) == methods, (method, path)


PATHS = ["", "/", "/x", "//", "/topics/", "//topics", "/topics//messages", "/topics/t/messages/"]
PATHS += ["/subscriptions//acks", "/subscriptions/s/", "/subscriptions/s/dlq/", "/subscriptions/s/dlq/x", "/TOPICS"]
PATHS += ["/topics/t/acks", "/subscriptions/s/messages/x/y", "/%00", "/%2e%2e/topics", "/topics/t%2Facks", "/\u00e9"]


async def test_paths_of_nothing(client: httpx.AsyncClient) -> None:
    for path in PATHS:
        for method in ("GET", "POST", "DELETE"):
            response = await send(client, method, path, json=[SECRET] if method == "POST" else None)
            is_entrance = method == "GET" and client.build_request(method, path).url.path == "/"
            assert response.status_code in ((200,) if is_entrance else (404, 405)), (method, path, response.text)


# headers


async def test_headers(client: httpx.AsyncClient) -> None:
    values = [b"", b"\xff", b"x" * 8000, b"%00", b"'\"<>", "é".encode(), b"1, 2", b"\t"]
    names = [
        b"Prefer",
        b"Idempotency-Key",
        b"X-Request-Id",
        b"Accept",
        b"Content-Length-X",
        b"Authorization",
        b"Cookie",
        b"Host",
    ]
    for name in names:
        for value in values:
            headers: Any = [(b"Content-Type", b"application/json"), (name, value)]
            await send(client, "GET", "/topics", headers=headers)
            await send(client, "POST", "/subscriptions/s/acks", content=b"[]", headers=headers)
            response = await send(client, "POST", "/topics/t/messages", content=b"[]", headers=headers)
            assert response.status_code in (204, 422), (name, value)


# anything

PIECES = [b'"', b"{", b"[", b"]", b"}", b"\\u", b"1e9", b",", b"null", b"\xff", b"\x00"]
UNHASHED = [good for good in WITH_BODY if not good.path.startswith(("/clients", "/oauth"))]
"""Without those that hash secrets, which takes long on purpose."""


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, str, bytes]:
    good = draw(st.sampled_from(UNHASHED))
    body = bytearray(json.dumps(good.body).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(start + 4, len(body))))
        body[start:end] = draw(st.one_of(st.binary(max_size=4), st.sampled_from(PIECES)))
    query = draw(st.one_of(st.just(good.query), st.text("%0123456789abcdef=&-", max_size=12)))
    return good.method, f"{good.path}?{query}", bytes(body)


@hypothesis_settings(max_examples=500)
@given(request=mutated())
async def test_any_mutation_of_a_request(
    client: httpx.AsyncClient, accepted: list[str], request: tuple[str, str, bytes]
) -> None:
    method, target, body = request
    response = await send(client, method, target, content=body, headers=JSON)
    if response.is_success and method != "GET":
        accepted.append(f"{method} {target}")
