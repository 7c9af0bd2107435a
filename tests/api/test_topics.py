"""`/topics`, to the letter of the spec, and what was added to it."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.api.calls import Calls, problem, success

pytestmark = pytest.mark.shared_application

GOOD_IDS = ["a", "user-events", "a.b_c-D9", "...", "-", "0" * 128, "A"]
BAD_IDS = [
    "",
    " ",
    "a b",
    "a/b",
    ".",
    "..",
    "é",
    "a\n",
    "a\x00",
    "0" * 129,
    "a%20b",
    "a:b",
    None,
    5,
    ["a"],
    {"id": "a"},
]
BAD_BODIES: list[object] = [{}, {"id": "t", "x": 1}, [], "t", None, 1]


async def test_create_and_get(client: httpx.AsyncClient) -> None:
    all_created = []
    for name in GOOD_IDS:
        created = success(await client.post("/topics", json={"id": name}), 201)
        assert created["id"] == name
        assert created["created_at"].endswith("Z")
        time = datetime.fromisoformat(created["created_at"])
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
        assert success(await client.get(f"/topics/{name}"), 200) == created
        all_created.append(created)
    listed = success(await client.get("/topics?limit=100"), 200)
    assert sorted(listed["data"], key=repr) == sorted(all_created, key=repr)


async def test_what_is_no_topic(client: httpx.AsyncClient) -> None:
    for body in [*({"id": name} for name in BAD_IDS), *BAD_BODIES]:
        problem(await client.post("/topics", json=body), 422)
    assert success(await client.get("/topics"), 200) == {"data": []}


async def test_an_id_is_taken_once(client: httpx.AsyncClient, calls: Calls) -> None:
    created = await calls.topic()
    assert problem(await client.post("/topics", json={"id": "t", "retention_seconds": 5}), 409) == (
        'topic "t" already exists'
    )
    assert success(await client.get("/topics/t"), 200) == created


UNKNOWN = ["t", "%00", "%2E%2E", "a%20b", "%C3%A9", "%ED%A0%80", "%FF", "%", "0" * 300, "%2F", "%0A", "t%00"]


async def test_what_does_not_exist(client: httpx.AsyncClient) -> None:
    for name in UNKNOWN:
        problem(await client.get(f"/topics/{name}"), 404)
        problem(await client.delete(f"/topics/{name}"), 404)
        problem(await client.patch(f"/topics/{name}", json={"retention_seconds": 5}), 404)


async def test_list_in_pages(client: httpx.AsyncClient, calls: Calls) -> None:
    names = [f"t{number:02}" for number in range(12)]
    for name in reversed(names):
        await calls.topic(name)

    async def page(query: str) -> list[str]:
        return [topic["id"] for topic in success(await client.get(f"/topics{query}"), 200)["data"]]

    assert await page("") == names[:10]
    assert await page("?offset=10") == names[10:]
    assert await page("?offset=3&limit=2") == names[3:5]
    assert await page("?limit=100") == names
    assert await page("?offset=12") == []
    assert await page("?offset=2147483647") == []


PAGES = [
    "offset=-1",
    "limit=0",
    "limit=101",
    "limit=-1",
    "offset=2147483648",
    "offset=9223372036854775808",
    f"offset={10**30}",
]
PAGES += ["offset=a", "limit=", "offset=1.5", "limit=1e1", "offset=%00", "limit=%EF%BC%91%00", "offset=NaN"]


async def test_pages_that_cannot_be(client: httpx.AsyncClient) -> None:
    for query in PAGES:
        for path in ("/topics", "/subscriptions", "/clients"):
            problem(await client.get(f"{path}?{query}"), 422)


async def test_delete(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await calls.topic("other")
    await calls.subscription("s")
    await calls.subscription("kept", "other")
    await calls.publish({"n": 1})
    response = await client.delete("/topics/t")
    assert (response.status_code, response.content) == (204, b"")
    problem(await client.get("/topics/t"), 404)
    problem(await client.delete("/topics/t"), 404)
    problem(await client.post("/topics/t/messages", json=[{}]), 404)
    problem(await client.get("/subscriptions/s"), 404)
    problem(await client.get("/subscriptions/s/messages?consumer_id=c"), 404)
    listed = success(await client.get("/subscriptions"), 200)["data"]
    assert [subscription["id"] for subscription in listed] == ["kept"]


async def test_a_deleted_topic_can_be_created_again_and_is_empty(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    await client.delete("/topics/t")
    await calls.topic()
    await calls.subscription(start_from="earliest")
    assert await calls.pull() == []
    await calls.publish({"n": 2})
    assert (await calls.pull_one())["payload"] == {"n": 2}


async def test_retention(client: httpx.AsyncClient) -> None:
    created = success(await client.post("/topics", json={"id": "t", "retention_seconds": 0}), 201)
    assert created["retention_seconds"] == 0
    for value in (315360000, None, 86400):
        changed = success(await client.patch("/topics/t", json={"retention_seconds": value}), 200)
        assert changed == created | {"retention_seconds": value}
        assert success(await client.get("/topics/t"), 200) == changed


async def test_retentions_that_cannot_be(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic(retention_seconds=7)
    for value in [-1, 315360001, 2**63, 10**30, 1.5, "a", "", False, True, [], {}]:
        problem(await client.post("/topics", json={"id": "u", "retention_seconds": value}), 422)
        problem(await client.patch("/topics/t", json={"retention_seconds": value}), 422)
    assert success(await client.get("/topics/t"), 200)["retention_seconds"] == 7


async def test_patches_that_change_nothing_known(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    bodies: list[object] = [{}, {"id": "u"}, {"retention_seconds": 1, "id": "u"}, [], None]
    for body in bodies:
        problem(await client.patch("/topics/t", json=body), 422)
