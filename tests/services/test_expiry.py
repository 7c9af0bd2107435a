"""Telling which subscriptions are used."""

import asyncio
from typing import Any, cast

import pytest

from fastpubsub.database.calls import Database
from fastpubsub.exceptions import Unavailable
from fastpubsub.services import expiry
from fastpubsub.services.claiming import Claiming
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.expiry import Uses
from fastpubsub.services.waiting_lines import WaitingLines

KEYS = SubscriptionKey(1, 2)
OTHER = SubscriptionKey(3, 4)
SECONDS = 60.0


class Claims:
    """Of a process that claimed once."""

    def __init__(self) -> None:
        self.claimed = {KEYS}

    def take_claimed(self) -> set[SubscriptionKey]:
        claimed, self.claimed = self.claimed, set()
        return claimed

    def put_back(self, claimed: set[SubscriptionKey]) -> None:
        self.claimed |= claimed


class Told:
    """A database that is away at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls: list[tuple[Any, ...]] = []
        self.has_told = asyncio.Event()

    async def fetch_one(self, *call: object) -> tuple[object, ...]:
        self.calls.append(call)
        if len(self.calls) <= self.failures:
            raise Unavailable("away")
        self.has_told.set()
        return ()


async def test_what_could_not_be_told_is_told_soon_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "WRITE_SECONDS", 0.01)
    monkeypatch.setattr(expiry, "AGAIN_SECONDS", 0.01)
    told = Told(failures=2)
    lines = WaitingLines(10, lambda _: None)
    running = asyncio.create_task(Uses(cast(Database, told), cast(Claiming, Claims()), lines).run())
    async with asyncio.timeout(SECONDS):
        await told.has_told.wait()
    running.cancel()
    assert [call[0] for call in told.calls[:3]] == ["record_uses"] * 3


async def test_a_process_that_does_not_live_long_has_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who came when it had nothing to tell at first, and of those who came after it had told of others."""
    monkeypatch.setattr(expiry, "WRITE_SECONDS", 10 * SECONDS)
    monkeypatch.setattr(expiry, "AGAIN_SECONDS", 0.001)
    told, claims = Told(failures=0), Claims()
    claims.claimed.clear()
    looked = asyncio.Event()
    take_claimed = claims.take_claimed

    def take() -> set[SubscriptionKey]:
        looked.set()
        return take_claimed()

    monkeypatch.setattr(claims, "take_claimed", take)
    lines = WaitingLines(10, lambda _: None)
    running = asyncio.create_task(Uses(cast(Database, told), cast(Claiming, claims), lines).run())
    async with asyncio.timeout(SECONDS):
        await looked.wait()
        claims.claimed.add(KEYS)
        await told.has_told.wait()
        told.has_told.clear()
        claims.claimed.add(OTHER)
        await told.has_told.wait()
    running.cancel()
    assert [told_of.items for _, told_of, _ in told.calls] == [[KEYS.topic_key], [OTHER.topic_key]]


async def test_nobody_who_wants_nothing_is_told_of() -> None:
    told = Told(failures=0)
    claims = Claims()
    uses = Uses(cast(Database, told), cast(Claiming, claims), WaitingLines(10, lambda _: None))
    await uses.write()
    await uses.write()
    assert len(told.calls) == 1
