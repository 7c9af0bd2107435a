"""The procedures of the storage as typed methods of one connection, time always given: nothing here sleeps."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.types.string import TextLoader

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
GONE, SETTLED, STALE = 0, 1, 2
EVERYTHING = 1 << 40
WAIT_SECONDS = 30.0
# Of a property; FASTPUBSUB_TEST_EXAMPLES=2000 for a long look.
EXAMPLES = int(os.environ.get("FASTPUBSUB_TEST_EXAMPLES", "40"))

Row = tuple[Any, ...]


class Keys(NamedTuple):
    topic: int
    subscription: int


class Published(NamedTuple):
    first_position: int
    created_at: datetime


@dataclass(frozen=True)
class Claimed:
    token: int | None
    expires_at: datetime | None
    scanned: int
    last: int
    positions: list[int]
    attempts: list[int]
    created_at: list[datetime]
    payloads: list[str]
    attributes: list[str | None]
    unreadable: list[int]
    unreadable_created_at: list[datetime]

    @property
    def ids(self) -> "list[Id]":
        return [Id(position, self.token, time) for position, time in zip(self.positions, self.created_at, strict=True)]


class Id(NamedTuple):
    """What a consumer settles by: with a token an ack id, without one a bare message id."""

    position: int
    token: int | None
    created_at: datetime | None

    @property
    def bare(self) -> "Id":
        return self._replace(token=None)


class Released(NamedTuple):
    released: int
    died: int


class Metrics(NamedTuple):
    ahead: int
    waiting: int
    leased: int
    dead: int
    acked: int
    estimated: bool
    oldest_created_at: datetime | None


class DeadLetter(NamedTuple):
    position: int
    created_at: datetime
    died_at: datetime
    attempts: int
    reason: str
    payload: str
    attributes: str | None


class Lease(NamedTuple):
    position: int
    token: int
    expires_at: datetime
    attempts: int
    consumer_id: str


class Retry(NamedTuple):
    position: int
    due_at: datetime
    attempts: int


class Cursor(NamedTuple):
    sequence: int
    position: int
    retry_due_at: datetime | None
    retry_position: int
    routed: int
    purged: int


@dataclass
class Settings:
    """Those of a subscription; `start` goes to p_start_from."""

    filter: str | None = None
    ack_deadline: int = 60
    max_attempts: int = 5
    backoff_min: int = 10
    backoff_max: int = 600
    start: str = "latest"
    start_time: datetime | None = None


@dataclass
class Store:
    connection: psycopg.Connection

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid

    def rows(self, query: str, *arguments: object) -> list[Row]:
        return self.connection.execute(query.encode(), arguments or None).fetchall()

    def row(self, query: str, *arguments: object) -> Row:
        (row,) = self.rows(query, *arguments)
        return row

    def value(self, query: str, *arguments: object) -> Any:
        (value,) = self.row(query, *arguments)
        return value

    def execute(self, query: str, *arguments: object) -> int:
        return self.connection.execute(query.encode(), arguments or None).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self.connection.transaction():
            yield

    @contextmanager
    def undone(self) -> Iterator[None]:
        with self.connection.transaction(force_rollback=True):
            yield

    @contextmanager
    def refused(self, sqlstate: str) -> Iterator[None]:
        """What is inside fails so; a transaction around it goes on."""
        with pytest.raises(psycopg.Error) as raised, self.connection.transaction():
            yield
        assert raised.value.sqlstate == sqlstate

    # Topics and subscriptions

    def create_topic(self, name: str = "topic", *, retention: int | None = None, now: datetime = NOW) -> int:
        return int(self.row("select * from fastpubsub.create_topic(%s, %s, null, %s)", name, retention, now)[0])

    def create_subscription(
        self, name: str = "subscription", topic: str = "topic", settings: Settings | None = None, *, now: datetime = NOW
    ) -> Keys:
        given = settings or Settings()
        topic_key, subscription_key, _ = self.row(
            "select * from fastpubsub.create_subscription(%s, %s, %s::json, %s, %s, %s, %s, %s, %s, %s)",
            name,
            topic,
            given.filter,
            given.ack_deadline,
            given.max_attempts,
            given.backoff_min,
            given.backoff_max,
            given.start,
            given.start_time,
            now,
        )
        return Keys(topic_key, subscription_key)

    def create(self, **settings: Any) -> Keys:
        """A topic with one subscription."""
        self.create_topic()
        return self.create_subscription(settings=Settings(**settings))

    def update_subscription(self, name: str, **changes: object) -> None:
        given = ", ".join(f"p_{name} => %s" for name in changes)
        self.execute(f"select fastpubsub.update_subscription(p_id => %s, {given})", name, *changes.values())

    def delete_topic(self, name: str = "topic") -> None:
        self.execute("select fastpubsub.delete_topic(%s)", name)

    def delete_subscription(self, name: str = "subscription") -> None:
        self.execute("select fastpubsub.delete_subscription(%s)", name)

    def empty_purges(self, limit: int = 5000) -> int | None:
        deleted: int | None = self.value("select fastpubsub.empty_purges(%s)", limit)
        return deleted

    # Messages

    def publish(
        self,
        topic: int,
        payloads: Sequence[str],
        attributes: Sequence[str | None] | None = None,
        *,
        schema_version: int | None = 0,
        now: datetime | None = NOW,
    ) -> Published:
        given = None if attributes is None else list(attributes)
        query = "select * from fastpubsub.publish_messages(%s, %s::json[], %s::jsonb[], %s, %s)"
        return Published(*self.row(query, topic, list(payloads), given, schema_version, now))

    def fill(self, topic: int, count: int, payload: str = "{}", *, now: datetime | None = NOW) -> Published:
        """Publishes as many messages at once; they are made in the database."""
        query = """
            select * from fastpubsub.publish_messages(
                %s, array_fill(%s::json, array[%s]), null, 0, %s
            )
        """
        return Published(*self.row(query, topic, payload, count, now))

    def claim(
        self,
        keys: Keys,
        limits: int | Sequence[int] = 100,
        consumers: Sequence[str] = ("consumer",),
        *,
        now: datetime | None = NOW,
        max_bytes: int = EVERYTHING,
        scan_rows: int = 50_000,
        scan_milliseconds: int = 60_000,
    ) -> Claimed:
        row = self.row(
            "select * from fastpubsub.claim_messages(%s, %s, %s::integer[], %s::text[], %s, %s, %s, %s)",
            *keys,
            [limits] if isinstance(limits, int) else list(limits),
            list(consumers),
            max_bytes,
            scan_rows,
            scan_milliseconds,
            now,
        )
        return Claimed(*row[:4], *(column or [] for column in row[4:]))

    def _settle(
        self, procedure: str, keys: Keys, ids: Sequence[Id], values: Sequence[object] | None, *more: object
    ) -> Row:
        """Neighbours that share everything else go as one run."""
        runs: list[tuple[Id, object]] = []
        lengths: list[int] = []
        for one, value in zip(ids, values or [None] * len(ids), strict=True):
            if runs and runs[-1] == (one._replace(position=one.position - lengths[-1]), value):
                lengths[-1] += 1
            else:
                runs.append((one, value))
                lengths.append(1)
        columns = list(zip(*(one for one, _ in runs), strict=True)) or [(), (), ()]
        given = [] if values is None else [[value for _, value in runs]]
        query = (
            f"select * from fastpubsub.{procedure}(%s, %s, %s::bigint[], %s::bigint[], %s::timestamptz[]"
            + ", %s" * (len(given) + 1 + len(more))
            + ")"
        )
        return self._retried(query, *keys, *map(list, columns), *given, lengths, *more)

    def _retried(self, query: str, *arguments: object) -> Row:
        """As the server does it: what 40001 refuses is called again."""
        for _ in range(3):
            with suppress(psycopg.errors.SerializationFailure), self.connection.transaction():
                return self.row(query, *arguments)
        return self.row(query, *arguments)

    def ack(self, keys: Keys, ids: Sequence[Id]) -> list[int]:
        (outcomes,) = self._settle("ack_messages", keys, ids, None)
        return list(outcomes or [])

    def nack(
        self, keys: Keys, ids: Sequence[Id], delays: Sequence[int | None] | None = None, *, now: datetime | None = NOW
    ) -> list[int]:
        outcomes, _ = self._settle("nack_messages", keys, ids, delays or [None] * len(ids), now)
        return list(outcomes or [])

    def reject(
        self, keys: Keys, ids: Sequence[Id], reasons: Sequence[str] | None = None, *, now: datetime | None = NOW
    ) -> list[int]:
        (outcomes,) = self._settle("reject_messages", keys, ids, reasons or ["rejected"] * len(ids), now)
        return list(outcomes or [])

    def extend(
        self, keys: Keys, ids: Sequence[Id], seconds: int | Sequence[int], *, now: datetime | None = NOW
    ) -> list[int]:
        given = [seconds] * len(ids) if isinstance(seconds, int) else list(seconds)
        (outcomes,) = self._settle("extend_leases", keys, ids, given, now)
        return list(outcomes or [])

    def give_back(self, keys: Keys, positions: Sequence[int], token: int | None, *, now: datetime | None = NOW) -> int:
        query = "select fastpubsub.return_leases(%s, %s, %s::bigint[], %s, %s)"
        return int(self.value(query, *keys, list(positions), token, now))

    def release(
        self,
        keys: Keys,
        *,
        now: datetime | None = NOW,
        look_back: float | None = None,
        limit: int = 1000,
        wait: bool = False,
    ) -> Released:
        query = "select * from fastpubsub.release_expired_leases(%s, %s, %s, %s, %s, %s)"
        return Released(*self.row(query, *keys, look_back, limit, wait, now))

    def ready(self, *keys: Keys, now: datetime | None = NOW) -> list[Row]:
        query = "select * from fastpubsub.list_ready_subscriptions(%s, %s, %s)"
        return self.rows(query, [key.topic for key in keys], [key.subscription for key in keys], now)

    def expired(self, *, now: datetime | None = NOW, look_back: float | None = None) -> list[Row]:
        return self.rows("select * from fastpubsub.list_expired_leases(%s, %s)", look_back, now)

    def seek(
        self,
        keys: Keys,
        to: str,
        *,
        time: datetime | None = None,
        position: int | None = None,
        now: datetime | None = NOW,
    ) -> None:
        query = "select fastpubsub.seek_subscription(%s, %s, %s, %s, %s, %s)"
        self.execute(query, *keys, to, time, position, now)

    def trim(
        self,
        topic: int,
        retention: int = 0,
        *,
        limit: int = 5000,
        wait: bool = False,
        now: datetime | None = NOW + SECOND,
    ) -> int:
        query = "select fastpubsub.trim_messages(%s, %s, %s, %s, %s)"
        return int(self.value(query, topic, retention, limit, wait, now))

    def trim_claims(self, topic: int, window: int = 3600, *, limit: int = 5000, now: datetime | None = NOW) -> int:
        return int(self.value("select fastpubsub.trim_claims(%s, %s, %s, %s)", topic, window, limit, now))

    # Dead letters

    def dead_letters(
        self, keys: Keys, offset: int = 0, limit: int = 1000, max_bytes: int = EVERYTHING
    ) -> list[DeadLetter]:
        query = "select * from fastpubsub.list_dead_letters(%s, %s, %s, %s, %s)"
        return [DeadLetter(*row) for row in self.rows(query, *keys, offset, limit, max_bytes)]

    def _move_dead(self, procedure: str, keys: Keys, ids: Sequence[Id], *more: object) -> list[int]:
        query = f"select fastpubsub.{procedure}(%s, %s, %s::bigint[], %s::timestamptz[]{', %s' * len(more)})"
        return list(
            self.value(query, *keys, [one.position for one in ids], [one.created_at for one in ids], *more) or []
        )

    def reprocess(self, keys: Keys, ids: Sequence[Id], *, now: datetime | None = NOW) -> list[int]:
        return self._move_dead("reprocess_dead_letters", keys, ids, now)

    def purge(self, keys: Keys, ids: Sequence[Id]) -> list[int]:
        return self._move_dead("purge_dead_letters", keys, ids)

    # What is stored

    def metrics(self, keys: Keys, look: int = 10_000) -> Metrics:
        return Metrics(*self.row("select * from fastpubsub.subscription_metrics(%s, %s, %s)", *keys, look))

    def leases(self, keys: Keys) -> list[Lease]:
        """One for each position, however long the rows are."""
        query = """
            select p, token, expires_at, attempts, consumer_id
            from fastpubsub.leases cross join generate_series(position, last_position) as p
            where topic_key = %s and subscription_key = %s order by p
        """
        return [Lease(*row) for row in self.rows(query, *keys)]

    def leased(self, keys: Keys) -> list[Id]:
        """The ids by which their holders settle them."""
        return [Id(lease.position, lease.token, None) for lease in self.leases(keys)]

    def retries(self, keys: Keys) -> list[Retry]:
        query = """
            select position, due_at, attempts from fastpubsub.retries
            where topic_key = %s and subscription_key = %s order by due_at, position
        """
        return [Retry(*row) for row in self.rows(query, *keys)]

    def cursor(self, keys: Keys) -> Cursor:
        query = """
            select sequence, position, nullif(retry_due_at, '-infinity'), retry_position, routed, purged
            from fastpubsub.claims where topic_key = %s and subscription_key = %s order by sequence desc limit 1
        """
        return Cursor(*self.row(query, *keys))

    def positions(self, topic: int) -> list[int]:
        query = "select position from fastpubsub.messages where topic_key = %s order by position"
        return [position for (position,) in self.rows(query, topic)]

    def orphans(self) -> dict[str, int]:
        """Rows of the hot tables without their row in `heads` or `cursors` that no purge will empty, by table."""
        return {
            table: count
            for table in ("messages", "idempotency_keys", *OF_SUBSCRIPTIONS)
            if (count := self.value(orphans_of(table)))
        }


OF_SUBSCRIPTIONS = ("claims", "leases", "retries", "dead_letters", "revived")


def orphans_of(table: str) -> str:
    of_subscription = table in OF_SUBSCRIPTIONS
    owner = "cursors" if of_subscription else "heads"
    same = "o.topic_key = t.topic_key" + (" and o.subscription_key = t.subscription_key" if of_subscription else "")
    purge = " and p.subscription_key = t.subscription_key" if of_subscription else ""
    return f"""
        select count(*) from fastpubsub.{table} as t
        where not exists (select from fastpubsub.{owner} as o where {same})
        and not exists (
            select from fastpubsub.purges as p
            where p.topic_key = t.topic_key and (p.subscription_key is null {purge.replace("and", "or", 1)})
        )
    """


def connect(url: str, *, autocommit: bool) -> Store:
    connection = psycopg.connect(url, autocommit=autocommit)
    # The text as it was published, not what Python would make of it.
    connection.adapters.register_loader("json", TextLoader)
    connection.adapters.register_loader("jsonb", TextLoader)
    connection.execute("set time zone 'UTC'")
    if not autocommit:
        connection.commit()
    return Store(connection)


def wait_until_blocked(watcher: Store, blocked: Store, *, by: Store | None = None) -> None:
    """Until PostgreSQL says that it waits for a lock (of that one)."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        pids = watcher.value("select pg_blocking_pids(%s)", blocked.pid)
        if pids and (by is None or by.pid in pids):
            return
    raise AssertionError("it does not wait for the lock")
