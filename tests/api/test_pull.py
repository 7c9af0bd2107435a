"""Pulling: who gets what, how much at once, and what an answer looks like."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from fastpubsub.api import pulls
from fastpubsub.config import Settings
from tests.api.calls import PATIENCE, Calls, ids_of, payloads, problem, success
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application

PATH = "/subscriptions/s/messages"


async def test_as_the_spec_has_it(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic("user-events")
    await calls.subscription("user-processor", "user-events", ack_deadline_seconds=120)
    payload = {"event": "user.created", "user_id": "123", "country": "BR"}
    (published,) = await calls.publish(payload, topic="user-events")
    response = await client.get("/subscriptions/user-processor/messages?consumer_id=worker-1&batch_size=10")
    (message,) = success(response, 200)["data"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    created_at, lease = message.pop("created_at"), message.pop("lease_expires_at")
    ack_id = message.pop("ack_id")
    assert message == {
        "id": published,
        "subscription_id": "user-processor",
        "payload": payload,
        "delivery_attempts": 1,
        "lease_seconds": 120,
    }
    UUID(published)
    assert re.fullmatch(re.escape(published) + r"\.[0-9a-f]{16}", ack_id)
    assert created_at.endswith("Z")
    assert lease.endswith("Z")
    now = datetime.now(UTC)
    assert abs(now - datetime.fromisoformat(created_at)) < timedelta(minutes=1)
    assert timedelta(seconds=110) < datetime.fromisoformat(lease) - now < timedelta(seconds=121)


async def test_empty(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    response = await client.get(f"{PATH}?consumer_id=c")
    assert success(response, 200) == {"data": []}
    assert response.headers["cache-control"] == "no-store"


async def test_how_many(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for start in (0, 100):
        await calls.publish(*[{"n": start + number} for number in range(100)])
    assert payloads(success(await client.get(f"{PATH}?consumer_id=c"), 200)["data"]) == [{"n": n} for n in range(10)]
    assert payloads(await calls.pull(1)) == [{"n": 10}]
    assert payloads(await calls.pull(100)) == [{"n": n} for n in range(11, 111)]
    assert payloads(await calls.pull(100)) == [{"n": n} for n in range(111, 200)]
    assert await calls.pull() == []


NO_SIZES = ["0", "101", "-1", "1.5", "x", "", "%20", "1e1", "\u0663", f"{2**63}", f"{10**30}", "+5", "5%00"]
NO_PARAMETERS = [
    "",
    "batch_size=1",
    "consumer_id=",
    f"consumer_id={'c' * 256}",
    "consumer_id=%00",
    "consumer_id=c%00",
    *(f"consumer_id=c&batch_size={value}" for value in NO_SIZES),
]


async def test_parameters_that_cannot_be(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({})
    for query in NO_PARAMETERS:
        problem(await client.get(f"{PATH}?{query}"), 422)
    assert await calls.counts() == (1, 0, 0, 0)


async def test_consumers_may_have_any_name(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    names = ["c", "c" * 255, "%C3%A9%E6%BC%A2", "a%20b", "%FF", "%ED%A0%80", "%25", "'%3B--", "c&consumer_id=d"]
    for number, name in enumerate(names):
        await calls.publish({"n": number})
        response = await client.get(f"{PATH}?consumer_id={name}&batch_size=1")
        assert payloads(success(response, 200)["data"]) == [{"n": number}], name


async def test_consumers_get_different_messages(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish(*[{"n": number} for number in range(100)])
    pulled = await asyncio.gather(*[calls.pull(7, consumer=f"c{number}") for number in range(20)])
    numbers = [message["payload"]["n"] for messages in pulled for message in messages]
    assert sorted(numbers) == list(range(100))
    assert all(len(messages) <= 7 for messages in pulled)
    for messages in pulled:
        assert ids_of(messages) == sorted(ids_of(messages)), "each in the order of the topic"


async def test_subscriptions_do_not_take_from_each_other(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.subscription("other")
    await calls.publish({"n": 1})
    first, second = await calls.pull_one(), await calls.pull_one("other")
    assert first["id"] == second["id"]
    assert first["ack_id"] != second["ack_id"]
    await calls.ack(first["id"])
    assert await calls.counts("other") == (0, 1, 0, 0)


# filters


async def test_a_filter(calls: Calls) -> None:
    await calls.topic_and_subscription(filter={"company": ["AT&T", "M&S <b>'\""]})
    await calls.publish({"company": "AT&T"}, {"company": "AT&amp;T"}, {"other": "AT&T"}, {"company": None}, {})
    await calls.publish(
        {"company": ["AT&T"]}, {"company": {"company": "AT&T"}}, {"company": "M&S <b>'\""}, {"company": "att"}
    )
    assert payloads(await calls.pull()) == [{"company": "AT&T"}, {"company": "M&S <b>'\""}]


async def test_the_examples_of_the_spec(calls: Calls) -> None:
    await calls.topic()
    filters: dict[str, Any] = {
        "country": {"country": ["BR", "US"]},
        "event": {"event": ["user.created"]},
        "premium": {"premium": [True]},
        "complex": {"event_type": ["order.created", "order.updated"], "priority": ["high", "critical"]},
        "everything": {},
    }
    for name, filter_ in filters.items():
        await calls.subscription(name, filter=filter_)
    published: list[dict[str, Any]] = [
        {"country": "BR", "event": "user.created", "premium": True},
        {"country": "JP", "event": "user.login", "premium": "true"},
        {"country": "US", "premium": 1},
        {"event_type": "order.updated", "priority": "critical"},
        {"event_type": "order.updated", "priority": "low"},
    ]
    await calls.publish(*published)
    expected = {"country": [0, 2], "event": [0], "premium": [0], "complex": [3], "everything": [0, 1, 2, 3, 4]}
    for name, places in expected.items():
        assert payloads(await calls.pull(name=name)) == [published[place] for place in places], name


async def test_of_duplicate_keys_a_filter_sees_the_last(calls: Calls) -> None:
    await calls.topic_and_subscription(filter={"a": [2]})
    await calls.publish_text('{"a":1,"a":2}', '{"a":2,"a":1}')
    text = await calls.pull_text()
    assert text.count('"payload"') == 1
    assert '"payload":{"a":1,"a":2}' in text


async def test_one_match_behind_300_000_others_in_one_pull(
    calls: Calls, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a slow machine looks through them: after five seconds a pull would answer that there is none yet."""
    monkeypatch.setattr("fastpubsub.services.claiming._PULL_SECONDS", 600.0)
    await calls.topic_and_subscription(filter={"n": ["needle"]})
    await calls.publish({"n": "hay"})
    connection = await connect()
    await connection.execute("""
        insert into fastpubsub.messages (topic_key, position, created_at, payload)
        select m.topic_key, m.position + g, m.created_at, '{"n": "hay"}'
        from fastpubsub.messages as m cross join generate_series(1, 300000) as g
    """)
    await calls.publish({"n": "needle"})
    assert payloads(await calls.pull()) == [{"n": "needle"}]
    assert await calls.counts() == (0, 1, 0, 0)


# how much at once


class TestBytes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(pull_max_bytes=100_000)

    @pytest.mark.parametrize("filter_", [None, {"k": [1]}])
    async def test_an_answer_is_bounded(self, calls: Calls, filter_: Any) -> None:
        """However well PostgreSQL compresses what it stores."""
        await calls.topic_and_subscription(filter=filter_, max_delivery_attempts=5)
        await calls.publish(*[{"k": 1, "n": number, "a": "x" * 30_000} for number in range(10)])
        sizes = []
        numbers = []
        while text := await calls.pull_text():
            messages = json.loads(text)["data"]
            if not messages:
                break
            sizes.append(len(text))
            numbers += [message["payload"]["n"] for message in messages]
            await calls.nack(*ids_of(messages[-1:]), delay_seconds=3600)
        assert numbers == list(range(10))
        assert max(sizes) < 110_000
        assert len(sizes) == 4

    async def test_retries_are_bounded_too(self, calls: Calls) -> None:
        await calls.topic_and_subscription()
        await calls.publish(*[{"n": number, "a": "x" * 30_000} for number in range(6)])
        for _ in range(2):
            await calls.nack(*ids_of(await calls.pull()), delay_seconds=0)
        again = [payload["n"] for _ in range(2) for payload in payloads(await calls.pull())]
        assert again == [0, 1, 2, 3, 4, 5]

    async def test_one_that_is_larger_goes_alone(self, calls: Calls) -> None:
        await calls.topic_and_subscription()
        await calls.publish({"n": 0}, {"n": 1, "a": "x" * 300_000}, {"n": 2, "a": "x" * 200_000}, {"n": 3})
        assert [[payload["n"] for payload in payloads(await calls.pull())] for _ in range(4)] == [[0], [1], [2], [3]]

    async def test_attributes_count(self, calls: Calls) -> None:
        await calls.topic_and_subscription()
        attributes = {f"k{number}": "x" * 1024 for number in range(100)}
        body = {"messages": [{"payload": {}, "attributes": attributes}] * 4}
        success(await calls.client.post("/topics/t/messages", json=body), 204)
        assert [len(await calls.pull()) for _ in range(5)] == [1, 1, 1, 1, 0]

    async def test_waiting_consumers_share_a_call_and_nobody_is_told_that_there_is_nothing(self, calls: Calls) -> None:
        await calls.topic_and_subscription()
        await calls.publish(*[{"n": number, "a": "x" * 60_000} for number in range(8)])
        pulled = await asyncio.gather(*[calls.pull(2, consumer=f"c{number}") for number in range(8)])
        assert sorted(payload["n"] for messages in pulled for payload in payloads(messages)) == list(range(8))
        assert all(pulled)


# consumers that go away


async def test_a_consumer_that_went_away_gives_back(
    client: httpx.AsyncClient, calls: Calls, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    monkeypatch.setattr(pulls, "SLOW_SECONDS", -1.0)
    await pull_and_leave(client)
    connection = await connect()
    async with asyncio.timeout(PATIENCE):
        while await leased(connection):
            pass
    message = await calls.pull_one()
    assert (message["payload"], message["delivery_attempts"]) == ({"n": 1}, 1)


async def pull_and_leave(client: httpx.AsyncClient) -> None:
    """As a server calls an application whose client has closed the connection."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        assert message["type"].startswith("http.response")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"consumer_id=gone",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    await app_of(client)(scope, receive, send)


async def leased(connection: psycopg.AsyncConnection) -> int:
    return len(await (await connection.execute("select from fastpubsub.leases")).fetchall())
