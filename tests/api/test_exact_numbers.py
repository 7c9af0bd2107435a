"""Numbers of users come out as they went in: on every route whose answer has JSON that somebody else wrote."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from tests.api.calls import JSON, PATIENCE, Calls, success
from tests.api.conftest import app_of
from tests.conftest import Connect

pytestmark = pytest.mark.shared_application

NUMBERS = "[12345678901234567.89, 1e-400, 1e400, 1.10, -0.0, 100000000000000000001, 1E+2, 0.10000000000000000555]"
FILTER = f'{{"n": {NUMBERS}}}'
SCHEMA = f'{{"properties": {{"n": {{"enum": {NUMBERS}, "multipleOf": 1e-400}}}}}}'
PAYLOAD = f'{{"all": {NUMBERS}, "n": 12345678901234567.89}}'
EVENT = '{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": %s}'
JSON_TYPE = "application/json"
EVENT_TYPE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

Route = tuple[str, str, str]


def has_free_json(schema: Any, document: dict[str, Any], seen: frozenset[str] = frozenset()) -> bool:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name not in seen and has_free_json(document["components"]["schemas"][name], document, seen | {name})
    if schema == {} or schema.get("additionalProperties") is True:
        return True
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("oneOf", [])]
    parts += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return any(has_free_json(part, document, seen) for part in parts)


def routes_with_free_json(document: dict[str, Any]) -> set[Route]:
    return {
        (method, path, media_type)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
        for media_type, content in answer.get("content", {}).items()
        if status.startswith("2") and has_free_json(content.get("schema", {}), document)
    }


async def test_every_answer_has_numbers_as_they_were_written(
    client: httpx.AsyncClient, calls: Calls, connect: Connect
) -> None:
    walked: set[Route] = set()
    message_id = ""
    delayed = redrive = {"id": ""}

    async def ask(method: str, path: str, expected: str, content: str | None = None, accept: str = JSON_TYPE) -> None:
        place = path.format(
            topic_id="t",
            subscription_id="s",
            message_id=message_id,
            delayed_id=delayed["id"],
            schedule_id="tick",
            redrive_id=redrive["id"],
        )
        headers = {"Accept": accept} | (JSON if content else {})
        query = {"consumer_id": "c"} if path.endswith(("id}/messages", "/pulls")) and "subscription" in path else {}
        query |= {"state": "leased"} if path.endswith("/browse") else {}
        response = await client.request(method.upper(), place, content=content, headers=headers, params=query)
        assert response.is_success, response.text
        assert expected in response.text, (method, path, response.text)
        walked.add((method, path, accept))

    await ask("post", "/topics", SCHEMA, f'{{"id": "t", "schema": {SCHEMA}}}')
    await ask("patch", "/topics/{topic_id}", SCHEMA, f'{{"schema": {SCHEMA}}}')
    await ask("get", "/topics", SCHEMA)
    await ask("get", "/topics/{topic_id}", SCHEMA)
    await ask("post", "/subscriptions", FILTER, f'{{"id": "s", "topic_id": "t", "filter": {FILTER}}}')
    await ask("patch", "/subscriptions/{subscription_id}", FILTER, f'{{"filter": {FILTER}}}')
    await ask("post", "/subscriptions/{subscription_id}/pause", FILTER)
    await ask("post", "/subscriptions/{subscription_id}/resume", FILTER)
    await ask("get", "/subscriptions", FILTER)
    await ask("get", "/subscriptions/{subscription_id}", FILTER)
    for accept in (JSON_TYPE, BATCH):
        await calls.publish_text(PAYLOAD)
        await ask("get", "/subscriptions/{subscription_id}/messages", PAYLOAD, accept=accept)
        await calls.publish_text(PAYLOAD)
        await ask("post", "/subscriptions/{subscription_id}/pulls", PAYLOAD, "{}", accept)
    event = EVENT % PAYLOAD
    success(await client.post("/topics/t/messages", content=event, headers={"Content-Type": EVENT_TYPE}), 204)
    pulled = (await client.get("/subscriptions/s/messages", params={"consumer_id": "c"})).json()["data"]
    message_id = pulled[0]["id"]
    later = f'{{"messages": [{{"payload": {PAYLOAD}, "delay_seconds": 60}}]}}'
    success(await client.post("/topics/t/messages", content=later, headers=JSON), 204)
    (delayed,) = (await client.get("/topics/t/delayed")).json()["data"]
    await ask("get", "/topics/{topic_id}/delayed", PAYLOAD)
    for method, content in (("get", None), ("patch", '{"delay_seconds": 90}')):
        await ask(method, "/topics/{topic_id}/delayed/{delayed_id}", PAYLOAD, content)
    schedules, schedule = "/topics/{topic_id}/schedules", "/topics/{topic_id}/schedules/{schedule_id}"
    await ask("post", schedules, PAYLOAD, f'{{"id": "tick", "interval_seconds": 60, "payload": {PAYLOAD}}}')
    await ask("get", schedules, PAYLOAD)
    await ask("get", schedule, PAYLOAD)
    await ask("patch", schedule, PAYLOAD, f'{{"payload": {PAYLOAD}}}')
    for verb in ("fire", "pause", "resume"):
        await ask("post", f"{schedule}/{verb}", PAYLOAD)
    await ask("get", "/messages/{message_id}", PAYLOAD)
    await ask("get", "/topics/{topic_id}/messages", PAYLOAD)
    await ask("get", "/subscriptions/{subscription_id}/messages/browse", PAYLOAD)
    for topic_or_subscription in ("/topics/{topic_id}", "/subscriptions/{subscription_id}"):
        await ask("post", f"{topic_or_subscription}/filter/test", PAYLOAD, '{"filter": null}')
    await ask("get", "/subscriptions/{subscription_id}/messages/{message_id}", FILTER)
    success(await client.post("/subscriptions/s/rejects", json={"ids": [pulled[0]["id"]]}), 204)
    await ask("get", "/subscriptions/{subscription_id}/dlq", PAYLOAD)
    await ask("post", "/subscriptions/{subscription_id}/redrives", FILTER, f'{{"action": "purge", "filter": {FILTER}}}')
    await ask("get", "/subscriptions/{subscription_id}/redrives", FILTER)
    (redrive,) = (await client.get("/subscriptions/s/redrives")).json()["data"]
    await ask("get", "/subscriptions/{subscription_id}/redrives/{redrive_id}", FILTER)
    success(await client.patch("/topics/t", json={"schema": {"not": {}}}), 200)
    await (await connect()).execute("select fastpubsub.publish('t', %s)", [PAYLOAD])
    async with asyncio.timeout(PATIENCE):
        while not (await client.get("/topics/t/refused")).json()["data"]:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
    await ask("get", "/topics/{topic_id}/refused", PAYLOAD)
    assert walked == routes_with_free_json(app_of(client).openapi())


async def test_what_is_shown_can_be_copied(client: httpx.AsyncClient, calls: Calls) -> None:
    """The copy of a filter lets the same messages pass, and that of a schema takes the same payloads."""
    for name in ("t", "copy"):
        shown = SCHEMA if name == "t" else text_of((await client.get("/topics/t")).text, "schema")
        success(await client.post("/topics", content=f'{{"id": "{name}", "schema": {shown}}}', headers=JSON), 201)
        shown = FILTER if name == "t" else text_of((await client.get("/subscriptions/t")).text, "filter")
        body = f'{{"id": "{name}", "topic_id": "{name}", "filter": {shown}}}'
        success(await client.post("/subscriptions", content=body, headers=JSON), 201)
        await calls.publish_text(PAYLOAD, topic=name)
        assert PAYLOAD in await calls.pull_text(name=name)


def text_of(answer: str, name: str) -> str:
    return bytes(msgspec.json.decode(answer, type=dict[str, msgspec.Raw])[name]).decode()
