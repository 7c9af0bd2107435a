"""A limit on the backlog of a subscription, as publishers and consumers see it."""

import asyncio

import httpx
import pytest

from fastpubsub.services.maintenance import drop_backlogs
from tests.api.calls import REPRESENTATION, Calls, payloads, problem, success, until_scraped
from tests.api.conftest import app_of
from tests.together import together

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/messages"
MESSAGE = [{"n": 1}]


async def shorten(client: httpx.AsyncClient) -> None:
    """As the process does whose turn it is, every second; maybe it has just done so."""
    state = app_of(client).state
    await drop_backlogs(state.database, state.counters)


async def test_the_settings(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    path = "/subscriptions/s"
    usual = success(await client.get(path), 200)
    assert not usual.keys() & {"max_backlog", "on_full"}
    changed = success(await client.patch(path, json={"max_backlog": 7, "on_full": "drop_oldest"}), 200)
    assert (changed["max_backlog"], changed["on_full"]) == (7, "drop_oldest")
    assert success(await client.patch(path, json={"ack_deadline_seconds": 60}), 200) == changed
    forked = success(await client.post("/subscriptions", json={"id": "f", "topic_id": "t", "fork_of": "s"}), 201)
    assert (forked["max_backlog"], forked["on_full"]) == (7, "drop_oldest")
    assert success(await client.patch(path, json={"max_backlog": None, "on_full": "reject"}), 200) == usual
    new = {"id": "n", "topic_id": "t", "max_backlog": 0, "on_full": "dead_letter"}
    created = success(await client.post("/subscriptions", json=new), 201)
    assert ("max_backlog" in created, created["on_full"]) == (False, "dead_letter")
    ordered = {"id": "o", "topic_id": "t", "max_backlog": 1, "on_full": "dead_letter", "ordered": True}
    assert "ordered" in problem(await client.post("/subscriptions", json=ordered), 422)


@together(
    "wrong", [{"max_backlog": -1}, {"max_backlog": 1.5}, {"max_backlog": True}, {"on_full": "wait"}, {"on_full": None}]
)
async def test_what_they_cannot_be(client: httpx.AsyncClient, calls: Calls, wrong: dict[str, object]) -> None:
    await calls.ready()
    (name,) = wrong
    if wrong == {"on_full": None}:
        before = success(await client.get("/subscriptions/s"), 200)
        assert success(await client.patch("/subscriptions/s", json=wrong), 200) == before
    else:
        assert name in problem(await client.patch("/subscriptions/s", json=wrong), 422)


async def test_a_publisher_is_told_to_wait(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_backlog=2)
    await calls.publish({"n": 1}, {"n": 2})
    refused = await client.post(PATH, json=MESSAGE)
    assert 'subscription "s" is full' in problem(refused, 429)
    assert refused.headers["Retry-After"] == "1"
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {}}
    as_event = {"Content-Type": "application/cloudevents+json"}
    problem(await client.post(PATH, json=event, headers=as_event), 429)
    assert payloads(await calls.pull(1)) == [{"n": 1}]
    assert "room for 1 of" in problem(await client.post(PATH, json=[{}, {}]), 429)
    assert "publish fewer" in problem(await client.post(PATH, json=[{}, {}, {}]), 422)
    success(await client.post(PATH, json=[{"n": 3}]), 204)
    assert payloads(await calls.pull()) == [{"n": 2}, {"n": 3}]
    assert await calls.counts() == (0, 3, 0, 0)


async def test_a_repetition_is_answered(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_backlog=1)
    keyed = REPRESENTATION | {"Idempotency-Key": "a"}
    first = success(await client.post(PATH, json=MESSAGE, headers=keyed), 201)
    answers = await asyncio.gather(
        client.post(PATH, json=MESSAGE, headers=keyed),
        *(client.post(PATH, json=MESSAGE, headers={"Idempotency-Key": key}) for key in "bcd"),
    )
    assert [answer.status_code for answer in answers] == [201, 429, 429, 429]
    assert success(answers[0], 201) == first


async def test_of_many_at_once_as_many_as_fit_are_stored(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_backlog=5)
    answers = await asyncio.gather(*(client.post(PATH, json=MESSAGE) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [204] * 5 + [429] * 15
    assert len(await calls.pull(100)) == 5


async def test_a_full_topic_is_alone(client: httpx.AsyncClient, calls: Calls) -> None:
    """Small publishes to several topics share a call."""
    await calls.topic_and_subscription(max_backlog=1)
    for name in ("other", "third"):
        success(await client.post("/topics", json={"id": name}), 201)
    for expected in (204, 429, 429):
        answers = await asyncio.gather(
            *(client.post(f"/topics/{name}/messages", json=MESSAGE) for name in ("other", "t", "third"))
        )
        assert [answer.status_code for answer in answers] == [204, expected, 204]


@pytest.mark.own_application
async def test_what_is_dropped_is_counted(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_backlog=2, on_full="drop_oldest")
    published = await client.post(PATH, json=[{"n": n} for n in range(5)], headers=REPRESENTATION)
    ids = success(published, 201)["ids"]
    await shorten(client)
    await shorten(client)
    metrics = success(await client.get("/subscriptions/s/metrics"), 200)
    assert (metrics["available"], metrics["acked"], metrics["dropped"]) == (2, 0, 3)
    assert success(await client.get("/subscriptions/s?include=metrics"), 200)["metrics"]["dropped"] == 3
    await until_scraped(client, 'fastpubsub_messages_dropped_total{subscription="s"} 3.0')
    explained = success(await client.get(f"/subscriptions/s/messages/{ids[0]}"), 200)
    assert (explained["state"], "dropped because the backlog" in explained["detail"]) == ("settled", True)
    assert payloads(await calls.pull()) == [{"n": 3}, {"n": 4}]


async def test_what_dies_is_a_dead_letter(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_backlog=1, on_full="dead_letter")
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    await shorten(client)
    assert await calls.counts() == (1, 0, 0, 2)
    letters = success(await client.get("/subscriptions/s/dlq"), 200)["data"]
    assert [(one["payload"], one["reason"]) for one in letters] == [({"n": n}, "backlog full") for n in (1, 2)]
    success(await client.post("/subscriptions/s/dlq/reprocess", json=[one["id"] for one in letters]), 204)
    assert sorted(one["n"] for one in payloads(await calls.pull())) == [1, 2, 3]
