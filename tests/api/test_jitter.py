"""The jitter of the backoff, as those who set it and look at messages see it."""

from datetime import datetime, timedelta

import httpx

from tests.api.calls import Calls, ids_of, problem, success
from tests.together import together


async def test_the_setting(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    path = "/subscriptions/s"
    assert "backoff_jitter" not in success(await client.get(path), 200)
    assert success(await client.patch(path, json={"backoff_jitter": 0.5}), 200)["backoff_jitter"] == 0.5
    assert success(await client.patch(path, json={"ack_deadline_seconds": 7}), 200)["backoff_jitter"] == 0.5
    for none in (0, None):
        assert "backoff_jitter" not in success(await client.patch(path, json={"backoff_jitter": none}), 200)
        success(await client.patch(path, json={"backoff_jitter": 1}), 200)
    for name, value, shown in (("all", 1, 1), ("zero", 0, None), ("null", None, None), ("least", 0.01, 0.01)):
        created = success(
            await client.post("/subscriptions", json={"id": name, "topic_id": "t", "backoff_jitter": value}), 201
        )
        assert created.get("backoff_jitter") == shown
        assert success(await client.get(f"/subscriptions/{name}"), 200) == created
    forked = {"id": "fork", "topic_id": "t", "fork_of": "least"}
    assert success(await client.post("/subscriptions", json=forked), 201)["backoff_jitter"] == 0.01


@together("wrong", [b"-0.1", b"1.1", b"0.001", b'"half"', b"true", b"NaN", b"1e999", b"[]"])
async def test_what_it_cannot_be(client: httpx.AsyncClient, calls: Calls, wrong: bytes) -> None:
    await calls.ready()
    content = b'{"backoff_jitter": %b}' % wrong
    refused = await client.patch("/subscriptions/s", content=content, headers={"Content-Type": "application/json"})
    assert "backoff_jitter" in problem(refused, 422) or wrong in (b"NaN", b"1e999")


async def test_who_looks_sees_when_each_comes(client: httpx.AsyncClient, calls: Calls) -> None:
    """An explanation and the list of what waits say the same."""
    await calls.topic_and_subscription(backoff_min_seconds=10_000, backoff_jitter=1)
    await calls.publish(*({"n": number} for number in range(100)))
    pulled = await calls.pull()
    begun = datetime.fromisoformat(pulled[0]["lease_expires_at"]) - timedelta(seconds=pulled[0]["lease_seconds"])
    await calls.nack(*ids_of(pulled, "ack_id"))
    shown = await client.get("/subscriptions/s/messages/browse", params={"state": "waiting", "limit": 100})
    due = {one["id"]: one["due_at"] for one in success(shown, 200)["data"]}
    assert len(due) == 100
    assert len(set(due.values())) > 2
    assert all(datetime.fromisoformat(one) > begun for one in due.values())
    for id_ in list(due)[::25]:
        explained = success(await client.get(f"/subscriptions/s/messages/{id_}"), 200)
        assert (explained["state"], explained["due_at"]) == ("waiting", due[id_])
