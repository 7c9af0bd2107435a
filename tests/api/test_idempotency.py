"""`Idempotency-Key`: a repetition stores nothing and gets the first answer."""

import asyncio

import httpx
import psycopg
import pytest

from fastpubsub.config import Settings
from tests.api.calls import REPRESENTATION, Calls, Json, payloads, problem, success
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import Connect, MakeSettings
from tests.harness import opened
from tests.proxy import Proxy

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/messages"


async def publish(
    client: httpx.AsyncClient, key: str, *payloads: Json, topic: str = "t", **headers: str
) -> httpx.Response:
    headers = {"Idempotency-Key": key, **REPRESENTATION, **headers}
    return await client.post(f"/topics/{topic}/messages", json=payloads, headers=headers)


async def ids(client: httpx.AsyncClient, key: str, *payloads: Json, topic: str = "t", **headers: str) -> list[str]:
    return list(success(await publish(client, key, *payloads, topic=topic, **headers), 201)["ids"])


async def test_a_repetition(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    first = await ids(client, "k", {"n": 1}, {"n": 2})
    await calls.publish({"n": 3})
    assert await ids(client, "k", {"n": 1}, {"n": 2}) == first
    response = await client.post(PATH, json=[{"n": 1}, {"n": 2}], headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.content) == (204, b"")
    messages = await calls.pull()
    assert payloads(messages) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [message["id"] for message in messages[:2]] == first


async def test_with_another_body(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    first = await ids(client, "k", {"n": 1})
    for body in ([{"n": 2}], [{"n": 1}, {"n": 1}], [{"n": 1.0}], [{"n": 1, "m": 1}]):
        assert "Idempotency-Key" in problem(await publish(client, "k", *body), 422)
    spaced = await client.post(
        PATH, content=b'[ {"n":1} ]', headers={"Content-Type": "application/json", "Idempotency-Key": "k"}
    )
    problem(spaced, 422)
    assert await ids(client, "k", {"n": 1}) == first
    assert payloads(await calls.pull()) == [{"n": 1}]


async def test_keys_belong_to_a_topic(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.topic("u")
    first = await ids(client, "k", {"n": 1})
    assert await ids(client, "k", {"n": 1}, topic="u") != first
    await client.delete("/topics/t")
    await calls.topic_and_subscription()
    assert await ids(client, "k", {"n": 1}) != first
    assert payloads(await calls.pull()) == [{"n": 1}]


async def test_keys_that_cannot_be(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for key in ("", "k" * 256):
        problem(await publish(client, key, {}), 422)
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")]
    problem(await client.post(PATH, content=b"[{}]", headers=twice), 422)
    assert await calls.pull() == []
    for number, name in enumerate(["k" * 255, " k ", "é", "k,k", '"k"', "%00", "'; drop"]):
        raw = [(b"Idempotency-Key", name.encode("latin-1")), (b"Content-Type", b"application/json")]
        for _ in range(2):
            response = await client.post(PATH, content=b'[{"n":%d}]' % number, headers=raw)
            assert response.status_code == 204, name
    assert len(await calls.pull()) == 7


async def test_a_request_that_was_refused_does_not_use_the_key_up(client: httpx.AsyncClient, calls: Calls) -> None:
    problem(await publish(client, "k", {"n": 1}), 404)
    await calls.topic_and_subscription()
    problem(await client.post(PATH, json=[1], headers={"Idempotency-Key": "k"}), 422)
    await ids(client, "k", {"n": 1})
    assert payloads(await calls.pull()) == [{"n": 1}]


async def test_nothing(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    assert await ids(client, "k") == []
    assert await ids(client, "k") == []


async def test_many_at_once(client: httpx.AsyncClient, calls: Calls) -> None:
    """With the same key, with others, and with none, in the same calls."""
    await calls.topic_and_subscription()
    same = [ids(client, "same", {"n": "same"}) for _ in range(20)]
    others = [ids(client, f"k{number % 10}", {"n": number % 10}, {"m": number % 10}) for number in range(20)]
    different = [publish(client, "different", {"n": f"d{number}"}) for number in range(3)]
    answers = await asyncio.gather(*same, *others, *[calls.publish({"n": None}) for _ in range(5)])
    statuses = sorted(response.status_code for response in await asyncio.gather(*different))
    assert len({tuple(answer) for answer in answers[:20]}) == 1
    assert [answers[20 + number] for number in range(10)] == [answers[30 + number] for number in range(10)]
    assert statuses == [201, 422, 422]
    found = {message["id"]: message["payload"] for message in await calls.pull()}
    assert len(found) == 1 + 20 + 5 + 1
    assert found[answers[0][0]] == {"n": "same"}
    for number in range(10):
        assert [found[id_] for id_ in answers[20 + number]] == [{"n": number}, {"m": number}]


async def test_the_window(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    await calls.topic_and_subscription()
    first = await ids(client, "k", {"n": 1})
    connection = await connect()
    await connection.execute("update fastpubsub.idempotency_keys set created_at = created_at - interval '23 hours'")
    problem(await publish(client, "k", {"n": 2}), 422)
    await connection.execute("update fastpubsub.idempotency_keys set created_at = created_at - interval '61 minutes'")
    second = await ids(client, "k", {"n": 2})
    assert second != first
    assert await ids(client, "k", {"n": 2}) == second
    assert payloads(await calls.pull()) == [{"n": 1}, {"n": 2}]


class TestClients:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_keys_belong_to_a_client(self, client: httpx.AsyncClient, token: Tokens) -> None:
        mine = token("*")
        success(await client.post("/topics", json={"id": "t"}, headers=mine), 201)
        created = success(await client.post("/clients", json={"name": "o", "scopes": "*"}, headers=mine), 201)
        body = {"client_id": created["id"], "client_secret": created["secret"]}
        given = success(await client.post("/oauth/token", json=body), 201)
        theirs = {"Authorization": f"Bearer {given['access_token']}"}
        first = await ids(client, "k", {"n": 1}, **mine)
        other = await ids(client, "k", {"n": 2}, **theirs)
        assert first != other
        assert await ids(client, "k", {"n": 1}, **mine) == first


async def test_a_repetition_after_an_unknown_outcome_is_stored_once(
    make_settings: MakeSettings, database_url: str, connect: Connect
) -> None:
    """The connection is lost after the commit and before the answer. It is the only one: the proxy cuts all of them."""
    alone = {"database_pool_size": 1, "database_max_overflow": 0}
    async with Proxy(database_url) as proxy, opened(make_settings(database_url=proxy.url, **alone)) as client:
        calls = Calls(client)
        await calls.topic_and_subscription()
        await ids(client, "warm-up", {"n": 0})
        proxy.swallow = b"the-payload"
        response = await publish(client, "k", {"n": "the-payload"})
        problem(response, 503)
        assert response.headers["retry-after"] == "1"
        assert await stored(await connect()) == 2
        first = await ids(client, "k", {"n": "the-payload"})
        messages = await calls.pull()
        assert payloads(messages) == [{"n": 0}, {"n": "the-payload"}]
        assert [messages[1]["id"]] == first


async def stored(connection: psycopg.AsyncConnection) -> int:
    cursor = await connection.execute("select count(*) from fastpubsub.messages")
    ((count,),) = await cursor.fetchall()
    return int(count)
