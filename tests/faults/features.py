"""What a load has beside publishers and consumers: a schedule, consumers whose acks commit with something else, and
somebody who looks after dead letters that hold their keys.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import OperationalError

from tests.faults.callers import Caller, Consumer, number_of
from tests.faults.history import Kind, Number
from tests.faults.plan import EVERY, MOVED, TICKS
from tests.faults.wire import PAUSE_SECONDS, NoAnswerError, NotSentError, patiently

if TYPE_CHECKING:
    from tests.faults.load import Load

DYING = 0.03
"""How often a transaction of an application ends between two of its statements."""

REVIVING = 0.3
CARE_SECONDS = 0.5
NO_LONGER_HELD = 410
BOOKED = "create table booked (publisher text, request int, place int)"
STILL_TO_COME = "select (select count(*) from fastpubsub.delayed_messages) + (select count(*) from fastpubsub.outbox)"
SCHEDULE = f"/topics/{TICKS}/schedules/{EVERY}"


class MovingConsumer(Consumer):
    """Publishes what it acks to another topic, in one transaction."""

    async def ack(self, acks: dict[str, Number]) -> None:
        settles = [{"subscription_id": self.subscription.name, "acks": list(acks)}]
        messages = [{"payload": number.payload()} for number in acks.values()]
        body = {"settles": settles, "publishes": [{"topic_id": MOVED, "messages": messages}]}
        sent = {"subscription": self.subscription.name, "ids": list(acks), "publishes": list(acks.values())}
        answer = None
        while acks and answer is None:
            answer = await self.call("transaction", "POST", "/transactions", sent, body, final=NO_LONGER_HELD)
        if answer is not None and answer.status != NO_LONGER_HELD:
            self.load.acked[self.subscription.name] += len(acks)


class BookingConsumer(Consumer):
    """Writes what it acks into a table, in one transaction; and dies between two statements of it now and then."""

    async def ack(self, acks: dict[str, Number]) -> None:
        if not acks:
            return
        name = self.subscription.name
        self.load.history.add(self.name, Kind.INVOKE, "acks", subscription=name, ids=list(acks))
        outcome = await self.book(acks)
        settled = {"settled": list(acks), "gone": [], "stale": []} if outcome is Kind.OK else {}
        self.load.history.add(self.name, outcome, "acks", **settled)
        if outcome is Kind.OK:
            self.load.acked[name] += len(acks)
        else:
            await asyncio.sleep(PAUSE_SECONDS)

    async def book(self, acks: dict[str, Number]) -> Kind:
        steps: list[tuple[str, list[Any]]] = [
            ("insert into booked select * from unnest(%s::text[], %s::int[], %s::int[])", columns(acks)),
            ("select fastpubsub.ack(%s, %s)", [self.subscription.name, list(acks)]),
        ]
        return await run_transaction(self, steps)


def columns(acks: dict[str, Number]) -> list[Any]:
    return [list(column) for column in zip(*acks.values(), strict=True)]


async def run_transaction(caller: Caller, steps: list[tuple[str, list[Any]]]) -> Kind:
    """Of an application, which ends between two statements of it now and then."""
    try:
        connection = await psycopg.AsyncConnection.connect(caller.load.database_url, autocommit=True)
    except OperationalError:
        return Kind.REFUSED
    try:
        for statement, arguments in [("begin", []), *steps]:
            await connection.execute(statement.encode(), arguments or None)
            if caller.load.is_failing and caller.random.random() < DYING:
                return Kind.REFUSED
    except psycopg.Error:
        return Kind.REFUSED
    else:
        return await commit(connection)
    finally:
        await connection.close()


async def commit(connection: psycopg.AsyncConnection) -> Kind:
    """Without an answer nobody knows; an error of PostgreSQL has rolled all of it back."""
    try:
        await connection.execute("commit")
    except psycopg.Error as error:
        is_lost = isinstance(error, OperationalError) or connection.closed
        return Kind.UNKNOWN if is_lost else Kind.REFUSED
    return Kind.OK


class Warden(Caller):
    """Purges or reprocesses what has become a dead letter."""

    def __init__(self, load: "Load", subscription: str) -> None:
        super().__init__(load, f"{subscription}.warden")
        self.subscription = subscription

    async def run(self) -> None:
        while True:
            await asyncio.sleep(CARE_SECONDS)
            with suppress(NotSentError, NoAnswerError):
                answer = await self.wire.ask("GET", f"/subscriptions/{self.subscription}/dlq?limit=100")
                if answer.status == 200:
                    await self.care(answer.json()["data"])

    async def care(self, letters: list[dict[str, Any]]) -> None:
        for letter in letters:
            revives = self.random.random() < REVIVING
            sent = {"subscription": self.subscription, "numbers": [number_of(letter)], "revives": revives}
            method, rest = ("POST", "/reprocess") if revives else ("DELETE", "")
            await self.call("purge", method, f"/subscriptions/{self.subscription}/dlq{rest}", sent, [letter["id"]])


CONSUMERS = {"alone": Consumer, "with publishes": MovingConsumer, "with rows": BookingConsumer}


async def pause_schedule(load: "Load") -> None:
    """So that it is known which times it had."""
    wire = load.wire()
    await patiently(wire, "POST", f"{SCHEDULE}/pause")
    schedule = await patiently(wire, "GET", SCHEDULE)
    load.history.note("fired", first=load.first_tick, count=schedule["fired"], missed=schedule["missed"])


async def until_all_came(load: "Load") -> None:
    """Whatever is delayed, or published from SQL."""
    while await query(load, STILL_TO_COME) != [(0,)]:  # noqa: ASYNC110 - it asks PostgreSQL
        await asyncio.sleep(PAUSE_SECONDS)


async def note_booked(load: "Load") -> None:
    load.history.note("booked", numbers=[list(row) for row in await query(load, "select * from booked")])


async def query(load: "Load", statement: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(load.database_url, autocommit=True) as connection:
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []
