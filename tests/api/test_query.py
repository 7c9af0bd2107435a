"""No route ignores a parameter of the query: one that is misspelt would be answered as if it were not there."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from fastpubsub.api import sockets
from tests.api.calls import Calls, ids_of, problem, success
from tests.api.conftest import app_of

pytestmark = pytest.mark.shared_application

OBJECT = "11111111-1111-4111-8111-111111111111"


def documented(app: FastAPI) -> dict[str, set[str]]:
    """The parameters of every route, of those that the document leaves out too."""
    found: dict[str, set[str]] = {}
    paths = app.openapi()["paths"]
    for context in iter_route_contexts(app.routes):
        for method in context.methods or ():
            operation = paths.get(context.path, {}).get(method.lower(), {})
            parameters = operation.get("parameters", [])
            found[f"{method} {context.path}"] = {one["name"] for one in parameters if one["in"] == "query"}
    return found


async def refused(client: httpx.AsyncClient, route: str, query: dict[str, str]) -> list[str]:
    """The parameters that are not known."""
    method, path = route.split(" ")
    path = re.sub(r"\{\w+\}", OBJECT, path.replace("{which}", "old"))
    response = await client.request(method, path, params=query)
    errors = response.json().get("errors", []) if response.status_code == 422 else []
    return [one["loc"][1] for one in errors if one["type"] == "extra_forbidden" and one["loc"][0] == "query"]


def misspellings(names: set[str]) -> Iterator[str]:
    yield "surprise"
    for name in names:
        yield name.upper()
        yield f"{name}s"
        yield f" {name}"


async def test_every_route_takes_what_is_documented_and_nothing_else(client: httpx.AsyncClient) -> None:
    routes = documented(app_of(client))
    assert routes["GET /subscriptions"] == {
        "has_dead_letters",
        "include",
        "limit",
        "offset",
        "page_token",
        "q",
        "topic_id",
    }
    assert len(routes) > 30
    for route, names in routes.items():
        known = dict.fromkeys(names, "1")
        # Streams that are right would be open for ever.
        if not route.endswith("/stream"):
            assert await refused(client, route, known) == [], route
        for name in misspellings(names):
            assert await refused(client, route, known | {name: "1"}) == [name], route


async def test_a_websocket_takes_what_is_documented_and_nothing_else(client: httpx.AsyncClient) -> None:
    app = app_of(client)

    async def errors(query: str) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": f"/subscriptions/{OBJECT}/ws", "query_string": query.encode()}
        await app(scope | {"headers": [], "subprotocols": []}, send, send)  # type: ignore[arg-type]
        assert sent[0]["status"] in (404, 422), sent
        return re.findall(r'"type":"extra_forbidden","loc":\["query","([^"]*)"\]', sent[1]["body"].decode())

    known = "&".join(f"{name}=1" for name in sockets.PARAMETERS)
    assert await errors(known) == []
    for name in misspellings(set(sockets.PARAMETERS)):
        assert await errors(f"{known}&{name}=1") == [name]


async def test_the_refusal_says_what_there_is(client: httpx.AsyncClient) -> None:
    detail = problem(await client.get("/subscriptions", params={"topic": "t"}), 422)
    assert (
        detail == "query.topic: this parameter is unknown; "
        "the path takes has_dead_letters, include, limit, offset, page_token, q, topic_id"
    )
    detail = problem(await client.get("/subscriptions/s/redrives", params={"x": "1"}), 422)
    assert detail == "query.x: this parameter is unknown; the path takes none"
    many = await client.get("/topics", params={f"x{number}": "1" for number in range(1000)})
    problem(many, 422)
    assert len(many.json()["errors"]) == 10


async def test_subscriptions_of_a_topic(client: httpx.AsyncClient, calls: Calls) -> None:
    for topic in ("t", "u"):
        await calls.topic(topic)
        for number in range(3):
            await calls.subscription(f"{topic}{number}", topic)

    async def listed(**query: Any) -> list[str]:
        return ids_of(success(await client.get("/subscriptions", params=query), 200)["data"])

    assert await listed() == ["t0", "t1", "t2", "u0", "u1", "u2"]
    assert await listed(topic_id="u") == ["u0", "u1", "u2"]
    assert await listed(topic_id="u", offset=1, limit=1) == ["u1"]
    assert await listed(topic_id="nothing") == []
    problem(await client.get("/subscriptions", params={"topic_id": "not an id"}), 422)
