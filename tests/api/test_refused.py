"""Messages from SQL that do not match the schema of their topic, over HTTP."""

import asyncio
from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import PATIENCE, REPRESENTATION, Calls, Json, payloads, problem, success, until_scraped
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import Connect, MakeSettings
from tests.together import together

pytestmark = pytest.mark.shared_application

REFUSED = "/topics/t/refused"
SCHEMA = {"properties": {"n": {"maximum": 9}}}
REASON = 'does not match the schema of its topic at "/n": the value is greater than the maximum of 9'


@pytest.fixture
async def sql(connect: Connect) -> Any:
    return await connect()


async def publish(sql: Any, *numbers: int, key: str | None = None) -> None:
    for n in numbers:
        await sql.execute("select fastpubsub.publish('t', json_build_object('n', %s::int), null, %s)", (n, key))


async def listed(client: httpx.AsyncClient, count: int) -> list[Json]:
    async with asyncio.timeout(PATIENCE):
        while len(found := success(await client.get(REFUSED, params={"limit": 100}), 200)["data"]) != count:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
    return list(found)


async def pulled(client: httpx.AsyncClient, count: int) -> list[Json]:
    found: list[Json] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += success(await client.get("/subscriptions/s/messages?consumer_id=c&wait_seconds=20"), 200)["data"]
    return found


@pytest.fixture
async def topic(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(ordered=True)
    success(await client.patch("/topics/t", json={"schema": SCHEMA}), 200)


async def move(client: httpx.AsyncClient, method: str, path: str, ids: list[str]) -> list[str]:
    response = await client.request(method, path, json=ids, headers=REPRESENTATION)
    return list(success(response, 200)["ids"])


@pytest.mark.own_application
@pytest.mark.usefixtures("topic")
async def test_from_the_refusal_to_the_consumer(client: httpx.AsyncClient, sql: Any) -> None:
    await publish(sql, 1, 10, 2, 11, 3, key="k")
    first, second = await listed(client, 2)
    assert (first["payload"], first["reason"], first["ordering_key"]) == ({"n": 10}, REASON, "k")
    arrived = await pulled(client, 3)
    assert payloads(arrived) == [{"n": 1}, {"n": 2}, {"n": 3}]
    success(await client.post("/subscriptions/s/acks", json=[one["ack_id"] for one in arrived]), 204)
    topic = success(await client.get("/topics/t?include=metrics"), 200)
    assert topic["metrics"]["refused"] == 2
    counted, stored = (f"fastpubsub_{name}" for name in ("messages_refused_total", "topic_refused_messages"))
    await until_scraped(client, f'{counted}{{topic="t"}} 2.0', f'{stored}{{topic="t"}} 2.0')
    success(await client.patch("/topics/t", json={"schema": {"properties": {"n": {"maximum": 10}}}}), 200)
    ids = [second["id"], first["id"], "refused-999"]
    assert await move(client, "POST", f"{REFUSED}/publish", ids) == [first["id"]]
    (left,) = await listed(client, 1)
    assert (left["id"], left["reason"]) == (second["id"], REASON.replace("9", "10"))
    assert payloads(await pulled(client, 1)) == [{"n": 10}]
    assert await move(client, "DELETE", REFUSED, ids) == [second["id"]]
    assert "refused" not in success(await client.get("/topics/t?include=metrics"), 200)["metrics"]


@pytest.mark.usefixtures("topic")
async def test_pages(client: httpx.AsyncClient, sql: Any) -> None:
    await publish(sql, *range(10, 15))
    everything = await listed(client, 5)
    seen: list[Json] = []
    token: dict[str, str] = {}
    while True:
        page = success(await client.get(REFUSED, params={"limit": 2, **token}), 200)
        seen += page["data"]
        if "next_page_token" not in page:
            break
        token = {"page_token": page["next_page_token"]}
    assert seen == everything


@pytest.mark.usefixtures("topic")
async def test_a_delayed_message_that_is_refused_has_the_id_that_sql_got(client: httpx.AsyncClient, sql: Any) -> None:
    query = "select fastpubsub.publish('t', '{\"n\": 10}', deliver_at => now() + interval '1 hour', ttl_seconds => 5)"
    (delayed_id,) = await (await sql.execute(query)).fetchone()
    (one,) = await listed(client, 1)
    assert (one["delayed_id"], one["ttl_seconds"]) == (delayed_id, 5)
    path = f"/topics/t/delayed/{delayed_id}"
    for answer in (
        await client.get(path),
        await client.patch(path, json={"delay_seconds": 60}),
        await client.delete(path),
    ):
        assert problem(answer, 404) == (
            f'the delayed message "{delayed_id}" does not match the schema of topic "t", and was refused: it is '
            f'"{one["id"]}" of its refused messages now, which says why'
        )
    assert "was cancelled, or published" in problem(await client.get("/topics/t/delayed/delayed-999"), 404)
    success(await client.patch("/topics/t", json={"schema": None}), 200)
    assert await move(client, "POST", f"{REFUSED}/publish", [one["id"]]) == [one["id"]]
    async with asyncio.timeout(PATIENCE):
        while (found := await client.get(f"/topics/t/delayed/{delayed_id}")).status_code == 404:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
    assert success(found, 200)["deliver_at"] == one["deliver_at"]


@pytest.mark.usefixtures("topic")
async def test_copies_of_dead_letters_are_checked_too(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic("source")
    success(await client.patch("/topics/t", json={"schema": None}), 200)
    await calls.subscription("failing", "source", dead_letter_topic="t")
    success(await client.patch("/topics/t", json={"schema": SCHEMA}), 200)
    await calls.publish({"n": 10}, {"n": 1}, topic="source")
    ids = [one["ack_id"] for one in await calls.pull(name="failing")]
    success(await client.post("/subscriptions/failing/rejects", json={"ids": ids}), 204)
    assert payloads(await pulled(client, 1)) == [{"n": 1}]
    (copy,) = await listed(client, 1)
    assert (copy["payload"], copy["attributes"]["dead_letter_subscription_id"]) == ({"n": 10}, "failing")


@together(
    "method, path, body, status, detail",
    [
        ("POST", f"{REFUSED}/publish", ["delayed-1"], 422, "the id of a refused message is `refused-` and a number"),
        ("POST", f"{REFUSED}/publish", ["refused-0"], 422, "the id of a refused message is"),
        ("DELETE", REFUSED, ["refused-" + "9" * 19], 422, "the id of a refused message is"),
        ("DELETE", REFUSED, {"ids": []}, 422, "Expected `array`"),
        ("DELETE", REFUSED, ["refused-1"] * 1001, 413, "more ids than the 1000"),
        ("DELETE", "/topics/nowhere/refused", ["refused-1"], 404, 'topic "nowhere" does not exist'),
        ("POST", "/topics/nowhere/refused/publish", ["refused-1"], 404, 'topic "nowhere" does not exist'),
        ("GET", "/topics/nowhere/refused", None, 404, 'topic "nowhere" does not exist'),
        ("GET", f"{REFUSED}?page_token=nonsense", None, 422, "page_token"),
    ],
)
@pytest.mark.usefixtures("topic")
async def test_what_cannot_be_done(
    client: httpx.AsyncClient, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    assert detail in problem(await client.request(method, path, json=body), status)


class TestWithScopes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_payloads_need_a_scope_of_their_own(self, client: httpx.AsyncClient, token: Tokens, sql: Any) -> None:
        success(await client.post("/topics", json={"id": "t", "schema": SCHEMA}, headers=token("*")), 201)
        await publish(sql, 10)
        reader, publisher = token("topics:read:t"), token("topics:publish:t")
        async with asyncio.timeout(PATIENCE):
            while not (found := success(await client.get(REFUSED, headers=reader), 200)["data"]):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        assert "payload" not in found[0]
        assert found[0]["reason"] == REASON
        (one,) = success(await client.get(REFUSED, headers=token("topics:read:t messages:read:t")), 200)["data"]
        assert one["payload"] == {"n": 10}
        problem(await client.get(REFUSED, headers=publisher), 403)
        problem(await client.request("DELETE", REFUSED, json=[one["id"]], headers=reader), 403)
        assert (await client.request("DELETE", REFUSED, json=[one["id"]], headers=publisher)).status_code == 204
