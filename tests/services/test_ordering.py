"""Ordered subscriptions and ordering keys, as the services of one process see them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import OutcomeUnknown
from fastpubsub.payloads import Batch
from fastpubsub.services import wakeups
from fastpubsub.services.claiming import Claim, Claiming
from fastpubsub.services.directory import Directory
from fastpubsub.services.exchanging import Exchanging, Part
from fastpubsub.services.publishing import Idempotency, Published, Publishing
from fastpubsub.services.settling import ACK, NACK, REJECT, SETTLED, Kind, Settling
from fastpubsub.services.wakeups import Wakeups
from tests.api.calls import PATIENCE, until_blocked
from tests.conftest import Connect
from tests.proxy import Proxy, Stage

MakeSettings = Callable[..., Settings]


class Services:
    def __init__(self, database: Database, settings: Settings) -> None:
        self.wakeups = Wakeups(database, settings)
        shared = (database, Directory(database), settings, Counters(CollectorRegistry(), 10), self.wakeups)
        self.publishing, self.claiming, self.settling = Publishing(*shared), Claiming(*shared), Settling(*shared)
        self.exchanging = Exchanging(*shared, self.claiming, self.settling)

    async def close(self) -> None:
        for service in (self.publishing, self.claiming, self.settling, self.exchanging):
            await service.close()

    async def publish(self, *payloads: str, key: str = "a", idempotency: str | None = None) -> Published:
        given = [payload.encode() for payload in payloads]
        keys: list[str | None] = [key] * len(given)
        batch = Batch(given, None, sum(map(len, given)), ordering_keys=keys)
        once = None if idempotency is None else Idempotency("client", idempotency, b"hash")
        published = await self.publishing.publish("t", batch, once)
        assert published is not None
        return published

    async def pull(self, consumer: str, limit: int = 1, seconds: float = PATIENCE) -> Claim:
        return await self.claiming.pull("s", limit, consumer, seconds)

    async def read_to_the_end(self) -> None:
        """Of the log, which a slow machine reads in several claims: what is left of it would wake somebody."""
        while (await self.pull("reader", seconds=0)).more:
            pass

    async def until_waiting(self, pulls: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while sum(len(waits) for _, waits in self.wakeups.lines.pulls()) < pulls:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)


@pytest.fixture
async def services(database: Database, settings: Settings) -> AsyncIterator[Services]:
    await database.fetch_one("create_topic", "t")
    ordered = (None, 60, 5, 0, 300, "latest", None, None, None, True)
    await database.fetch_one("create_subscription", "s", "t", *ordered)
    opened = Services(database, settings)
    yield opened
    await opened.close()


@pytest.fixture
def called(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The procedures that were called."""
    names: list[str] = []
    fetch_all = database.fetch_all

    def record(procedure: str, *arguments: object) -> Coroutine[Any, Any, list[Any]]:
        names.append(procedure)
        return fetch_all(procedure, *arguments)

    monkeypatch.setattr(database, "fetch_all", record)
    return names


def ids(claim: Claim) -> list[str]:
    places = zip(claim.positions, claim.created_at, strict=True)
    return [id_ for place in places for id_ in Published(claim.keys.topic_key, *place, 1).ids()]


@pytest.mark.parametrize(("kind", "value"), [(ACK, None), (REJECT, "broken")])
async def test_who_waits_gets_the_next_message_of_a_key_in_the_call_that_settles(
    services: Services, called: list[str], kind: Kind, value: str | None
) -> None:
    await services.publish("1", "2")
    first = await services.pull("one")
    waiting = asyncio.create_task(services.pull("two"))
    await services.until_waiting()
    called.clear()
    assert await services.settling.settle(kind, "s", ids(first), value) == [SETTLED]
    assert ((await waiting).positions, called) == ([2], ["settle_and_claim_2"])


async def test_those_who_wait_get_the_messages_of_a_key_one_after_the_other(services: Services) -> None:
    await services.publish("1", "2", "3")
    first = await services.pull("one")
    waiting = [asyncio.create_task(services.pull(name)) for name in ("two", "three")]
    await services.until_waiting(2)
    assert await services.settling.settle(ACK, "s", ids(first)) == [SETTLED]
    second = await waiting[0]
    assert second.positions == [2]
    await services.settling.settle(ACK, "s", ids(second))
    assert (await waiting[1]).positions == [3]


async def test_a_full_claim_that_leaves_nothing_wakes_nobody_else(services: Services, called: list[str]) -> None:
    await services.publish("1", "2", "3")
    first = await services.pull("one")
    await services.read_to_the_end()
    waiting = [asyncio.create_task(services.pull(name)) for name in ("two", "three")]
    await services.until_waiting(2)
    called.clear()
    assert await services.settling.settle(ACK, "s", ids(first)) == [SETTLED]
    second = await waiting[0]
    assert (second.positions, called) == ([2], ["settle_and_claim_2"])
    assert [len(waits) for _, waits in services.wakeups.lines.pulls()] == [1]
    await services.settling.settle(ACK, "s", ids(second))
    assert (await waiting[1]).positions == [3]


async def test_who_waits_learns_when_what_was_freed_is_due(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that an ack frees goes on with a message that waits for its time: nothing to claim now, but soon."""
    await services.publish("1", "2")
    held = await services.pull("one", 2)
    first, second = ids(held)
    monkeypatch.setattr(services.wakeups, "_poll_seconds", 10 * PATIENCE)
    monkeypatch.setattr(wakeups, "HEARD_SECONDS", 10 * PATIENCE)
    has_looked = asyncio.Event()
    tell_all = services.wakeups._tell_all

    def tell(*arguments: Any) -> None:
        tell_all(*arguments)
        has_looked.set()

    monkeypatch.setattr(services.wakeups, "_tell_all", tell)
    looking = asyncio.create_task(services.wakeups.run())
    try:
        assert await services.settling.settle(NACK, "s", [second], 1) == [SETTLED]
        waiting = asyncio.create_task(services.pull("two"))
        await services.until_waiting()
        # What a new line finds by itself is over.
        async with asyncio.timeout(PATIENCE):
            await has_looked.wait()
        assert await services.settling.settle(ACK, "s", [first]) == [SETTLED]
        assert (await waiting).positions == [2]
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def test_a_full_claim_that_leaves_something_wakes_the_next(services: Services) -> None:
    for key in ("a", "b"):
        await services.publish("1", "2", key=key)
    first = await services.pull("one", 3)
    assert first.positions == [1, 2, 3]
    waiting = [asyncio.create_task(services.pull(name)) for name in ("two", "three")]
    await services.until_waiting(2)
    assert await services.settling.settle(ACK, "s", ids(first)) == [SETTLED] * 3
    assert (await waiting[0]).positions == [4]
    await services.publish("3")
    await services.publish("3", key="c")
    assert (await waiting[1]).positions == [5]


async def test_a_pull_that_settles_makes_room_for_who_waits(services: Services, called: list[str]) -> None:
    await services.publish("1", "2")
    first = await services.pull("one")
    waiting = asyncio.create_task(services.pull("two"))
    await services.until_waiting()
    called.clear()
    parts = [Part("acks", ACK, ids(first))]
    exchanged = await services.exchanging.exchange("s", parts, 1, "one", waits=True)
    assert (exchanged.outcomes, exchanged.claim.positions) == ([[SETTLED]], [])
    assert ((await waiting).positions, called) == ([2], ["settle_and_claim_2"])


async def test_a_nack_wakes_nobody_who_could_get_nothing(services: Services, called: list[str]) -> None:
    await services.publish("1", "2")
    first = await services.pull("one")
    waiting = asyncio.create_task(services.pull("two"))
    await services.until_waiting()
    called.clear()
    assert await services.settling.settle(NACK, "s", ids(first), 3600) == [SETTLED]
    assert called == ["settle_and_claim_2"]
    assert not waiting.done()
    waiting.cancel()


async def test_a_consumer_that_goes_away_as_it_is_served_gives_its_messages_back(services: Services) -> None:
    await services.publish("1", "2")
    first = await services.pull("one")
    waiting = asyncio.create_task(services.pull("two"))
    await services.until_waiting()
    acking = asyncio.create_task(services.settling.settle(ACK, "s", ids(first)))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await acking == [SETTLED]
    await services.close()
    again = await services.pull("three")
    assert (again.positions, again.attempts) == ([2], [1])


async def test_what_one_client_publishes_keeps_its_order_among_others(services: Services, connect: Connect) -> None:
    """It does not wait for an answer before it sends the next; all of it waits for one call, and goes in the next."""
    async with (blocker := await connect()).transaction():
        await blocker.execute("select from fastpubsub.heads for update")
        tasks = [asyncio.create_task(services.publish("0"))]
        await until_blocked(await connect())
        for number in range(1, 10):
            tasks.append(asyncio.create_task(services.publish(f"{number}", f"{number}.5")))
            tasks.append(asyncio.create_task(services.publish("9", key="of another")))
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    claim = await services.pull("one", 100)
    keyed = zip(claim.payloads, claim.ordering_keys or [], strict=True)
    own = [float(payload) for payload, key in keyed if key == "a"]
    assert own == sorted(own)
    assert len(own) == 19


@pytest.mark.parametrize("stage", Stage)
async def test_a_client_that_repeats_what_had_no_answer_keeps_its_order(
    services: Services, database_url: str, make_settings: MakeSettings, stage: Stage
) -> None:
    async with Proxy(database_url) as proxy:
        settings = make_settings(database_url=proxy.url)
        database = Database(settings)
        far = Services(database, settings)
        try:
            for number in range(5):
                if number in (1, 3):
                    cut = proxy.cut_call("publish_messages_once", stage)
                    with pytest.raises(OutcomeUnknown):
                        await far.publish(f"{number}", idempotency=f"{number}")
                    assert cut.is_set()
                await far.publish(f"{number}", idempotency=f"{number}")
        finally:
            await far.close()
            await database.close()
    claim = await services.pull("one", 100)
    assert claim.payloads == [b"%d" % number for number in range(5)]
