"""Both clients against the application, and what only they do: connections, tokens, environment."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest

from fastpubsub.client import (
    AlreadyExists,
    AsyncClient,
    Client,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    Outgoing,
    PermissionDenied,
    Policy,
    Unauthenticated,
)
from fastpubsub.client.clients import Operation, Operations
from fastpubsub.config import Settings
from tests import harness
from tests.client.conftest import QUICK
from tests.conftest import MakeSettings, StartServer

pytestmark = pytest.mark.shared_application

HEAVY = ("fastapi", "starlette", "sqlalchemy", "psycopg", "alembic", "msgspec", "pydantic_settings", "typer", "uvicorn")
KEY = "k" * 32


async def test_a_life_of_messages(bus: AsyncClient) -> None:
    await bus.create_topic("orders")
    await bus.create_subscription("billing", "orders", filter={"country": ["BR"]}, backoff_min_seconds=0)
    first, _, third = await bus.publish("orders", {"country": "BR"}, {"country": "JP"}, {"country": "BR", "n": 3})
    one, three = await bus.pull("billing")
    assert [str(one.id), str(three.id)] == [first, third]
    assert three.payload == {"country": "BR", "n": 3}
    assert (await bus.metrics("billing")).delivered == 2
    assert await bus.extend("billing", [one, three], seconds=60) == [one.ack_id, three.ack_id]
    assert (await bus.ack("billing", one)).settled == [one.ack_id]
    assert (await bus.ack("billing", one)).gone == [one.ack_id]
    await bus.nack("billing", three, delay_seconds=0)
    (again,) = await bus.pull("billing", consumer_id="me", batch_size=5)
    assert again.delivery_attempts == 2
    assert (await bus.nack("billing", three)).stale == [three.ack_id]
    await bus.reject("billing", again, reason="unknown country")
    (letter,) = await bus.list_dead_letters("billing")
    assert (letter.reason, letter.id) == ("unknown country", again.id)
    assert await bus.reprocess_dead_letters("billing", letter) == [third]
    (again,) = await bus.pull("billing")
    await bus.reject("billing", again)
    assert await bus.purge_dead_letters("billing", await bus.list_dead_letters("billing")) == [third]
    await bus.seek("billing", "earliest")
    assert [str(message.id) for message in await bus.pull("billing")] == [first, third]
    await bus.seek("billing", three)
    assert [str(message.id) for message in await bus.pull("billing")] == [third]


async def test_topics_subscriptions_and_clients(bus: AsyncClient) -> None:
    topic = await bus.create_topic("orders", retention_seconds=60)
    assert await bus.get_topic("orders") == topic
    assert (await bus.update_topic("orders", retention_seconds=None)).retention_seconds is None
    assert [one.id for one in await bus.list_topics()] == ["orders"]
    subscription = await bus.create_subscription("billing", "orders", start_from=datetime.now(UTC))
    assert await bus.get_subscription("billing") == subscription
    changed = await bus.update_subscription("billing", ack_deadline_seconds=7, filter={"a": [1]})
    assert (changed.ack_deadline_seconds, changed.filter) == (7, {"a": [1]})
    assert [one.id for one in await bus.list_subscriptions(offset=0, limit=1)] == ["billing"]
    assert await bus.list_subscriptions(offset=1) == []
    credentials = await bus.create_client("shop", "topics:read")
    assert (await bus.get_client(credentials.id)).name == "shop"
    assert (await bus.update_client(credentials.id, name="shop", scopes="*", is_active=False)).is_active is False
    assert [one.id for one in await bus.list_clients()] == [credentials.id]
    await bus.delete_client(credentials.id)
    await bus.delete_subscription("billing")
    await bus.delete_topic("orders")
    with pytest.raises(NotFound, match="orders"):
        await bus.delete_topic("orders")


async def test_refusals(bus: AsyncClient) -> None:
    with pytest.raises(NotFound) as missing:
        await bus.publish("orders", {})
    assert missing.value.detail == 'topic "orders" does not exist'
    assert missing.value.request_id
    await bus.create_topic("orders")
    with pytest.raises(AlreadyExists):
        await bus.create_topic("orders")
    assert (await bus.create_topic("orders", exist_ok=True)).id == "orders"
    with pytest.raises(InvalidRequest) as invalid:
        await bus.list_topics(limit=1000)
    assert invalid.value.errors[0]["loc"] == ["query", "limit"]
    with pytest.raises(InvalidRequest, match="is not JSON"):
        await bus.publish("orders", {"n": float("nan")})
    assert await bus.publish("orders") == []


async def test_attributes(bus: AsyncClient) -> None:
    await bus.create_topic("orders")
    await bus.create_subscription("billing", "orders")
    await bus.publish("orders", {"n": 1}, Outgoing({"n": 2}, {"source": "shop"}))
    assert [message.attributes for message in await bus.pull("billing")] == [None, {"source": "shop"}]


class LosesAnswers(httpx.AsyncBaseTransport):
    """Every second answer is lost behind the server."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.count = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        self.count += 1
        if self.count % 2:
            await response.aclose()
            raise httpx.ReadError("the connection was lost", request=request)
        return response


async def test_a_repeated_publish_is_stored_once(transport: httpx.ASGITransport, bus: AsyncClient) -> None:
    await bus.create_topic("orders")
    await bus.create_subscription("billing", "orders")
    async with AsyncClient(transport=LosesAnswers(transport), policy=QUICK) as losing:
        ids = [(await losing.publish("orders", {"n": n}))[0] for n in range(5)]
        with pytest.raises(ConnectionFailed, match="ReadError: the connection was lost"):
            await losing.create_topic("another")
    assert [str(message.id) for message in await bus.pull("billing")] == ids


async def test_nobody_answers() -> None:
    url = f"http://127.0.0.1:{harness.free_port()}"
    policy = Policy(attempts=3, backoff=0.01, max_backoff=0.05)
    with Client(url, policy=policy) as bus, pytest.raises(ConnectionFailed, match="ConnectError"):
        bus.get_topic("orders")
    async with AsyncClient(url, policy=policy) as async_bus:
        with pytest.raises(ConnectionFailed, match="ConnectError"):
            await async_bus.get_topic("orders")


def test_the_synchronous_client_from_several_threads(server: StartServer) -> None:
    with Client(server().base_url) as bus, ThreadPoolExecutor(4) as threads:
        bus.create_topic("orders")
        bus.create_subscription("billing", "orders")
        published = {one for ids in threads.map(lambda n: bus.publish("orders", {"n": n}), range(40)) for one in ids}
        messages = bus.pull("billing", batch_size=100)
        assert {str(message.id) for message in messages} == published
        assert len(bus.ack("billing", messages).settled) == 40
        assert bus.metrics("billing").acked == 40


class Counts(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.paths: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return await self.inner.handle_async_request(request)


class TestAuthentication:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_a_token_is_fetched_once_and_renewed_when_it_is_refused(
        self, transport: httpx.ASGITransport, administrator: tuple[str, str]
    ) -> None:
        counts = Counts(transport)
        async with AsyncClient(None, *administrator, transport=counts, policy=QUICK) as bus:
            await asyncio.gather(*(bus.list_topics() for _ in range(5)))
            assert counts.paths.count("/oauth/token") == 1
            await bus.update_client(administrator[0], name="again", scopes="*")
            await asyncio.gather(*(bus.list_topics() for _ in range(5)))
            assert counts.paths.count("/oauth/token") == 2
            reader = await bus.create_client("reader", "topics:read")
        async with AsyncClient(None, str(reader.id), reader.secret, transport=transport, policy=QUICK) as reading:
            assert await reading.list_topics() == []
            with pytest.raises(PermissionDenied, match="topics:create"):
                await reading.create_topic("orders")

    async def test_a_secret_is_changed_without_a_refused_request(
        self, transport: httpx.ASGITransport, administrator: tuple[str, str]
    ) -> None:
        async def works(secret: str) -> bool:
            async with AsyncClient(None, str(shop.id), secret, transport=transport, policy=QUICK) as bus:
                try:
                    return await bus.list_topics() == []
                except Unauthenticated:
                    return False

        async with AsyncClient(None, *administrator, transport=transport, policy=QUICK) as bus:
            shop = await bus.create_client("shop", "topics:read")
            second = await bus.rotate_client_secret(shop.id, old_secret_seconds=60)
            assert second.old_secret_expires_at is not None
            assert [await works(one) for one in (shop.secret, second.secret)] == [True, True]
            with pytest.raises(AlreadyExists, match="already has two secrets"):
                await bus.rotate_client_secret(shop.id)
            await bus.revoke_client_secret(shop.id, "old")
            assert [await works(one) for one in (shop.secret, second.secret)] == [False, True]
            with pytest.raises(AlreadyExists, match="has only one secret"):
                await bus.revoke_client_secret(shop.id, "new")
            third = await bus.rotate_client_secret(shop.id, old_secret_seconds=0)
            assert third.old_secret_expires_at is None
            assert [await works(one.secret) for one in (second, third)] == [False, True]

    async def test_wrong_credentials(self, transport: httpx.ASGITransport, administrator: tuple[str, str]) -> None:
        async with AsyncClient(None, administrator[0], "wrong", transport=transport, policy=QUICK) as bus:
            with pytest.raises(Unauthenticated, match="secret is wrong"):
                await bus.list_topics()
        async with AsyncClient(transport=transport, policy=QUICK) as nobody:
            with pytest.raises(Unauthenticated, match="access token"):
                await nobody.list_topics()


@pytest.fixture
def administrator(run: Callable[..., subprocess.CompletedProcess[str]]) -> tuple[str, str]:
    printed = run("create_client", "administrator").stdout
    id_, secret = (line.split("=", 1)[1] for line in printed.splitlines())
    return id_, secret


def test_the_environment_says_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().url == "http://localhost:8000"
    monkeypatch.setenv("FASTPUBSUB_URL", "https://bus.example.com/prefix")
    assert Client().url == "https://bus.example.com/prefix"
    assert Client("http://other").url == "http://other"
    monkeypatch.setenv("FASTPUBSUB_CLIENT_ID", "id")
    with pytest.raises(ValueError, match="go together"):
        Client()
    monkeypatch.setenv("FASTPUBSUB_CLIENT_SECRET", "secret")
    AsyncClient()
    with pytest.raises(ValueError, match="http://"):
        Client("localhost:8000")


async def test_an_address_with_a_path() -> None:
    def show(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://bus.example.com/prefix/topics/orders"
        return httpx.Response(404, json={"detail": "seen"})

    async with AsyncClient("http://bus.example.com/prefix/", transport=httpx.MockTransport(show)) as bus:
        with pytest.raises(NotFound, match="seen"):
            await bus.get_topic("orders")


def test_both_clients_say_what_their_methods_take() -> None:
    operations = [name for name, value in vars(Operations).items() if isinstance(value, Operation)]
    assert len(operations) == 72
    for name in operations:
        method = getattr(Client("http://localhost"), name)
        assert method.__name__ == vars(Operations)[name].build.__name__
        assert inspect.signature(method).parameters or name == "overview"
        assert inspect.signature(getattr(Client, name)) == inspect.signature(method)


def test_importing_it_is_light() -> None:
    code = f"import sys, fastpubsub.client; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
