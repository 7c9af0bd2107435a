"""Fair subscriptions over HTTP. Rules: tests/database/test_fair.py."""

import httpx
import pytest

from tests.api.calls import Calls, Json, problem, success

pytestmark = pytest.mark.shared_application


async def publish(client: httpx.AsyncClient, keys: str) -> None:
    messages = [
        {"payload": {"n": n}, "ordering_key": key, "attributes": {"tenant": key}} for n, key in enumerate(keys, 1)
    ]
    success(await client.post("/topics/t/messages", json={"messages": messages}), 204)


def numbers(messages: list[Json]) -> list[int]:
    return sorted(message["payload"]["n"] for message in messages)


async def test_it_is_shown_and_stays(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    created = await calls.subscription("s", fair_by="ordering_key")
    none = [await calls.subscription("none"), await calls.subscription("empty", fair_by="")]
    assert (created["fair_by"], ["fair_by" in one for one in none]) == ("ordering_key", [False, False])
    listed = success(await client.get("/subscriptions"), 200)["data"]
    assert [one.get("fair_by") for one in listed] == [None, None, "ordering_key"]
    problem(await client.patch("/subscriptions/s", json={"fair_by": ""}), 422)


async def test_what_does_not_go_together(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await calls.subscription("s", fair_by="ordering_key")
    body = {"id": "x", "topic_id": "t", "fair_by": "ordering_key"}
    other: list[object] = ["tenant", "attributes.", "$attributes.tenant", "attributes." + "x" * 129, 1]
    for wrong in other:
        detail = problem(await client.post("/subscriptions", json=body | {"fair_by": wrong}), 422)
        assert detail == (
            "body.fair_by: give `ordering_key`, or `attributes.` with the name of an attribute of up to 128 "
            "characters, as in `attributes.tenant`"
        )
    ordered = problem(await client.post("/subscriptions", json=body | {"ordered": True}), 422)
    assert ordered == "fair_by: an ordered subscription lets its keys take turns already: leave fair_by out, or ordered"
    for answer in (
        await client.post("/subscriptions", json=body | {"on_full": "drop_oldest"}),
        await client.patch("/subscriptions/s", json={"on_full": "dead_letter"}),
    ):
        assert "a subscription with fair_by cannot have" in problem(answer, 422)


async def test_consumers_share_a_call_and_acks_share_none(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(fair_by="ordering_key")
    await publish(client, "aaaaaaaabb")
    first = await calls.pull(4)
    assert numbers(first) == [1, 2, 9, 10]
    await calls.ack(first[0]["ack_id"])
    assert numbers(await calls.pull(4, consumer="other")) == [3, 4, 5, 6]
    metrics = success(await client.get("/subscriptions/s/metrics"), 200)
    assert [metrics[name] for name in ("available", "delivered", "acked", "dlq")] == [2, 7, 1, 0]


async def test_shared_by_an_attribute(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    name = "attributes." + "é" * 128
    assert (await calls.subscription("long", fair_by=name))["fair_by"] == name
    created = await calls.subscription("s", fair_by="attributes.tenant")
    fork = await calls.subscription("fork", fork_of="s")
    none = await calls.subscription("none", fork_of="s", fair_by="")
    assert [one.get("fair_by") for one in (created, fork, none)] == ["attributes.tenant"] * 2 + [None]
    await publish(client, "aaaaabb")
    assert numbers(await calls.pull(4)) == [1, 2, 6, 7]


@pytest.mark.parametrize(
    ("fair_by", "key"), [("ordering_key", "ordering key"), ("attributes.tenant", "attribute tenant")]
)
async def test_explained(client: httpx.AsyncClient, calls: Calls, fair_by: str, key: str) -> None:
    await calls.topic_and_subscription(fair_by=fair_by)
    await publish(client, "aaa")
    await calls.pull(1)
    *_, last = success(await client.get("/topics/t/messages"), 200)["data"]
    explained = success(await client.get(f"/subscriptions/s/messages/{last['id']}"), 200)
    assert (explained["state"], explained["detail"], "reason" in explained) == (
        "ahead",
        f"no consumer has had it yet: of its {key} others came before it, and the subscription gives equally many "
        "messages to each that waits",
        False,
    )
