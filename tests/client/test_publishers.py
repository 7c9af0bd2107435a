"""Publishing in the background: order, bounds, and an answer for everybody."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from fastpubsub.client import (
    AsyncClient,
    AsyncPublisher,
    Client,
    Closed,
    InvalidRequest,
    Limits,
    NotFound,
    TooLarge,
    Unavailable,
)
from tests.client.conftest import QUICK

SECONDS = 60.0
HOUR = 3600.0


class Server:
    """Stores what it is sent, but for messages that say otherwise: `{"refuse": 422}`."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.keys: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        batch = json.loads(request.content)
        self.keys.append(request.headers["Idempotency-Key"])
        for message in batch:
            if "refuse" in message:
                return httpx.Response(message["refuse"], json={"detail": "no"})
        self.batches.append(batch)
        return httpx.Response(201, json={"ids": [str(message["n"]) for message in batch]})


class Gate(Server):
    """Answers nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.asked = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        assert self.open.wait(SECONDS)
        return super().__call__(request)


def in_order(batches: list[list[Any]]) -> list[int]:
    return [message["n"] for batch in batches for message in batch]


class TestAsynchronous:
    @pytest.fixture
    def server(self) -> Server:
        return Server()

    @pytest.fixture
    async def client(self, server: Server) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(transport=httpx.MockTransport(server), policy=QUICK) as client:
            yield client

    async def test_callers_of_a_large_batch_are_answered_while_the_next_is_on_its_way(
        self, client: AsyncClient, server: Server
    ) -> None:
        """Each caller publishes again when it is answered, and never do all of them wait for one request."""
        callers, rounds = 500, 8

        async def call(publisher: AsyncPublisher, place: int) -> None:
            for number in range(place, callers * rounds, callers):
                assert await publisher.publish("orders", {"n": number}) == str(number)

        async with asyncio.timeout(SECONDS), client.publisher() as publisher:
            await asyncio.gather(*(call(publisher, place) for place in range(callers)))
        assert sorted(in_order(server.batches)) == list(range(callers * rounds))
        first, *others = map(len, server.batches)
        assert first == callers
        assert max(others) < callers

    async def test_messages_travel_together_and_in_order(self, client: AsyncClient, server: Server) -> None:
        async with client.publisher() as publisher:
            ids = await asyncio.gather(*(publisher.publish("orders", {"n": n}) for n in range(2000)))
        assert ids == [str(n) for n in range(2000)]
        assert in_order(server.batches) == list(range(2000))
        assert len(server.batches) < 20
        assert max(len(batch) for batch in server.batches) == Limits().max_messages

    async def test_a_batch_has_a_size(self, client: AsyncClient, server: Server) -> None:
        async with client.publisher(Limits(max_bytes=100)) as publisher:
            for n in range(10):
                await publisher.enqueue("orders", {"n": n, "text": "x" * 30})
            await publisher.enqueue("orders", {"n": 10, "text": "x" * 300})
        assert [len(batch) for batch in server.batches] == [2, 2, 2, 2, 2, 1]

    async def test_a_full_batch_does_not_linger(self, client: AsyncClient, server: Server) -> None:
        async with asyncio.timeout(SECONDS), client.publisher(Limits(linger=HOUR, max_messages=3)) as publisher:
            futures = [await publisher.enqueue("orders", {"n": n}) for n in range(3)]
            assert await asyncio.gather(*futures) == ["0", "1", "2"]
            late = await publisher.enqueue("orders", {"n": 3})
            await publisher.flush()
            assert late.result() == "3"

    async def test_only_the_one_that_is_refused_fails(self, client: AsyncClient, server: Server) -> None:
        async with client.publisher() as publisher:
            payloads: list[dict[str, int]] = [{"n": n} for n in range(16)]
            payloads[3]["refuse"], payloads[11]["refuse"] = 422, 413
            futures = [await publisher.enqueue("orders", payload) for payload in payloads]
            results = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(results[3], InvalidRequest)
        assert isinstance(results[11], TooLarge)
        assert Counter(type(result) for result in results)[str] == 14
        assert in_order(server.batches) == [n for n in range(16) if n not in (3, 11)]
        assert len(set(server.keys)) == len(server.keys)

    async def test_topics_do_not_share_an_error(self, transport: httpx.ASGITransport, bus: AsyncClient) -> None:
        await bus.create_topic("orders")
        async with bus.publisher() as publisher:
            there = await publisher.enqueue("orders", {"n": 1}, {"source": "shop"})
            nowhere = await publisher.enqueue("nowhere", {"n": 2})
        assert await there
        with pytest.raises(NotFound):
            await nowhere

    async def test_memory_is_bounded(self, client: AsyncClient, server: Server) -> None:
        limits = Limits(linger=HOUR, max_messages=2, max_pending=2)
        async with asyncio.timeout(SECONDS), client.publisher(limits) as publisher:
            first = await publisher.enqueue("orders", {"n": 0})
            await publisher.enqueue("orders", {"n": 1})
            await publisher.enqueue("orders", {"n": 2})
            assert first.done()

    async def test_everybody_is_answered_when_the_server_is_away(self) -> None:
        busy = httpx.MockTransport(lambda _: httpx.Response(503, headers={"Retry-After": "60"}))
        async with AsyncClient(transport=busy, policy=QUICK) as client, client.publisher() as publisher:
            futures = [await publisher.enqueue("orders", {"n": n}) for n in range(3)]
            errors = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(error) for error in errors] == [Unavailable] * 3

    async def test_everybody_is_answered_when_the_client_is_closed(self) -> None:
        client = AsyncClient(transport=httpx.MockTransport(Server()))
        await client.close()
        async with client.publisher() as publisher:
            with pytest.raises(RuntimeError, match="closed"):
                await publisher.publish("orders", {"n": 1})

    async def test_a_caller_that_goes_away(self, client: AsyncClient, server: Server) -> None:
        async with client.publisher() as publisher:
            (await publisher.enqueue("orders", {"n": 1})).cancel()
            assert await publisher.publish("orders", {"n": 2}) == "2"
        assert in_order(server.batches) == [1, 2]

    async def test_nothing_after_closing(self, client: AsyncClient) -> None:
        async with client.publisher() as publisher:
            pass
        with pytest.raises(Closed):
            await publisher.publish("orders", {})


class TestSynchronous:
    @pytest.fixture
    def server(self) -> Server:
        return Server()

    @pytest.fixture
    def client(self, server: Server) -> Iterator[Client]:
        with Client(transport=httpx.MockTransport(server), policy=QUICK) as client:
            yield client

    def test_messages_travel_together_and_in_order(self, client: Client, server: Server) -> None:
        with client.publisher(Limits(linger=1)) as publisher:
            futures = [publisher.publish("orders", {"n": n}) for n in range(2000)]
        assert [future.result() for future in futures] == [str(n) for n in range(2000)]
        assert in_order(server.batches) == list(range(2000))
        assert len(server.batches) < 200

    def test_flushing_does_not_wait_for_the_linger(self, client: Client) -> None:
        with client.publisher(Limits(linger=HOUR)) as publisher:
            future = publisher.publish("orders", {"n": 1})
            run(publisher.flush)
            assert future.result(0) == "1"
            full = [publisher.publish("orders", {"n": n}) for n in range(Limits().max_messages)]
            assert full[-1].result(SECONDS)

    def test_only_the_one_that_is_refused_fails(self, client: Client, server: Server) -> None:
        with client.publisher() as publisher:
            futures = [publisher.publish("orders", {"n": n, **({"refuse": 422} if n == 5 else {})}) for n in range(9)]
        assert [n for n, future in enumerate(futures) if future.exception()] == [5]

    def test_memory_is_bounded(self) -> None:
        gate = Gate()
        transport = httpx.MockTransport(gate)
        with Client(transport=transport) as client, client.publisher(Limits(linger=0, max_pending=3)) as publisher:
            for n in range(3):
                publisher.publish("orders", {"n": n})
            assert gate.asked.wait(SECONDS)
            waits: Future[Future[str]] = Future()
            thread = threading.Thread(target=lambda: waits.set_result(publisher.publish("orders", {"n": 3})))
            thread.start()
            assert not waits.done()
            gate.open.set()
            assert waits.result(SECONDS).result(SECONDS) == "3"
            thread.join(SECONDS)
        assert in_order(gate.batches) == [0, 1, 2, 3]

    def test_nothing_after_closing(self, client: Client) -> None:
        publisher = client.publisher()
        publisher.close()
        publisher.close()
        with pytest.raises(Closed):
            publisher.publish("orders", {})


def run(function: Callable[[], None]) -> None:
    """Fails instead of hanging."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()
