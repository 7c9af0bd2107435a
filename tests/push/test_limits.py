"""Limits of a subscription hold for pushes, too."""

import asyncio
from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import Unavailable
from fastpubsub.services import wakeups
from tests.api.calls import Calls, success
from tests.api.conftest import app_of
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


class TestWithoutPolls:
    """Nothing wakes who has missed a signal."""

    @pytest.fixture
    def settings(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
        for name in ("POLL_SECONDS_WITHOUT_LISTEN", "HEARD_SECONDS"):
            monkeypatch.setattr(wakeups, name, 3600.0)
        return settings.model_copy(update={"wake_poll_seconds": 3600})

    async def test_a_claim_that_failed_is_made_again(
        self, calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a dispatcher that waited, since it had taken all that there was."""
        await calls.topic()
        await calls.subscription(push={"endpoint": endpoint.url})
        await calls.publish({"n": 1})
        await endpoint.until(1)
        state = app_of(client).state
        line = state.wakeups.lines.find(await state.directory.subscriptions.key("s"))
        async with asyncio.timeout(PATIENCE):
            while not line.is_waiting:  # noqa: ASYNC110 - nobody tells it
                await asyncio.sleep(0)
        failing = Failing(state.database, "claim_messages_2", monkeypatch)
        await calls.publish({"n": 2})
        await endpoint.until(2)
        assert failing.failed


class Failing:
    """A call of one procedure that fails once."""

    def __init__(self, database: Database, procedure: str, monkeypatch: pytest.MonkeyPatch) -> None:
        fetch = database.fetch_one
        self.failed = False

        async def once(name: str, *arguments: Any, **more: Any) -> Any:
            if name == procedure and not self.failed:
                self.failed = True
                raise Unavailable("the database is away")
            return await fetch(name, *arguments, **more)

        monkeypatch.setattr(database, "fetch_one", once)
