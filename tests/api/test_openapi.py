"""The document says what there is, so that clients can be made from it, and people can try it."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from fastpubsub.api.app import create_app
from fastpubsub.config import Settings
from tests.api.conftest import Tokens, app_of
from tests.conftest import MakeSettings

NOWHERE = {
    "client_id": "00000000-0000-4000-8000-000000000000",
    "message_id": "01900000-0000-7fff-bfff-fc0000000001",
    "redrive_id": "1",
    "delayed_id": "delayed-1",
    "which": "old",
}
JSON = {"Content-Type": "application/json"}
TOO_MUCH = 11 << 20


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key="k" * 32, push_secret_key="k" * 32)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_each_path_parameter_is_described(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        described = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert described == set(re.findall(r"\{(\w+)\}", path)), (method, path)


def test_each_answer_and_body_is_described(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        statuses = operation["responses"].keys()
        assert any(status.startswith("2") for status in statuses), (method, path)
        assert "default" in statuses or "4XX" in statuses or path in ("/liveness", "/readiness"), (method, path)
        assert operation["summary"], (method, path)
        assert ("requestBody" in operation) == takes_body(path, method), (method, path)
        prefers = any(one["name"] == "Prefer" for one in operation.get("parameters", []))
        # A pull that settles answers messages either way.
        answers_more = {"200", "204"} <= statuses or {"201", "204"} <= statuses or path.endswith("/pulls")
        assert prefers == answers_more, (method, path)


def takes_body(path: str, method: str) -> bool:
    if path.endswith(("/pause", "/resume", "/purge", "/release", "/fire")):
        return False
    return method in ("post", "put", "patch") or (method == "delete" and path.endswith(("/dlq", "/refused")))


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_each_parameter_and_member_is_explained(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (method, path, parameter["name"])
            if parameter.get("required"):
                assert parameter["example"] is not None, (method, path, parameter["name"])
    for title, name, member in members(document):
        assert member.get("description"), (title, name)


def members(value: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if isinstance(value, dict):
        properties = value.get("properties")
        if isinstance(properties, dict) and value.get("type") == "object":
            yield from ((value.get("title", ""), name, member) for name, member in properties.items())
        for one in value.values():
            yield from members(one)
    elif isinstance(value, list):
        for one in value:
            yield from members(one)


def test_operations_have_names_for_programs(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert {"createTopic", "publishMessages", "pullMessages", "ackMessages", "getMetrics", "createToken"} <= set(names)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]*)*", name) for name in names), names
    assert len(names) == len(set(names))


def test_each_tag_has_a_sentence(document: dict[str, Any]) -> None:
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"] if tag["description"].endswith(".")}


def test_settings_that_are_left_out_have_the_defaults_of_this_server() -> None:
    settings = Settings(_env_file=None, subscription_max_attempts=7, cleanup_stuck_messages_lock_timeout_seconds=9)
    new = create_app(settings).openapi()["components"]["schemas"]["NewSubscription"]["properties"]
    defaults = {
        name: one["default"] for name, one in new.items() if name.endswith(("attempts", "seconds")) and "default" in one
    }
    assert defaults == {
        "max_delivery_attempts": 7,
        "backoff_min_seconds": 5,
        "backoff_max_seconds": 300,
        "ack_deadline_seconds": 9,
    }


async def test_each_json_body_has_an_example_that_is_understood(client: httpx.AsyncClient, token: Tokens) -> None:
    for path, method, operation in operations(app_of(client).openapi()):
        body = example_of(operation)
        if body is not None:
            examples = {one["name"]: one.get("example") for one in operation.get("parameters", [])}
            call = Call(method, path.format(**examples), required_query(operation), body)
            answer = await call.send(client, token("*"))
            assert answer.status_code in (200, 201, 204, 401, 404, 409, 410), (method, path, answer.text)


def example_of(operation: dict[str, Any]) -> Any:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return content and content["example"]


def required_query(operation: dict[str, Any]) -> dict[str, str]:
    parameters = operation.get("parameters", [])
    return {one["name"]: one["example"] for one in parameters if one["in"] == "query" and one["required"]}


class Call(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    body: Any

    async def send(self, client: httpx.AsyncClient, headers: dict[str, str], **instead: Any) -> httpx.Response:
        given = {"params": self.query} | (instead or {"json": self.body})
        return await client.request(self.method, self.path, headers=headers, **given)


async def test_each_refusal_of_a_route_is_documented_and_no_other(client: httpx.AsyncClient, token: Tokens) -> None:
    """Without those of a database that fails, of an id that is taken, of a delivery that is lost, of too many requests,
    and of the paths of OAuth, which have tests.
    """
    # The first of the document makes the topic of the examples.
    for path, method, operation in reversed(list(operations(app_of(client).openapi()))):
        if path.startswith("/oauth"):
            continue
        place = re.sub(r"{(\w+)}", lambda match: NOWHERE.get(match[1], "nowhere"), path)
        call = Call(method, place, required_query(operation), example_of(operation))
        documented = {int(one) for one in operation["responses"] if one != "default" and one.startswith("4")}
        found = {one.status_code async for one in refusals(client, token, call)}
        assert {one for one in found if 400 <= one < 500} == documented - {409, 410, 429}, (method, path)


async def refusals(client: httpx.AsyncClient, token: Tokens, call: Call) -> AsyncIterator[httpx.Response]:
    everything = token("*")
    yield await call.send(client, {})
    yield await call.send(client, token("metrics:read"))
    yield await call.send(client, everything)
    yield await call.send(client, everything, params={**call.query, "surprise": "1"})
    if call.body is not None:
        plain = {"Content-Type": "text/plain"}
        yield await call.send(client, everything | plain, params=call.query, content=json.dumps(call.body))
        yield await call.send(client, everything | JSON, params=call.query, content=b" " * TOO_MUCH)
