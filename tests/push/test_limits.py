"""Limits of a subscription hold for pushes, too."""

import asyncio
from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import Calls, success
from tests.push.endpoint import OK, PATIENCE, Endpoint, Received, Speak
from tests.push.test_ordered import once


@pytest.mark.parametrize(("limit", "value", "more"), [("rate_limit", 0.00001, 1000), ("max_in_flight", 1, 0)])
async def test_an_endpoint_gets_no_more(
    calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint, limit: str, value: float, more: int
) -> None:
    """What is pushed at once is claimed at once: the first claim would have taken all."""
    endpoint.answers = once(answering := asyncio.Event())
    await calls.topic()
    settings: dict[str, Any] = {limit: value}
    await calls.subscription(**settings)
    success(await client.post("/topics/t/messages", json=[{"n": 1}, {"n": 2}, {"n": 3}]), 204)
    success(await client.patch("/subscriptions/s", json={"push": {"endpoint": endpoint.url}}), 200)
    await endpoint.until(1)
    assert (await calls.counts())[0] == 2
    success(await client.patch("/subscriptions/s", json={limit: more}), 200)
    await endpoint.until(3)
    answering.set()


class TestSilentEndpoints:
    """As many endpoints that never answer as there are places."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"push_max_in_flight": 2})

    async def test_one_that_answers_gets_its_message_meanwhile(
        self, calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint
    ) -> None:
        seen: set[str] = set()
        both_failed, hanging, got = asyncio.Event(), asyncio.Event(), asyncio.Event()

        def answers(received: Received) -> bytes | Speak:
            if received.path == "/good":
                got.set()
                return OK
            if received.path in seen:
                return hangs(hanging)
            seen.add(received.path)
            if len(seen) == 2:
                both_failed.set()
            return resets

        endpoint.answers = answers
        await calls.topic()
        for name in ("silent-1", "silent-2"):
            await subscribe(client, name, endpoint)
        async with asyncio.timeout(PATIENCE):
            success(await client.post("/topics/t/messages", json=[{"n": 1}]), 204)
            await both_failed.wait()
            await hanging.wait()
            await subscribe(client, "good", endpoint)
            success(await client.post("/topics/t/messages", json=[{"n": 2}]), 204)
            await got.wait()


async def subscribe(client: httpx.AsyncClient, name: str, endpoint: Endpoint) -> None:
    push = {"endpoint": f"http://127.0.0.1:{endpoint.port}/{name}", "timeout_seconds": 55}
    body = {"id": name, "topic_id": "t", "ack_deadline_seconds": 60, "backoff_min_seconds": 0, "push": push}
    success(await client.post("/subscriptions", json=body), 201)


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def hangs(hanging: asyncio.Event) -> Speak:
    async def speak(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        hanging.set()
        await reader.read()

    return speak
