"""Ordered subscriptions over HTTP: what shows one, and whom an ack wakes. Rules: tests/database/test_ordered.py."""

import asyncio

import httpx

from tests.api.calls import PATIENCE, Calls, Json, ids_of, problem, success


async def publish(client: httpx.AsyncClient, *keys: str) -> None:
    messages = [{"payload": {"n": n}, "ordering_key": key} for n, key in enumerate(keys, 1)]
    success(await client.post("/topics/t/messages", json={"messages": messages}), 204)


def numbers(messages: list[Json]) -> list[int]:
    return [message["payload"]["n"] for message in messages]


async def test_it_is_shown_and_stays(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    created = await calls.subscription("s", ordered=True)
    plain = await calls.subscription("plain")
    assert (created["ordered"], "ordered" in plain) == (True, False)
    listed = success(await client.get("/subscriptions"), 200)["data"]
    assert [one.get("ordered") for one in listed] == [None, True]
    problem(await client.patch("/subscriptions/s", json={"ordered": False}), 422)
    problem(await client.post("/subscriptions", json={"id": "x", "topic_id": "t", "ordered": 1}), 422)


async def test_an_ack_wakes_who_waits_for_the_key(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(ordered=True)
    await publish(client, "a", "a", "b")
    (first,) = await calls.pull(1)
    assert numbers(await calls.pull(consumer="other")) == [3]
    waiting = asyncio.create_task(
        client.get("/subscriptions/s/messages", params={"consumer_id": "third", "batch_size": 5, "wait_seconds": 20})
    )
    async with asyncio.timeout(PATIENCE):
        while "third" not in (await client.get("/subscriptions/s/consumers")).text:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0)
    assert not waiting.done()
    await calls.ack(first["ack_id"])
    answer = await asyncio.wait_for(waiting, PATIENCE)
    assert numbers(success(answer, 200)["data"]) == [2]


async def test_explained(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(ordered=True)
    await publish(client, "a", "a")
    await calls.pull(1)
    await calls.pull()
    (_, second) = success(await client.get("/topics/t/messages"), 200)["data"]
    explained = success(await client.get(f"/subscriptions/s/messages/{second['id']}"), 200)
    assert explained["state"] == "ahead"
    assert (
        explained["detail"] == "no consumer has had it yet: earlier messages with its ordering key are leased or wait"
    )
    metrics = success(await client.get("/subscriptions/s/metrics"), 200)
    assert (metrics["available"], metrics["delivered"], metrics["acked"]) == (1, 1, 0)


async def test_consumers_that_share_a_call(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(ordered=True)
    await publish(client, *(str(n % 7) for n in range(100)))
    seen: list[int] = []
    last: dict[int, int] = {}

    async def consume(name: str) -> None:
        while len(seen) < 100:
            for message in await calls.pull(7, consumer=name):
                number = message["payload"]["n"]
                assert last.get(number % 7, 0) < number
                last[number % 7] = number
                seen.append(number)
                await calls.ack(message["ack_id"])

    await asyncio.wait_for(asyncio.gather(*(consume(f"c{n}") for n in range(5))), 3 * PATIENCE)
    assert sorted(seen) == list(range(1, 101))
    assert ids_of(await calls.pull()) == []
