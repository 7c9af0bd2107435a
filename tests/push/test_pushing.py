"""Messages reach an endpoint, and what it answers settles them."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from fastpubsub.client.webhooks import InvalidWebhook, verify
from fastpubsub.push.pacing import FIRST_CONCURRENCY
from fastpubsub.push.signing import key_of, sign
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.push_attempts import trim_push_attempts
from tests.api.calls import Calls, Json, problem, success
from tests.api.conftest import app_of
from tests.push.endpoint import PATIENCE, Endpoint, answer

pytestmark = pytest.mark.shared_application

STRANGER = "550e8400-e29b-41d4-a716-446655440000"


async def pushed(calls: Calls, endpoint: Endpoint, name: str = "s", **push: Any) -> str:
    """A topic with a subscription that is pushed; its secret."""
    await calls.topic()
    created = await calls.subscription(
        name, push={"endpoint": endpoint.url, **push}, backoff_min_seconds=0, backoff_max_seconds=0
    )
    return str(created["push"]["secret"])


async def until_followed(client: httpx.AsyncClient) -> None:
    """Until what is claimed from now on goes where the last change of an endpoint says, and as it says.

    What was claimed before goes as it was said before, and a change is heard of beside the publish that follows it.
    """
    state = app_of(client).state
    running = state.dispatcher._running
    async with asyncio.timeout(PATIENCE):
        while True:
            rows = await state.database.fetch_all("hold_endpoints", state.dispatcher._process)
            wanted = {SubscriptionKey(topic, subscription): version for topic, subscription, version in rows}
            if {keys: version for keys, (version, _) in running.items()} == wanted:
                return


async def until_counts(calls: Calls, wanted: tuple[int, int, int, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await calls.counts()) != wanted:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0.02)


async def test_a_message_is_posted_signed_and_acked(calls: Calls, endpoint: Endpoint) -> None:
    secret = await pushed(calls, endpoint, headers={"Authorization": "Bearer abc"})
    (message_id,) = await calls.publish({"a": 1.10})
    (request,) = await endpoint.until(1)
    assert (request.method, request.path, request.body) == ("POST", "/hook?a=1", b'{"a":1.1}')
    assert request.headers["webhook-id"] == message_id
    assert request.headers["authorization"] == "Bearer abc"
    assert request.headers["fastpubsub-attempt"] == "1"
    timestamp = int(request.headers["webhook-timestamp"])
    assert request.headers["webhook-signature"] == sign([key_of(secret)], message_id, timestamp, request.body)
    await until_counts(calls, (0, 0, 1, 0))


async def test_many_over_few_connections(calls: Calls, endpoint: Endpoint) -> None:
    await pushed(calls, endpoint)
    ids = [one for _ in range(5) for one in await calls.publish(*({"a": n} for n in range(100)))]
    received = await endpoint.until(500)
    await until_counts(calls, (0, 0, 500, 0))
    assert sorted(one.headers["webhook-id"] for one in received) == sorted(ids)
    assert endpoint.connections <= 10


@pytest.mark.parametrize("status", [302, 400, 404, 500])
async def test_other_answers_are_nacks(calls: Calls, endpoint: Endpoint, status: int) -> None:
    endpoint.answers = lambda request: answer(
        status if request.headers["fastpubsub-attempt"] == "1" else 204, Location="http://127.0.0.1:1/"
    )
    await pushed(calls, endpoint)
    await calls.publish({"a": 1})
    first, second = await endpoint.until(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.headers["fastpubsub-attempt"] == "2"
    await until_counts(calls, (0, 0, 1, 0))


async def test_attempts_are_limited(calls: Calls, endpoint: Endpoint) -> None:
    endpoint.answers = lambda _: answer(422, b"no")
    await pushed(calls, endpoint)
    await calls.publish({"a": 1})
    await until_counts(calls, (0, 0, 0, 1))
    assert len(endpoint.received) == 5
    (letter,) = await calls.dead_letters()
    assert "the endpoint answered 422: no" in letter["reason"]


async def test_a_status_that_rejects(calls: Calls, endpoint: Endpoint) -> None:
    endpoint.answers = lambda _: answer(422, b"no such order\0" + b"x" * 5000)
    await pushed(calls, endpoint, reject_on=[422])
    await calls.publish({"a": 1})
    await until_counts(calls, (0, 0, 0, 1))
    (letter,) = await calls.dead_letters()
    assert letter["reason"].startswith("the endpoint answered 422: no such order\ufffdx")
    assert len(letter["reason"]) == 1024
    assert letter["delivery_attempts"] == 1


async def test_an_endpoint_that_is_gone(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    endpoint.answers = lambda _: answer(410)
    await pushed(calls, endpoint)
    await calls.publish({"a": 1})
    await endpoint.until(1)
    async with asyncio.timeout(PATIENCE):
        while not (await subscription(client)).get("is_paused"):
            pass
    changes = success(await client.get("/audit", params={"client_id": "push"}), 200)["data"]
    assert [one["details"]["reason"] for one in changes] == ["its endpoint answered 410: it is gone"]


async def test_many_that_find_it_gone_pause_once(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    """And once more after each resume."""
    together = asyncio.Barrier(FIRST_CONCURRENCY)

    async def gone(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await together.wait()
        writer.write(answer(410))
        await writer.drain()

    endpoint.answers = lambda _: gone
    await pushed(calls, endpoint)
    for times in (1, 2):
        await calls.publish(*({"n": number} for number in range(FIRST_CONCURRENCY)))
        await endpoint.until(times * FIRST_CONCURRENCY)
        async with asyncio.timeout(PATIENCE):
            while (await calls.counts())[1] or not (await subscription(client)).get("is_paused"):
                pass
        changes = success(await client.get("/audit", params={"client_id": "push"}), 200)["data"]
        assert [one["action"] for one in changes] == ["pause_subscription"] * times
        success(await client.post("/subscriptions/s/purge"), 200)
        success(await client.post("/subscriptions/s/resume"), 200)


async def test_retry_after_is_obeyed(calls: Calls, endpoint: Endpoint) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def answers(_: object) -> bytes:
        times.append(loop.time())
        return answer(429, retry_after="1") if len(times) == 1 else answer(200)

    endpoint.answers = answers
    await pushed(calls, endpoint)
    await calls.publish({"a": 1})
    await endpoint.until(2)
    assert times[1] - times[0] >= 0.99


async def test_pushed_or_pulled_but_not_both(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    await pushed(calls, endpoint)
    pull: dict[str, str | int] = {"consumer_id": "c", "batch_size": 1}
    assert "pushed" in problem(await client.get("/subscriptions/s/messages", params=pull), 409)
    assert "pushed" in problem(await client.post("/subscriptions/s/pulls", params=pull, json={}), 409)
    changed = success(await client.patch("/subscriptions/s", json={"push": None}), 200)
    assert "push" not in changed
    await calls.publish({"a": 1})
    assert [one["payload"] for one in await calls.pull()] == [{"a": 1}]
    assert endpoint.received == []
    again = success(await client.patch("/subscriptions/s", json={"push": {"endpoint": endpoint.url}}), 200)
    assert again["push"]["secret"].startswith("whsec_")
    await calls.publish({"a": 2})
    assert [one.body for one in await endpoint.until(1)] == [b'{"a":2}']


async def subscription(client: httpx.AsyncClient, name: str = "s") -> Json:
    found: Json = success(await client.get(f"/subscriptions/{name}"), 200)
    return found


async def attempts(client: httpx.AsyncClient, count: int, **query: Any) -> list[Json]:
    """Once there are so many."""
    found: list[Json] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found = success(await client.get("/subscriptions/s/attempts", params=query), 200)["data"]
    return found


async def test_what_became_of_each_push_can_be_read(
    calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient
) -> None:
    endpoint.answers = lambda one: answer(
        *((503, b"busy\0\xff") if len(endpoint.received) == 1 else (200, b"x" * 5000))
    )
    await pushed(calls, endpoint)
    (first,) = await calls.publish({"n": 1})
    await endpoint.until(2)
    (second,) = await calls.publish({"n": 2})
    found = await attempts(client, 3)
    assert [(one["message_id"], one["attempt"], one["outcome"], one["status"]) for one in found] == [
        (second, 1, "ack", 200),
        (first, 2, "ack", 200),
        (first, 1, "nack", 503),
    ]
    assert [one["said"] for one in found] == ["x" * 1024, "x" * 1024, "busy\ufffd\ufffd"]
    assert [one["attempt"] for one in await attempts(client, 2, message_id=first)] == [2, 1]
    assert success(await client.get("/subscriptions/s/attempts", params={"message_id": STRANGER}), 200)["data"] == []
    page = success(await client.get("/subscriptions/s/attempts", params={"limit": 2}), 200)
    rest = {"limit": 2, "page_token": page["next_page_token"]}
    assert page["data"] + success(await client.get("/subscriptions/s/attempts", params=rest), 200)["data"] == found


async def test_attempts_are_forgotten(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    await pushed(calls, endpoint)
    await calls.publish({"n": 1})
    await attempts(client, 1)
    database = app_of(client).state.database
    await trim_push_attempts(database, 60)
    assert len(await attempts(client, 1)) == 1
    await trim_push_attempts(database, 0)
    assert success(await client.get("/subscriptions/s/attempts"), 200)["data"] == []


async def test_a_change_keeps_the_secret(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    secret = await pushed(calls, endpoint)
    push = {"endpoint": endpoint.url.replace("hook", "other"), "timeout_seconds": 5}
    changed = success(await client.patch("/subscriptions/s", json={"push": push}), 200)["push"]
    assert "secret" not in changed
    assert changed["timeout_seconds"] == 5
    await until_followed(client)
    (message_id,) = await calls.publish({"a": 1})
    (request,) = await endpoint.until(1)
    assert request.path == "/other?a=1"
    timestamp = int(request.headers["webhook-timestamp"])
    assert request.headers["webhook-signature"] == sign([key_of(secret)], message_id, timestamp, request.body)


async def test_two_secrets_while_they_are_rotated(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    old = await pushed(calls, endpoint)
    path = "/subscriptions/s/push/secrets"
    new = success(await client.post(path, json={"old_secret_seconds": 60}), 201)["secret"]
    await until_followed(client)
    (message_id,) = await calls.publish({"a": 1})
    (request,) = await endpoint.until(1)
    timestamp = int(request.headers["webhook-timestamp"])
    keys = [key_of(new), key_of(old)]
    assert request.headers["webhook-signature"] == sign(keys, message_id, timestamp, request.body)
    assert "two secrets" in problem(await client.post(path, json={}), 409)
    newest = success(await client.post(path, json={"old_secret_seconds": 0}), 201)
    assert newest["old_secret_expires_at"] is None


async def test_a_private_key_signs(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    """And only the public one is shown."""
    public = await pushed(calls, endpoint, signature="ed25519")
    assert public.startswith("whpk_")
    (message_id,) = await calls.publish({"a": 1})
    (request,) = await endpoint.until(1)
    assert verify(request.headers, request.body, public) == message_id
    assert request.headers["webhook-signature"].startswith("v1a,")
    push = {"endpoint": endpoint.url, "signature": "ed25519"}
    kept = success(await client.patch("/subscriptions/s", json={"push": push}), 200)["push"]
    assert (kept["signature"], kept.get("secret")) == ("ed25519", None)
    rotated = success(await client.post("/subscriptions/s/push/secrets", json={}), 201)["secret"]
    success(await client.post("/subscriptions/s/push/test", json={}), 200)
    both = endpoint.received[-1]
    for key in (public, rotated):
        assert verify(both.headers, both.body, key)
    assert len(both.headers["webhook-signature"].split(" ")) == 2
    another = success(await client.patch("/subscriptions/s", json={"push": {"endpoint": endpoint.url}}), 200)["push"]
    assert (another["signature"], another["secret"][:6]) == ("hmac", "whsec_")
    success(await client.post("/subscriptions/s/push/test", json={}), 200)
    last = endpoint.received[-1]
    assert verify(last.headers, last.body, another["secret"])
    with pytest.raises(InvalidWebhook):
        verify(last.headers, last.body, [public, rotated])
    problem(await client.patch("/subscriptions/s", json={"push": {**push, "signature": "rsa"}}), 422)
    success(await client.patch("/subscriptions/s", json={"push": None}), 200)
    assert "pushed" in problem(await client.post("/subscriptions/s/push/secrets", json={}), 404)


async def test_nothing_shows_a_secret(
    calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    secret = await pushed(calls, endpoint, headers={"X-Key": "very-secret"})
    success(await client.patch("/subscriptions/s", json={"push": {"endpoint": endpoint.url, "headers": {}}}), 200)
    wrong = {"endpoint": endpoint.url, "headers": {"X-Key": "very-secret\n"}}
    problem(await client.patch("/subscriptions/s", json={"push": wrong}), 422)
    answers = [
        (await client.get(path)).text
        for path in ("/subscriptions/s", "/subscriptions", "/audit", "/metrics", "/subscriptions/s/consumers")
    ]
    shown = "\n".join([*answers, caplog.text])
    assert "very-secret" not in shown
    assert secret not in shown
    (created, *_) = [
        json.loads(json.dumps(one["details"]))
        for one in success(await client.get("/audit", params={"object": "subscription"}), 200)["data"][::-1]
    ]
    assert created["push"]["headers"] == {"X-Key": "(hidden)"}


async def test_an_endpoint_that_is_down_uses_up_no_attempts(calls: Calls) -> None:
    async with Endpoint() as endpoint:
        await pushed(calls, endpoint, timeout_seconds=1)
        port = endpoint.port
    await calls.publish(*({"n": number} for number in range(20)))
    await asyncio.sleep(2.5)  # which is several trials
    await until_counts(calls, (20, 0, 0, 0))  # each of them holds one for a moment
    async with Endpoint(port) as endpoint:
        received = await endpoint.until(20)
        await until_counts(calls, (0, 0, 20, 0))
    assert {one.headers["fastpubsub-attempt"] for one in received} == {"1"}


async def until_status(client: httpx.AsyncClient, **wanted: object) -> Json:
    found: Json = {}
    async with asyncio.timeout(PATIENCE):
        while not found.items() >= wanted.items():
            found = success(await client.get("/subscriptions/s/push"), 200)
    return found


async def test_the_breaker_can_be_seen(calls: Calls, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
    def gauges(scraped: str) -> dict[str, str]:
        return dict(re.findall(r"fastpubsub_subscription_push_(\w+){subscription=\"s\",topic=\"t\"} (\S+)", scraped))

    endpoint.answers = lambda _: answer(500, b"no")
    await pushed(calls, endpoint)
    closed = await until_status(client, is_held=True, breaker="closed", failures=0)
    assert (closed["breaker_opened_at"], closed["next_try_at"], closed["last_failure"]) == (None, None, None)
    await calls.publish(*({"n": number} for number in range(10)))
    opened = await until_status(client, breaker="open", last_failure="the endpoint answered 500: no")
    assert opened["failures"] >= 5
    assert opened["breaker_opened_at"] < opened["next_try_at"]
    expire_probes(client)
    assert gauges((await client.get("/metrics")).text) == {"breaker_open": "1.0", "held": "1.0"}
    endpoint.answers = lambda _: answer(200)
    await until_status(client, breaker="closed", failures=0, last_failure=None)
    endpoint.answers = lambda _: answer(500, b"no")
    await calls.publish(*({"n": number} for number in range(10)))
    await until_status(client, last_failure="the endpoint answered 500: no")
    push = {"endpoint": endpoint.url.replace("hook", "other")}
    success(await client.patch("/subscriptions/s", json={"push": push, "max_delivery_attempts": 100}), 200)
    endpoint.answers = lambda _: answer(200)
    await until_status(client, breaker="closed")
    success(await client.patch("/subscriptions/s", json={"push": None}), 200)
    assert "not pushed" in problem(await client.get("/subscriptions/s/push"), 409)
    expire_probes(client)
    assert gauges((await client.get("/metrics")).text) == {}


def expire_probes(client: httpx.AsyncClient) -> None:
    """The next scrape asks the database."""
    app_of(client).state.probes._read._known_at = None


async def test_a_failing_endpoint_is_spared(calls: Calls, endpoint: Endpoint) -> None:
    """After five failures in a row it gets one message at a time."""
    endpoint.answers = lambda _: answer(500)
    await pushed(calls, endpoint)
    await calls.publish(*({"n": number} for number in range(100)))
    await endpoint.until(5)
    await asyncio.sleep(2)
    assert len(endpoint.received) < 15
    endpoint.answers = lambda _: answer(200)
    await until_counts(calls, (0, 0, 100, 0))
