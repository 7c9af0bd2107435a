"""`python -m benchmarks.spread PLAIN SPREAD`: what calls cost where topics are on several nodes, beside one PostgreSQL.

PLAIN and SPREAD are the URLs of two migrated databases on one machine, the second one after `fastpubsub db-spread`.
Calls are those of the server, over its own connections, from one client, in turns: on the plain database, through the
coordinator, as servers do it, and on the node of the topic. Medians, and how many times as long as on the plain one.
"""

import asyncio
import statistics
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from fastpubsub.config import Settings
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.nodes import Nodes
from fastpubsub.database.urls import normalise

ROUNDS = 15
PAYLOAD = b'{"text": "%s"}' % (b"x" * 1000)
MANY = 100
SINGLES = 10
MAX_BYTES = 10 << 20
PLAIN, COORDINATOR, OWNER = "plain", "through the coordinator", "on the node of the topic"


@dataclass
class Place:
    """Where calls are made, with what each kind of them took."""

    name: str
    database: Database
    topic_key: int
    subscription_key: int

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def call(self, what: str, procedure: str, *arguments: object) -> tuple[Any, ...]:
        started = perf_counter()
        row = await self.database.fetch_one(procedure, *arguments)
        self.seconds[what].append(perf_counter() - started)
        return row

    async def publish(self, count: int, what: str) -> None:
        await self.call(what, "publish_messages", self.topic_key, Array("json", [PAYLOAD] * count), None)

    async def claim(self, count: int, what: str) -> tuple[int, list[int]]:
        row = await self.call(what, "claim_messages_2", self.topic_key, self.subscription_key, *claim_of(count))
        return row[0], row[4] or []

    async def ack(self, what: str, token: int, positions: list[int]) -> None:
        await self.call(what, "ack_messages_2", self.topic_key, self.subscription_key, *settle_of(token, positions))

    async def exchange(self, token: int, positions: list[int]) -> tuple[int, list[int]]:
        *acks, lengths = settle_of(token, positions)
        nothing = Array("int4", [None]), Array("text", [None])
        row = await self.call(
            "exchange 100",
            "settle_and_claim_2",
            *(self.topic_key, self.subscription_key, Array("int4", [1, 0, 0, 0, 0]), *acks, *nothing, lengths),
            *claim_of(MANY),
        )
        return row[2], row[6] or []

    async def round(self) -> None:
        """All that comes is acked, so that at the end there is nothing to claim."""
        for _ in range(SINGLES):
            await self.publish(1, "publish 1")
        for _ in range(SINGLES):
            await self.ack("ack 1", *await self.claim(1, "claim 1"))
        for _ in range(4):
            await self.publish(MANY, "publish 100")
        await self.ack("ack 100", *await self.claim(MANY, "claim 100"))
        held = await self.claim(MANY, "claim 100")
        for _ in range(2):
            held = await self.exchange(*held)
        await self.ack("ack 100", *held)
        for _ in range(SINGLES):
            await self.claim(MANY, "claim of nothing")


def claim_of(count: int) -> tuple[object, ...]:
    return Array("int4", [count]), Array("text", ["c"]), MAX_BYTES, 50_000, 20


def settle_of(token: int, positions: list[int]) -> tuple[Array, Array, Array, Array]:
    """Of consecutive positions."""
    first = Array("int8", positions[:1])
    return first, Array("int8", [token]), Array("timestamptz", [None]), Array("int4", [len(positions)])


async def prepare(database: Database) -> tuple[int, int]:
    """The keys of a topic and a subscription."""
    name = f"benchmark-{uuid.uuid4().hex}"
    (topic_key, *_) = await database.fetch_one("create_topic", name)
    (_, subscription_key, *_) = await database.fetch_one("create_subscription", name, name, None, 600, 5, 1, 1)
    return topic_key, subscription_key


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=url, database_pool_size=1, database_max_overflow=0))
    try:
        yield database
    finally:
        await database.close()


async def owner_of(database: Database, url: str, topic_key: int) -> str | None:
    """The URL of the node that has the topic; None where there is one node."""
    nodes: Nodes = database._nodes  # noqa: SLF001
    for address, topic_keys in await nodes.with_topics(ask_again=True):
        if topic_key in topic_keys:
            host, _, port = address.rpartition(":")
            return normalise(url).set(host=host, port=int(port)).render_as_string(hide_password=False)
    return None


async def measure(plain: str, spread: str, rounds: int, told: Callable[[str], None] = print) -> list[Place]:
    async with opened(plain) as one, opened(spread) as several:
        places = [Place(PLAIN, one, *await prepare(one))]
        keys = await prepare(several)
        places.append(Place(COORDINATOR, several, *keys))
        owner = await owner_of(several, spread, keys[0])
        if owner is None:
            told("the second database is not spread: it is measured as the first one is")
            await run(places, rounds)
            return places
        async with opened(owner) as there:
            places.append(Place(OWNER, there, *keys))
            await run(places, rounds)
    return places


async def run(places: list[Place], rounds: int) -> None:
    """The first round warms up."""
    for number in range(rounds + 1):
        for place in places:
            await place.round()
            if number == 0:
                place.seconds.clear()


def lines(places: list[Place]) -> list[str]:
    plain = places[0].seconds
    found = [f"| | {' | '.join(plain)} |", f"|---|{'---|' * len(plain)}"]
    for place in places:
        medians = {what: statistics.median(place.seconds[what]) for what in plain}
        cells = [
            f"{1000 * medians[what]:.2f}"
            + ("" if place.seconds is plain else f" ({medians[what] / statistics.median(plain[what]):.1f})")
            for what in plain
        ]
        found.append(f"| {place.name}, ms | {' | '.join(cells)} |")
    return found


def main() -> None:
    plain, spread, *rounds = sys.argv[1:]
    print("\n".join(lines(asyncio.run(measure(plain, spread, int(rounds[0]) if rounds else ROUNDS)))))


if __name__ == "__main__":
    main()
