"""Processes that push: beside servers, killed, and stopped."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests import harness
from tests.api.calls import success
from tests.conftest import StartServer
from tests.push.endpoint import KEY, OK, Endpoint, Received, Speak

PATIENCE = 120.0
HAND_OVER_SECONDS = 12.0
"""Less than others wait for one that was killed."""

TRIALS = 10
POLL_SECONDS = 0.05
SETTINGS: dict[str, object] = {
    "push_secret_key": KEY,
    "push_allow_http": True,
    "push_allow_networks": "127.0.0.0/8",
    "push_allow_ports": "*",
}
StartPush = Callable[[], harness.Server]


@pytest.fixture
def push(server_url: str, tmp_path: Path) -> Iterator[StartPush]:
    with ExitStack() as stack:

        def start() -> harness.Server:
            started = harness.start_server(["push"], tmp_path, {"database_url": server_url, **SETTINGS})
            stack.callback(started.stop)
            return started

        yield start


@pytest.fixture
async def client(server: StartServer) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server that does not push itself."""
    started = server(**SETTINGS, push_enabled=False, lease_expiry_interval_seconds=0.1)
    async with httpx.AsyncClient(base_url=started.base_url, timeout=PATIENCE) as opened:
        yield opened


async def prepare(client: httpx.AsyncClient, endpoint: Endpoint) -> None:
    success(await client.post("/topics", json={"id": "t"}), 201)
    body = {
        "id": "s",
        "topic_id": "t",
        "ack_deadline_seconds": 2,
        "max_delivery_attempts": 1000,
        "backoff_min_seconds": 0,
        "backoff_max_seconds": 0,
        "push": {"endpoint": endpoint.url, "timeout_seconds": 1.5},
    }
    success(await client.post("/subscriptions", json=body), 201)


async def publish(client: httpx.AsyncClient, count: int) -> None:
    for first in range(0, count, 500):
        messages = [{"n": number} for number in range(first, min(first + 500, count))]
        success(await client.post("/topics/t/messages", json=messages), 204)


async def until_all(client: httpx.AsyncClient, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while success(await client.get("/subscriptions/s/metrics"), 200)["acked"] < count:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(POLL_SECONDS)


def bodies(endpoint: Endpoint) -> set[bytes]:
    return {one.body for one in endpoint.received}


def numbers(count: int) -> set[bytes]:
    return {b'{"n":%d}' % number for number in range(count)}


async def test_a_server_that_does_not_push(client: httpx.AsyncClient, endpoint: Endpoint, push: StartPush) -> None:
    await prepare(client, endpoint)
    await publish(client, 10)
    assert endpoint.received == []
    started = push()
    await until_all(client, 10)
    assert bodies(endpoint) == numbers(10)
    started.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(started.process.wait, PATIENCE) == 0


async def test_one_that_stops_hands_over_at_once(
    client: httpx.AsyncClient, endpoint: Endpoint, push: StartPush
) -> None:
    await prepare(client, endpoint)
    holder, published, seconds = push(), 0, PATIENCE
    loop = asyncio.get_running_loop()
    while seconds > HAND_OVER_SECONDS:  # a busy machine takes longer, but not each time
        assert published < TRIALS
        published += 2
        await publish(client, 1)
        await until_all(client, published - 1)
        stopping, holder = holder, push()
        stopping.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(stopping.process.wait, PATIENCE) == 0
        stopped_at = loop.time()
        await publish(client, 1)
        await until_all(client, published)
        seconds = loop.time() - stopped_at


@pytest.mark.long
async def test_kills_lose_nothing(client: httpx.AsyncClient, endpoint: Endpoint, push: StartPush) -> None:
    """Between an answer and its ack, too: the endpoint kills the process when it gets some of the messages."""
    count, kills = 600, 2
    running = [push(), push()]
    killed = 0

    def answer(_: Received) -> bytes | Speak:
        nonlocal killed, running
        if len(endpoint.received) > 100 * (1 + killed) and killed < kills:
            killed += 1
            for one in running:
                one.process.send_signal(signal.SIGKILL)
            running = [push()]
        return OK

    endpoint.answers = answer
    await prepare(client, endpoint)
    await publish(client, count)
    await until_all(client, count)
    assert killed == kills
    assert bodies(endpoint) == numbers(count)


async def test_without_a_key_it_says_so(server_url: str, tmp_path: Path) -> None:
    started = harness.start_server(["push"], tmp_path, {"database_url": server_url})
    assert await asyncio.to_thread(started.process.wait, PATIENCE) == 2
    assert "FASTPUBSUB_PUSH_SECRET_KEY" in started.output()
