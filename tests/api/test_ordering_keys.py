"""Ordering keys over HTTP: how they come in, and that every answer has those that were set, and no others."""

import httpx
import pytest

from tests.api.calls import REPRESENTATION, Calls, Json, problem, success

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/messages"
MESSAGES = {"messages": [{"payload": {"n": 1}, "ordering_key": 'é "'}, {"payload": {"n": 2}}]}
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"n": 1}}


def keys_of(messages: list[Json]) -> list[str | None]:
    return [message.get("ordering_key") for message in messages]


async def publish(client: httpx.AsyncClient, body: Json | list[Json] = MESSAGES, **headers: str) -> list[str]:
    response = await client.post(PATH, json=body, headers=REPRESENTATION | headers)
    return list(success(response, 201)["ids"])


async def test_every_answer_has_it(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_delivery_attempts=1)
    ids = await publish(client)
    topic = success(await client.get(PATH), 200)["data"]
    messages = await calls.pull()
    explained = [success(await client.get(f"/messages/{one}"), 200) for one in ids]
    await calls.nack(*ids)
    letters = success(await client.get("/subscriptions/s/dlq"), 200)["data"]
    dead = success(await client.get("/subscriptions/s/messages/browse?state=dead"), 200)["data"]
    for found in (topic, messages, explained, letters, dead):
        assert keys_of(found) == ['é "', None]
        assert "ordering_key" not in found[1]


@pytest.mark.parametrize("key", ["", "x" * 129])
async def test_its_length(client: httpx.AsyncClient, calls: Calls, key: str) -> None:
    await calls.topic_and_subscription()
    response = await client.post(PATH, json={"messages": [{"payload": {}}, {"payload": {}, "ordering_key": key}]})
    detail = f"the ordering key of message 1 has {len(key)} characters; it must have 1 to 128"
    assert problem(response, 422) == detail
    await publish(
        client, {"messages": [{"payload": {}, "ordering_key": "漢" * 128}, {"payload": {}, "ordering_key": None}]}
    )
    assert keys_of(await calls.pull()) == ["漢" * 128, None]


async def test_with_an_idempotency_key(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    key = {"Idempotency-Key": "k"}
    ids = [await publish(client, MESSAGES, **key) for _ in range(2)]
    assert ids[0] == ids[1]
    other = {"messages": [{"payload": {"n": 1}, "ordering_key": "other"}, {"payload": {"n": 2}}]}
    problem(await client.post(PATH, json=other, headers=key), 422)
    assert keys_of(await calls.pull()) == ['é "', None]


async def test_it_is_the_partitionkey_of_cloudevents(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.subscription("e")
    structured = {"Content-Type": "application/cloudevents+json"}
    await publish(client, EVENT | {"partitionkey": "a"}, **structured)
    binary = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/s", "ce-type": "t", "ce-partitionkey": "b"}
    await publish(client, {"n": 2}, **binary)
    await publish(client)
    assert keys_of(await calls.pull()) == ["a", "b", 'é "', None]
    parameters = {"consumer_id": "c"}
    accept = {"Accept": "application/cloudevents-batch+json"}
    events = success(await client.get("/subscriptions/e/messages", params=parameters, headers=accept), 200)
    assert [event.get("partitionkey") for event in events] == ["a", "b", 'é "', None]
    long = EVENT | {"partitionkey": "x" * 129}
    problem(await client.post(PATH, json=long, headers=structured), 422)


async def test_events_of_a_partitionkey_keep_their_order(client: httpx.AsyncClient, calls: Calls) -> None:
    """Whether an event came as JSON, in headers or in a batch."""
    await calls.topic_and_subscription(ordered=True)
    structured = {"Content-Type": "application/cloudevents+json"}
    binary = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/s", "ce-type": "t", "ce-partitionkey": "a"}
    batch: list[Json] = [
        EVENT | {"id": name, "partitionkey": key, "data": {"n": n}} for name, key, n in (("3", "a", 3), ("4", "b", 4))
    ]
    await publish(client, EVENT | {"partitionkey": "a", "data": {"n": 1}}, **structured)
    await publish(client, {"n": 2}, **binary)
    await publish(client, batch, **{"Content-Type": "application/cloudevents-batch+json"})
    first = await calls.pull(batch_size=1)
    others = await calls.pull()
    assert [one["payload"]["n"] for one in first + others] == [1, 4]
    await calls.settle("acks", [first[0]["ack_id"]])
    assert [one["payload"]["n"] for one in await calls.pull()] == [2, 3]


async def test_a_subscription_gets_what_its_filter_on_keys_wants(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(filter={"$message": [{"ordering_key": [{"prefix": "eu-"}]}]})
    await publish(client, EVENT | {"partitionkey": "eu-1"}, **{"Content-Type": "application/cloudevents+json"})
    keys = ("us-1", "eu-2", None)
    body = {"messages": [{"payload": {"ordering_key": "eu-"}} | ({"ordering_key": key} if key else {}) for key in keys]}
    await publish(client, body)
    assert keys_of(await calls.pull()) == ["eu-1", "eu-2"]
