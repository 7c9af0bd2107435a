"""A dump is restored elsewhere, and everything goes on: the commands of docs/operations.md, with real servers."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from fastpubsub.database import migrations
from fastpubsub.embedded import Account, EmbeddedPostgres
from tests import clusters, harness
from tests.conftest import StartServer
from tests.pages import DOCS, SECONDS, Shell, blocks

SETTLE = {"Prefer": "return=representation"}
FAR_AHEAD = 7
"""Epochs of transaction ids, 4 billion each."""

StartCluster = Callable[[int], EmbeddedPostgres]


@pytest.fixture
def cluster(cluster_folder: Path) -> Iterator[StartCluster]:
    """Starts a PostgreSQL whose transaction ids begin in that epoch."""
    with ExitStack() as stack:

        def start(epoch: int) -> EmbeddedPostgres:
            data = cluster_folder / f"postgres-{len(list(cluster_folder.glob('postgres-*')))}"
            postgres = stack.enter_context(EmbeddedPostgres(clusters.fill(data)))
            if epoch:
                begin_in(postgres, epoch)
            with psycopg.connect(harness.libpq(postgres.url())) as connection:
                row = connection.execute("select pg_current_xact_id()::text::bigint >> 32").fetchone()
            assert row == (epoch,)
            return postgres

        yield start


def begin_in(postgres: EmbeddedPostgres, epoch: int) -> None:
    postgres.stop()
    account = Account(postgres.cluster)
    program = account.reachable(postgres.binaries) / "pg_resetwal"
    code, output = account.run(program, postgres.cluster, [f"--epoch={epoch}"])
    assert code == 0, output
    postgres.start()


@dataclass
class Backup:
    """The blocks of the page, in their order."""

    folder: Path

    def dump(self, source: EmbeddedPostgres) -> None:
        self._run(source, 0, f"DATABASE='{harness.libpq(source.url())}'")

    def restore(self, target: EmbeddedPostgres, database: str = "postgres") -> None:
        self._run(target, 1, f"NEW_DATABASE='{harness.libpq(target.url(database))}'")

    def _run(self, postgres: EmbeddedPostgres, number: int, variables: str) -> None:
        found = [one for one in blocks(DOCS / "operations.md") if one.heading == "Backup and restore"]
        script = [one.text for one in found if one.language == "bash"][number]
        Shell(self.folder, {}, seconds=4 * SECONDS).run(f'PATH="{postgres.binaries}:$PATH"\n{variables}\n{script}')


async def pull(client: httpx.AsyncClient, count: int = 100) -> list[dict[str, Any]]:
    answer = await client.get(f"/subscriptions/s/messages?consumer_id=c&batch_size={count}")
    messages: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
    return messages


async def publish(client: httpx.AsyncClient, *numbers: int, key: str | None = None) -> list[str]:
    headers = SETTLE | ({"Idempotency-Key": key} if key else {})
    answer = await client.post("/topics/t/messages", json=[{"n": number} for number in numbers], headers=headers)
    ids: list[str] = answer.raise_for_status().json()["ids"]
    return ids


async def publish_later(client: httpx.AsyncClient, number: int) -> str:
    """In an hour."""
    body = {"messages": [{"payload": {"n": number}, "delay_seconds": 3600}]}
    answer = await client.post("/topics/t/messages", json=body, headers=SETTLE)
    (id_,) = answer.raise_for_status().json()["ids"]
    return str(id_)


async def settle(client: httpx.AsyncClient, how: str, *ids: str) -> dict[str, list[str]]:
    answer = await client.post(f"/subscriptions/s/{how}", json=ids, headers=SETTLE)
    outcomes: dict[str, list[str]] = answer.raise_for_status().json()
    return outcomes


def publish_from_sql(postgres: EmbeddedPostgres, *transactions: list[int]) -> None:
    with psycopg.connect(harness.libpq(postgres.url()), autocommit=True) as connection:
        for numbers in transactions:
            with connection.transaction():
                for number in numbers:
                    connection.execute("select fastpubsub.publish('t', json_build_object('n', %s::int))", [number])


def speak_to(server: harness.Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.base_url, timeout=SECONDS)


async def create(client: httpx.AsyncClient) -> None:
    (await client.post("/topics", json={"id": "t"})).raise_for_status()
    body = {"id": "s", "topic_id": "t", "ack_deadline_seconds": 3600, "backoff_min_seconds": 0}
    (await client.post("/subscriptions", json=body)).raise_for_status()


async def arrived(client: httpx.AsyncClient, count: int) -> list[int]:
    """Numbers of messages, in the order of their delivery."""
    numbers: list[int] = []
    async with asyncio.timeout(SECONDS):
        while len(numbers) < count:
            numbers += [one["payload"]["n"] for one in await pull(client)]
    return numbers


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), [(FAR_AHEAD, 0), (0, FAR_AHEAD)])
async def test_everything_goes_on_in_another_cluster(
    cluster: StartCluster, server: StartServer, tmp_path: Path, before: int, after: int
) -> None:
    source, target = cluster(before), cluster(after)
    migrations.upgrade(source.url())
    first = server(database_url=source.url())
    async with speak_to(first) as client:
        await create(client)
        ids = await publish(client, *range(6), key="order-1")
        leased, acked, nacked, rejected = await pull(client, 4)
        await settle(client, "acks", acked["ack_id"])
        await client.post("/subscriptions/s/nacks?delay_seconds=0", json=[nacked["ack_id"]])
        await client.post("/subscriptions/s/rejects", json={"ids": [rejected["ack_id"]], "reason": "broken"})
        later = await publish_later(client, 30)
        metrics = (await client.get("/subscriptions/s/metrics")).json()
        letters = (await client.get("/subscriptions/s/dlq")).json()
        await client.post("/clients", json={"name": "shop", "scopes": "topics:read", "is_active": True})
        clients = (await client.get("/clients")).json()
        assert clients["data"]
    first.stop()
    publish_from_sql(source, [10, 11], [12])
    for postgres in (source, target):
        with psycopg.connect(harness.libpq(postgres.url()), autocommit=True) as connection:
            connection.execute("create role shop")
            if postgres is source:
                connection.execute("grant usage on schema fastpubsub to shop")
    backup = Backup(tmp_path)
    backup.dump(source)
    backup.restore(target)
    with psycopg.connect(harness.libpq(target.url()), autocommit=True) as connection:
        connection.execute("set role shop")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select fastpubsub.publish('t', '{}')")
    async with speak_to(server(database_url=target.url())) as client:
        await came_from_sql(client, metrics)
        assert (await client.get("/subscriptions/s/dlq")).json() == letters
        assert (await client.get("/clients")).json() == clients
        assert await publish(client, *range(6), key="order-1") == ids
        (again,) = await pull(client, 1)
        assert (again["id"], again["delivery_attempts"]) == (nacked["id"], 2)
        publish_from_sql(target, [13])
        publish_from_sql(target, [14])
        numbers = await arrived(client, 7)
        assert numbers[:2] == [4, 5]
        assert sorted(numbers[2:]) == [10, 11, 12, 13, 14]
        assert numbers.index(10) < numbers.index(11)
        assert await settle(client, "acks", leased["ack_id"], acked["ack_id"]) == {
            "settled": [leased["ack_id"]],
            "gone": [acked["ack_id"]],
            "stale": [],
        }
        await client.post("/subscriptions/s/dlq/reprocess", json=[rejected["id"]])
        assert [one["id"] for one in await pull(client)] == [rejected["id"]]
        await publish(client, 20)
        assert await arrived(client, 1) == [20]
        (await client.patch(f"/topics/t/delayed/{later}", json={"delay_seconds": 1})).raise_for_status()
        assert await arrived(client, 1) == [30]
        assert await publish_later(client, 31) != later
        (await client.post("/subscriptions", json={"id": "new", "topic_id": "t"})).raise_for_status()
        (await client.post("/topics", json={"id": "new"})).raise_for_status()


async def came_from_sql(client: httpx.AsyncClient, metrics: dict[str, Any]) -> None:
    """The outbox is moved, and everything else is as it was."""
    wanted = metrics | {"available": metrics["available"] + 3}
    async with asyncio.timeout(SECONDS):
        while (found := (await client.get("/subscriptions/s/metrics")).json()) != wanted:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0.02)
    assert found == wanted


@pytest.mark.long
async def test_a_dump_under_load(cluster: StartCluster, server: StartServer, tmp_path: Path) -> None:
    """What was confirmed before is in it, once; what was settled before does not come again."""
    postgres = cluster(0)
    harness.execute(postgres.url(), sql.SQL("create database restored").format())
    migrations.upgrade(postgres.url())
    first = server(database_url=postgres.url(), log_requests=False)
    published: set[int] = set()
    acked: set[int] = set()
    enough = asyncio.Event()

    async def publish_on() -> None:
        while True:
            number = len(published)
            await publish(client, number)
            published.add(number)

    async def consume() -> None:
        while True:
            messages = await pull(client, 5)
            await settle(client, "acks", *(one["ack_id"] for one in messages))
            acked.update(one["payload"]["n"] for one in messages)
            if len(acked) > 50:
                enough.set()

    async with speak_to(first) as client:
        await create(client)
        running = [asyncio.create_task(one) for one in (publish_on(), consume())]
        await asyncio.wait_for(enough.wait(), SECONDS)
        published_before, acked_before = published.copy(), acked.copy()
        await asyncio.to_thread(Backup(tmp_path).dump, postgres)
        for one in running:
            one.cancel()
            with suppress(asyncio.CancelledError):
                await one
    assert len(published) > len(published_before)
    Backup(tmp_path).restore(postgres, "restored")
    with psycopg.connect(harness.libpq(postgres.url("restored")), autocommit=True) as connection:
        connection.execute("update fastpubsub.leases set expires_at = clock_timestamp()")
    async with speak_to(server(database_url=postgres.url("restored"))) as client:
        again: list[int] = []
        async with asyncio.timeout(SECONDS):
            while await remaining(client):
                messages = await pull(client)
                again += [one["payload"]["n"] for one in messages]
                await settle(client, "acks", *(one["ack_id"] for one in messages))
        assert len(again) == len(set(again))
        assert not acked_before & set(again)
        (await client.post("/subscriptions/s/seek", json={"to": "earliest"})).raise_for_status()
        kept = {one["payload"]["n"] for one in await pull_all(client)}
        assert published_before <= kept
        assert kept == set(range(len(kept)))


async def remaining(client: httpx.AsyncClient) -> int:
    metrics = (await client.get("/subscriptions/s/metrics")).json()
    return int(metrics["available"] + metrics["delivered"])


async def pull_all(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while messages := await pull(client):
        found += messages
    return found
