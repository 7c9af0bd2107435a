"""What requests share: remembered keys, calls in flight, and messages that go back."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import NotFound
from fastpubsub.payloads import Batch
from fastpubsub.services.claiming import Claim, Claiming
from fastpubsub.services.directory import Directory
from fastpubsub.services.publishing import Publishing
from fastpubsub.services.settling import ACK, EXTEND, GONE, NACK, SETTLED, STALE, Settling
from fastpubsub.services.wakeups import Wakeups
from tests.api.calls import PATIENCE, until_blocked
from tests.conftest import Connect


class Messages:
    """The three services, as an application has them."""

    def __init__(self, database: Database, settings: Settings) -> None:
        counters = Counters(CollectorRegistry(), 10)
        shared = (database, Directory(database), settings, counters, Wakeups(database, settings))
        self.publishing, self.claiming, self.settling = Publishing(*shared), Claiming(*shared), Settling(*shared)
        self.publish, self.pull, self.give_back = self.publishing.publish, self.claiming.pull, self.claiming.give_back
        self.settle = self.settling.settle

    async def close(self) -> None:
        for service in (self.publishing, self.claiming, self.settling):
            await service.close()


@pytest.fixture
async def messages(database: Database, settings: Settings) -> AsyncIterator[Messages]:
    opened = Messages(database, settings)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
async def topic_and_subscription(database: Database) -> None:
    await create(database)


async def create(database: Database) -> None:
    await database.fetch_one("create_topic", "t")
    await database.fetch_one("create_subscription", "s", "t", None, 60, 5, 0, 300)


async def publish(messages: Messages, *numbers: int) -> list[str]:
    payloads = [b'{"n":%d}' % number for number in numbers]
    published = await messages.publish("t", Batch(payloads, None, sum(map(len, payloads))))
    assert published is not None
    return published.ids()


async def pull(messages: Messages, limit: int = 10) -> Claim:
    return await messages.pull("s", limit, "c")


def numbers(claim: Claim) -> list[int]:
    return [int(payload.removeprefix(b'{"n":').removesuffix(b"}")) for payload in claim.payloads]


# keys that are remembered


async def test_a_topic_that_another_process_made_anew(messages: Messages, database: Database) -> None:
    await publish(messages, 1)
    await database.fetch_one("delete_topic", "t")
    await create(database)
    await publish(messages, 2)
    assert numbers(await pull(messages)) == [2]


async def test_a_subscription_that_another_process_made_anew(messages: Messages, database: Database) -> None:
    await publish(messages, 1)
    assert numbers(await pull(messages)) == [1]
    await database.fetch_one("delete_subscription", "s")
    await database.fetch_one("create_subscription", "s", "t", None, 60, 5, 0, 300, "earliest")
    assert numbers(await pull(messages)) == [1]


async def test_settling_in_a_subscription_that_another_process_made_anew(
    messages: Messages, database: Database
) -> None:
    for settled in (True, False):
        ids = await publish(messages, 1)
        await pull(messages)
        if not settled:
            await database.fetch_one("delete_subscription", "s")
            await database.fetch_one("create_subscription", "s", "t", None, 60, 5, 0, 300, "latest")
        assert await messages.settle(ACK, "s", ids) == [SETTLED if settled else GONE]


async def test_what_another_process_deleted(messages: Messages, database: Database) -> None:
    ids = await publish(messages, 1)
    await pull(messages)
    await database.fetch_one("delete_topic", "t")
    for _ in range(2):
        with pytest.raises(NotFound, match='topic "t" does not exist'):
            await publish(messages, 1)
        with pytest.raises(NotFound, match='topic "t" does not exist'):
            await messages.publish("t", Batch([], None, 2))
        with pytest.raises(NotFound, match='subscription "s" does not exist'):
            await pull(messages)
        for kind in (ACK, NACK, EXTEND):
            for some in (ids, []):
                with pytest.raises(NotFound, match='subscription "s" does not exist'):
                    await messages.settle(kind, "s", some, 5 if kind is EXTEND else None)


# messages that go back


async def test_what_is_given_back_is_due_at_once_and_has_lost_no_attempt(messages: Messages) -> None:
    await publish(messages, 1, 2)
    claim = await pull(messages)
    messages.give_back(claim)
    await messages.close()
    again = await pull(messages)
    assert (numbers(again), again.attempts) == ([1, 2], [1, 1])
    messages.give_back(claim)
    await messages.close()
    assert (await pull(messages)).positions == [], "only the delivery that is given back goes back"


async def test_nothing_to_give_back(messages: Messages) -> None:
    messages.give_back(await pull(messages))
    await messages.close()


async def test_a_consumer_that_leaves_while_its_call_runs(messages: Messages, connect: Connect) -> None:
    """The other one, in the same call, keeps what is its own."""
    await publish(messages, *range(1, 9))
    await pull(messages, 2)
    async with (blocker := await connect()).transaction():
        await blocker.execute("select from fastpubsub.cursors for update")
        first = asyncio.create_task(pull(messages, 2))
        await until_blocked(await connect())
        second, third = asyncio.create_task(pull(messages, 2)), asyncio.create_task(pull(messages, 2))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    kept = await third
    await messages.close()
    rest = await pull(messages)
    assert sorted(numbers(kept) + numbers(rest)) == list(range(3, 9))
    assert len(kept.positions) == 2
    assert set(rest.attempts) == {1}


async def test_a_database_that_is_away_when_something_is_given_back(
    messages: Messages, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(messages, 1)
    claim = await pull(messages)
    connection: psycopg.AsyncConnection = await connect()
    await connection.execute("alter function fastpubsub.return_leases rename to gone")
    messages.give_back(claim)
    await messages.close()
    assert "they come again after their ack deadline" in caplog.text


# stopping


async def test_what_was_accepted_is_finished(messages: Messages, connect: Connect) -> None:
    await publish(messages, 5)
    async with (blocker := await connect()).transaction():
        await blocker.execute("select from fastpubsub.heads for update")
        publishing = [asyncio.create_task(publish(messages, number)) for number in range(5)]
        await until_blocked(await connect())
        closing = asyncio.create_task(messages.close())
        await asyncio.sleep(0)
        assert not closing.done()
    await closing
    await asyncio.wait_for(asyncio.gather(*publishing), PATIENCE)
    assert sorted(numbers(await pull(messages))) == list(range(6))


# what many wait for


async def test_each_gets_its_own_outcomes(messages: Messages, connect: Connect) -> None:
    ids = await publish(messages, 1, 2, 3)
    await pull(messages)
    async with (blocker := await connect()).transaction():
        await blocker.execute("select from fastpubsub.cursors for update")
        await blocker.execute("select from fastpubsub.leases for update")
        waiting = [asyncio.create_task(messages.settle(NACK, "s", [ids[0]], 0))]
        await until_blocked(await connect())
        waiting += [
            asyncio.create_task(messages.settle(NACK, "s", [ids[0], ids[1]], 3600)),
            asyncio.create_task(messages.settle(NACK, "s", [ids[2]], 0)),
        ]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == [[SETTLED], [GONE, SETTLED], [SETTLED]]
    again = await pull(messages)
    assert numbers(again) == [1, 3], "each waits as long as its own request says"
    assert STALE not in await messages.settle(ACK, "s", ids)
