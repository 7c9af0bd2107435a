"""Messages that come later, over HTTP."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from fastpubsub.api.requests import page_token
from fastpubsub.config import Settings
from tests.api.calls import PATIENCE, REPRESENTATION, Calls, Json, payloads, problem, success
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import Connect, MakeSettings
from tests.together import together

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/messages"
DELAYED = "/topics/t/delayed"
AN_HOUR = timedelta(hours=1)
NOW = datetime.now(UTC)


async def publish(client: httpx.AsyncClient, *messages: Json, headers: Mapping[str, str] = {}) -> list[str]:
    response = await client.post(PATH, json={"messages": list(messages)}, headers={**REPRESENTATION, **headers})
    return list(success(response, 201)["ids"])


async def get(client: httpx.AsyncClient, id_: str) -> Json:
    found: Json = success(await client.get(f"{DELAYED}/{id_}"), 200)
    return found


async def test_a_message_comes_when_it_is_due(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    messages: list[Json] = [
        {"payload": {"n": 1}, "delay_seconds": 600, "attributes": {"a": "b"}, "ordering_key": "k"},
        {"payload": {"n": 2}},
        {"payload": {"n": 3}, "deliver_at": (NOW - AN_HOUR).isoformat()},
        {"payload": {"n": 4}, "deliver_at": (NOW + AN_HOUR).isoformat()},
    ]
    soon, now, past, later = await publish(client, *messages)
    assert [one.startswith("delayed-") for one in (soon, now, past, later)] == [True, False, True, True]
    waiting = await get(client, soon)
    assert (waiting["state"], waiting["payload"], waiting["topic_id"]) == ("waiting", {"n": 1}, "t")
    moved = success(await client.patch(f"{DELAYED}/{soon}", json={"delay_seconds": 1}), 200)
    pulled: list[Json] = []
    async with asyncio.timeout(PATIENCE):  # a pull that nobody wakes waits longer
        while len(pulled) < 3:
            pulled += success(await client.get("/subscriptions/s/messages?consumer_id=c&wait_seconds=20"), 200)["data"]
    assert payloads(pulled) == [{"n": 2}, {"n": 3}, {"n": 1}]
    assert pulled[0]["id"] == now
    assert (pulled[2]["attributes"], pulled[2]["ordering_key"]) == ({"a": "b"}, "k")
    assert pulled[2]["created_at"] >= moved["deliver_at"]
    published = await get(client, soon)
    assert (published["state"], published["message_id"]) == ("published", pulled[2]["id"])
    assert "payload" not in published
    assert (await get(client, later))["state"] == "waiting"


async def test_a_repetition_gets_the_same_ids(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    messages: list[Json] = [{"payload": {"n": 1}, "delay_seconds": 3600}, {"payload": {"n": 2}}]
    key = {"Idempotency-Key": "key"}
    ids = await publish(client, *messages, headers=key)
    assert await publish(client, *messages, headers=key) == ids
    assert len(success(await client.get(DELAYED), 200)["data"]) == 1
    response = await client.post(PATH, json={"messages": messages[:1]}, headers=key)
    assert "used with another body" in problem(response, 422)
    assert payloads(await calls.pull()) == [{"n": 2}]


async def test_moving_and_cancelling(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    message: Json = {"payload": {}, "delay_seconds": 3600}
    one, two, three = await publish(client, message, message, message)
    at = (NOW + 2 * AN_HOUR).replace(microsecond=5)
    moved = success(await client.patch(f"{DELAYED}/{one}", json={"deliver_at": at.isoformat()}), 200)
    assert datetime.fromisoformat(moved["deliver_at"]) == at
    assert (await client.delete(f"{DELAYED}/{two}")).status_code == 204
    assert "cancelled" in problem(await client.delete(f"{DELAYED}/{two}"), 404)
    assert "cancelled" in problem(await client.get(f"{DELAYED}/{two}"), 404)
    assert "cancelled" in problem(await client.patch(f"{DELAYED}/{two}", json={"delay_seconds": 1}), 404)
    success(await client.patch(f"{DELAYED}/{three}", json={"deliver_at": NOW.isoformat()}), 200)
    while (await get(client, three))["state"] == "waiting":  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.05)
    assert "published already" in problem(await client.delete(f"{DELAYED}/{three}"), 409)
    assert "published already" in problem(await client.patch(f"{DELAYED}/{three}", json={"delay_seconds": 1}), 409)


async def test_the_list_goes_on(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    messages: list[Json] = [{"payload": {"n": n}, "delay_seconds": 3600 + n % 3} for n in range(7)]
    ids = await publish(client, *messages)
    found: list[Json] = []
    page = success(await client.get(DELAYED, params={"limit": 3}), 200)
    while True:
        found += page["data"]
        if "next_page_token" not in page:
            break
        page = success(await client.get(DELAYED, params={"limit": 3, "page_token": page["next_page_token"]}), 200)
    assert [one["id"] for one in found] == [ids[n] for n in (0, 3, 6, 1, 4, 2, 5)]
    assert success(await client.get(DELAYED, params={"state": "held"}), 200) == {"data": []}
    for wrong in ({"page_token": "x"}, {"limit": 101}, {"state": "published"}):
        assert next(iter(wrong)) in problem(await client.get(DELAYED, params=wrong), 422)


@together(
    "time, is_one",
    [
        ("2026-01-31T23:59:59.000001Z", True),
        ("2026-11-30T00:00:00Z", True),
        ("2028-02-29T12:00:00Z", True),
        ("2026-02-29T12:00:00Z", False),
        ("2026-13-01T12:00:00Z", False),
        ("2026-00-10T12:00:00Z", False),
        ("0000-01-01T12:00:00Z", False),
        ("2026-01-31T24:00:01Z", False),
        ("2026-01-31T12:00:00", False),
        ("2026-01-31T12:00:00.1Z", False),
    ],
)
async def test_a_page_begins_after_any_time_that_there_is(
    client: httpx.AsyncClient, calls: Calls, time: str, is_one: bool
) -> None:
    await calls.ready()
    answer = await client.get(DELAYED, params={"page_token": page_token(f"{time}/7")})
    assert (success(answer, 200) == {"data": []}) if is_one else ("page_token" in problem(answer, 422))


async def test_large_payloads_make_small_pages(client: httpx.AsyncClient, calls: Calls, settings: Settings) -> None:
    await calls.topic_and_subscription()
    large = {"payload": {"a": "x" * (settings.pull_max_bytes // 3)}, "delay_seconds": 60}
    for _ in range(5):
        await publish(client, large)
    page = success(await client.get(DELAYED), 200)
    assert 1 <= len(page["data"]) < 5
    assert page["next_page_token"]


async def test_the_first_and_the_last_times_that_there_are(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    first, last = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"
    later, past = await publish(client, {"payload": {}, "delay_seconds": 60}, {"payload": {}, "deliver_at": first})
    success(await client.patch(f"{DELAYED}/{later}", json={"deliver_at": first}), 200)
    for refused in (
        await client.post(PATH, json={"messages": [{"payload": {}, "deliver_at": last}]}),
        await client.patch(f"{DELAYED}/{past}", json={"deliver_at": last}),
    ):
        assert "more than a year" in problem(refused, 422)


@together(
    "time, word",
    [
        ({"deliver_at": "2026-01-31T12:00:00"}, "timezone"),
        ({"deliver_at": "tomorrow"}, "deliver_at"),
        ({"deliver_at": 1}, "deliver_at"),
        ({"deliver_at": (NOW + 400 * 24 * AN_HOUR).isoformat()}, "more than a year"),
        ({"delay_seconds": 0}, "delay_seconds"),
        ({"delay_seconds": -1}, "delay_seconds"),
        ({"delay_seconds": 1.5}, "delay_seconds"),
        ({"delay_seconds": True}, "delay_seconds"),
        ({"delay_seconds": 31_536_001}, "delay_seconds"),
        ({"deliver_at": "2026-01-31T12:00:00Z", "delay_seconds": 1}, "one of them"),
    ],
)
async def test_times_that_are_refused(client: httpx.AsyncClient, calls: Calls, time: Json, word: str) -> None:
    await calls.ready()
    (id_,) = await publish(client, {"payload": {}, "delay_seconds": 60})
    response = await client.post(PATH, json={"messages": [{"payload": {}}, {"payload": {}} | time]})
    assert word in problem(response, 422)
    problem(await client.patch(f"{DELAYED}/{id_}", json=time), 422)
    assert await calls.pull() == []


async def test_what_is_wrong_is_said(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    problem(await client.patch(f"{DELAYED}/delayed-1", json={}), 422)
    for id_ in (
        "1",
        "delayed-",
        "delayed-0",
        "delayed-x",
        "delayed-1" + 20 * "0",
        "550e8400-e29b-41d4-a716-446655440000",
    ):
        assert "`delayed-` and a number" in problem(await client.get(f"{DELAYED}/{id_}"), 422)
    assert "more than a day ago" in problem(await client.get(f"{DELAYED}/delayed-999"), 404)
    for response in (
        await client.get("/topics/nowhere/delayed"),
        await client.get("/topics/nowhere/delayed/delayed-1"),
        await client.delete("/topics/nowhere/delayed/delayed-1"),
        await client.patch("/topics/nowhere/delayed/delayed-1", json={"delay_seconds": 1}),
        await client.post("/topics/nowhere/release"),
    ):
        assert "nowhere" in problem(response, 404)


async def test_a_schema_judges_it_when_it_is_published(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    schema = {"schema": {"required": ["n"]}}
    success(await client.patch("/topics/t", json=schema), 200)
    problem(await client.post(PATH, json={"messages": [{"payload": {}, "delay_seconds": 1}]}), 422)
    await publish(client, {"payload": {"n": 1}, "delay_seconds": 1})
    success(await client.patch("/topics/t", json={"schema": {"required": ["m"]}}), 200)
    pulled = success(await client.get("/subscriptions/s/messages?consumer_id=c&wait_seconds=20"), 200)["data"]
    assert payloads(pulled) == [{"n": 1}]


async def test_what_was_overdue_for_long_is_released(
    client: httpx.AsyncClient, calls: Calls, connect: Connect, settings: Settings
) -> None:
    """As after the restore of an old dump."""
    await calls.topic_and_subscription()
    connection = await connect()
    age = timedelta(seconds=2 * settings.delayed_max_overdue_seconds)
    async with connection.transaction():
        (id_,) = await publish(client, {"payload": {"n": 1}, "delay_seconds": 3600})
        await connection.execute("select from fastpubsub.heads for update")
        await connection.execute("update fastpubsub.delayed_messages set due_at = due_at - %s", [age])
        await connection.execute(
            "update fastpubsub.fired_messages set due_at = due_at - %s, created_at = created_at - %s", [age, age]
        )
    while (await get(client, id_))["state"] != "held":  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.05)
    (held,) = success(await client.get(DELAYED, params={"state": "held"}), 200)["data"]
    assert (held["id"], held["state"]) == (id_, "held")
    assert await calls.pull() == []
    assert success(await client.post("/topics/t/release"), 200) == {"released": 1}
    pulled = success(await client.get("/subscriptions/s/messages?consumer_id=c&wait_seconds=20"), 200)["data"]
    assert payloads(pulled) == [{"n": 1}]
    (change,) = [one for one in success(await client.get("/audit"), 200)["data"] if one["action"].startswith("release")]
    assert (change["object"], change["object_id"]) == ("topic", "t")


class TestWithScopes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_payloads_need_a_scope_of_their_own(self, client: httpx.AsyncClient, token: Tokens) -> None:
        everything = token("*")
        await client.post("/topics", json={"id": "t"}, headers=everything)
        message: Json = {"payload": {"secret": 1}, "delay_seconds": 60}
        (id_,) = await publish(client, message, headers=everything)
        publisher, reader = token("topics:publish:t"), token("topics:read:t messages:read:t")
        assert "payload" not in success(await client.get(f"{DELAYED}/{id_}", headers=publisher), 200)
        (listed,) = success(await client.get(DELAYED, headers=reader), 200)["data"]
        assert listed["payload"] == {"secret": 1}
        (listed,) = success(await client.get(DELAYED, headers=token("topics:read:t")), 200)["data"]
        assert "payload" not in listed
        problem(await client.delete(f"{DELAYED}/{id_}", headers=reader), 403)
        problem(await client.delete(f"{DELAYED}/{id_}", headers=token("topics:publish:other")), 403)
        moved = await client.patch(f"{DELAYED}/{id_}", json={"delay_seconds": 5}, headers=publisher)
        assert "payload" not in success(moved, 200)
        assert (await client.delete(f"{DELAYED}/{id_}", headers=publisher)).status_code == 204
