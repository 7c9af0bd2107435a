import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from psycopg import sql

from fastpubsub.api import probes
from fastpubsub.api.app import create_app
from fastpubsub.config import Settings
from fastpubsub.database.connections import Borrowed, Connections
from fastpubsub.database.urls import normalise
from fastpubsub.exceptions import Unavailable
from fastpubsub.services import metrics
from tests import harness
from tests.api.calls import Calls
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings
from tests.proxy import Proxy

PROMISED_SECONDS = 0.5
ATTEMPTS = 20
PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with harness.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness waits for a busy machine, and says what it finds."""
    monkeypatch.setattr(probes, "READINESS_DEADLINE_SECONDS", PATIENCE_SECONDS)


async def promptly(attempt: Callable[[], Awaitable[float]]) -> None:
    """It takes less than what is promised; on a busy machine not each time."""
    seconds = [await attempt()]
    while min(seconds) >= PROMISED_SECONDS:
        assert len(seconds) < ATTEMPTS, seconds
        seconds.append(await attempt())


async def seconds_until_down(client: httpx.AsyncClient) -> float:
    started = time.perf_counter()
    assert await not_ready(client) == "database is down"
    return time.perf_counter() - started


async def not_ready(client: httpx.AsyncClient) -> str:
    response = await client.get("/readiness")
    assert (response.status_code, set(response.json())) == (503, {"detail"})
    assert response.headers["retry-after"] == "1"
    assert response.headers["content-type"] == "application/json"
    detail: str = response.json()["detail"]
    return detail


async def test_liveness_needs_no_database(make_settings: MakeSettings) -> None:
    url = f"postgresql://127.0.0.1:{harness.free_port()}/none"
    async with opened(make_settings(database_url=url)) as client:
        response = await client.get("/liveness")
        assert (response.status_code, response.json()) == (200, {"status": "alive"})


@pytest.mark.usefixtures("patience")
async def test_readiness(client: httpx.AsyncClient) -> None:
    response = await client.get("/readiness")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@pytest.mark.usefixtures("patience")
async def test_database_down(make_settings: MakeSettings) -> None:
    url = f"postgresql://127.0.0.1:{harness.free_port()}/none"
    async with opened(make_settings(database_url=url)) as client:
        assert await not_ready(client) == "database is down"


async def test_database_that_takes_connections_and_says_nothing(make_settings: MakeSettings, database_url: str) -> None:
    async with Proxy(database_url) as proxy:

        async def attempt() -> float:
            proxy.pause()
            async with opened(make_settings(database_url=proxy.url)) as client:
                both = [await seconds_until_down(client) for _ in range(2)]
                proxy.resume()
            return max(both)

        await promptly(attempt)


async def test_database_that_stops_answering(make_settings: MakeSettings, database_url: str) -> None:
    async with Proxy(database_url) as proxy:

        async def attempt() -> float:
            async with opened(make_settings(database_url=proxy.url)) as client:
                await until_ready(client)
                proxy.pause()
                expire(client)
                seconds = await seconds_until_down(client)
                proxy.resume()
            return seconds

        await promptly(attempt)


@pytest.mark.usefixtures("patience")
async def test_ready_again_after_the_connection_was_lost(client: httpx.AsyncClient, connect: Connect) -> None:
    assert (await client.get("/readiness")).status_code == 200
    connection = await connect()
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    expire(client)
    assert await not_ready(client) == "database is down"
    expire(client)
    assert (await client.get("/readiness")).status_code == 200


def expire(client: httpx.AsyncClient) -> None:
    """As if a second had passed."""
    app_of(client).state.probes._problem._known_at = None


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await client.get("/readiness")).status_code != httpx.codes.OK:
            pass


async def borrow(connections: Connections) -> Borrowed:
    """When the background has left one."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(Unavailable):
                return await connections.borrow()


async def test_ready_although_all_connections_are_busy(make_settings: MakeSettings) -> None:
    settings = make_settings(database_pool_size=2, database_max_overflow=0, database_pool_timeout_seconds=0.1)
    async with opened(settings) as client, AsyncExitStack() as stack:
        connections = app_of(client).state.database._connections
        for _ in range(settings.database_pool_size):
            borrowed = await borrow(connections)
            stack.push_async_callback(connections.give_back, borrowed, usable=True)
        assert (await client.get("/topics")).status_code == 503
        await until_ready(client)


async def test_stopping(client: httpx.AsyncClient) -> None:
    app_of(client).state.stopping.set()
    assert await not_ready(client) == "the server is shutting down"
    assert (await client.get("/liveness")).status_code == 200


@pytest.mark.usefixtures("patience")
async def test_database_without_the_schema(make_settings: MakeSettings, empty_database_url: str) -> None:
    async with opened(make_settings(database_url=empty_database_url)) as client:
        assert await not_ready(client) == "the database has no fastpubsub schema; run: fastpubsub db-migrate"


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("revision", ["0001", "9999"])
async def test_schema_of_another_version(make_settings: MakeSettings, connect: Connect, revision: str) -> None:
    await (await connect()).execute("update fastpubsub.alembic_version set version_num = %s", [revision])
    async with opened(make_settings()) as client:
        assert re.match(
            rf"the schema is at revision {revision} and this version needs \w+; run: fastpubsub db-migrate",
            await not_ready(client),
        )


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("default_transaction_read_only", "on", "the database is read-only"),
        ("default_transaction_isolation", "serializable", "the database's default isolation is serializable"),
        ("default_transaction_isolation", "repeatable read", "the database's default isolation is repeatable read"),
    ],
)
async def test_database_that_would_not_do(
    make_settings: MakeSettings, connect: Connect, database_url: str, name: str, value: str, detail: str
) -> None:
    database = sql.Identifier(normalise(database_url).database or "")
    change = sql.SQL("alter database {} set {} = {}").format(database, sql.Identifier(name), sql.Literal(value))
    await (await connect()).execute(change)
    async with opened(make_settings()) as client:
        assert (await not_ready(client)).startswith(detail)
        refused = await client.post("/topics", json={"id": "t"})
        assert (refused.status_code, refused.json()["detail"][:12]) == (503, "the database")


@pytest.mark.usefixtures("patience")
async def test_durability_is_required_unless_the_settings_say_otherwise(
    make_settings: MakeSettings, connect: Connect
) -> None:
    found = await (await connect()).execute("select name from pg_settings where setting = 'off' and name = 'fsync'")
    is_off = await found.fetchone() is not None
    async with opened(make_settings(database_require_durability=True)) as client:
        response = await client.get("/readiness")
    assert response.status_code == (503 if is_off else 200)
    assert ("fsync is off" in response.text) == is_off


async def use(client: httpx.AsyncClient, topic: str, subscription: str) -> None:
    """Publishes three messages; one is acked, one leased, one ahead."""
    await client.post("/topics", json={"id": topic})
    await client.post("/subscriptions", json={"id": subscription, "topic_id": topic})
    await client.post(f"/topics/{topic}/messages", json=[{"n": 1}, {"n": 2}, {"n": 3}])
    pulled = await client.get(f"/subscriptions/{subscription}/messages", params={"consumer_id": "c", "batch_size": 2})
    first = pulled.json()["data"][0]["id"]
    assert (await client.post(f"/subscriptions/{subscription}/acks", json=[first])).status_code == 204


async def scrape(client: httpx.AsyncClient) -> str:
    response = await client.get("/metrics")
    assert (response.status_code, response.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    return response.text


async def test_the_metrics_of_the_spec(client: httpx.AsyncClient) -> None:
    for _ in range(42):
        await client.get("/topics")
    scraped = await scrape(client)
    assert (
        "# HELP http_requests_total Total number of requests by method, path and status\n"
        "# TYPE http_requests_total counter\n"
        'http_requests_total{method="GET",path="/topics",status="200"} 42.0\n'
    ) in scraped
    assert 'http_request_duration_seconds_count{method="GET",path="/topics"} 42.0\n' in scraped
    assert "http_requests_inprogress 1.0\n" in scraped


async def test_what_nobody_routes_shares_one_label(client: httpx.AsyncClient) -> None:
    for path in ("/a", "/b", "/c/%00", "/topics/x/y/z"):
        await client.get(path)
    assert 'http_requests_total{method="GET",path="none",status="404"} 4.0\n' in await scrape(client)


async def test_counters_and_gauges_of_messages(client: httpx.AsyncClient) -> None:
    await use(client, "orders", "billing")
    scraped = await scrape(client)
    for line in (
        'fastpubsub_messages_published_total{topic="orders"} 3.0',
        'fastpubsub_messages_delivered_total{subscription="billing"} 2.0',
        'fastpubsub_messages_acked_total{subscription="billing"} 1.0',
        'fastpubsub_subscription_messages{state="ahead",subscription="billing",topic="orders"} 1.0',
        'fastpubsub_subscription_messages{state="leased",subscription="billing",topic="orders"} 1.0',
        'fastpubsub_subscription_messages{state="waiting",subscription="billing",topic="orders"} 0.0',
        'fastpubsub_subscription_messages{state="dead",subscription="billing",topic="orders"} 0.0',
        "fastpubsub_database_up 1.0",
        "fastpubsub_topics_missing 0.0",
    ):
        assert f"{line}\n" in scraped
    assert re.search(
        r'fastpubsub_subscription_oldest_message_age_seconds{subscription="billing",topic="orders"} \d{1,2}\.\d+\n',
        scraped,
    )


GAUGE = re.compile(r'fastpubsub_subscription_(\w+)\{(?:state="(\w+)",)?subscription="(\w+)",topic="t"\} ([\d.e+]+)\n')


async def gauges_of(client: httpx.AsyncClient, subscription: str) -> dict[str, float]:
    """All but the counts of messages, `kept_bytes` by state."""
    app_of(client).state.probes._read._known_at = None
    found = GAUGE.findall(await scrape(client))
    return {
        f"{name} {state}".strip(): float(value)
        for name, state, of, value in found
        if of == subscription and name != "messages"
    }


QUIET = {
    "oldest_message_age_seconds",
    "oldest_leased_message_age_seconds",
    "oldest_waiting_message_age_seconds",
    "unjudged_messages",
    "paused",
    "held_keys",
    "kept_bytes ahead",
    "kept_bytes leased",
    "kept_bytes waiting",
}


async def test_what_is_old_is_told_by_its_state(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    """A filter that lets nothing pass has nothing that is old, and a poison message shows while it waits."""
    await calls.topic_and_subscription(backoff_min_seconds=600)
    await calls.subscription("filtered", filter={"kind": ["wanted"]})
    await calls.publish({"kind": "other"}, {"kind": "other"})
    connection = await connect()
    await connection.execute("update fastpubsub.messages set created_at = created_at - interval '5 hours'")
    hours = pytest.approx(5 * 3600, abs=PATIENCE_SECONDS)
    # Two rows of 80 bytes, and payloads of 16 and a byte for their length.
    size = 2 * (80 + 17)
    quiet = dict.fromkeys(QUIET, 0.0)
    assert await gauges_of(client, "s") == quiet | {"oldest_message_age_seconds": hours, "kept_bytes ahead": size}
    assert await gauges_of(client, "filtered") == quiet | {"kept_bytes ahead": size}
    first = await calls.pull(1)
    assert await gauges_of(client, "s") == quiet | {
        "oldest_message_age_seconds": hours,
        "oldest_leased_message_age_seconds": hours,
        "kept_bytes leased": size,
    }
    await calls.nack(first[0]["ack_id"])
    await calls.ack(*[one["ack_id"] for one in await calls.pull()])
    assert await gauges_of(client, "s") == quiet | {
        "oldest_waiting_message_age_seconds": hours,
        "kept_bytes waiting": size,
    }
    await calls.publish({"kind": "wanted"})
    found = await gauges_of(client, "filtered")
    assert 0 < found["oldest_message_age_seconds"] < PATIENCE_SECONDS


async def test_a_scrape_goes_on_where_the_last_one_ended(
    client: httpx.AsyncClient, calls: Calls, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SEARCH_MILLISECONDS", 0)
    await calls.topic_and_subscription(filter={"kind": ["wanted"]})
    await (await connect()).execute(
        "select from fastpubsub.topics as t cross join fastpubsub.publish_messages("
        "t.topic_key, array_fill('{}'::json, array[2500]) || '{\"kind\": \"wanted\"}'::json, null)"
    )
    found = [await gauges_of(client, "s") for _ in range(3)]
    assert [one["unjudged_messages"] for one in found] == [1501, 501, 0]
    assert [one["oldest_message_age_seconds"] > 0 for one in found] == [False, False, True]


async def test_names_are_bounded(make_settings: MakeSettings) -> None:
    async with opened(make_settings(metrics_max_subscriptions=1)) as client:
        for number in range(3):
            await use(client, f"topic-{number}", f"subscription-{number}")
        scraped = await scrape(client)
    assert 'fastpubsub_messages_published_total{topic="topic-0"} 3.0\n' in scraped
    assert 'fastpubsub_messages_published_total{topic="(rest)"} 6.0\n' in scraped
    assert 'fastpubsub_messages_acked_total{subscription="(rest)"} 2.0\n' in scraped
    assert re.findall(r'fastpubsub_subscription_messages{state="ahead",subscription="([^"]+)"', scraped) == [
        "subscription-0"
    ]


async def test_a_scrape_without_the_database(make_settings: MakeSettings) -> None:
    url = f"postgresql://127.0.0.1:{harness.free_port()}/none"
    async with opened(make_settings(database_url=url)) as client:
        await client.get("/topics")
        scraped = await scrape(client)
    assert "fastpubsub_database_up 0.0\n" in scraped
    assert 'http_requests_total{method="GET",path="/topics",status="503"} 1.0\n' in scraped
    assert "fastpubsub_subscription_messages" not in scraped


async def test_many_scrapes_ask_the_database_once(client: httpx.AsyncClient, connect: Connect) -> None:
    await asyncio.gather(*(client.get("/metrics") for _ in range(20)))
    state: Any = app_of(client).state
    known_at = state.probes._read._known_at
    await client.get("/metrics")
    assert state.probes._read._known_at == known_at
