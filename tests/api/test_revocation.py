"""Whatever waits is looked at again before anything is handed out: a walk over every route and stream that can wait."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from fastpubsub.api import security, sockets, streams
from fastpubsub.config import Settings
from fastpubsub.payloads import parse_batch
from fastpubsub.services import authenticator
from fastpubsub.services.authenticator import STATE_SECONDS
from tests.api.calls import PATIENCE, Calls
from tests.api.conftest import Tokens, app_of
from tests.attacks import KEY
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application

SECRET = "what-nobody-may-see-now"
WEBSOCKET = "WEBSOCKET"
PULL = "GET /subscriptions/{subscription_id}/messages"
SETTLE = "POST /subscriptions/{subscription_id}/pulls"
STREAM = "GET /subscriptions/{subscription_id}/stream"
TAIL = "GET /topics/{topic_id}/stream"
SOCKET = f"{WEBSOCKET} {sockets.PATH}"
WAITING = {
    PULL: "consumer_id=c&wait_seconds=20",
    SETTLE: "consumer_id=c&wait_seconds=20",
    STREAM: "consumer_id=c",
    TAIL: "",
    SOCKET: "consumer_id=c",
}
"""Every route that can wait, and what makes it wait."""


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY, wake_poll_seconds=3600)


@pytest.fixture(autouse=True)
def nothing_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look from time to time comes too late for what is handed out before it."""
    monkeypatch.setattr(streams, "CHECK_SECONDS", 3600)
    monkeypatch.setattr(security, "SLOW_SECONDS", -1.0)


@pytest.fixture
def calls(client: httpx.AsyncClient, token: Tokens) -> Calls:
    client.headers.update(token("*"))
    return Calls(client)


class Exchange:
    """One request to the application in this process, which answers it bit by bit."""

    def __init__(self, app: FastAPI, route: str, query: str, headers: dict[str, str]) -> None:
        method, path = route.split(" ")
        self.to_app: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.from_app: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        scope: dict[str, Any] = {
            "type": "websocket" if method == WEBSOCKET else "http",
            "method": method,
            "path": re.sub(r"\{\w+\}", "s", path),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "subprotocols": [],
        }
        if method == WEBSOCKET:
            self.to_app.put_nowait({"type": "websocket.connect"})
        self.asked = asyncio.Semaphore(0)
        self.task = asyncio.create_task(app(scope, self._receive, self.from_app.put))

    async def _receive(self) -> MutableMapping[str, Any]:
        self.asked.release()
        return await self.to_app.get()

    async def answer(self) -> str:
        """All of it, to its end."""
        async with asyncio.timeout(PATIENCE):
            await self.task
        return "".join(repr(self.from_app.get_nowait()) for _ in range(self.from_app.qsize()))


Wait = Callable[[str, dict[str, str]], AbstractAsyncContextManager[Exchange]]


@pytest.fixture
def waiting(client: httpx.AsyncClient, waits: asyncio.Event) -> Wait:
    """Asks a route, and returns when it waits for a message."""

    @asynccontextmanager
    async def wait(route: str, headers: dict[str, str]) -> AsyncIterator[Exchange]:
        if route == SETTLE:
            headers = headers | {"Content-Type": "application/json"}
        waits.clear()
        exchange = Exchange(app_of(client), route, WAITING[route], headers)
        if route == SETTLE:
            exchange.to_app.put_nowait({"type": "http.request", "body": b"{}", "more_body": False})
        begun = asyncio.create_task(waits.wait())
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait({begun, exchange.task}, return_when=asyncio.FIRST_COMPLETED)
            assert begun.done(), await exchange.answer()
            yield exchange
        finally:
            begun.cancel()
            exchange.task.cancel()
            await asyncio.wait({exchange.task})

    return wait


def test_the_routes_that_can_wait(client: httpx.AsyncClient) -> None:
    found = {SOCKET}
    for path, methods in app_of(client).openapi()["paths"].items():
        for method, operation in methods.items():
            names = [one["name"] for one in operation.get("parameters", [])]
            if any("wait" in name for name in names) or "text/event-stream" in repr(operation["responses"]):
                found.add(f"{method.upper()} {path}")
    assert found == WAITING.keys()


End = Callable[[Tokens], Awaitable[None]]


@pytest.fixture
def ends(client: httpx.AsyncClient, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> dict[str, End]:
    """What ends the access of a client."""

    async def put(token: Tokens, **changed: Any) -> None:
        body = {"name": "tester", "scopes": "*", **changed}
        (await client.put(f"/clients/{token.client_id}", json=body)).raise_for_status()

    async def deleted(token: Tokens) -> None:
        (await client.delete(f"/clients/{token.client_id}")).raise_for_status()

    async def elsewhere(token: Tokens) -> None:
        connection: psycopg.AsyncConnection = await connect()
        await connection.execute("select fastpubsub.delete_client(%s, null)", [token.client_id])
        clock = app_of(client).state.authenticator
        monkeypatch.setattr(clock, "_clock", lambda: time.monotonic() + STATE_SECONDS)

    async def expired(token: Tokens) -> None:
        later = SimpleNamespace(time=lambda: time.time() + 3600)
        monkeypatch.setattr(authenticator, "time", later)

    return {
        "deleted": deleted,
        "narrowed": lambda token: put(token, scopes="topics:read"),
        "disabled": lambda token: put(token, is_active=False),
        "deleted by another process": elsewhere,
        "expired": expired,
    }


async def publish(client: httpx.AsyncClient) -> None:
    """Whoever's access has ended, this works."""
    publishing = app_of(client).state.publishing
    batch = parse_batch(json.dumps([{"secret": SECRET}]).encode(), max_messages=1, max_depth=9)
    await publishing.publish("s", batch)


async def another_client(client: httpx.AsyncClient, token: Tokens) -> Tokens:
    made = (await client.post("/clients", json={"name": "c", "scopes": "*"})).raise_for_status().json()
    return Tokens(token.authenticator, UUID(made["id"]))


KINDS = ["deleted", "narrowed", "disabled", "deleted by another process", "expired"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", WAITING)
async def test_what_waits_is_not_handed_out(
    client: httpx.AsyncClient,
    calls: Calls,
    token: Tokens,
    ends: dict[str, End],
    waiting: Wait,
    route: str,
    kind: str,
) -> None:
    assert ends.keys() == set(KINDS)
    await calls.topic("s")
    await calls.subscription("s", "s")
    consumer = await another_client(client, token)
    async with waiting(route, consumer("*")) as exchange:
        await ends[kind](consumer)
        await publish(client)
        answer = await exchange.answer()
    assert SECRET not in answer
    assert ("'status': 401" if route in (PULL, SETTLE) else "the access token is ") in answer
    # It was not used up, nor an attempt of it.
    state = app_of(client).state
    claim = await state.claiming.pull("s", 1, "other", PATIENCE)
    assert claim.attempts == [1]


async def until(exchange: Exchange, part: str) -> str:
    """The first message of the application that has this part."""
    while part not in (message := repr(await exchange.from_app.get())):
        pass
    return message


async def test_what_waits_is_handed_out_otherwise(
    client: httpx.AsyncClient, calls: Calls, token: Tokens, waiting: Wait
) -> None:
    await calls.topic("s")
    for route in WAITING:
        await calls.subscription("s", "s")
        async with waiting(route, token("*")) as exchange:
            await publish(client)
            async with asyncio.timeout(PATIENCE):
                await until(exchange, SECRET)
        (await client.delete("/subscriptions/s")).raise_for_status()


async def test_a_frame_of_a_client_without_access_settles_nothing(
    client: httpx.AsyncClient, calls: Calls, token: Tokens, waiting: Wait
) -> None:
    await calls.topic("s")
    await calls.subscription("s", "s")
    consumer = await another_client(client, token)
    async with waiting(SOCKET, consumer("*")) as exchange, asyncio.timeout(PATIENCE):
        ids = await calls.publish({}, topic="s")
        await until(exchange, '"message"')  # or the stream would end before the frame comes
        (await client.delete(f"/clients/{consumer.client_id}")).raise_for_status()
        frame = {"type": "reject", "ids": ids, "reason": "x", "ref": "1"}
        await exchange.to_app.put({"type": "websocket.receive", "text": json.dumps(frame)})
        assert '"ref": "1", "status": 401' in await until(exchange, '"error"')
    assert await calls.dead_letters() == []


async def test_a_body_that_arrives_after_the_access_has_ended_does_nothing(
    client: httpx.AsyncClient, calls: Calls, token: Tokens
) -> None:
    """On every route that takes one."""
    app = app_of(client)
    consumer = await another_client(client, token)
    assert consumer.authenticator.signer is not None
    walked = 0
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation or "security" not in operation:
                continue
            walked += 1
            value = consumer.authenticator.signer.sign(consumer.client_id, "*", walked)
            headers = {"Authorization": f"Bearer {value}", "Content-Type": "application/json"}
            exchange = Exchange(app, f"{method.upper()} {path}", "", headers)
            await exchange.to_app.put({"type": "http.request", "body": b"[", "more_body": True})
            async with asyncio.timeout(PATIENCE):
                await exchange.asked.acquire()
                await exchange.asked.acquire()
            body = {"name": "c", "scopes": "*"}
            (await client.put(f"/clients/{consumer.client_id}", json=body)).raise_for_status()
            await exchange.to_app.put({"type": "http.request", "body": b"{}]", "more_body": False})
            assert "'status': 401" in await exchange.answer(), (method, path)
    assert walked > 12
