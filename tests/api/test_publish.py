"""Publishing: what is answered with 2xx is stored as it was, and of what is refused nothing."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from fastpubsub.config import Settings
from fastpubsub.message_ids import parse
from fastpubsub.services.coalescer import Coalescer
from tests.api.calls import JSON, REPRESENTATION, Calls, ids_of, payloads, problem, success, until_blocked
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application

PATH = "/topics/t/messages"
WITH_BYTES = [(b"Content-Type", b"application/json")]


async def test_as_the_spec_has_it(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    body = [
        {"event": "user.created", "user_id": "123", "country": "BR"},
        {"event": "user.updated", "user_id": "456", "country": "US"},
    ]
    response = await client.post(PATH, json=body)
    assert (response.status_code, response.content) == (204, b"")
    assert "content-type" not in response.headers
    assert payloads(await calls.pull()) == body


async def test_each_subscription_gets_it(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.subscription("other")
    await calls.publish({"n": 1})
    await calls.subscription("late")
    assert [len(await calls.pull(name=name)) for name in ("s", "other", "late")] == [1, 1, 0]


async def test_ids(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    response = await client.post(PATH, json=[{"n": 1}, {"n": 2}, {"n": 3}], headers=REPRESENTATION)
    ids = success(response, 201)["ids"]
    assert response.headers["preference-applied"] == "return=representation"
    assert response.headers["content-type"] == "application/json"
    messages = await calls.pull()
    assert ids_of(messages) == ids == sorted(ids)
    assert payloads(messages) == [{"n": 1}, {"n": 2}, {"n": 3}]


PREFER = {
    b"return=representation": 201,
    b"Return=Representation": 201,
    b"wait=5, return=representation": 201,
    b"respond-async,return=representation ": 201,
    b"return=minimal": 204,
    b"return=representations": 204,
    b"": 204,
    b"\xff": 204,
}


async def test_prefer(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for prefer, status in PREFER.items():
        response = await client.post(PATH, content=b"[{}]", headers=[*WITH_BYTES, (b"Prefer", prefer)])
        assert response.status_code == status, prefer


async def test_nothing(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(start_from="earliest")
    bodies: list[Any] = [[], {"messages": []}]
    for body in bodies:
        assert (await client.post(PATH, json=body)).status_code == 204
        assert success(await client.post(PATH, json=body, headers=REPRESENTATION), 201) == {"ids": []}
    assert await calls.pull() == []


async def test_a_topic_that_is_not_there(client: httpx.AsyncClient, calls: Calls) -> None:
    bodies: list[Any] = [[{}], [], {"messages": []}]
    for body in bodies:
        assert problem(await client.post(PATH, json=body), 404) == 'topic "t" does not exist'
    await calls.topic()
    await calls.publish({})
    await client.delete("/topics/t")
    for body in reversed(bodies):
        assert problem(await client.post(PATH, json=body), 404) == 'topic "t" does not exist'


VERBATIM = [
    '{"n":1e308}',
    '{"n":18446744073709551621}',
    '{"é":"漢字"}',
    '{"a":1,"a":2}',
    '{ "a" :\t[ 1.0 , -0 ],\n"b":{} }',
    r'{"a":"\u00e9\/\ud83d\ude00\"\\"}',
    '{"n":1E+1000,"m":0.10000000000000000000000001}',
    '{"html":"<script>&amp;"}',
    "{}",
]


async def test_verbatim(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish_text(*VERBATIM)
    text = await calls.pull_text()
    found = re.findall(r'"payload":(.*?),"delivery_attempts":1,"created_at"', text, re.DOTALL)
    assert found == VERBATIM


REFUSED = {
    "NUL escape": rb'{"a":"\u0000"}',
    "NUL escape in a key": rb'{"\u0000":"a"}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "lone surrogate": rb'{"a":"\ud800"}',
    "lone surrogate in a key": rb'{"\udfff":1}',
    "5,000 levels": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "65 levels": b'{"a":' * 65 + b"1" + b"}" * 65,
    "100,000 levels": b"[" * 100_000,
    "1e200000": b'{"a":1e200000}',
    "1,001 digits": b'{"a":' + b"1" * 1001 + b"}",
    "not UTF-8": b'{"a":"\xff"}',
    "a number": b"1",
    "a list": b"[]",
    "a string": b'"secret-payload"',
    "null": b"null",
    "nothing": b"",
    "no JSON": b"secret-payload",
}


async def test_what_is_refused_stores_nothing_of_the_request(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for name, bad in REFUSED.items():
        for body in (b'[{"good":1},%b]' % bad, b'{"messages":[{"payload":{}},{"payload":%b}]}' % bad):
            response = await client.post(PATH, content=body, headers=JSON)
            assert response.status_code == 422, name
            assert "secret-payload" not in problem(response, 422)
    for body in (
        b"",
        b"null",
        b'"x"',
        b"1",
        b"{}",
        b"[{}",
        b"[{}]]",
        b"\xef\xbb\xbf[{}]",
        b'[{"a":1}]'.decode().encode("utf-16"),
    ):
        problem(await client.post(PATH, content=body, headers=JSON), 422)
    assert await calls.pull() == []
    await calls.publish({"n": 1})
    assert parse((await calls.pull_one())["id"])[1] == 1, "the first that was ever stored"  # type: ignore[index]


async def test_attributes(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    body = {
        "messages": [
            {"payload": {"n": 1}, "attributes": {"trace": "é", "empty": ""}},
            {"payload": {"n": 2}},
            {"payload": {"n": 3}, "attributes": {}},
        ]
    }
    assert len(success(await client.post(PATH, json=body, headers=REPRESENTATION), 201)["ids"]) == 3
    messages = await calls.pull()
    assert payloads(messages) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [message.get("attributes") for message in messages] == [{"trace": "é", "empty": ""}, None, None]
    assert ["attributes" in message for message in messages] == [True, False, False]


async def test_attributes_and_none_in_requests_at_the_same_time(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    bodies = [
        {"messages": [{"payload": {"n": number}, "attributes": {"n": str(number)}}]} if number % 3 else [{"n": number}]
        for number in range(30)
    ]
    await asyncio.gather(*[client.post(PATH, json=body) for body in bodies])
    messages = await calls.pull()
    assert sorted(message["payload"]["n"] for message in messages) == list(range(30))
    for message in messages:
        number = message["payload"]["n"]
        assert message.get("attributes") == ({"n": str(number)} if number % 3 else None)


async def test_media_types(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for good in ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"):
        assert (await client.post(PATH, content=b"[{}]", headers={"Content-Type": good})).status_code == 204, good
    for bad in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", "text/json"):
        problem(await client.post(PATH, content=b"[{}]", headers={"Content-Type": bad}), 415)
    problem(await client.post(PATH, content=b"[{}]"), 415)
    assert len(await calls.pull()) == 4


# limits


class TestLimits:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(publish_max_messages=5, api_max_body_bytes=2000, payload_max_depth=3)

    async def test_messages(self, client: httpx.AsyncClient, calls: Calls) -> None:
        await calls.topic_and_subscription()
        bodies: list[Any] = [[{}] * 6, {"messages": [{"payload": {}}] * 6}]
        for body in bodies:
            assert "5 of one publish" in problem(await client.post(PATH, json=body), 413)
        assert (await client.post(PATH, json=[{}] * 5)).status_code == 204
        assert len(await calls.pull()) == 5

    async def test_bytes(self, client: httpx.AsyncClient, calls: Calls) -> None:
        await calls.topic_and_subscription()
        fits, too_large = (b'[{"a":"%b"}]' % (b"x" * size) for size in (2000 - 10, 2000 - 9))
        assert (await client.post(PATH, content=fits, headers=JSON)).status_code == 204
        problem(await client.post(PATH, content=too_large, headers=JSON), 413)
        assert len(await calls.pull()) == 1

    async def test_bytes_of_a_body_without_a_length(self, client: httpx.AsyncClient, calls: Calls) -> None:
        await calls.topic_and_subscription()
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1000
                yield b"[" * 1000

        problem(await client.post(PATH, content=endless(), headers=JSON), 413)
        assert sent <= 4000
        assert await calls.pull() == []

    async def test_depth(self, client: httpx.AsyncClient, calls: Calls) -> None:
        await calls.topic_and_subscription()
        assert (await client.post(PATH, json=[{"a": [[]]}])).status_code == 204
        assert "3 levels" in problem(await client.post(PATH, json=[{"a": [[[]]]}]), 422)
        assert len(await calls.pull()) == 1


# together


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> asyncio.Semaphore:
    """Released for each request that a queue takes."""
    taken = asyncio.Semaphore(0)
    submit = Coalescer.submit

    async def submit_and_tell(queue: Coalescer[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        taken.release()
        return await submit(queue, *arguments, **options)

    monkeypatch.setattr(Coalescer, "submit", submit_and_tell)
    return taken


async def test_requests_that_wait_go_together_and_each_gets_its_own_ids(
    calls: Calls, connect: Connect, submitted: asyncio.Semaphore
) -> None:
    await calls.topic_and_subscription()
    async with await connect() as blocker, blocker.transaction():
        await blocker.execute("select from fastpubsub.heads for update")
        publishing = [asyncio.create_task(calls.publish({"n": n, "m": 0}, {"n": n, "m": 1})) for n in range(20)]
        for _ in publishing:
            await submitted.acquire()
        await until_blocked(await connect())
    answers = await asyncio.gather(*publishing)
    messages = await calls.pull()
    found = {message["id"]: message["payload"] for message in messages}
    for n, ids in enumerate(answers):
        assert [found[id_] for id_ in ids] == [{"n": n, "m": 0}, {"n": n, "m": 1}]
    assert len({message["created_at"] for message in messages}) <= 2, "one call for the first, one for all the others"


class TestLock:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(database_lock_timeout_seconds=1)

    async def test_one_that_is_held_fails_all_who_wait_at_about_the_same_time(
        self, client: httpx.AsyncClient, calls: Calls, connect: Connect, settings: Settings
    ) -> None:
        await calls.topic_and_subscription()
        blocker: psycopg.AsyncConnection = await connect()
        count = 60
        async with blocker.transaction():
            await blocker.execute("select from fastpubsub.heads for update")
            async with asyncio.timeout(count * settings.database_lock_timeout_seconds / 3):
                responses = await asyncio.gather(*[client.post(PATH, json=[{"n": n}]) for n in range(count)])
        for response in responses:
            problem(response, 503)
            assert response.headers["retry-after"] == "1"
        assert await calls.pull() == []
        await calls.publish({"n": 1})


class TestQueue:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(queue_max_messages=10)

    async def test_a_full_queue_answers_503_at_once(
        self, client: httpx.AsyncClient, calls: Calls, connect: Connect
    ) -> None:
        await calls.topic_and_subscription()
        await calls.publish({"n": 0})
        async with (blocker := await connect()).transaction():
            await blocker.execute("select from fastpubsub.heads for update")
            first = asyncio.create_task(client.post(PATH, json=[{"n": 1}]))
            await until_blocked(await connect())
            others = [asyncio.create_task(client.post(PATH, json=[{"n": 2}] * 10)) for _ in range(2)]
            (refused,), (waiting,) = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
            problem(refused.result(), 503)
            assert refused.result().headers["retry-after"] == "1"
            assert not first.done()
        assert [(await task).status_code for task in (first, waiting)] == [204, 204]
        assert [payload["n"] for payload in payloads(await calls.pull())] == [0, 1, *[2] * 10]
