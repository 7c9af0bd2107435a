"""The dead letter queue: what is in it, what comes back, what is deleted for good."""

import asyncio
import json
from datetime import datetime
from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from fastpubsub.services.maintenance import trim_messages
from tests.api.calls import PATIENCE, Calls, Json, expire_leases, ids_of, payloads, problem, success
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings
from tests.together import together

pytestmark = pytest.mark.shared_application

STRANGER = "550e8400-e29b-41d4-a716-446655440000"


async def bury(calls: Calls, *published: Json) -> list[Json]:
    """The messages, as they were pulled before they died."""
    await calls.publish(*published)
    messages = await calls.pull()
    await calls.reject(*ids_of(messages), reason="broken")
    return messages


async def test_list(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    response = await client.get("/subscriptions/s/dlq")
    assert success(response, 200) == {"data": []}
    (message,) = await bury(calls, {"n": 1})
    response = await client.get("/subscriptions/s/dlq?offset=0&limit=10")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    (letter,) = success(response, 200)["data"]
    died_at = letter.pop("died_at")
    assert died_at.endswith("Z")
    failed_at = letter["failures"][0].pop("failed_at")
    assert datetime.fromisoformat(failed_at) == datetime.fromisoformat(died_at)
    assert letter == {
        "id": message["id"],
        "subscription_id": "s",
        "payload": {"n": 1},
        "delivery_attempts": 1,
        "created_at": message["created_at"],
        "reason": "broken",
        "failures": [
            {
                "delivery_attempt": 1,
                "cause": "rejected",
                "reason": "broken",
                "consumer_id": "tester",
            }
        ],
    }


async def test_the_list_goes_on_and_chooses(client: httpx.AsyncClient, calls: Calls) -> None:
    path = "/subscriptions/s/dlq"
    await calls.topic_and_subscription()
    for reason in ("é <b>", "no", "é <b>", "é <b>"):
        await calls.publish({})
        await calls.reject(*ids_of(await calls.pull()), reason=reason)
    whole = success(await client.get(path), 200)
    assert whole.keys() == {"data"}
    first = success(await client.get(path, params={"limit": 1, "reason": "é <b>"}), 200)
    more = {"limit": "2", "reason": "é <b>", "page_token": first["next_page_token"]}
    rest = success(await client.get(path, params=more), 200)
    assert ids_of(first["data"] + rest["data"]) == ids_of([whole["data"][n] for n in (0, 2, 3)])
    assert "next_page_token" not in rest
    second, third = (whole["data"][n]["died_at"] for n in (1, 2))
    between = success(await client.get(path, params={"died_after": second, "died_before": third}), 200)
    assert ids_of(between["data"]) == ids_of(whole["data"][1:2])
    for wrong in (
        {"reason": ""},
        {"reason": "x" * 1101},
        {"died_after": "yesterday"},
        {"died_before": "2026-01-31T12:00:00"},
        {"page_token": "x"},
        {"page_token": "LTE"},
        {"page_token": "2aE"},
        {"page_token": "OTk5OTk5OTk5OTk5OTk5OTk5OQ"},
        {"page_token": first["next_page_token"], "offset": "0"},
    ):
        assert next(iter(wrong)) in problem(await client.get(path, params=wrong), 422)


async def test_list_in_pages(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish(*[{"n": number} for number in range(12)])
    for message in reversed(await calls.pull()):
        await calls.reject(message["id"])

    async def page(**parameters: Any) -> list[int]:
        return [payload["n"] for payload in payloads(await calls.dead_letters(**parameters))]

    assert await page() == list(range(10)), "the oldest message first, whenever it died"
    assert await page(offset=10) == [10, 11]
    assert await page(offset=3, limit=2) == [3, 4]
    assert await page(limit=100) == list(range(12))
    assert await page(offset=2**31 - 1) == []
    for query in (
        "offset=-1",
        "limit=0",
        "limit=101",
        f"offset={2**31}",
        f"offset={2**40}",
        f"offset={10**30}",
        "limit=x",
    ):
        problem(await client.get(f"/subscriptions/s/dlq?{query}"), 422)


async def test_subscriptions_have_their_own(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.subscription("other")
    (message,) = await bury(calls, {"n": 1})
    assert await calls.dead_letters("other") == []
    assert await calls.reprocess(message["id"], name="other") == []
    assert await calls.purge(message["id"], name="other") == []
    assert len(await calls.dead_letters()) == 1
    assert payloads(await calls.pull(name="other")) == [{"n": 1}]


async def test_reprocess(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_delivery_attempts=2, backoff_min_seconds=0)
    messages = await bury(calls, {"n": 1}, {"n": 2}, {"n": 3})
    first, second, third = ids_of(messages)
    response = await client.post("/subscriptions/s/dlq/reprocess", json=[second, STRANGER])
    assert (response.status_code, response.content) == (204, b"")
    assert await calls.reprocess(second, third, STRANGER, third) in ([third], [third, third])
    assert ids_of(await calls.dead_letters()) == [first]
    again = await calls.pull()
    assert ids_of(again) == [second, third]
    for message in again:
        old = messages[message["payload"]["n"] - 1]
        assert message["delivery_attempts"] == 1
        assert message["created_at"] == old["created_at"]
        assert message["ack_id"] != old["ack_id"]
    await calls.nack(second, delay_seconds=0)
    assert (await calls.pull_one())["delivery_attempts"] == 2
    await calls.nack(second, delay_seconds=0)
    assert [(one["id"], one["delivery_attempts"]) for one in await calls.dead_letters()] == [(first, 1), (second, 2)]
    await calls.ack(third)
    assert await calls.counts() == (0, 0, 1, 2)


async def test_reprocessed_after_trimming_it_comes_back_with_the_same_id_and_bytes(
    client: httpx.AsyncClient, calls: Calls, connect: Connect
) -> None:
    """The message is gone from the topic by then; and the copy outlives further deaths."""
    connection = await connect()
    await calls.topic_and_subscription(max_delivery_attempts=1, backoff_min_seconds=0)
    payload = '{ "é": "漢字", "n": 1e308,"m":18446744073709551621, "n": 1E+1 }'
    body = f'{{"messages":[{{"payload":{payload},"attributes":{{"k":"v"}}}}]}}'.encode()
    success(await client.post("/topics/t/messages", content=body, headers={"Content-Type": "application/json"}), 204)
    await calls.publish({"n": "newest"})
    first, second = await calls.pull()
    await calls.nack(first["ack_id"])
    await calls.ack(second["ack_id"])
    assert await trim_messages(app_of(client).state.database, 0) == 1
    again: Json = {}
    for died in range(3):
        assert f'"payload":{payload},' in (await client.get("/subscriptions/s/dlq")).text
        await calls.reprocess(first["id"])
        text = await calls.pull_text()
        assert f'"payload":{payload},' in text
        (again,) = json.loads(text)["data"]
        same = ("id", "created_at", "attributes", "payload", "delivery_attempts")
        assert [again[name] for name in same] == [first[name] for name in same]
        if died == 0:
            await calls.nack(again["id"])
        elif died == 1:
            await expire_leases(connection, app_of(client).state.database)
    await calls.ack(again["ack_id"])
    assert await calls.counts() == (0, 0, 2, 0)
    for table in ("leases", "retries", "revived", "dead_letters"):
        cursor = await connection.execute(f"select count(*) from fastpubsub.{table}".encode())
        assert await cursor.fetchall() == [(0,)], table


async def test_purge(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    first, second, third = ids_of(await bury(calls, {"n": 1}, {"n": 2}, {"n": 3}))
    response = await client.request("DELETE", "/subscriptions/s/dlq", json=[first, STRANGER])
    assert (response.status_code, response.content) == (204, b"")
    assert await calls.purge(first, second) == [second]
    assert ids_of(await calls.dead_letters()) == [third]
    assert await calls.reprocess(first, second) == []
    assert await calls.pull() == []
    assert await calls.counts() == (0, 0, 0, 1)


async def test_died_at_and_reason_of_each_way_to_die(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    await calls.topic_and_subscription(max_delivery_attempts=1)
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    first, second, _ = await calls.pull()
    await calls.nack(first["id"])
    await calls.reject(second["id"], reason="no such customer")
    await expire_leases(await connect(), app_of(client).state.database)
    letters = await calls.dead_letters()
    assert [letter["reason"] for letter in letters] == [
        "nacked on delivery attempt 1 of 1",
        "no such customer",
        "lease expired on delivery attempt 1 of 1",
    ]
    for letter in letters:
        assert datetime.fromisoformat(letter["died_at"]) >= datetime.fromisoformat(letter["created_at"])


class TestBytes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(pull_max_bytes=100_000)

    async def test_an_answer_is_bounded_and_the_next_page_goes_on(
        self, client: httpx.AsyncClient, calls: Calls
    ) -> None:
        await calls.topic_and_subscription()
        await calls.publish(*[{"n": number, "a": "x" * 30_000} for number in range(5)], {"n": 5, "a": "x" * 200_000})
        while messages := await calls.pull():
            await calls.reject(*ids_of(messages))
        found: list[Any] = []
        pages = 0
        while letters := await calls.dead_letters(offset=len(found), limit=100):
            found += [letter["payload"]["n"] for letter in letters]
            pages += 1
        assert found == list(range(6))
        assert pages == 3


async def test_redrives_are_stepped_in_the_background(client: httpx.AsyncClient, calls: Calls) -> None:
    """By any process, whichever began them."""
    await calls.topic_and_subscription()
    await bury(calls, {"n": 1}, {"n": 2})
    asked = client.get("/subscriptions/s/messages", params={"consumer_id": "c", "wait_seconds": 20})
    waiting = asyncio.create_task(asked)
    begun = success(await client.post("/subscriptions/s/redrives", json={"reason": "broken"}), 201)
    assert (begun["matched"], begun["per_second"], begun["died_after"]) == (2, None, None)
    pulled = success(await waiting, 200)["data"]
    assert [message["payload"]["n"] for message in pulled] == [1, 2], "it wakes whoever waits"
    (shown,) = success(await client.get("/subscriptions/s/redrives"), 200)["data"]
    assert (shown["id"], shown["state"], shown["done"]) == (begun["id"], "done", 2)
    assert success(await client.get(f"/subscriptions/s/redrives/{begun['id']}"), 200) == shown


async def test_the_longest_reason_finds_its_dead_letters(client: httpx.AsyncClient, calls: Calls) -> None:
    """How it died stands before what the last nack said, so it is longer than what may be said."""
    await calls.topic_and_subscription(max_delivery_attempts=1)
    await calls.publish({"n": 1}, {"n": 2})
    first, second = await calls.pull()
    for message, said in ((first, "x" * 1024), (second, "y" * 1024)):
        body = {"ids": [message["ack_id"]], "reason": said}
        success(await client.post("/subscriptions/s/nacks", json=body), 204)
    found = success(await client.get("/subscriptions/s/dlq/reasons"), 200)["data"]
    assert {one["reason"] for one in found} == {
        f"nacked on delivery attempt 1 of 1: {said * 1024}" for said in ("x", "y")
    }
    for one in found:
        assert len(await calls.dead_letters(reason=one["reason"])) == 1
        body = {"reason": one["reason"], "action": "purge"}
        assert success(await client.post("/subscriptions/s/redrives", json=body), 201)["matched"] == 1


async def test_a_redrive_of_what_matches_a_filter(client: httpx.AsyncClient, calls: Calls) -> None:
    """Its numbers are shown as they were written."""
    await calls.topic_and_subscription()
    await bury(calls, {"n": 1}, {"n": 2})
    content = b'{"action": "purge", "filter": {"n":  [1.00, 12345678901234567890]}}'
    headers = {"Content-Type": "application/json"}
    begun = await client.post("/subscriptions/s/redrives", content=content, headers=headers)
    assert success(begun, 201)["matched"] == 1
    async with asyncio.timeout(PATIENCE):
        while len(await calls.dead_letters()) > 1:
            pass
    for path in ("/subscriptions/s/redrives", f"/subscriptions/s/redrives/{begun.json()['id']}"):
        shown = await client.get(path)
        assert '"filter":{"n":  [1.00, 12345678901234567890]}' in shown.text
    assert [letter["payload"] for letter in await calls.dead_letters()] == [{"n": 2}]


@together(
    "body",
    [
        {"action": "delete"},
        {"reason": ""},
        {"reason": "\0"},
        {"reason": "r" * 1101},
        {"per_second": 0},
        {"per_second": 10_001},
        {"per_second": True},
        {"died_after": "yesterday"},
        {"died_before": 5},
        {"filter": 5},
        {"filter": {"a": 1}},
        {"filter": {"a": [{"like": "b"}]}},
        {"seconds": 5},
    ],
)
async def test_a_redrive_that_is_wrong(client: httpx.AsyncClient, calls: Calls, body: Json) -> None:
    await calls.ready()
    problem(await client.post("/subscriptions/s/redrives", json=body), 422)
    assert success(await client.get("/subscriptions/s/redrives"), 200) == {"data": []}


async def test_a_redrive_that_is_not_there(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for id_, status in ((1, 404), (2**63 - 1, 404), (2**63, 422), (0, 422), ("x", 422)):
        problem(await client.get(f"/subscriptions/s/redrives/{id_}"), status)
        problem(await client.delete(f"/subscriptions/s/redrives/{id_}"), status)
