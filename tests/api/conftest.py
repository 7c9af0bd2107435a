"""Fixtures of the API's tests."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from fastpubsub.models import NewClient
from fastpubsub.scopes import ADMINISTRATOR
from fastpubsub.services import clients
from fastpubsub.services.authenticator import Authenticator
from fastpubsub.services.waiting_lines import WaitingLine
from tests.api.calls import Calls


def app_of(client: httpx.AsyncClient) -> FastAPI:
    app: FastAPI = client._transport.app  # type: ignore[attr-defined]
    return app


def one_after_the_other(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """A test that calls this method has seen the end of what the background began before."""
    lock = asyncio.Lock()
    method = getattr(owner, name)

    async def call(self: object) -> None:
        async with lock:
            await method(self)

    monkeypatch.setattr(owner, name, call)


class Tokens:
    """Tokens of one client with any scopes."""

    def __init__(self, authenticator: Authenticator, client_id: UUID) -> None:
        self.authenticator = authenticator
        self.client_id = client_id

    def __call__(self, scopes: str) -> dict[str, str]:
        assert self.authenticator.signer is not None
        return {"Authorization": f"Bearer {self.authenticator.signer.sign(self.client_id, scopes, 1)}"}


@pytest.fixture
async def token(client: httpx.AsyncClient) -> Tokens:
    state = app_of(client).state
    body = NewClient(name="tester", scopes="*")
    made = await clients.create_client(state.database, state.authenticator.hasher, body, ADMINISTRATOR)
    return Tokens(state.authenticator, made.id)


@pytest.fixture
def calls(client: httpx.AsyncClient) -> Calls:
    return Calls(client)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set by a consumer that begins to wait in a line; it stands there when `wait` returns. Clear it before another."""
    begun = asyncio.Event()
    wait = WaitingLine.wait

    async def begin(line: WaitingLine, *arguments: Any) -> bool:
        begun.set()
        return await wait(line, *arguments)

    monkeypatch.setattr(WaitingLine, "wait", begin)
    return begun
