"""The calls of the HTTP API that most tests make, with what they usually say."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import psycopg

from fastpubsub.database.calls import Database
from fastpubsub.services.maintenance import Released, release_expired_leases
from fastpubsub.services.waiting_lines import WaitingLine

Json = dict[str, Any]

REPRESENTATION = {"Prefer": "return=representation"}
JSON = {"Content-Type": "application/json"}
PATIENCE = 18.0
"""Seconds, for what another task or process has to do first; less than the 20 that pulls may wait by themselves."""


class Calls:
    """Of one client; each expects that it succeeds."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self._is_ready = False

    async def topic(self, name: str = "t", **body: Any) -> Json:
        created: Json = success(await self.client.post("/topics", json={"id": name, **body}), 201)
        return created

    async def subscription(self, name: str = "s", topic: str = "t", **body: Any) -> Json:
        body = {"id": name, "topic_id": topic, **body}
        created: Json = success(await self.client.post("/subscriptions", json=body), 201)
        return created

    async def topic_and_subscription(self, **body: Any) -> None:
        await self.topic()
        await self.subscription(**body)

    async def ready(self) -> None:
        """With a topic and a subscription, which are made the first time."""
        if not self._is_ready:
            await self.topic_and_subscription()
            self._is_ready = True

    async def publish(self, *payloads: Json, topic: str = "t") -> list[str]:
        """The ids."""
        response = await self.client.post(f"/topics/{topic}/messages", json=payloads, headers=REPRESENTATION)
        return list(success(response, 201)["ids"])

    async def publish_text(self, *payloads: str, topic: str = "t") -> None:
        """To the letter."""
        body = f"[{','.join(payloads)}]".encode()
        success(await self.client.post(f"/topics/{topic}/messages", content=body, headers=JSON), 204)

    async def pull_text(self, batch_size: int = 100, name: str = "s", consumer: str = "tester") -> str:
        parameters: dict[str, str | int] = {"consumer_id": consumer, "batch_size": batch_size}
        response = await self.client.get(f"/subscriptions/{name}/messages", params=parameters)
        success(response, 200)
        return response.text

    async def pull(self, batch_size: int = 100, name: str = "s", consumer: str = "tester") -> list[Json]:
        parameters: dict[str, str | int] = {"consumer_id": consumer, "batch_size": batch_size}
        response = await self.client.get(f"/subscriptions/{name}/messages", params=parameters)
        return list(success(response, 200)["data"])

    async def pull_one(self, name: str = "s") -> Json:
        (message,) = await self.pull(name=name)
        return message

    async def settle(self, verb: str, ids: Sequence[str], name: str = "s", **parameters: Any) -> dict[str, list[str]]:
        response = await self.client.post(
            f"/subscriptions/{name}/{verb}", json=ids, params=parameters, headers=REPRESENTATION
        )
        outcomes: dict[str, list[str]] = success(response, 200)
        return outcomes

    async def ack(self, *ids: str, name: str = "s") -> dict[str, list[str]]:
        return await self.settle("acks", ids, name)

    async def nack(self, *ids: str, name: str = "s", **parameters: Any) -> dict[str, list[str]]:
        return await self.settle("nacks", ids, name, **parameters)

    async def reject(self, *ids: str, name: str = "s", **body: Any) -> dict[str, list[str]]:
        response = await self.client.post(
            f"/subscriptions/{name}/rejects", json={"ids": ids, **body}, headers=REPRESENTATION
        )
        outcomes: dict[str, list[str]] = success(response, 200)
        return outcomes

    async def extend(self, *ids: str, seconds: int = 60, name: str = "s") -> list[str]:
        body = {"ids": ids, "extend_seconds": seconds}
        return list(success(await self.client.post(f"/subscriptions/{name}/leases", json=body), 200)["ids"])

    async def seek(self, to: str, name: str = "s") -> None:
        success(await self.client.post(f"/subscriptions/{name}/seek", json={"to": to}), 204)

    async def dead_letters(self, name: str = "s", **parameters: Any) -> list[Json]:
        return list(success(await self.client.get(f"/subscriptions/{name}/dlq", params=parameters), 200)["data"])

    async def reprocess(self, *ids: str, name: str = "s") -> list[str]:
        response = await self.client.post(f"/subscriptions/{name}/dlq/reprocess", json=ids, headers=REPRESENTATION)
        return list(success(response, 200)["ids"])

    async def purge(self, *ids: str, name: str = "s") -> list[str]:
        response = await self.client.request("DELETE", f"/subscriptions/{name}/dlq", json=ids, headers=REPRESENTATION)
        return list(success(response, 200)["ids"])

    async def counts(self, name: str = "s") -> tuple[int, int, int, int]:
        """Available, delivered, acked and dead."""
        found = success(await self.client.get(f"/subscriptions/{name}/metrics"), 200)
        return found["available"], found["delivered"], found["acked"], found["dlq"]


def success(response: httpx.Response, status: int) -> Any:
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def problem(response: httpx.Response, status: int) -> str:
    """The sentence of a refusal, which is rendered as every other."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    assert isinstance(body["detail"], str)
    assert len(response.content) < 4096
    return str(body["detail"])


def payloads(messages: Sequence[Json]) -> list[Json]:
    return [message["payload"] for message in messages]


def ids_of(messages: Sequence[Json], name: str = "id") -> list[str]:
    return [message[name] for message in messages]


async def expire_leases(connection: psycopg.AsyncConnection, database: Database) -> Released:
    """As if the ack deadline of all had passed. The background of the server may be faster; then nothing is left."""
    await connection.execute("update fastpubsub.leases set expires_at = clock_timestamp() - interval '1 ms'")
    return await release_expired_leases(database)


async def until_scraped(client: httpx.AsyncClient, *lines: str) -> None:
    """Until the metrics have these lines: the background counts what it did a moment after others can see it."""
    async with asyncio.timeout(PATIENCE):
        while not set(lines) <= set((await client.get("/metrics")).text.splitlines()):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)


async def until_blocked(connection: psycopg.AsyncConnection, count: int = 1) -> None:
    """Until that many sessions of this database wait for a lock."""
    query = """
        select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()
    """
    async with asyncio.timeout(PATIENCE):
        while (await (await connection.execute(query)).fetchall())[0][0] < count:
            pass


async def until_waiting(line: WaitingLine, consumer: asyncio.Task[Any]) -> None:
    """A consumer that was woken for nothing waits again soon; one that got something fails."""
    async with asyncio.timeout(PATIENCE):
        while not (line.is_waiting or consumer.done()):  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0.001)
    assert not consumer.done()
