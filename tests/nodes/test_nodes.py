"""Topics on several nodes: spread while they are used, moved while they are used, and with a node away.

Only `make test-citus` runs these, on a cluster that somebody has.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import httpx
import psycopg
from psycopg import sql

from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise
from tests import spread_databases
from tests.nodes.load import SECONDS, TOPICS, Load


async def test_topics_are_spread_while_they_are_used(
    unspread_database_url: str, start_on: Callable[[str], str]
) -> None:
    url = unspread_database_url
    async with httpx.AsyncClient(base_url=start_on(url), timeout=SECONDS) as client:
        load = Load(client, TOPICS)
        await load.create()

        async def spread() -> None:
            await asyncio.sleep(1)
            await asyncio.to_thread(migrations.spread, url, spread_databases.SHARDS)
            await asyncio.sleep(2)

        await load.run(spread())
        load.check()
        listed = (await client.get("/subscriptions?limit=100")).raise_for_status().json()["data"]
        assert {one["id"] for one in listed} == set(TOPICS)
        for path in ("/subscriptions?has_dead_letters=true", "/metrics"):
            (await client.get(path)).raise_for_status()
    state, left = migrations.spread_state(url)
    assert (state.is_spread, left) == (True, [])
    assert sum(state.topics.values()) == len(TOPICS)
    print(f"spread: {load.told()}")


async def test_topics_move_while_they_are_used(database_url: str, load: Load) -> None:
    addresses = {group: (host, port) for host, port, group in spread_databases.nodes() if group}
    moves = 0

    async def move() -> None:
        nonlocal moves
        async with await psycopg.AsyncConnection.connect(
            spread_databases.of(database_url), autocommit=True
        ) as connection:
            for topic in TOPICS[:3]:
                group, shard = spread_databases.nodes_of(database_url)[topic]
                other = next(one for one in addresses if one != group)
                places = (*addresses[group], *addresses[other])
                await connection.execute("select citus_move_shard_placement(%s, %s, %s, %s, %s)", [shard, *places])
                moves += 1
                assert spread_databases.nodes_of(database_url)[topic][0] == other

    await load.run(move())
    load.check()
    assert moves == 3
    print(f"{moves} moves: {load.told()}")


async def test_a_node_that_is_away_stops_only_its_topics(database_url: str, load: Load) -> None:
    placed = spread_databases.nodes_of(database_url)
    away = placed[TOPICS[0]][0]
    lost = {topic for topic, (group, _) in placed.items() if group == away}
    assert set(TOPICS) - lost, "all topics are on one node"

    async def be_away() -> None:
        await asyncio.sleep(1)
        with closed(database_url, away):
            before = load.confirmed.total()
            await load.until_refused(lost)
            went_on = [one for one in load.confirmed if one[0] not in lost]
            await expire_elsewhere(load, next(iter(set(TOPICS) - lost)))
            assert len([one for one in load.confirmed if one[0] not in lost]) > len(went_on)
            assert load.confirmed.total() > before
            started = monotonic()
            refused = await load.client.post(f"/topics/{TOPICS[0]}/messages", json=[{"n": 0}])
            assert refused.status_code == 503
            assert "Retry-After" in refused.headers
            print(f"answered 503 after {monotonic() - started:.2f} s")
            await look_without(load.client, lost)
        await asyncio.sleep(1)

    await load.run(be_away())
    load.check()
    assert set(load.refused) == lost
    print(f"a node away: {load.told()}")


LOOKS = (
    ("/topics?limit=100&include=metrics", "id"),
    ("/subscriptions?limit=100&include=metrics", "topic_id"),
    ("/subscriptions?limit=100&has_dead_letters=true", ""),
    ("/topics?q=nothing", ""),
)


async def look_without(client: httpx.AsyncClient, lost: set[str]) -> None:
    """Lists, sums and gauges have what the nodes that are there have, and say what is missing."""
    for path, named in LOOKS:
        started = monotonic()
        listed = (await client.get(path)).raise_for_status().json()
        print(f"{path} answered after {monotonic() - started:.2f} s")
        assert set(listed["missing_topics"]) == lost
        assert {one[named] for one in listed["data"]} == (set(TOPICS) - lost if named else set())
    started = monotonic()
    overview = (await client.get("/overview")).raise_for_status().json()
    print(f"/overview answered after {monotonic() - started:.2f} s")
    assert (overview["topics"], set(overview["missing_topics"])) == (len(TOPICS), lost)
    scraped = (await client.get("/metrics")).raise_for_status().text
    assert f"fastpubsub_topics_missing {float(len(lost))}" in scraped
    assert "fastpubsub_database_up 1.0" in scraped


async def test_everything_is_shown(load: Load) -> None:
    for topic in TOPICS:
        (await load.client.post(f"/topics/{topic}/messages", json=[{"n": 1}])).raise_for_status()
    for path, named in LOOKS:
        listed = (await load.client.get(path)).raise_for_status().json()
        assert "missing_topics" not in listed
        assert {one[named] for one in listed["data"]} == (set(TOPICS) if named else set())
    overview = (await load.client.get("/overview")).raise_for_status().json()
    assert overview["missing_topics"] is None
    sums = {name: overview[name] for name in ("topics", "subscriptions", "published", "ahead", "leased")}
    assert sums == {"topics": 8, "subscriptions": 8, "published": 8, "ahead": 8, "leased": 0}


async def test_forks(load: Load) -> None:
    """They begin where the other is, with its settings."""
    topic = TOPICS[0]
    (await load.client.post(f"/topics/{topic}/messages", json=[{"n": n} for n in (1, 2, 3)])).raise_for_status()
    first = await some(load.client, f"/subscriptions/{topic}/messages?consumer_id=c&batch_size=1")
    (await load.client.post(f"/subscriptions/{topic}/acks", json=[first["ack_id"]])).raise_for_status()
    body = {"id": "forked", "topic_id": topic, "fork_of": topic, "max_delivery_attempts": 7, "filter": {"n": [2, 3]}}
    forked = (await load.client.post("/subscriptions", json=body)).raise_for_status().json()
    assert (forked["ack_deadline_seconds"], forked["max_delivery_attempts"]) == (600, 7)
    path = "/subscriptions/forked/messages?consumer_id=c&batch_size=100"
    pulled = (await load.client.get(path)).raise_for_status().json()["data"]
    assert [one["payload"]["n"] for one in pulled] == [2, 3]


async def expire_elsewhere(load: Load, topic: str) -> None:
    """A lease on a node that is there runs out, although another node is away."""
    body = {"id": "expiring", "topic_id": topic, "ack_deadline_seconds": 1, "backoff_min_seconds": 0}
    (await load.client.post("/subscriptions", json=body)).raise_for_status()
    path = "/subscriptions/expiring/messages?consumer_id=dies&batch_size=1"
    first = await some(load.client, path)
    again = await some(load.client, path.replace("dies", "lives"), first["id"])
    assert again["delivery_attempts"] == 2


async def some(client: httpx.AsyncClient, path: str, message_id: str | None = None) -> dict[str, Any]:
    deadline = monotonic() + SECONDS / 2
    while monotonic() < deadline:
        for one in (await client.get(path)).raise_for_status().json()["data"]:
            if message_id in (None, one["id"]):
                return dict(one)
        await asyncio.sleep(0.1)
    raise AssertionError("no message came")


@contextmanager
def closed(url: str, group: int) -> Iterator[None]:
    """The node lets nobody into the database, as if it were away."""
    ((host, port),) = [node[:2] for node in spread_databases.nodes() if node[2] == group]
    name = sql.Identifier(normalise(url).database or "")
    end = sql.SQL("select pg_terminate_backend(pid) from pg_stat_activity where datname = {}")
    with psycopg.connect(
        spread_databases.of(url, host=host, port=port, database="postgres"), autocommit=True
    ) as connection:
        connection.execute(sql.SQL("alter database {} allow_connections false").format(name))
        connection.execute(end.format(sql.Literal(normalise(url).database)))
        try:
            yield
        finally:
            connection.execute(sql.SQL("alter database {} allow_connections true").format(name))
