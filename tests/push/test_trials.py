"""Requests that somebody sends by hand: the endpoint gets them now, and no message is touched."""

import asyncio
import json
import re
from typing import Any

import httpx

from fastpubsub.client.webhooks import verify
from fastpubsub.push.trials import MAX_AT_ONCE, MAX_TO_ONE, PER_MINUTE, Trials
from tests.api.calls import JSON, Calls, Json, problem, success
from tests.api.conftest import app_of
from tests.api.good import MESSAGE
from tests.conftest import Connect
from tests.push.endpoint import Endpoint, Received, Speak, answer
from tests.push.test_pushing import pushed, until_counts

TEST = "/subscriptions/s/push/test"
RESEND = "/subscriptions/s/push/resend"


async def resend(client: httpx.AsyncClient, message_id: str) -> Json:
    sent: Json = success(await client.post(RESEND, json={"message_id": message_id}), 200)
    return sent


async def test_a_test_is_sent_now(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    """Even while nothing else is."""
    endpoint.answers = lambda _: answer(202, b"thanks\0\xff")
    secret = await pushed(calls, endpoint, headers={"Authorization": "Bearer abc"})
    success(await client.post("/subscriptions/s/pause"), 200)
    await calls.publish({"n": 1})
    tested = success(await client.post(TEST, json={}), 200)
    (request,) = endpoint.received
    assert verify(request.headers, request.body, secret) == tested["message_id"]
    assert tested["message_id"].startswith("test-")
    assert (tested["status"], tested["said"], tested["milliseconds"] >= 0) == (202, "thanks\ufffd\ufffd", True)
    assert json.loads(request.body).items() >= {"type": "fastpubsub.test", "subscription_id": "s"}.items()
    assert (request.headers["fastpubsub-test"], request.headers["authorization"]) == ("true", "Bearer abc")
    assert await calls.counts() == (1, 0, 0, 0)


async def test_what_is_sent_can_be_chosen(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    await pushed(calls, endpoint)
    success(await client.post(TEST, content=b'{"payload": {"a": 1.10, "b":1e400}}', headers=JSON), 200)
    assert [one.body for one in endpoint.received] == [b'{"a": 1.10, "b":1e400}']
    (change, *_) = success(await client.get("/audit", params={"object_id": "s"}), 200)["data"]
    assert (change["action"], change.get("details")) == ("test_push", None)
    for wrong in (b'{"payload": [1]}', b'{"payload": 1}', b'{"other": {}}', b"[]"):
        problem(await client.post(TEST, content=wrong, headers=JSON), 422)
    assert len(endpoint.received) == 1


async def test_any_answer_is_shown(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    endpoint.answers = lambda _: answer(500, b"x" * 5000)
    await pushed(calls, endpoint)
    tested = success(await client.post(TEST, json={}), 200)
    assert (tested["status"], tested["said"]) == (500, "x" * 1024)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    endpoint.answers = lambda _: hang_up
    tested = success(await client.post(TEST, json={}), 200)
    assert (tested["status"], tested["said"]) == (None, "the connection was closed without an answer")


async def test_addresses_are_checked(
    calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient, connect: Connect
) -> None:
    """Whatever was allowed when the endpoint was set."""
    await pushed(calls, endpoint)
    database = await connect()

    async def moved(url: str) -> httpx.Response:
        settings = "jsonb_set(settings::jsonb, '{endpoint}', to_jsonb(%s::text))::json"
        await database.execute(f"update fastpubsub.endpoints set settings = {settings}".encode(), (url,))
        return await client.post(TEST, json={})

    refused = success(await moved("http://10.0.0.1:8080/hook"), 200)
    assert (refused["status"], "not of the internet" in refused["said"]) == (None, True)
    refused = success(await moved("http://[::ffff:169.254.169.254]/"), 200)
    assert (refused["status"], "not of the internet" in refused["said"]) == (None, True)
    assert "does not exist" in problem(await moved("http://127.0.0.1:99999/"), 422)
    assert endpoint.received == []


async def test_events_need_a_welcome(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    allowed = ""

    def answers(request: Received) -> bytes:
        return answer(200, b"hm", WebHook_Allowed_Origin=allowed) if request.method == "OPTIONS" else answer(204)

    endpoint.answers = answers
    await pushed(calls, endpoint, format="cloudevents-structured")
    success(await client.post("/subscriptions/s/pause"), 200)
    tested = success(await client.post(TEST, json={"payload": {"n": 1}}), 200)
    assert tested["status"] == 200
    assert re.match("the endpoint takes no events: it answered 200 to OPTIONS, .+: hm$", tested["said"])
    allowed = "*"
    tested = success(await client.post(TEST, json={"payload": {"n": 1}}), 200)
    assert tested["status"] == 204
    # Meanwhile the endpoint may be asked for the pushes, too.
    event = json.loads((await endpoint.until_posted()).body)
    assert (event["id"], event["data"]) == (tested["message_id"], {"n": 1})


async def test_only_what_is_pushed(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    await calls.topic_and_subscription()
    (message_id,) = await calls.publish({"n": 1})
    assert "not pushed" in problem(await client.post(TEST, json={}), 409)
    assert "not pushed" in problem(await client.post(RESEND, json={"message_id": message_id}), 409)
    problem(await client.post(TEST.replace("/s/", "/nowhere/"), json={}), 404)
    changes = success(await client.get("/audit", params={"object_id": "s"}), 200)["data"]
    assert [one["action"] for one in changes] == ["create_subscription"], "what was refused was not done"


async def test_a_key_of_another_server(
    calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient, connect: Connect
) -> None:
    await pushed(calls, endpoint)
    await (await connect()).execute("update fastpubsub.endpoints set secret = decode('00', 'hex')")
    assert "does not have the key" in problem(await client.post(TEST, json={}), 422)


async def test_a_message_is_sent_again(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    """Which leaves it acknowledged."""
    secret = await pushed(calls, endpoint, format="pubsub")
    body = b'{"messages": [{"payload": {"n": 1.10}, "attributes": {"kind": "x"}, "ordering_key": "k"}]}'
    headers = JSON | {"Prefer": "return=representation"}
    (message_id,) = success(await client.post("/topics/t/messages", content=body, headers=headers), 201)["ids"]
    (first,) = await endpoint.until(1)
    await until_counts(calls, (0, 0, 1, 0))
    sent = await resend(client, message_id.upper())
    assert (sent["message_id"], sent["status"], sent["said"]) == (message_id, 200, "ok")
    _, second = endpoint.received
    assert (second.body, verify(second.headers, second.body, secret)) == (first.body, message_id)
    assert second.headers["fastpubsub-resent"] == "true"
    assert "fastpubsub-resent" not in first.headers
    assert await calls.counts() == (0, 0, 1, 0)
    (change, *_) = success(await client.get("/audit", params={"object_id": "s"}), 200)["data"]
    assert (change["action"], change["details"]) == ("resend_message", {"message_id": message_id.upper()})


async def test_a_dead_letter_is_sent_again(
    calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient, connect: Connect
) -> None:
    """Which the topic does not have any more."""
    endpoint.answers = lambda _: answer(400)
    await pushed(calls, endpoint, reject_on=[400])
    message_id, _ = await calls.publish({"n": 1}, {"n": 2})
    await until_counts(calls, (0, 0, 0, 2))
    await (await connect()).execute("delete from fastpubsub.messages where position = 1")
    endpoint.answers = lambda _: answer(204)
    assert (await resend(client, message_id))["status"] == 204
    assert await calls.counts() == (0, 0, 0, 2)
    assert await calls.purge(message_id) == [message_id]
    assert "no longer kept" in problem(await client.post(RESEND, json={"message_id": message_id}), 404)


async def test_what_is_not_sent_again(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    await calls.topic()
    await calls.subscription(filter={"n": [1]}, push={"endpoint": endpoint.url})
    await calls.topic("other")
    (filtered,) = await calls.publish({"n": 2})
    (stranger,) = await calls.publish({"n": 1}, topic="other")
    assert "filter" in problem(await client.post(RESEND, json={"message_id": filtered}), 409)
    assert "is not of the topic" in problem(await client.post(RESEND, json={"message_id": stranger}), 422)
    assert "there is no message" in problem(await client.post(RESEND, json={"message_id": MESSAGE}), 404)
    for wrong in ({}, {"message_id": "x"}, {"message_id": None}, {"message_id": filtered, "to": "earliest"}):
        problem(await client.post(RESEND, json=wrong), 422)
    assert endpoint.received == []


async def test_as_many_as_a_person_needs(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    await pushed(calls, endpoint)
    state, now = app_of(client).state, 0.0
    state.trials = Trials(state.database, state.directory, state.settings, state.dispatcher, lambda: now)
    for _ in range(PER_MINUTE):
        success(await client.post(TEST, json={}), 200)
    refused = await client.post(TEST, json={})
    assert "too many requests were sent by hand" in problem(refused, 429)
    assert refused.headers["retry-after"] == "2"
    now = 2.0
    success(await client.post(TEST, json={}), 200)
    problem(await client.post(TEST, json={}), 429)
    assert len(endpoint.received) == PER_MINUTE + 1


async def test_not_all_at_once(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    go_on = asyncio.Event()

    async def wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(204))

    def answers(_: Received) -> bytes | Speak:
        return wait

    endpoint.answers = answers
    await pushed(calls, endpoint)
    names = ["s", *(f"s{number}" for number in range(MAX_AT_ONCE // MAX_TO_ONE))]
    for name in names[1:]:
        await calls.subscription(name, push={"endpoint": endpoint.url})
    paths = [f"/subscriptions/{name}/push/test" for name in names]
    waiting = [asyncio.create_task(client.post(path, json={})) for path in paths[:-1] for _ in range(MAX_TO_ONE)]
    await endpoint.until(MAX_AT_ONCE)
    refused = await client.post(TEST, json={})
    assert f"{MAX_TO_ONE} requests that were sent by hand wait for an answer of this endpoint" in problem(refused, 429)
    assert refused.headers["retry-after"] == "1"
    assert "too many requests were sent by hand" in problem(await client.post(paths[-1], json={}), 429)
    go_on.set()
    sent: list[Any] = [success(one, 200) for one in await asyncio.gather(*waiting)]
    assert {one["status"] for one in sent} == {204}
