"""Ordered subscriptions over HTTP: what shows one, and whom an ack wakes. Rules: tests/database/test_ordered.py."""

import asyncio

import httpx
import pytest

from fastpubsub.config import Settings
from tests import harness
from tests.api.calls import PATIENCE, Calls, Json, ids_of, problem, success

pytestmark = pytest.mark.shared_application


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
    assert explained["detail"] == "no consumer has had it yet: it waits for the turn of its ordering key"
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


async def test_a_dead_letter_that_holds_its_key(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    created = await calls.subscription("s", ordered=True, on_dead_letter="hold")
    assert created["on_dead_letter"] == "hold"
    await publish(client, "a", "a", "a")
    first, second = await calls.pull(2)
    assert "held_keys" not in success(await client.get("/subscriptions/s/metrics"), 200)
    await calls.reject(first["ack_id"], second["ack_id"])
    waiting = asyncio.create_task(
        client.get("/subscriptions/s/messages", params={"consumer_id": "third", "batch_size": 5, "wait_seconds": 20})
    )
    async with asyncio.timeout(PATIENCE):
        while "third" not in (await client.get("/subscriptions/s/consumers")).text:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0)
    assert success(await client.get("/subscriptions/s/metrics"), 200)["held_keys"] == 1
    assert success(await client.get("/subscriptions/s?include=metrics"), 200)["metrics"]["held_keys"] == 1
    assert 'fastpubsub_subscription_held_keys{subscription="s",topic="t"} 1.0' in (await client.get("/metrics")).text
    dead = success(await client.get(f"/subscriptions/s/messages/{first['id']}"), 200)
    assert dead["held_by"] == first["id"]
    assert dead["detail"].endswith("; it holds its ordering key until it is reprocessed or purged")
    assert ids_of(await calls.dead_letters()) == [first["id"], second["id"]]
    assert await calls.purge(second["id"]) == [second["id"]]
    assert not waiting.done()
    assert await calls.purge(first["id"]) == [first["id"]]
    answer = await asyncio.wait_for(waiting, PATIENCE)
    assert numbers(success(answer, 200)["data"]) == [3], "a purge wakes who waits for the key"
    patched = success(await client.patch("/subscriptions/s", json={"on_dead_letter": "continue"}), 200)
    assert "on_dead_letter" not in patched


async def begin_to_wait(client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """A pull that waits, of which its server knows."""
    parameters: dict[str, str | int] = {"consumer_id": "waiting", "batch_size": 5, "wait_seconds": 20}
    waiting = asyncio.create_task(client.get("/subscriptions/s/messages", params=parameters))
    async with asyncio.timeout(PATIENCE):
        while '"waiting"' not in (await client.get("/subscriptions/s/consumers")).text:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return waiting


async def test_a_key_that_is_held_at_two_servers(client: httpx.AsyncClient, calls: Calls, settings: Settings) -> None:
    """What becomes of the dead letter at one of them, the other one and its consumer that waits hear of."""
    await calls.topic_and_subscription(ordered=True, on_dead_letter="hold")
    await publish(client, "a", "a", "b")
    (first,) = await calls.pull(1)
    async with harness.opened(settings) as other:
        elsewhere = Calls(other)
        (third,) = await elsewhere.pull()
        await elsewhere.ack(third["ack_id"])
        await calls.reject(first["ack_id"])
        assert await elsewhere.pull() == []
        assert success(await other.get("/subscriptions/s/metrics"), 200)["held_keys"] == 1
        waiting = await begin_to_wait(other)
        assert await calls.reprocess(first["id"]) == [first["id"]]
        first, second = success(await asyncio.wait_for(waiting, PATIENCE), 200)["data"]
        assert numbers([first, second]) == [1, 2]
        await elsewhere.reject(first["ack_id"])
        assert await calls.pull() == []
        waiting = await begin_to_wait(client)
        assert await elsewhere.purge(first["id"]) == [first["id"]]
        (second,) = success(await asyncio.wait_for(waiting, PATIENCE), 200)["data"]
        assert numbers([second]) == [2]
        await calls.ack(second["ack_id"])
        assert await elsewhere.counts() == (0, 0, 2, 0)


async def test_why_a_message_does_not_come(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(ordered=True, on_dead_letter="hold")
    await publish(client, "a", "a")
    (first,) = await calls.pull(1)
    assert await calls.pull() == []
    await calls.reject(first["ack_id"])
    (_, second) = success(await client.get("/topics/t/messages"), 200)["data"]
    explained = success(await client.get(f"/subscriptions/s/messages/{second['id']}"), 200)
    assert (explained["state"], explained["held_by"]) == ("ahead", first["id"])
    assert explained["detail"] == (
        f"no consumer has had it yet: its ordering key is held by the dead letter {first['id']}, "
        "until somebody reprocesses or purges that"
    )


async def test_holding_is_refused_without_an_order(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    body = {"id": "x", "topic_id": "t", "on_dead_letter": "hold"}
    for answer in (
        await client.post("/subscriptions", json=body),
        await client.patch("/subscriptions/s", json={"on_dead_letter": "hold"}),
        await client.post("/subscriptions", json=body | {"fork_of": "s"}),
    ):
        assert "needs a subscription with ordered: true" in problem(answer, 422)
    assert "on_dead_letter" in problem(await client.patch("/subscriptions/s", json={"on_dead_letter": "stop"}), 422)


async def reprocess_all(calls: Calls, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        if dead := ids_of(await calls.dead_letters()):
            await calls.reprocess(*dead)


async def test_nothing_is_left_out_when_dead_letters_hold_their_keys(client: httpx.AsyncClient, calls: Calls) -> None:
    """Consumers reject every fifth message the first time, and somebody reprocesses all dead letters meanwhile."""
    await calls.topic_and_subscription(ordered=True, on_dead_letter="hold")
    await publish(client, *(str(n % 7) for n in range(1, 71)))
    done: dict[int, list[int]] = {key: [] for key in range(7)}
    refused: set[int] = set()
    is_over = asyncio.Event()

    async def settle(number: int, ack_id: str) -> None:
        if number % 5 == 0 and number not in refused:
            refused.update([number] * len((await calls.reject(ack_id))["settled"]))
        else:
            done[number % 7] += [number] * len((await calls.ack(ack_id))["settled"])

    async def consume(name: str) -> None:
        while sum(map(len, done.values())) < 70:
            for message in await calls.pull(7, consumer=name):
                await settle(message["payload"]["n"], message["ack_id"])

    mending = asyncio.create_task(reprocess_all(calls, is_over))
    await asyncio.wait_for(asyncio.gather(*(consume(f"c{n}") for n in range(4))), 3 * PATIENCE)
    is_over.set()
    await mending
    assert refused == set(range(5, 71, 5))
    assert done == {key: [n for n in range(1, 71) if n % 7 == key] for key in range(7)}
