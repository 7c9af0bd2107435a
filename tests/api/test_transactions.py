"""`POST /transactions`: all of it, or nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests import harness
from tests.api.calls import PATIENCE, Calls, Json, ids_of, payloads, problem, until_scraped
from tests.conftest import MakeSettings
from tests.proxy import Proxy, Stage
from tests.together import together

pytestmark = pytest.mark.shared_application

LOST = "019c13cb-6d29-7000-8000-040000000001.5f0c1d9ae2b34c77"


async def transact(client: httpx.AsyncClient, body: Json) -> httpx.Response:
    return await client.post("/transactions", json=body)


def settles(**kinds: Any) -> list[Any]:
    return [{"subscription_id": "s", **kinds}]


def published(payload: Any, **more: Any) -> list[Any]:
    return [{"topic_id": "next", "messages": [{"payload": payload, **more}]}]


@pytest.fixture
async def held(client: httpx.AsyncClient, calls: Calls) -> list[str]:
    """Four deliveries."""
    await calls.topic_and_subscription(backoff_min_seconds=3600, backoff_max_seconds=3600)
    await calls.topic("next")
    await calls.subscription("later", "next")
    await calls.publish(*({"n": n} for n in range(4)))
    return ids_of(await calls.pull(4), "ack_id")


async def test_settles_and_publishes(client: httpx.AsyncClient, calls: Calls, held: list[str]) -> None:
    a, b, c, d = held
    kinds = {"acks": [a], "nacks": [{"ids": [b], "delay_seconds": 5}], "rejects": [{"ids": [c], "reason": "no"}]}
    body = {"settles": settles(**kinds), "publishes": published({"of": 1e-7}, attributes={"a": "b"})}
    assert (await transact(client, body)).status_code == 204
    assert await calls.counts() == (1, 1, 1, 1)
    assert [letter["reason"] for letter in await calls.dead_letters()] == ["no"]
    answer = await client.get("/subscriptions/later/messages?consumer_id=c&wait_seconds=20")
    (message,) = answer.json()["data"]
    assert (message["payload"], message["attributes"]) == ({"of": 1e-7}, {"a": "b"})
    assert (await transact(client, {"settles": settles(acks=[d])})).status_code == 204
    assert await calls.counts() == (1, 0, 2, 1)


async def test_what_it_publishes_may_come_later(client: httpx.AsyncClient, calls: Calls, held: list[str]) -> None:
    body = {"settles": settles(acks=held[:1]), "publishes": published({"n": 1}, delay_seconds=1)}
    assert (await transact(client, body)).status_code == 204
    answer = await client.get("/subscriptions/later/messages?consumer_id=c&wait_seconds=20")
    assert payloads(answer.json()["data"]) == [{"n": 1}]
    too_late = {"settles": settles(acks=held[1:]), "publishes": published({}, deliver_at="2999-01-31T12:00:00Z")}
    assert "more than a year" in problem(await transact(client, too_late), 422)
    assert (await calls.counts())[1] == 3


@pytest.mark.parametrize("lost", [{"acks": [LOST]}, {"nacks": [{"ids": [LOST]}]}, {"rejects": [{"ids": [LOST]}]}])
async def test_what_is_not_held_undoes_all(
    client: httpx.AsyncClient, calls: Calls, held: list[str], lost: dict[str, Any]
) -> None:
    body = {"settles": [*settles(acks=held), *settles(**lost)], "publishes": published({"n": 1})}
    refused = problem(await transact(client, body), 410)
    assert refused == '1 of 1 deliveries of subscription "s" are not held any more'
    assert await calls.counts() == (0, 4, 0, 0)
    await asyncio.sleep(0.3)
    assert payloads((await client.get("/subscriptions/later/messages?consumer_id=c")).json()["data"]) == []


async def test_the_same_delivery_in_two_ways_undoes_all(
    client: httpx.AsyncClient, calls: Calls, held: list[str]
) -> None:
    body = {"settles": settles(acks=held[:1], rejects=[{"ids": held[:1]}])}
    problem(await transact(client, body), 410)
    assert await calls.counts() == (0, 4, 0, 0)


Body = Callable[[list[str]], Json]


@together(
    "body, status, detail",
    [
        (lambda _: {}, 422, "the body is invalid"),
        (lambda _: [], 422, "the body is invalid"),
        (lambda _: {"settles": []}, 422, "a transaction settles at least one delivery"),
        (lambda _: {"settles": settles()}, 422, "a transaction settles at least one delivery"),
        (lambda held: {"settles": settles(acks=held, nacks=[{"ids": []}])}, 422, "at least one delivery"),
        (lambda _: {"settles": settles(acks=["x"])}, 422, "is no ack id"),
        (lambda held: {"settles": settles(acks=[held[0].partition(".")[0]])}, 422, "is no ack id"),
        (lambda held: {"settles": settles(acks=held[:1] * 2)}, 422, "an ack id twice"),
        (lambda _: {"settles": settles(acks=["x"] * 1001)}, 413, "more ids than the 1000"),
        (lambda held: {"settles": settles(acks=held, leases=[])}, 422, "body.settles.0.leases"),
        (lambda held: {"settles": settles(nacks=[{"ids": held, "delay_seconds": -1}])}, 422, "delay_seconds"),
        (lambda held: {"settles": settles(rejects=[{"ids": held, "reason": ""}])}, 422, "reason"),
        (lambda held: {"settles": settles(acks=held), "publishes": [{"topic_id": "next"}]}, 422, "messages"),
        (lambda held: {"settles": settles(acks=held), "publishes": published([])}, 422, "not a JSON object"),
        (
            lambda held: {"settles": settles(acks=held), "publishes": published({"n": 1}) * 1001},
            413,
            "more messages than the 1000",
        ),
        (
            lambda held: {
                "settles": settles(acks=held),
                "publishes": [{"topic_id": "nowhere", "messages": [{"payload": {}}]}],
            },
            404,
            'topic "nowhere" does not exist',
        ),
        (lambda held: {"settles": [{"subscription_id": "nowhere", "acks": held}]}, 404, 'subscription "nowhere"'),
    ],
)
async def test_what_is_refused(
    client: httpx.AsyncClient, calls: Calls, held: list[str], body: Body, status: int, detail: str
) -> None:
    assert detail in problem(await transact(client, body(held)), status)
    assert await calls.counts() == (0, 4, 0, 0)


async def test_what_does_not_match_a_schema_undoes_all(
    client: httpx.AsyncClient, calls: Calls, held: list[str]
) -> None:
    """Also when the process does not know of the schema, or of a change, before the database tells."""
    for limit, fits in ((2, 1), (5, 4)):
        schema = {"properties": {"n": {"maximum": limit}}}
        (await client.patch("/topics/next", json={"schema": schema})).raise_for_status()
        body = {"settles": settles(acks=held[:1]), "publishes": [*published({}), *published({"n": limit + 1})]}
        response = await transact(client, body)
        assert problem(response, 422).startswith(
            'topic "next": message 0 does not match the schema of its topic at "/n"'
        )
        assert response.json()["errors"][0]["loc"] == ["body", "publishes", 1, 0]
        done = {"settles": settles(acks=held[:1]), "publishes": published({"n": fits})}
        assert (await transact(client, done)).status_code == 204
        held = held[1:]
    (await client.patch("/topics/next", json={"schema": None})).raise_for_status()
    body = {"settles": settles(acks=held[:1]), "publishes": published({"n": 9})}
    assert (await transact(client, body)).status_code == 204
    found: list[Json] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < 3:
            answer = await client.get("/subscriptions/later/messages?consumer_id=c&wait_seconds=20")
            found += answer.json()["data"]
    assert payloads(found) == [{"n": 1}, {"n": 4}, {"n": 9}]


async def test_a_topic_that_was_made_anew_has_its_own_schema(
    client: httpx.AsyncClient, calls: Calls, held: list[str]
) -> None:
    (await client.patch("/topics/next", json={"schema": {"required": ["a"]}})).raise_for_status()
    body = {"settles": settles(acks=held[:1]), "publishes": published({"b": 1})}
    problem(await transact(client, body), 422)
    (await client.delete("/topics/next")).raise_for_status()
    await calls.topic("next", schema={"required": ["b"]})
    assert (await transact(client, body)).status_code == 204
    problem(await transact(client, {"settles": settles(acks=held[1:]), "publishes": published({"a": 1})}), 422)


@pytest.mark.own_application
async def test_streams_get_places_and_figures_count(client: httpx.AsyncClient, calls: Calls, held: list[str]) -> None:
    assert (await transact(client, {"settles": settles(acks=held)})).status_code == 204
    await until_scraped(client, 'fastpubsub_messages_acked_total{subscription="s"} 4.0')


@pytest.mark.own_application
async def test_dead_letters_of_a_transaction_are_counted(
    client: httpx.AsyncClient, calls: Calls, held: list[str]
) -> None:
    (await client.patch("/subscriptions/s", json={"max_delivery_attempts": 1})).raise_for_status()
    kinds = {"nacks": [{"ids": held[:1]}], "rejects": [{"ids": held[1:3]}]}
    assert (await transact(client, {"settles": settles(**kinds)})).status_code == 204
    expected = {
        f'fastpubsub_messages_{name}_total{{subscription="s"}} {count}.0'
        for name, count in (("nacked", 1), ("rejected", 2), ("dead_lettered", 3))
    }
    await until_scraped(client, *expected)


async def settled_at_last(client: httpx.AsyncClient, body: Json) -> int:
    """The status of a transaction that is asked for until it is known what became of it."""
    while (answer := await transact(client, body)).status_code == 503:
        assert int(answer.headers["Retry-After"]) >= 1
    return answer.status_code


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("procedure", ["run_transaction", "relay_messages_2"])
async def test_whenever_the_database_is_lost_all_of_it_happens_once(
    server_url: str, make_settings: MakeSettings, procedure: str, stage: Stage
) -> None:
    """The call that settles and publishes, and the one that moves what it publishes to its topic."""
    async with (
        asyncio.timeout(4 * PATIENCE),
        Proxy(server_url) as proxy,
        harness.opened(make_settings(database_url=proxy.url)) as client,
    ):
        calls = Calls(client)
        await calls.topic_and_subscription()
        await calls.topic("next")
        await calls.subscription("later", "next")
        await calls.publish({"n": 1}, {"n": 2})
        first, last = ids_of(await calls.pull(2), "ack_id")
        cut = proxy.cut_call(procedure, stage)
        status = await settled_at_last(client, {"settles": settles(acks=[first]), "publishes": published({"n": 1})})
        await cut.wait()
        was_done = procedure == "run_transaction" and stage is Stage.UNANSWERED
        assert status == (410 if was_done else 204)
        body = {"settles": settles(acks=[last]), "publishes": published({"n": 2})}
        assert await settled_at_last(client, body) == 204
        found: list[Json] = []
        while {"n": 2} not in payloads(found):
            answer = await client.get("/subscriptions/later/messages?consumer_id=c&wait_seconds=20")
            found += answer.json().get("data", [])
        assert payloads(found) == [{"n": 1}, {"n": 2}]
        assert await calls.counts() == (0, 0, 2, 0)
