"""The promises of docs/contract.md, seen by those who use the API: real servers, a real PostgreSQL, crashes of both."""

import asyncio
import itertools
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg
import pytest

from fastpubsub.config import Settings
from fastpubsub.embedded import EmbeddedPostgres
from tests import clusters, harness
from tests.conftest import Connect, MakeSettings, StartServer
from tests.lasting import Last

SECONDS = 100.0
PAUSE_SECONDS = 0.02
PUBLISHERS = CONSUMERS = 8
JSON = {"Content-Type": "application/json"}
SETTLE = {"Prefer": "return=representation"}
MESSAGES = "/subscriptions/s/messages?consumer_id=test&batch_size=100"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(lease_expiry_interval_seconds=0.05)


@pytest.fixture
async def two_workers(lasting_server: Last) -> AsyncIterator[httpx.AsyncClient]:
    started = lasting_server(api_num_workers=2, log_requests=False)
    async with httpx.AsyncClient(base_url=started.base_url, timeout=SECONDS) as client:
        yield client


@pytest.fixture
def crashing_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """One that flushes to disk, unlike that of the other tests, and that may be killed."""
    with EmbeddedPostgres(clusters.fill(tmp_path / "postgres", migrated=True)) as postgres:
        yield postgres


async def create(client: httpx.AsyncClient, **settings: Any) -> None:
    """The topic `t` and the subscription `s`."""
    (await client.post("/topics", json={"id": "t"})).raise_for_status()
    body = {"id": "s", "topic_id": "t", **settings}
    (await client.post("/subscriptions", json=body)).raise_for_status()


async def pull(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = (await client.get(MESSAGES)).raise_for_status().json()["data"]
    return messages


async def some(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """As `pull`, with a pause when nothing comes."""
    messages = await pull(client)
    if not messages:
        await asyncio.sleep(PAUSE_SECONDS)
    return messages


async def settle(client: httpx.AsyncClient, how: str, *ids: str) -> dict[str, list[str]]:
    answer = await client.post(f"/subscriptions/s/{how}", json=ids, headers=SETTLE)
    outcomes: dict[str, list[str]] = answer.raise_for_status().json()
    return outcomes


async def pulled(client: httpx.AsyncClient) -> dict[str, Any]:
    """The only message that comes, as soon as it comes."""
    deadline = monotonic() + SECONDS
    while monotonic() < deadline:
        if messages := await pull(client):
            (message,) = messages
            return message
        await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError(f"no message within {SECONDS} s")


async def test_every_message_once_and_in_order_when_nobody_fails(two_workers: httpx.AsyncClient) -> None:
    await create(two_workers, ack_deadline_seconds=600)
    await create_another(two_workers, "ordered")
    count = 12
    received: list[tuple[int, int]] = []

    async def publish(publisher: int) -> None:
        for number in range(count):
            body = [{"publisher": publisher, "number": 2 * number + half} for half in range(2)]
            (await two_workers.post("/topics/t/messages", json=body)).raise_for_status()

    async def consume() -> None:
        while len(received) < PUBLISHERS * count * 2:
            messages = await some(two_workers)
            received.extend((one["payload"]["publisher"], one["payload"]["number"]) for one in messages)
            ids = [one["ack_id"] for one in messages]
            assert (await settle(two_workers, "acks", *ids))["settled"] == ids

    everybody = [*(publish(number) for number in range(PUBLISHERS)), *(consume() for _ in range(CONSUMERS))]
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        for one in everybody:
            group.create_task(one)
    assert set(Counter(received).values()) == {1}
    assert len(received) == PUBLISHERS * count * 2

    ordered: dict[int, list[int]] = {publisher: [] for publisher in range(PUBLISHERS)}
    while messages := (await two_workers.get(MESSAGES.replace("/s/", "/ordered/"))).json()["data"]:
        for one in messages:
            ordered[one["payload"]["publisher"]].append(one["payload"]["number"])
    assert all(numbers == list(range(count * 2)) for numbers in ordered.values())


async def create_another(client: httpx.AsyncClient, name: str, **settings: Any) -> None:
    body = {"id": name, "topic_id": "t", **settings}
    (await client.post("/subscriptions", json=body)).raise_for_status()


async def test_a_publish_with_a_key_is_stored_once(two_workers: httpx.AsyncClient) -> None:
    await create(two_workers)
    headers = {"Idempotency-Key": "order-1", **SETTLE}

    async def publish() -> httpx.Response:
        return await two_workers.post("/topics/t/messages", json=[{"n": 1}, {"n": 2}], headers=headers)

    answers = await asyncio.gather(*(publish() for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    (ids,) = {tuple(answer.json()["ids"]) for answer in answers}
    assert [message["id"] for message in await pull(two_workers)] == list(ids)
    other = await two_workers.post("/topics/t/messages", json=[{"n": 3}], headers=headers)
    assert other.status_code == 422
    assert await pull(two_workers) == []


async def test_a_consumer_that_dies_uses_up_attempts(client: httpx.AsyncClient, connect: Connect) -> None:
    await create(client, ack_deadline_seconds=600, max_delivery_attempts=2, backoff_min_seconds=0)
    await client.post("/topics/t/messages", json=[{"n": 1}])
    connection = await connect()

    async def let_leases_end() -> None:
        (now,) = await (await connection.execute("select clock_timestamp()")).fetchone() or ()
        await connection.execute("update fastpubsub.leases set expires_at = %s", [now])

    first = await pulled(client)
    await let_leases_end()
    second = await pulled(client)
    assert (first["delivery_attempts"], second["delivery_attempts"]) == (1, 2)
    assert {name: first[name] for name in ("id", "payload", "created_at")}.items() <= second.items()
    assert (await settle(client, "acks", first["ack_id"]))["stale"] == [first["ack_id"]]
    await let_leases_end()
    deadline = monotonic() + SECONDS
    while not (letters := (await client.get("/subscriptions/s/dlq")).json()["data"]):
        assert monotonic() < deadline
        await asyncio.sleep(0.02)
    assert [(one["id"], one["reason"]) for one in letters] == [
        (first["id"], "lease expired on delivery attempt 2 of 2")
    ]
    assert (await settle(client, "acks", second["ack_id"]))["gone"] == [second["ack_id"]]


async def test_only_the_current_delivery_settles(client: httpx.AsyncClient) -> None:
    await create(client)
    await client.post("/topics/t/messages", json=[{}])
    old = (await pulled(client))["ack_id"]
    await client.post("/subscriptions/s/seek", json={"to": "earliest"})
    new = (await pulled(client))["ack_id"]
    for how in ("acks", "nacks"):
        assert await settle(client, how, old) == {"settled": [], "gone": [], "stale": [old]}
    extension = await client.post("/subscriptions/s/leases", json={"ids": [old, new], "extend_seconds": 60})
    assert extension.json() == {"ids": [new]}
    assert (await settle(client, "acks", new))["settled"] == [new]
    assert (await settle(client, "acks", new))["gone"] == [new]
    assert await pull(client) == []


FILTERS = [
    ({"company": ["AT&T"]}, '{"company": "AT&T"}', True),
    ({"company": ["AT&T"]}, '{"other": "AT&T"}', False),
    ({"company": ["AT&T"]}, '{"company": null}', False),
    ({"company": ["AT&T"]}, '{"company": ["AT&T"]}', False),
    ({"company": ["AT&T"]}, '{"nested": {"company": "AT&T"}}', False),
    ({"n": [1]}, '{"n": 1.0}', True),
    ({"n": [1]}, '{"n": "1"}', False),
    ({"n": [True]}, '{"n": "true"}', False),
    ({"n": [True]}, '{"n": 1}', False),
    ({"n": [1, "x"], "m": [False]}, '{"m": false, "n": "x"}', True),
    ({"n": [1, "x"], "m": [False]}, '{"n": "x"}', False),
    ({'quote" $.*?': ["é\\"]}, '{"quote\\" $.*?": "\\u00e9\\\\"}', True),
    ({}, "{}", True),
]


async def test_filters_are_exact(client: httpx.AsyncClient) -> None:
    await client.post("/topics", json={"id": "t"})
    for number, (filter_, _, _) in enumerate(FILTERS):
        await create_another(client, f"s{number}", filter=filter_)
    for _, payload, _ in FILTERS:
        (await client.post("/topics/t/messages", content=f"[{payload}]", headers=JSON)).raise_for_status()
    for number, (filter_, payload, matches) in enumerate(FILTERS):
        messages = (await client.get(MESSAGES.replace("/s/", f"/s{number}/"))).json()["data"]
        assert (json.loads(payload) in [one["payload"] for one in messages]) is matches, (filter_, payload)


async def test_payloads_come_back_to_the_byte(client: httpx.AsyncClient) -> None:
    await create(client)
    payloads = [
        '{"n":1e308, "m" : 18446744073709551621,"k":1.10,"z":-0.0}',
        '{"é": "漢字", "e": "\\u00e9\\n\\ud83d\\ude00"}',
        '{  "twice": 1, "twice": 2, "nested": {"list": [[], {}, null]}}',
    ]
    await client.post("/topics/t/messages", content=f"[{', '.join(payloads)}]".encode(), headers=JSON)
    text = (await client.get(MESSAGES)).text
    assert all(f'"payload":{payload},"delivery_attempts"' in text for payload in payloads)


REFUSED = [
    b'{"a": "\\u0000"}',
    b'{"a": NaN}',
    b'{"a": "\\ud800"}',
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"a": "\xff"}',
]


@pytest.mark.parametrize("payload", REFUSED, ids=lambda payload: payload[:16].decode("latin-1"))
async def test_what_cannot_be_kept_is_refused_and_nothing_is_stored(client: httpx.AsyncClient, payload: bytes) -> None:
    await create(client)
    answer = await client.post("/topics/t/messages", content=b'[{"good": 1}, %b]' % payload, headers=JSON)
    assert answer.status_code == 422
    assert await pull(client) == []


class Witness:
    """Publishes and consumes, and remembers what was answered, until it is told to stop."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.stopping = threading.Event()
        self.confirmed: list[int] = []
        self.received: dict[int, set[int]] = {}
        self.acked: set[str] = set()
        self.again: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.numbers = itertools.count()

    def publish(self) -> None:
        with httpx.Client(base_url=self.base_url) as client:
            while not self.stopping.is_set():
                number = next(self.numbers)
                answer = self.ask(
                    client, "POST", "/topics/t/messages", [{"n": number, "part": part} for part in range(3)]
                )
                if answer is not None and answer.is_success:
                    self.confirmed.append(number)

    def consume(self) -> None:
        with httpx.Client(base_url=self.base_url) as client:
            while not self.stopping.is_set():
                self.consume_once(client)

    def consume_once(self, client: httpx.Client) -> None:
        answer = self.ask(client, "GET", MESSAGES)
        if answer is None or not answer.is_success:
            return
        messages = answer.json()["data"]
        self.again += [one["id"] for one in messages if one["id"] in self.acked]
        for payload in (one["payload"] for one in messages):
            self.received.setdefault(payload["n"], set()).add(payload["part"])
        outcome = self.ask(client, "POST", "/subscriptions/s/acks", [one["ack_id"] for one in messages])
        if outcome is not None and outcome.is_success:
            settled = set(outcome.json()["settled"])
            self.acked.update(one["id"] for one in messages if one["ack_id"] in settled)

    def ask(self, client: httpx.Client, method: str, path: str, body: Any = None) -> httpx.Response | None:
        with suppress(httpx.TransportError):
            answer = client.request(method, path, json=body, headers=SETTLE, timeout=SECONDS)
            self.statuses[answer.status_code] += 1
            assert answer.status_code != 503 or "retry-after" in answer.headers
            return answer
        return None


def crash(postgres: EmbeddedPostgres) -> None:
    """Kills the process of one connection: PostgreSQL ends all others, and recovers as after a loss of power."""
    with psycopg.connect(harness.libpq(postgres.url())) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


@pytest.mark.long
def test_what_was_confirmed_survives_crashes_of_the_database(
    server: StartServer, crashing_postgres: EmbeddedPostgres
) -> None:
    started = server(database_url=crashing_postgres.url(), log_requests=False)
    witness = Witness(started.base_url)
    with httpx.Client(base_url=started.base_url, timeout=SECONDS) as client, ThreadPoolExecutor() as pool:
        client.post("/topics", json={"id": "t"}).raise_for_status()
        body = {"id": "s", "topic_id": "t", "ack_deadline_seconds": 1, "max_delivery_attempts": 1000}
        client.post("/subscriptions", json=body).raise_for_status()
        running = [pool.submit(work) for work in (witness.publish, witness.publish, witness.consume)]
        deadline = monotonic() + 4 * SECONDS
        try:
            for _ in range(3):
                enough = len(witness.confirmed) + 50
                while len(witness.confirmed) < enough:
                    assert monotonic() < deadline, witness.statuses
                    client.get("/readiness")
                crash(crashing_postgres)
        finally:
            witness.stopping.set()
        for one in running:
            one.result(SECONDS)
        while any(remaining(client).values()):
            assert monotonic() < deadline, remaining(client)
            witness.consume_once(client)
    assert set(witness.statuses) <= {200, 201, 503}
    assert set(witness.confirmed) <= witness.received.keys()
    assert all(parts == {0, 1, 2} for parts in witness.received.values())
    assert witness.again == []


def remaining(client: httpx.Client) -> dict[str, int]:
    answer = client.get("/subscriptions/s/metrics")
    metrics = answer.json() if answer.is_success else {"available": -1, "delivered": -1}
    return {name: metrics[name] for name in ("available", "delivered")}


async def test_leases_outlive_the_server(server: StartServer) -> None:
    first = server()
    async with httpx.AsyncClient(base_url=first.base_url, timeout=SECONDS) as client:
        await create(client, ack_deadline_seconds=600)
        await client.post("/topics/t/messages", json=[{"n": 1}])
        leased = await pulled(client)
    assert first.stop() == 0
    async with httpx.AsyncClient(base_url=server().base_url, timeout=SECONDS) as client:
        assert await pull(client) == []
        assert (await settle(client, "acks", leased["ack_id"]))["settled"] == [leased["ack_id"]]


def test_a_database_that_is_away_is_no_internal_error(server: StartServer, crashing_postgres: EmbeddedPostgres) -> None:
    started = server(database_url=crashing_postgres.url())
    with httpx.Client(base_url=started.base_url, timeout=SECONDS) as client:
        client.post("/topics", json={"id": "t"}).raise_for_status()
        client.post("/subscriptions", json={"id": "s", "topic_id": "t"}).raise_for_status()
        client.get(MESSAGES).raise_for_status()
        crashing_postgres.stop()
        requests: list[tuple[str, str, Any]] = [
            ("GET", "/topics", None),
            ("POST", "/topics", {"id": "u"}),
            ("POST", "/topics/t/messages", [{}]),
            ("GET", MESSAGES, None),
            ("POST", "/subscriptions/s/acks", ["550e8400-e29b-41d4-a716-446655440000"]),
            ("GET", "/subscriptions/s/dlq", None),
            ("GET", "/subscriptions/s/metrics", None),
            ("GET", "/clients", None),
        ]
        for method, path, body in requests:
            answer = client.request(method, path, json=body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), (method, path)
        assert client.get("/liveness").is_success
