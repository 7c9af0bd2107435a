"""Messages that expire, over HTTP: how they are published, what answers say of them, and what a subscription does."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.api.calls import PATIENCE, REPRESENTATION, Calls, Json, payloads, problem, success

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/messages"
PAST = "2020-01-31T12:00:00Z"
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"n": 1}}


async def publish(client: httpx.AsyncClient, *messages: Json, **headers: str) -> list[str]:
    response = await client.post(PATH, json={"messages": list(messages)}, headers=REPRESENTATION | headers)
    return list(success(response, 201)["ids"])


@pytest.mark.own_application
async def test_what_has_expired_is_not_handed_out(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    messages: list[Json] = [
        {"payload": {"n": 1}, "expires_at": PAST, "attributes": {"a": "b"}, "ordering_key": "k"},
        {"payload": {"n": 2}, "ttl_seconds": 3600},
        {"payload": {"n": 3}},
    ]
    ids = await publish(client, *messages)
    before = success(await client.get(f"/subscriptions/s/messages/{ids[0]}"), 200)
    assert (before["state"], before["expired_at"]) == ("ahead", PAST)
    assert f"it expired at {PAST}" in before["detail"]
    assert payloads(await calls.pull()) == [{"n": 2}, {"n": 3}]
    after = success(await client.get(f"/subscriptions/s/messages/{ids[0]}"), 200)
    assert (after["state"], after["expired_at"]) == ("settled", PAST)
    assert "or it expired" in after["detail"]
    metrics = success(await client.get("/subscriptions/s/metrics"), 200)
    assert (metrics["available"], metrics["delivered"], metrics["acked"], metrics["ttl_expired"]) == (0, 2, 0, 1)
    listed = success(await client.get("/subscriptions/s?include=metrics"), 200)["metrics"]
    assert (listed["acked"], listed["ttl_expired"]) == (0, 1)
    scraped = (await client.get("/metrics")).text
    assert 'fastpubsub_messages_ttl_expired_total{subscription="s"} 1.0' in scraped


async def test_what_answers_say(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    (one, other, later) = await publish(
        client,
        {"payload": {}, "ttl_seconds": 60},
        {"payload": {}},
        {"payload": {}, "delay_seconds": 60, "ttl_seconds": 5},
    )
    found = success(await client.get(f"/messages/{one}"), 200)
    lives = datetime.fromisoformat(found["expires_at"]) - datetime.fromisoformat(found["created_at"])
    assert lives == timedelta(seconds=60)
    assert "expires_at" not in success(await client.get(f"/messages/{other}"), 200)
    browsed = success(await client.get(PATH), 200)["data"]
    assert [message.get("expires_at") for message in browsed] == [found["expires_at"], None]
    delayed = success(await client.get(f"/topics/t/delayed/{later}"), 200)
    assert (delayed["ttl_seconds"], "expires_at" in delayed) == (5, False)
    (listed,) = success(await client.get("/topics/t/delayed"), 200)["data"]
    assert listed["ttl_seconds"] == 5
    assert "ttl_expired" not in success(await client.get("/subscriptions/s/metrics"), 200)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl_seconds": 0},
        {"ttl_seconds": 31_536_001},
        {"ttl_seconds": True},
        {"ttl_seconds": "5"},
        {"expires_at": "2030-01-31T12:00:00"},
        {"expires_at": 5},
        {"ttl_seconds": 5, "expires_at": PAST},
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, calls: Calls, wrong: Json) -> None:
    await calls.topic_and_subscription()
    response = await client.post(PATH, json={"messages": [{"payload": {}}, {"payload": {}, **wrong}]})
    assert any(name in problem(response, 422) for name in wrong)
    assert await calls.pull() == []


async def test_dead_letters_by_a_setting(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    path = "/subscriptions/s"
    assert "on_expired" not in success(await client.get(path), 200)
    assert success(await client.patch(path, json={"on_expired": "dead_letter"}), 200)["on_expired"] == "dead_letter"
    assert success(await client.patch(path, json={"ack_deadline_seconds": 7}), 200)["on_expired"] == "dead_letter"
    created = success(await client.post("/subscriptions", json={"id": "f", "topic_id": "t", "fork_of": "s"}), 201)
    assert created["on_expired"] == "dead_letter"
    assert "on_expired" in problem(await client.patch(path, json={"on_expired": "keep"}), 422)
    (id_,) = await publish(client, {"payload": {"n": 1}, "expires_at": PAST})
    assert await calls.pull() == []
    (letter,) = success(await client.get(f"{path}/dlq"), 200)["data"]
    assert (letter["id"], letter["reason"], letter["delivery_attempts"]) == (id_, "expired", 0)
    assert success(await client.get(f"{path}/metrics"), 200)["dlq"] == 1
    scraped = (await client.get("/metrics")).text
    assert 'fastpubsub_messages_dead_lettered_total{subscription="s"} 1.0' in scraped
    assert "on_expired" not in success(await client.patch(path, json={"on_expired": "drop"}), 200)


async def test_with_an_idempotency_key(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    messages: list[Json] = [{"payload": {"n": 1}, "expires_at": PAST}, {"payload": {"n": 2}, "ttl_seconds": 60}]
    key = {"Idempotency-Key": "k"}
    ids = [await publish(client, *messages, **key) for _ in range(2)]
    assert ids[0] == ids[1]
    problem(await client.post(PATH, json={"messages": [{"payload": {"n": 1}}]}, headers=key), 422)
    assert payloads(await calls.pull()) == [{"n": 2}]


async def test_it_is_the_expirytime_of_cloudevents(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    structured = REPRESENTATION | {"Content-Type": "application/cloudevents+json"}
    for body in (EVENT | {"expirytime": PAST}, EVENT | {"expirytime": "2999-12-31T23:59:60.5z"}, EVENT):
        success(await client.post(PATH, json=body, headers=structured), 201)
    binary = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/s", "ce-type": "t", "ce-expirytime": PAST}
    success(await client.post(PATH, json={"n": 2}, headers=REPRESENTATION | binary), 201)
    pulled = await calls.pull()
    assert [one["attributes"].get("expirytime") for one in pulled] == ["2999-12-31T23:59:60.5z", None]
    response = await client.post(PATH, json=EVENT | {"expirytime": "soon"}, headers=structured)
    assert "`expirytime` of event 0" in problem(response, 422)


async def test_in_a_transaction(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await publish(client, {"payload": {"n": 1}})
    (message,) = await calls.pull()
    messages: list[Json] = [{"payload": {"n": 2}, "expires_at": PAST}, {"payload": {"n": 3}, "ttl_seconds": 60}]
    body = {
        "settles": [{"subscription_id": "s", "acks": [message["ack_id"]]}],
        "publishes": [{"topic_id": "t", "messages": messages}],
    }
    assert (await client.post("/transactions", json=body)).status_code == 204
    response = await client.get(f"/subscriptions/s/messages?consumer_id=c&wait_seconds={PATIENCE:.0f}")
    assert payloads(success(response, 200)["data"]) == [{"n": 3}]


async def test_a_pull_that_waits_outlives_what_expires(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    path = f"/subscriptions/s/messages?consumer_id=c&wait_seconds={PATIENCE:.0f}"
    # A claim has one time, that of its beginning, and may find what was published after it.
    before = datetime.now(UTC).isoformat()
    pull = asyncio.create_task(client.get(path))
    await publish(client, {"payload": {"n": 1}, "expires_at": PAST})
    await publish(client, {"payload": {"n": 2}, "expires_at": before})
    await publish(client, {"payload": {"n": 3}})
    assert payloads(success(await pull, 200)["data"]) == [{"n": 3}]
