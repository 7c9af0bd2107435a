"""Following a topic from Python, on a real server."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from decimal import Decimal

import httpx
import psycopg
import pytest

from fastpubsub.client import AsyncClient, NotFound, PermissionDenied, TopicMessage, pulling
from tests import harness
from tests.client.conftest import QUICK
from tests.conftest import Run, StartServer
from tests.lasting import Last, Lasting

pytestmark = pytest.mark.shared_application

SECONDS = 60.0


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server()


@pytest.fixture
async def bus(lasting: Lasting) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(lasting.base_url) as client:
        await client.create_topic("chat")
        yield client


async def take(messages: AsyncGenerator[TopicMessage, None], count: int) -> list[TopicMessage]:
    async with asyncio.timeout(SECONDS):
        return [await anext(messages) for _ in range(count)]


def numbers(messages: list[TopicMessage]) -> list[int]:
    return [message.payload["n"] for message in messages]


async def publish(bus: AsyncClient, *range_of: int) -> list[str]:
    return await bus.publish("chat", *({"n": n} for n in range(*range_of)))


async def test_from_the_recent_messages_and_after_one(bus: AsyncClient) -> None:
    ids = await publish(bus, 10)
    async with aclosing(bus.follow("chat", recent=3)) as recent, aclosing(bus.follow("chat", after=ids[1])) as after:
        assert numbers(await take(recent, 3)) == [7, 8, 9]
        assert numbers(await take(after, 8)) == [2, 3, 4, 5, 6, 7, 8, 9]
        await bus.publish("chat", {"n": 10, "text": "a\u2028b\x85c\r\nd"}, attributes={"k": "v"}, ordering_key="a")
        (message,) = await take(recent, 1)
        assert message.payload == {"n": 10, "text": "a\u2028b\x85c\r\nd"}
        assert (message.attributes, message.ordering_key, message.missed) == ({"k": "v"}, "a", False)
        assert numbers(await take(after, 1)) == [10]


async def test_only_what_passes_a_filter(bus: AsyncClient) -> None:
    ids = await publish(bus, 10)
    wanted = {"n": [{"numeric": [">", Decimal("6.5")]}, 2]}
    async with aclosing(bus.follow("chat", after=ids[0], filter=wanted)) as chosen:
        assert numbers(await take(chosen, 4)) == [2, 7, 8, 9]
        await publish(bus, 1, 3)
        assert numbers(await take(chosen, 1)) == [2]


async def test_more_than_there_are_connections_for_requests(bus: AsyncClient) -> None:
    await publish(bus, 1)
    async with AsyncExitStack() as stack:
        all_of_them = [await stack.enter_async_context(aclosing(bus.follow("chat", recent=1))) for _ in range(120)]
        taken = await asyncio.gather(*(take(messages, 1) for messages in all_of_them))
        assert [numbers(messages) for messages in taken] == [[0]] * 120
        await publish(bus, 1, 2)
        taken = await asyncio.gather(*(take(messages, 1) for messages in all_of_them))
        assert [numbers(messages) for messages in taken] == [[1]] * 120


@pytest.mark.parametrize("seen", [0, 2], ids=["nothing seen yet", "some seen"])
async def test_a_server_that_is_killed_and_comes_back(
    server: StartServer, seen: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pulling, "AGAIN", QUICK)
    port = harness.free_port()
    killed = await asyncio.to_thread(server, api_port=port)
    async with AsyncClient(killed.base_url) as bus, aclosing(bus.follow("chat")) as messages:
        await bus.create_topic("chat")
        next_one = asyncio.create_task(take(messages, seen + 3))
        await until_open(bus)
        await publish(bus, seen)
        with caplog.at_level(logging.INFO, "fastpubsub.client"):
            await asyncio.to_thread(killed.kill)
            await until(lambda: "cannot be followed" in caplog.text)
            elsewhere = await asyncio.to_thread(server)
            async with AsyncClient(elsewhere.base_url) as other:
                await publish(other, seen, seen + 3)
            await asyncio.to_thread(server, api_port=port)
            assert numbers(await next_one) == list(range(seen + 3))
        assert caplog.text.count("cannot be followed") == 1
        assert "can be followed again" in caplog.text


async def until_open(bus: AsyncClient) -> None:
    """Until the server has a stream."""
    async with asyncio.timeout(SECONDS), httpx.AsyncClient(base_url=bus.url) as http:
        while not re.search(r"open_streams\S* [1-9]", (await http.get("/metrics")).text):  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.02)


async def test_a_server_that_stops_is_waited_for(server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "AGAIN", QUICK)
    port = harness.free_port()
    first = await asyncio.to_thread(server, api_port=port)
    async with AsyncClient(first.base_url) as bus, aclosing(bus.follow("chat", recent=10)) as messages:
        await bus.create_topic("chat")
        await publish(bus, 1)
        assert numbers(await take(messages, 1)) == [0]
        await asyncio.to_thread(first.stop)
        await asyncio.to_thread(server, api_port=port)
        await publish(bus, 1, 2)
        assert numbers(await take(messages, 1)) == [1]


async def test_what_was_deleted_meanwhile(bus: AsyncClient, lasting: Lasting) -> None:
    ids = await publish(bus, 10)
    with psycopg.connect(harness.libpq(lasting.database_url), autocommit=True) as connection:
        connection.execute("delete from fastpubsub.messages where position <= 5")
    async with aclosing(bus.follow("chat", after=ids[2])) as messages:
        assert [(one.payload["n"], one.missed) for one in await take(messages, 2)] == [(5, True), (6, False)]


async def test_a_topic_that_is_not_there_or_goes(bus: AsyncClient) -> None:
    with pytest.raises(NotFound):
        await anext(bus.follow("unknown"))
    await publish(bus, 1)
    async with aclosing(bus.follow("chat", recent=1)) as messages:
        await take(messages, 1)
        await bus.delete_topic("chat")
        with pytest.raises(NotFound):
            await take(messages, 1)


async def test_credentials(server: StartServer, run: Run) -> None:
    authentication = {"auth_enabled": True, "auth_secret_key": "k" * 32}
    started = await asyncio.to_thread(server, **authentication)

    def client(scopes: str) -> AsyncClient:
        made = run("create_client", "follower", scopes, **authentication).stdout
        client_id, secret = re.findall(r"=(\S+)", made)
        return AsyncClient(started.base_url, client_id, secret)

    async with client("*") as admin, client("topics:consume:chat") as allowed, client("topics:read") as other:
        await admin.create_topic("chat")
        await publish(admin, 1)
        async with aclosing(allowed.follow("chat", recent=1)) as messages:
            assert numbers(await take(messages, 1)) == [0]
        with pytest.raises(PermissionDenied):
            await anext(other.follow("chat"))
