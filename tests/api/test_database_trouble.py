"""A database that is away, restarts, takes no writes or no connections: 503, never 500, and the server goes on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import LiteralString

import httpx
import psycopg
import pytest
from psycopg import sql

from fastpubsub.config import Settings
from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise
from fastpubsub.embedded import EmbeddedPostgres
from tests import clusters, harness
from tests.api.calls import JSON, PATIENCE, Calls, payloads, problem
from tests.api.good import GOOD, SECRET
from tests.conftest import Connect, MakeSettings
from tests.proxy import Proxy

CONNECTIONS = 12
WRONG_BY_ITSELF = {
    "/clients",
    "/clients/{client_id}/secrets/{which}",
    "/oauth/introspect",
    "/oauth/token",
    "/subscriptions/{subscription_id}/push/secrets",
    "/subscriptions/{subscription_id}/push/test",
    "/subscriptions/{subscription_id}/seek",
}
"""What is asked of them here is refused, and that may be said without a database."""

WITHOUT_A_QUESTION = {"DELETE /subscriptions/{subscription_id}/waits"}
"""It ends what waits in the processes, of a subscription that is remembered."""

PUBLIC = {
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/liveness",
    "/metrics",
    "/",
    "/console",
    "/console/{release}/{name:path}",
    "/docs",
    "/docs/static/{name}",
    "/redoc",
    "/openapi.json",
    "/guide",
    "/guide/{name:path}",
}


@pytest.fixture
def small_postgres(cluster_folder: Path) -> Iterator[EmbeddedPostgres]:
    """One of our own, that may be stopped and that has few connections."""
    limits = {"max_connections": str(CONNECTIONS), "superuser_reserved_connections": "0", "fsync": "off"}
    with EmbeddedPostgres(clusters.fill(cluster_folder / "postgres", migrated=True), settings=limits) as postgres:
        yield postgres


@pytest.fixture
async def proxy(small_postgres: EmbeddedPostgres) -> AsyncIterator[Proxy]:
    """The address that stays the same when PostgreSQL is started again."""
    async with Proxy(small_postgres.url()) as opened:
        yield opened


def settings_for(url: str) -> Settings:
    return Settings(_env_file=None, database_url=url, database_require_durability=False)


async def everything(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
    """What each route answers."""
    answers = {}
    for good in GOOD:
        path = good.path.replace("nowhere", "t" if "/topics" in good.path else "s")
        if (good.method == "DELETE" and good.body is None) or path.endswith("/stream"):
            path = good.path
        target = f"{path}?{good.query}"
        answers[good.route] = await client.request(good.method, target, json=good.body)
    return answers


def check_unavailable(answers: dict[str, httpx.Response], *, reads: bool = False) -> None:
    """Each route but the public ones; `reads`: unless it only reads."""
    for route, answer in answers.items():
        path = route.split(" ")[1]
        if path in PUBLIC:
            assert answer.status_code in (200, 307, 404), route
            continue
        if reads and answer.status_code != 503:
            assert answer.status_code < 500, (route, answer.text)
            continue
        if route in WITHOUT_A_QUESTION:
            assert answer.status_code in (204, 503), (route, answer.text)
            continue
        if answer.status_code in (400, 422):
            assert path in WRONG_BY_ITSELF, route
            continue
        assert answer.status_code == 503, (route, answer.status_code, answer.text)
        assert int(answer.headers["retry-after"]) >= 1, route
        assert SECRET not in answer.text
        if path == "/readiness":
            assert answer.json().keys() == {"detail"}
        else:
            problem(answer, 503)


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await client.get("/readiness")).status_code != httpx.codes.OK:
            pass


async def publish_and_pull(client: httpx.AsyncClient, number: int) -> None:
    """Connections that PostgreSQL closed while they idled may each cost one answer."""
    async with asyncio.timeout(PATIENCE):
        while (response := await client.post("/topics/t/messages", json=[{"n": number}])).status_code != 204:
            problem(response, 503)
        while not (response := await client.get("/subscriptions/s/messages?consumer_id=c")).is_success:
            problem(response, 503)
    assert payloads(response.json()["data"])[-1] == {"n": number}


async def test_stopped_and_started_again(small_postgres: EmbeddedPostgres, proxy: Proxy) -> None:
    async with harness.opened(settings_for(proxy.url)) as client:
        calls = Calls(client)
        await calls.topic_and_subscription()
        await publish_and_pull(client, 1)
        await until_ready(client)
        await asyncio.gather(*[client.get("/topics") for _ in range(8)])

        await asyncio.to_thread(small_postgres.stop)
        first = await asyncio.gather(*[client.get("/topics") for _ in range(8)])
        for answer in first:
            problem(answer, 503)
        async with asyncio.timeout(PATIENCE):
            while (unready := await client.get("/readiness")).status_code == httpx.codes.OK:
                pass
        assert unready.json() == {"detail": "database is down"}
        check_unavailable(await everything(client))

        await asyncio.to_thread(small_postgres.start)
        proxy.target = normalise(small_postgres.url())
        await until_ready(client)
        await publish_and_pull(client, 2)
        assert (await client.get("/topics")).status_code == 200


async def test_started_before_the_database(small_postgres: EmbeddedPostgres, proxy: Proxy) -> None:
    small_postgres.stop()
    async with harness.opened(settings_for(proxy.url)) as client:
        check_unavailable(await everything(client))
        small_postgres.start()
        proxy.target = normalise(small_postgres.url())
        await until_ready(client)
        await Calls(client).topic_and_subscription()
        await publish_and_pull(client, 1)


def occupy(postgres: EmbeddedPostgres, others: ExitStack) -> None:
    """Takes every connection that is left."""
    for _ in range(CONNECTIONS):
        try:
            others.enter_context(psycopg.connect(harness.libpq(postgres.url())))
        except psycopg.OperationalError:
            return
    raise AssertionError("there is no limit")


async def test_too_many_connections(small_postgres: EmbeddedPostgres) -> None:
    async with harness.opened(settings_for(small_postgres.url())) as client:
        await Calls(client).topic_and_subscription()
        with ExitStack() as others:
            occupy(small_postgres, others)
            answers = await asyncio.gather(*[client.get("/topics") for _ in range(10)])
            assert {answer.status_code for answer in answers} <= {200, 503}
            refused = [answer for answer in answers if answer.status_code == 503]
            assert refused
            for answer in refused:
                problem(answer, 503)
                assert int(answer.headers["retry-after"]) >= 1
        await publish_and_pull(client, 1)
        async with asyncio.timeout(PATIENCE):  # the others' processes end after their connections
            while {answer.status_code for answer in answers} != {200}:
                answers = await asyncio.gather(*[client.get("/topics") for _ in range(5)])


async def test_read_only(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 0})
    connection = await connect()
    name = (await (await connection.execute("select current_database()")).fetchall())[0][0]
    database = sql.Identifier(name)

    async def set_and_reconnect(statement: LiteralString) -> None:
        await connection.execute(sql.SQL(statement).format(database))
        await connection.execute("""
            select pg_terminate_backend(pid, 5000) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()
        """)

    await set_and_reconnect("alter database {} set default_transaction_read_only = on")
    async with asyncio.timeout(PATIENCE):
        while "read-only" not in (unready := await client.get("/readiness")).text:
            pass
    assert unready.status_code == 503
    answers = await everything(client)
    check_unavailable(answers, reads=True)
    for route in ("POST /topics", "POST /topics/{topic_id}/messages", "GET /subscriptions/{subscription_id}/messages"):
        assert answers[route].status_code == 503, route
    assert answers["GET /topics/{topic_id}"].status_code == 200, "what only reads still works"

    await set_and_reconnect("alter database {} reset default_transaction_read_only")
    await until_ready(client)
    await publish_and_pull(client, 1)


async def test_not_migrated(empty_database_url: str) -> None:
    async with harness.opened(settings_for(empty_database_url)) as client:
        check_unavailable(await everything(client))
        refused = await client.post("/topics/t/messages", content=b"[{}]", headers=JSON)
        assert "fastpubsub db-migrate" in problem(refused, 503)
        await asyncio.to_thread(migrations.upgrade, empty_database_url)
        await until_ready(client)
        await Calls(client).topic_and_subscription()
        await publish_and_pull(client, 1)


@pytest.mark.long
async def test_probes_are_answered_when_the_pool_is_exhausted(make_settings: MakeSettings, connect: Connect) -> None:
    """All the time until those who wait for the database are refused."""
    settings = make_settings(database_lock_timeout_seconds=12, database_pool_timeout_seconds=12)
    async with harness.opened(settings) as client:
        await exhaust_and_probe(client, connect, settings.database_pool_size + settings.database_max_overflow)


async def exhaust_and_probe(client: httpx.AsyncClient, connect: Connect, size: int) -> None:
    calls = Calls(client)
    await calls.topic()
    for number in range(20):
        await calls.subscription(f"s{number}")
    await calls.publish({"n": 1})
    async with (blocker := await connect()).transaction():
        await blocker.execute("select from fastpubsub.cursors for update")
        waiting = [
            asyncio.create_task(client.get(f"/subscriptions/s{number}/messages?consumer_id=c")) for number in range(20)
        ]
        observer = await connect()
        query = """
            select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'fastpubsub' and wait_event_type = 'Lock'
        """
        async with asyncio.timeout(PATIENCE):
            while (await (await observer.execute(query)).fetchall())[0][0] < size:
                pass
        assert (await client.get("/liveness")).status_code == 200
        await until_ready(client)
        assert not any(one.done() for one in waiting)
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 2 * PATIENCE)
    for answer in answers:
        problem(answer, 503)
    assert (await client.get("/subscriptions/s0/messages?consumer_id=c")).status_code == 200
