"""CloudEvents in and out, in every form that HTTP has for them."""

import json
from typing import Any

import httpx
import pytest

from tests.api.calls import REPRESENTATION, Calls, ids_of, payloads, problem, success
from tests.together import together

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/messages"
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "https://example.com/orders",
    "type": "com.example.order.created",
    "subject": "order/1",
    "time": "2026-01-31T12:00:00.5+02:00",
    "datacontenttype": "application/json",
    "data": {"order": 1, "total": 1e2},
}
CONTEXT = {name: value for name, value in EVENT.items() if name != "data"}
DELIVERY = {"messageid", "subscriptionid", "ackid", "deliveryattempts", "leaseexpiresat", "publishedat"}


async def pull_events(client: httpx.AsyncClient, accept: str = "application/cloudevents-batch+json") -> Any:
    parameters: dict[str, str | int] = {"consumer_id": "c", "batch_size": 100}
    response = await client.get("/subscriptions/s/messages", params=parameters, headers={"Accept": accept})
    assert response.headers["content-type"] == "application/cloudevents-batch+json"
    return success(response, 200)


async def test_structured(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    response = await client.post(PATH, json=EVENT, headers=STRUCTURED)
    assert response.status_code == 204
    message = await calls.pull_one()
    assert message["payload"] == EVENT["data"]
    assert message["attributes"] == CONTEXT


async def test_batch(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    events = [{**EVENT, "id": str(number), "data": {"n": number}} for number in range(3)]
    response = await client.post(PATH, json=events, headers={**BATCH, **REPRESENTATION})
    ids = success(response, 201)["ids"]
    messages = await calls.pull()
    assert ids_of(messages) == ids
    assert payloads(messages) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [message["attributes"]["id"] for message in messages] == ["0", "1", "2"]
    assert (await client.post(PATH, json=[], headers=BATCH)).status_code == 204


async def test_a_subscription_gets_the_types_and_sources_that_its_filter_wants(
    client: httpx.AsyncClient, calls: Calls
) -> None:
    """Whatever the data has by these names."""
    wanted = {"type": [{"prefix": "com.example.order."}], "source": [EVENT["source"]]}
    await calls.topic_and_subscription(filter={"$attributes": wanted})
    others = [
        {**EVENT, "type": "com.example.refund"},
        {**EVENT, "source": "/other", "data": {"source": EVENT["source"]}},
    ]
    assert (await client.post(PATH, json=[*others, EVENT], headers=BATCH)).status_code == 204
    await calls.publish({"type": EVENT["type"], "source": EVENT["source"]})
    assert payloads(await calls.pull()) == [EVENT["data"]]


def binary(**context: str) -> dict[str, str]:
    given = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **context}
    return {"Content-Type": "application/json; charset=utf-8"} | {f"Ce-{name}": value for name, value in given.items()}


async def test_binary(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    headers = binary(subject="Euro%20%E2%82%AC%20%F0%9F%98%80", other="100%25%2520", quoted=r'"a \"b\" %41"')
    assert (await client.post(PATH, content=b' {"a" : 1e308}\n', headers=headers)).status_code == 204
    assert '"payload":{"a" : 1e308}' in (text := await calls.pull_text())
    assert json.loads(text)["data"][0]["attributes"] == {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "subject": "Euro € 😀",
        "other": "100%%20",
        "quoted": 'a "b" A',
        "datacontenttype": "application/json; charset=utf-8",
    }


async def test_what_comes_in_goes_out(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    extended = {**EVENT, "traceparent": "00-ab-cd-01", "big": 2147483647, "flag": True, "none": None}
    await client.post(PATH, json=extended, headers=STRUCTURED)
    (event,) = await pull_events(client)
    assert {name: event[name] for name in EVENT} == EVENT
    assert (event["traceparent"], event["big"], event["flag"]) == ("00-ab-cd-01", "2147483647", "true")
    assert event.keys() == EVENT.keys() | DELIVERY | {"traceparent", "big", "flag"}


async def test_events_are_settled_by_what_came_with_them(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await client.post(PATH, json=[EVENT, EVENT], headers=BATCH)
    first, second = await pull_events(client)
    assert (first["deliveryattempts"], first["subscriptionid"]) == (1, "s")
    assert await calls.ack(first["ackid"]) == {"settled": [first["ackid"]], "gone": [], "stale": []}
    assert (await calls.nack(second["messageid"], delay_seconds=0))["settled"] == [second["messageid"]]
    (again,) = await pull_events(client)
    assert (again["messageid"], again["deliveryattempts"]) == (second["messageid"], 2)
    assert again["leaseexpiresat"].endswith("Z")
    assert await pull_events(client) == []


async def test_messages_that_were_no_events(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    attributes = {"type": "created", "source": "shop", "X-Not-A-Name": "1", "data": "x", "id": "mine", "tenant": "a"}
    await calls.publish({"n": 1})
    body = {"messages": [{"payload": {"n": 2}, "attributes": attributes}]}
    success(await client.post(PATH, json=body), 204)
    plain, described = await pull_events(client)
    assert plain == {
        "specversion": "1.0",
        "id": plain["messageid"],
        "source": "/subscriptions/s",
        "type": "fastpubsub.message",
        "time": plain["publishedat"],
        "datacontenttype": "application/json",
        "data": {"n": 1},
        **{name: plain[name] for name in DELIVERY},
    }
    assert (described["type"], described["source"], described["tenant"]) == ("created", "shop", "a")
    assert described["id"] == described["messageid"]
    assert described.keys() == plain.keys() | {"tenant"}
    assert described["data"] == {"n": 2}


async def test_an_event_that_is_passed_on_leaves_its_delivery_behind(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await client.post(PATH, json=EVENT, headers=STRUCTURED)
    events = await pull_events(client)
    await client.post(PATH, json=events, headers=BATCH)
    (again,) = await pull_events(client)
    assert again["messageid"] != events[0]["messageid"]
    assert {name: again[name] for name in EVENT} == EVENT
    await calls.nack(again["ackid"], delay_seconds=0)
    assert (await calls.pull_one())["attributes"] == CONTEXT


@pytest.mark.parametrize(
    "accept", ["application/cloudevents-batch+json; charset=utf-8", "text/html, Application/CloudEvents-Batch+JSON;q=1"]
)
async def test_asking_for_events(client: httpx.AsyncClient, calls: Calls, accept: str) -> None:
    await calls.topic_and_subscription()
    assert await pull_events(client, accept) == []


async def test_nothing_changes_for_who_does_not_ask(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for accept in ("*/*", "application/json", "application/cloudevents+json"):
        response = await client.get("/subscriptions/s/messages?consumer_id=c", headers={"Accept": accept})
        assert (response.headers["content-type"], response.json()) == ("application/json", {"data": []})


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in EVENT.items() if name not in names}


REFUSED: dict[str, Any] = {
    **{f"no {name}": without(name) for name in ("specversion", "id", "source", "type", "data")},
    **{f"empty {name}": {**EVENT, name: ""} for name in ("id", "source", "type", "subject", "datacontenttype")},
    **{f"null {name}": {**EVENT, name: None} for name in ("id", "data")},
    "data in base64": {**without("data"), "data_base64": "e30="},
    "data twice": {**EVENT, "data_base64": "e30="},
    "data that is a list": {**EVENT, "data": []},
    "data that is a text": {**EVENT, "data": "{}"},
    "data that is not JSON": {**EVENT, "datacontenttype": "application/xml"},
    "another version": {**EVENT, "specversion": "0.3"},
    "version as a number": {**EVENT, "specversion": 1.0},
    "time": {**EVENT, "time": "yesterday"},
    "time without a zone": {**EVENT, "time": "2026-01-31T12:00:00"},
    "impossible time": {**EVENT, "time": "2026-02-31T12:00:00Z"},
    "name in capitals": {**EVENT, "Tenant": "a"},
    "name with a dash": {**EVENT, "a-b": "a"},
    "attribute that is an object": {**EVENT, "tenant": {}},
    "attribute that is a fraction": {**EVENT, "tenant": 1.5},
    "control character": {**EVENT, "tenant": "a\nb"},
    "long attribute": {**EVENT, "tenant": "x" * 1025},
    "many attributes": {**EVENT, **{f"a{number}": "" for number in range(101)}},
    "no object": [],
    "text": "x",
}


@together("event", REFUSED.values())
async def test_what_is_no_event_is_refused(client: httpx.AsyncClient, calls: Calls, event: Any) -> None:
    await calls.ready()
    problem(await client.post(PATH, json=event, headers=STRUCTURED), 422)
    problem(await client.post(PATH, json=[EVENT, event], headers=BATCH), 422)
    assert await calls.pull() == []


BAD_BODIES = [
    b"",
    b"{",
    b"\xff",
    b"null",
    b'{"specversion":"1.0","id":"\\ud800","source":"s","type":"t","data":{}}',
    b'{"specversion":"1.0","id":"\\u0000","source":"s","type":"t","data":{}}',
    b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":1e1001}}',
    b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + b'{"a":' * 65 + b"1" + b"}" * 66,
    b'{"specversion":"1.0","id":"1","source":"s","type":"t","n":' + b"9" * 1001 + b',"data":{}}',
]


@together("body", BAD_BODIES)
async def test_hostile_bodies(client: httpx.AsyncClient, calls: Calls, body: bytes) -> None:
    await calls.ready()
    problem(await client.post(PATH, content=body, headers=STRUCTURED), 422)
    problem(await client.post(PATH, content=b"[" + body + b"]" if body else body, headers=BATCH), 422)
    for content in (body, b'{},"attributes":{}', b"{}{}", b"[]", b"[{}]"):
        if content[:2] != b'{"':
            problem(await client.post(PATH, content=content, headers=binary()), 422)
    assert await calls.pull() == []


BAD_HEADERS: list[list[tuple[bytes, bytes]]] = [
    [],
    [(b"ce-id", b"1")],
    [(b"ce-", b"x")],
    [(b"ce-id", b"2")] * 2,
    [(b"ce-a_b", b"x")],
    [(b"ce-data", b"{}"), (b"ce-datacontenttype", b"text/plain")],
    [(b"ce-tenant", b"%FF")],
    [(b"ce-tenant", b"\xff")],
    [(b"ce-tenant", b"%00")],
    [(b"ce-tenant", b"%ED%A0%80")],
    [(b"ce-tenant", b"x" * 1025)],
]


@together("more", BAD_HEADERS)
async def test_hostile_headers(client: httpx.AsyncClient, calls: Calls, more: list[tuple[bytes, bytes]]) -> None:
    await calls.ready()
    names = {name for name, _ in more}
    complete = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"s"), (b"ce-type", b"t")]
    own = [one for one in complete if one[0] not in names] if len(more) > 1 or b"ce-tenant" in names else complete[:1]
    headers = [(b"content-type", b"application/json"), *own, *more]
    problem(await client.post(PATH, content=b"{}", headers=headers), 422)
    assert await calls.pull() == []


async def test_other_forms_are_not_taken(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for media_type in ("application/cloudevents", "application/cloudevents+xml", "application/cloudevents-x+json"):
        problem(await client.post(PATH, json=EVENT, headers={"Content-Type": media_type}), 415)
    for path in ("/topics", "/subscriptions/s/acks"):
        problem(await client.post(path, json=EVENT, headers=STRUCTURED), 415)


async def test_limits_are_those_of_every_publish(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    problem(await client.post(PATH, json=[EVENT] * 1001, headers=BATCH), 413)


async def test_a_repetition_is_the_same_event(client: httpx.AsyncClient, calls: Calls) -> None:
    """In binary mode the headers count as well."""
    await calls.topic_and_subscription()
    key = {"Idempotency-Key": "k"}
    for _ in range(2):
        assert (await client.post(PATH, content=b"{}", headers=binary() | key)).status_code == 204
    problem(await client.post(PATH, content=b"{}", headers=binary(type="other") | key), 422)
    assert len(await calls.pull()) == 1


async def test_a_schema_is_about_the_data(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic(schema={"required": ["order"]})
    assert (await client.post(PATH, json=EVENT, headers=STRUCTURED)).status_code == 204
    response = await client.post(PATH, json=[EVENT, {**EVENT, "data": {}}], headers=BATCH)
    assert "message 1" in problem(response, 422)
