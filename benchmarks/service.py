"""A fastpubsub with a database of its own, and what rows do with it before and after they measure."""

import itertools
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks import raw
from benchmarks.errors import BenchmarkError
from benchmarks.payloads import SMALL, payload_sql
from benchmarks.stack import Cluster, Server, start_fastpubsub

_CALL_ROWS = 1000
_FILL_ROWS = 50_000
_DAY_SECONDS = 86400
_names = itertools.count(1)


class Service:
    def __init__(self, cluster: Cluster, folder: Path, **settings: object) -> None:
        self.cluster = cluster
        self.folder = folder
        self.database_url = cluster.create_database()
        self._stack = ExitStack()
        self._stack.callback(cluster.drop_database, self.database_url)
        try:
            self.connection = self._stack.enter_context(cluster.connect(self.database_url))
            self.server = self.start_server(**settings)
        except BaseException:
            self.close()
            raise
        self._http = self._stack.enter_context(httpx.Client(base_url=f"http://{self.server.address}", timeout=30))

    def close(self) -> None:
        self._stack.close()

    def start_server(self, **settings: object) -> Server:
        """On this database, until `close`."""
        server = start_fastpubsub(self.folder, self.database_url, settings)
        self._stack.callback(server.stop)
        return server

    def create_topic(self, *, keep: bool = False) -> "Topic":
        """`keep`: nothing is trimmed, so that a cursor can go back."""
        topic_id = f"topic-{next(_names)}"
        self.post("/topics", {"id": topic_id} | ({"retention_seconds": _DAY_SECONDS} if keep else {}))
        (key,) = self.one("select topic_key from fastpubsub.topics where id = %s", topic_id)
        return Topic(self, topic_id, key)

    def create_topics(self, count: int) -> list[str]:
        """The ids of many, which nobody subscribes to."""
        ids = [f"topic-{next(_names)}" for _ in range(count)]
        query = "select t.topic_key from unnest(%s::text[]) as id cross join lateral fastpubsub.create_topic(id) as t"
        self.connection.execute(query, [ids])
        return ids

    def post(self, path: str, body: object) -> None:
        answer = self._http.post(path, json=body)
        if answer.is_error:
            raise BenchmarkError(f"POST {path} was answered with {answer.status_code}: {answer.text}")

    def get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def one(self, query: str, *arguments: object) -> tuple[Any, ...]:
        row = self.connection.execute(query.encode(), arguments or None).fetchone()
        if row is None:
            raise BenchmarkError(f"no row: {query}")
        return tuple(row)

    def save(self, *requests: bytes) -> Path:
        """A file for the scripts of wrk."""
        return raw.save(requests, self.folder / f"requests-{next(_names)}")


@dataclass(frozen=True)
class Topic:
    service: Service
    id: str
    key: int

    def subscribe(self, **settings: object) -> "Subscription":
        subscription_id = f"subscription-{next(_names)}"
        # By default nothing that a round leaves behind comes again in a later one.
        defaults = {"ack_deadline_seconds": 3600, "start_from": "earliest"}
        self.service.post("/subscriptions", {"id": subscription_id, "topic_id": self.id, **defaults, **settings})
        query = "select subscription_key from fastpubsub.subscriptions where id = %s"
        (key,) = self.service.one(query, subscription_id)
        return Subscription(self, subscription_id, key)

    @property
    def last_position(self) -> int:
        return int(self.service.one("select fastpubsub.last_position(%s)", self.key)[0])

    @property
    def trimmed(self) -> int:
        """Messages; positions start at 1."""
        query = "select coalesce(min(position) - 1, 0) from fastpubsub.messages where topic_key = %s"
        return int(self.service.one(query, self.key)[0])

    def fill(
        self,
        messages: int,
        size: int = SMALL,
        keys: str | None = None,
        ttl_seconds: int = 0,
        tenants: str | None = None,
    ) -> None:
        """Publishes at least so many from within the database; `keys` and `tenants` are expressions of their number."""
        before = self.last_position
        for start in range(before, before + messages, _FILL_ROWS):
            calls = -(-min(_FILL_ROWS, before + messages - start) // _CALL_ROWS)
            first = f"{start} + call * {_CALL_ROWS}"
            numbers = f"generate_series({first}, {first} + {_CALL_ROWS - 1}) as n"
            given = "" if keys is None else f", p_ordering_keys => array(select {keys} from {numbers})"  # noqa: S608
            if tenants is not None:
                made = f"jsonb_build_object('tenant', ({tenants})::text)"
                given += f", p_attributes => array(select {made} from {numbers})"  # noqa: S608
            if ttl_seconds:
                given += f", p_ttl_seconds => array_fill({ttl_seconds}, array[{_CALL_ROWS}])"
            payloads = payload_sql("n", size)
            self.service.one(
                f"select count(p.first_position) from generate_series(0, {calls - 1}) as call cross join lateral "  # noqa: S608
                f"fastpubsub.publish_messages({self.key}, array(select {payloads} from {numbers}){given}) as p"
            )

    def settle_statistics(self) -> None:
        """What autovacuum would do in the middle of a round."""
        self.service.connection.execute("vacuum (analyze) fastpubsub.messages")


@dataclass(frozen=True)
class Subscription:
    topic: Topic
    id: str
    key: int

    @property
    def position(self) -> int:
        """Of the cursor."""
        query = (
            "select position from fastpubsub.claims where topic_key = %s and subscription_key = %s "
            "order by sequence desc limit 1"
        )
        return int(self.topic.service.one(query, self.topic.key, self.key)[0])

    @property
    def ahead(self) -> int:
        return self.topic.last_position - self.position

    def seek(self, position: int) -> None:
        """So that this position comes next, and nothing is leased."""
        query = "select fastpubsub.seek_subscription(%s, %s, 'message', p_position => %s)"
        self.topic.service.one(query, self.topic.key, self.key, position)

    def ensure_ahead(self, messages: int, size: int = SMALL, ttl_seconds: int = 0) -> None:
        missing = messages - self.ahead
        if missing > 0:
            self.topic.fill(missing, size, ttl_seconds=ttl_seconds)

    def wait_until_settled(self, seconds: float = 60.0) -> None:
        """Until its consumers have taken and settled everything."""
        deadline = time.monotonic() + seconds
        while (metrics := self.metrics())["available"] or metrics["delivered"]:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"consumers did not settle everything in {seconds} s: {metrics}")
            time.sleep(0.05)

    def metrics(self) -> dict[str, int]:
        return dict(self.topic.service.get(f"/subscriptions/{self.id}/metrics"))
