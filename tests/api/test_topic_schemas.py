"""Schemas of topics: what they let through, in every process as soon as they are set."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from tests import harness
from tests.api.calls import JSON, REPRESENTATION, Calls, payloads, problem, success
from tests.conftest import Connect

pytestmark = pytest.mark.shared_application

SCHEMA = {"type": "object", "required": ["order"], "properties": {"order": {"type": "integer"}}}
STRICTER = {**SCHEMA, "properties": {"order": {"type": "integer", "minimum": 100}}}
PATH = "/topics/t/messages"
SECRET = "topsecret"


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Another server of the same database."""
    async with harness.opened(settings) as opened:
        yield opened


async def set_schema(client: httpx.AsyncClient, schema: object) -> Any:
    return success(await client.patch("/topics/t", json={"schema": schema}), 200)


async def test_it_is_kept_and_shown(client: httpx.AsyncClient, calls: Calls) -> None:
    assert (await calls.topic("none"))["schema"] is None
    created = await calls.topic(schema=SCHEMA, retention_seconds=5)
    assert created["schema"] == SCHEMA
    assert success(await client.get("/topics/t"), 200) == created
    listed = success(await client.get("/topics"), 200)["data"]
    assert [topic["schema"] for topic in listed] == [None, SCHEMA]
    changed = await set_schema(client, STRICTER)
    assert changed == {**created, "schema": STRICTER}
    assert success(await client.patch("/topics/t", json={"retention_seconds": 7}), 200)["schema"] == STRICTER
    assert await set_schema(client, None) == {**created, "schema": None, "retention_seconds": 7}


async def test_its_numbers_stay_what_they_are(client: httpx.AsyncClient, calls: Calls) -> None:
    body = b'{"id": "t", "schema": {"properties": {"n": {"maximum": 1e400, "minimum": 100000000000000000001}}}}'
    success(await client.post("/topics", content=body, headers=JSON), 201)
    for number, fits in {"1e399": True, "1e401": False, "100000000000000000001": True, "1e20": False}.items():
        response = await client.post(PATH, content=f'[{{"n": {number}}}]', headers=JSON)
        assert response.status_code == (204 if fits else 422), number


@pytest.mark.parametrize("schema", [1, "x", [], {"type": "strin"}, {"$ref": "http://127.0.0.1:9/"}, {"pattern": "("}])
async def test_what_is_no_schema_is_refused(client: httpx.AsyncClient, calls: Calls, schema: object) -> None:
    assert "schema" in problem(await client.post("/topics", json={"id": "new", "schema": schema}), 422)
    problem(await client.get("/topics/new"), 404)
    created = await calls.topic(schema=SCHEMA)
    problem(await client.patch("/topics/t", json={"schema": schema}), 422)
    assert success(await client.get("/topics/t"), 200) == created


async def test_a_schema_is_bounded(client: httpx.AsyncClient) -> None:
    schema = {"description": "x" * 65536}
    detail = problem(await client.post("/topics", json={"id": "t", "schema": schema}), 422)
    assert "65536" in detail


async def test_nothing_of_a_request_is_stored_when_one_message_does_not_fit(
    client: httpx.AsyncClient, calls: Calls
) -> None:
    await calls.topic(schema=SCHEMA)
    await calls.subscription()
    body = [{"order": 1}, {"order": SECRET}, {}]
    for sent in (body, {"messages": [{"payload": payload, "attributes": {"k": "v"}} for payload in body]}):
        response = await client.post(PATH, json=sent)
        detail = problem(response, 422)
        assert detail.startswith('message 1 does not match the schema of its topic at "/order": ')
        (error,) = response.json()["errors"]
        assert (error["loc"], error["pointer"]) == (["body", 1], "/order")
        assert SECRET not in response.text
    await calls.publish({"order": 1}, {"order": 2, "more": SECRET})
    assert payloads(await calls.pull()) == [{"order": 1}, {"order": 2, "more": SECRET}]


async def test_a_change_holds_in_every_process_at_once(
    client: httpx.AsyncClient, other: httpx.AsyncClient, calls: Calls
) -> None:
    """None of them asks the other; each finds out when it stores."""
    await calls.topic()
    for server in (client, other):
        assert (await server.post(PATH, json=[{}])).status_code == 204
    for schema, fits in ((SCHEMA, 5), (STRICTER, 500), (SCHEMA, 5), (STRICTER, 500), (None, None)):
        await set_schema(client, schema)
        for server in (other, client, other):
            misfit: object = {"order": 5} if fits == 500 else {}
            assert (await server.post(PATH, json=[misfit])).status_code == (422 if schema else 204)
            assert (await server.post(PATH, json=[{"order": fits}])).status_code == 204


async def test_topics_that_are_made_again(client: httpx.AsyncClient, other: httpx.AsyncClient, calls: Calls) -> None:
    for schema, status in ((SCHEMA, 422), (None, 204), (SCHEMA, 422)):
        await calls.topic(schema=schema)
        for server in (client, other):
            assert (await server.post(PATH, json=[{}])).status_code == status
            assert (await server.post(PATH, json=[{"order": 1}])).status_code == 204
        assert (await client.delete("/topics/t")).status_code == 204


async def test_with_an_idempotency_key(client: httpx.AsyncClient, other: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await calls.subscription()
    headers = {"Idempotency-Key": "k", **REPRESENTATION}
    await calls.publish({"order": 0})
    await set_schema(other, SCHEMA)
    problem(await client.post(PATH, json=[{}], headers=headers), 422)
    first = success(await client.post(PATH, json=[{"order": 1}], headers=headers), 201)
    assert success(await other.post(PATH, json=[{"order": 1}], headers=headers), 201) == first
    assert len(await calls.pull()) == 2


async def test_while_the_schema_changes(client: httpx.AsyncClient, other: httpx.AsyncClient, calls: Calls) -> None:
    """Whatever was answered, what is stored fits a schema that the topic had at that moment."""
    schemas = [{"properties": {"n": {"const": number}}} for number in range(2)]
    await calls.topic(schema=schemas[0])
    await calls.subscription()

    async def change() -> int:
        for number in range(20):
            await set_schema(client, schemas[number % 2])
        return 0

    async def publish(server: httpx.AsyncClient, number: int) -> int:
        statuses = [(await server.post(PATH, json=[{"n": number}])).status_code for _ in range(20)]
        assert set(statuses) <= {204, 422, 503}
        return statuses.count(204)

    stored = await asyncio.gather(change(), *(publish(s, n) for s in (client, other) for n in range(2)))
    got: list[Any] = []
    while messages := await calls.pull():
        got += messages
    assert len(got) == sum(stored)


async def test_a_large_payload_does_not_stop_the_others(client: httpx.AsyncClient, calls: Calls) -> None:
    """It is checked in a thread."""
    await calls.topic(schema={"properties": {f"p{n}": {"type": "array", "items": SCHEMA} for n in range(100)}})
    rows = [{"order": number} for number in range(20_000)]
    assert (await client.post(PATH, json=[{"p1": rows}])).status_code == 204
    detail = problem(await client.post(PATH, json=[{"p1": [*rows, {"order": SECRET}]}]), 422)
    assert '"/p1/20000/order"' in detail


async def test_a_schema_that_always_changes_is_trouble_and_no_error(
    client: httpx.AsyncClient, calls: Calls, connect: Connect
) -> None:
    """As when the stored version is of another text."""
    await calls.topic(schema=SCHEMA)
    connection = await connect()
    await connection.execute("update fastpubsub.heads set schema_version = 7, schema = null")
    response = await client.post(PATH, json=[{"order": 1}])
    problem(response, 503)
    assert response.headers["retry-after"]


async def test_payloads_are_stored_as_they_were_written(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic(schema=SCHEMA)
    await calls.subscription()
    text = '{ "order" : 1.0, "x":1e308,"x":2 }'
    await calls.publish_text(text)
    assert text in await calls.pull_text()
    assert json.loads(text)["order"] == 1
