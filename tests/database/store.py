"""The procedures of the storage as typed methods of one connection, time always given: nothing here sleeps."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.types.string import TextLoader

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
GONE, SETTLED, STALE = 0, 1, 2
EVERYTHING = 1 << 40
WAIT_SECONDS = 60.0
# Calls after which no row and no entry of an index that a call reads gets a hint any more.
HINTED = 8
# Of a property; FASTPUBSUB_TEST_EXAMPLES=2000 is for a long look.
EXAMPLES = int(os.environ.get("FASTPUBSUB_TEST_EXAMPLES", "15"))

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
    lease_seconds: int | None
    filtered: int | None
    is_paused: bool | None = None
    ordering_keys: list[str | None] | None = None
    shares: list[int] | None = None
    limited_seconds: float | None = None
    ttl_expired: int | None = None
    dead_lettered: int | None = None

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


class Seen(NamedTuple):
    position: int
    created_at: datetime
    attempts: int
    at: datetime | None
    note: str | None
    since: datetime | None
    payload: str
    attributes: str | None
    ordering_key: str | None = None
    failures: str | None = None
    expires_at: datetime | None = None


class Browsed(NamedTuple):
    seen: list[Seen]
    looked_at: int
    next: int | None
    next_at: datetime | None
    other_side: int | None

    @property
    def positions(self) -> list[int]:
        return [one.position for one in self.seen]


class Settles(NamedTuple):
    """Of each kind the ids, and the value of each."""

    acks: tuple[Sequence[Id], None] = ((), None)
    nacks: tuple[Sequence[Id], Sequence[int | None] | None] = ((), None)
    returns: tuple[Sequence[Id], None] = ((), None)
    rejects: tuple[Sequence[Id], Sequence[str] | None] = ((), None)
    extensions: tuple[Sequence[Id], Sequence[int] | None] = ((), None)


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
    oldest_leased_created_at: datetime | None = None
    oldest_waiting_created_at: datetime | None = None
    unjudged: int = 0
    filtered: int = 0
    ttl_expired: int = 0
    held_keys: int = 0
    dropped: int = 0


class Judged(NamedTuple):
    """Between the positions no message matches that filter."""

    filter: int
    from_: int
    to: int


class Kept(NamedTuple):
    position: int | None
    created_at: datetime | None
    state: str | None
    messages: int
    bytes: int


class DeadLetter(NamedTuple):
    position: int
    created_at: datetime
    died_at: datetime
    attempts: int
    reason: str
    payload: str
    attributes: str | None
    ordering_key: str | None = None


class Lease(NamedTuple):
    position: int
    token: int
    leased_at: datetime
    expires_at: datetime
    attempts: int
    consumer_id: str


class Failed(NamedTuple):
    failed_at: datetime
    attempt: int
    cause: str
    reason: str | None
    consumer_id: str


class Retry(NamedTuple):
    position: int
    due_at: datetime
    attempts: int
    reason: str


class Cursor(NamedTuple):
    sequence: int
    position: int
    retry_due_at: datetime | None
    retry_position: int
    routed: int
    purged: int


class Explained(NamedTuple):
    state: str
    attempts: int | None
    consumer_id: str | None
    until: datetime | None
    died_at: datetime | None
    reason: str | None
    before: int | None
    before_is_estimated: bool | None
    filter: str | None
    field: str | None
    expected: str | None
    actual: str | None
    actual_bytes: int | None
    similar_field: str | None
    is_readable: bool | None
    sought_at: datetime | None
    paused_at: datetime | None
    leased_at: datetime | None
    is_put_aside: bool | None = None
    at_limit: int | None = None
    at_rate_limit: float | None = None
    failures: str | None = None
    expired_at: datetime | None = None
    held_by: str | None = None
    may_be_dropped: bool | None = None


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
    ordered: bool = False
    max_in_flight: int | None = None
    rate_limit: float | None = None
    dead_letter_topic: str | None = None
    expire_after: int | None = None
    on_expired: str | None = None
    on_dead_letter: str | None = None
    max_backlog: int | None = None
    on_full: str | None = None
    fair_by: str | None = None
    backoff_jitter: float | None = None


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
            "select * from fastpubsub.create_subscription(%s, %s, %s::json, %s, %s, %s, %s, %s, %s, %s,"
            " p_ordered => %s, p_max_in_flight => %s, p_rate_limit => %s, p_dead_letter_topic => %s,"
            " p_expire_after_seconds => %s, p_on_expired => %s, p_on_dead_letter => %s, p_max_backlog => %s,"
            " p_on_full => %s, p_fair_by => %s, p_backoff_jitter => %s)",
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
            given.ordered,
            given.max_in_flight,
            given.rate_limit,
            given.dead_letter_topic,
            given.expire_after,
            given.on_expired,
            given.on_dead_letter,
            given.max_backlog,
            given.on_full,
            given.fair_by,
            given.backoff_jitter,
        )
        return Keys(topic_key, subscription_key)

    def fork_subscription(
        self, name: str, fork_of: str = "subscription", topic: str = "topic", *, now: datetime = NOW, **settings: object
    ) -> Keys:
        """A setting is a column of `cursors`, or the filter."""
        topic_key, subscription_key, _ = self.row(
            "select * from fastpubsub.fork_subscription(%s, %s, %s, %s::jsonb, %s, %s::json, null, %s)",
            name,
            topic,
            fork_of,
            json.dumps({member: value for member, value in settings.items() if member != "filter"}),
            "filter" in settings,
            settings.get("filter"),
            now,
        )
        return Keys(topic_key, subscription_key)

    def create(self, **settings: Any) -> Keys:
        """A topic with one subscription."""
        self.create_topic()
        return self.create_subscription(settings=Settings(**settings))

    def update_subscription(self, name: str, **changes: object) -> None:
        given = ", ".join(f"p_{name} => %s" for name in changes)
        self.execute(f"select fastpubsub.update_subscription_2(p_id => %s, {given})", name, *changes.values())

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
        ordering_keys: Sequence[str | None] | None = None,
        ttls: Sequence[int | None] | None = None,
        expires_at: Sequence[datetime | None] | None = None,
        now: datetime | None = NOW,
    ) -> Published:
        given = None if attributes is None else list(attributes)
        keys = None if ordering_keys is None else list(ordering_keys)
        expiry = [None if one is None else list(one) for one in (ttls, expires_at)]
        query = """
            select * from fastpubsub.publish_messages(
                %s, %s::json[], %s::jsonb[], %s, %s, %s, %s::integer[], %s::timestamptz[]
            )
        """
        return Published(*self.row(query, topic, list(payloads), given, schema_version, now, keys, *expiry))

    def fill(
        self, topic: int, count: int, payload: str = "{}", *, ttl: int | None = None, now: datetime | None = NOW
    ) -> Published:
        """Publishes as many messages at once; they are made in the database."""
        query = """
            select * from fastpubsub.publish_messages(
                %s, array_fill(%s::json, array[%s]), null, 0, %s, null,
                case when %s::integer is not null then array_fill(%s::integer, array[%s]) end
            )
        """
        return Published(*self.row(query, topic, payload, count, now, ttl, ttl, count))

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
            "select * from fastpubsub.claim_messages_2(%s, %s, %s::integer[], %s::text[], %s, %s, %s, %s)",
            *keys,
            [limits] if isinstance(limits, int) else list(limits),
            list(consumers),
            max_bytes,
            scan_rows,
            scan_milliseconds,
            now,
        )
        return Claimed(*row[:4], *(column or [] for column in row[4:11]), *row[11:])

    def _settle(
        self, procedure: str, keys: Keys, ids: Sequence[Id], values: Sequence[object] | None, *more: object
    ) -> Row:
        columns, given, lengths = runs(ids, values or [None] * len(ids))
        more = (lengths, *more) if values is None else (given, lengths, *more)
        query = (
            f"select * from fastpubsub.{procedure}(%s, %s, %s::bigint[], %s::bigint[], %s::timestamptz[]"
            + ", %s" * len(more)
            + ")"
        )
        return self._retried(query, *keys, *columns, *more)

    def _retried(self, query: str, *arguments: object) -> Row:
        """As the server does it: what 40001 refuses is called again."""
        for _ in range(3):
            with suppress(psycopg.errors.SerializationFailure), self.connection.transaction():
                return self.row(query, *arguments)
        return self.row(query, *arguments)

    def ack(self, keys: Keys, ids: Sequence[Id], *, now: datetime | None = NOW) -> list[int]:
        outcomes, _ = self._settle("ack_messages_2", keys, ids, None, now)
        return list(outcomes or [])

    def nack(
        self,
        keys: Keys,
        ids: Sequence[Id],
        delays: Sequence[int | None] | None = None,
        *,
        reason: str | None = None,
        now: datetime | None = NOW,
    ) -> list[int]:
        reasons = [reason] * len(ids)
        outcomes, _ = self._settle("nack_messages", keys, ids, delays or [None] * len(ids), now, reasons)
        return list(outcomes or [])

    def reject(
        self, keys: Keys, ids: Sequence[Id], reasons: Sequence[str] | None = None, *, now: datetime | None = NOW
    ) -> list[int]:
        outcomes, _ = self._settle("reject_messages_2", keys, ids, reasons or ["rejected"] * len(ids), now)
        return list(outcomes or [])

    def extend(
        self, keys: Keys, ids: Sequence[Id], seconds: int | Sequence[int], *, now: datetime | None = NOW
    ) -> list[int]:
        given = [seconds] * len(ids) if isinstance(seconds, int) else list(seconds)
        (outcomes,) = self._settle("extend_leases", keys, ids, given, now)
        return list(outcomes or [])

    def give_back(self, keys: Keys, positions: Sequence[int], token: int | None, *, now: datetime | None = NOW) -> int:
        """How many were returned."""
        tokens = [token] * len(positions)
        query = "select fastpubsub.return_leases(%s, %s, %s::bigint[], %s::bigint[], null, null, %s)"
        return list(self.value(query, *keys, list(positions), tokens, now) or []).count(SETTLED)

    def settle_and_claim(
        self,
        keys: Keys,
        settles: Settles,
        limits: Sequence[int] = (100,),
        consumers: Sequence[str] = ("consumer",),
        *,
        max_bytes: int = EVERYTHING,
        scan_rows: int = 50_000,
        now: datetime | None = NOW,
    ) -> tuple[list[list[int]], Claimed]:
        """The outcomes kind by kind, and what is claimed then."""
        kinds = [runs(ids, values or [None] * len(ids)) for ids, values in settles]
        counts = [len(lengths) for *_, lengths in kinds]
        columns = [list(chain(*column)) for column in zip(*(columns for columns, *_ in kinds), strict=True)]
        values = [value for _, values, _ in kinds for value in values]
        seconds = [value if isinstance(value, int) else None for value in values]
        reasons = [value if isinstance(value, str) else None for value in values]
        lengths = [length for *_, lengths in kinds for length in lengths]
        row = self._retried(
            "select * from fastpubsub.settle_and_claim_2(%s, %s, %s::integer[], %s::bigint[], %s::bigint[],"
            " %s::timestamptz[], %s::integer[], %s::text[], %s::integer[], %s::integer[], %s::text[], %s, %s,"
            " 60000, %s)",
            *keys,
            *(counts, *columns, seconds, reasons, lengths, list(limits), list(consumers), max_bytes, scan_rows, now),
        )
        outcomes = iter(row[0] or [])
        claimed = Claimed(*row[2:6], *(column or [] for column in row[6:13]), *row[13:19], *row[20:])
        return [list(islice(outcomes, len(settled))) for settled, _ in settles], claimed

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
        """Place, whether it is ready, and when the next one is due; the same topic by topic."""
        query = "select * from fastpubsub.list_ready_subscriptions_2(%s, %s, %s)"
        rows = self.rows(query, [key.topic for key in keys], [key.subscription for key in keys], now)
        for place, key in enumerate(keys, 1):
            alone = self.rows(
                "select * from fastpubsub.list_ready_of_topic(%s, %s, %s)", key.topic, [key.subscription], now
            )
            assert alone == [(1, *row) for found, *row in rows if found == place] or now is None
        return [row[:3] for row in rows]

    def paused(self, *keys: Keys) -> list[int]:
        """The places of those that are."""
        query = "select place from fastpubsub.list_ready_subscriptions_2(%s, %s) where paused and not ready"
        return [place for (place,) in self.rows(query, [k.topic for k in keys], [k.subscription for k in keys])]

    def pause(self, *, is_paused: bool = True, name: str = "subscription", now: datetime | None = NOW) -> None:
        self.execute("select fastpubsub.pause_subscription(%s, %s, %s)", name, is_paused, now)

    def purge_all(self, keys: Keys, look: int = 10_000, *, now: datetime | None = NOW) -> tuple[int, bool]:
        purged, is_estimated = self.row("select * from fastpubsub.purge_subscription(%s, %s, %s, %s)", *keys, look, now)
        return purged, is_estimated

    def drop_backlog(self, keys: Keys, limit: int = 1000, *, now: datetime | None = NOW) -> tuple[int, int, bool]:
        query = "select * from fastpubsub.drop_backlog(%s, %s, %s, 60000, %s)"
        dropped, dead_lettered, more = self.row(query, *keys, limit, now)
        return dropped, dead_lettered, more

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
        return self.page_of_dead_letters(keys, offset, limit, max_bytes)[0]

    def page_of_dead_letters(
        self, keys: Keys, offset: int = 0, limit: int = 1000, max_bytes: int = EVERYTHING, *more: object
    ) -> tuple[list[DeadLetter], int | None]:
        """And after which position the next page begins; `more` are the other arguments."""
        query = f"select * from fastpubsub.list_dead_letters_2(%s, %s, %s, %s, %s{', %s' * len(more)})"
        *rows, end = self.rows(query, *keys, offset, limit, max_bytes, *more)
        return [DeadLetter(*row[:8]) for row in rows], end[0]

    def _move_dead(self, procedure: str, keys: Keys, ids: Sequence[Id], *more: object) -> list[int]:
        query = f"select fastpubsub.{procedure}(%s, %s, %s::bigint[], %s::timestamptz[]{', %s' * len(more)})"
        return list(
            self.value(query, *keys, [one.position for one in ids], [one.created_at for one in ids], *more) or []
        )

    def reprocess(self, keys: Keys, ids: Sequence[Id], *, now: datetime | None = NOW) -> list[int]:
        return self._move_dead("reprocess_dead_letters", keys, ids, now)

    def purge(self, keys: Keys, ids: Sequence[Id], *, now: datetime | None = NOW) -> list[int]:
        return self._move_dead("purge_dead_letters", keys, ids, now)

    # What is stored

    def written(self, query: str, *arguments: object) -> int:
        """Records in the write-ahead log for each call of several, beside those of hints, which are set once."""
        explain = f"explain (analyze, wal, format json) {query}"
        plans = [json.loads(self.value(explain, *arguments))[0]["Plan"] for _ in range(HINTED)]
        return int(min(plan.get("WAL Records", 0) for plan in plans))

    def explain(self, keys: Keys, position: int, look: int = 10_000, *, now: datetime | None = NOW) -> Explained:
        query = "select * from fastpubsub.explain_message_2(%s, %s, %s, %s, %s)"
        return Explained(*self.row(query, *keys, position, look, now))

    def browse(
        self,
        keys: Keys,
        state: str = "ahead",
        position: int | None = None,
        time: datetime | None = None,
        *,
        limit: int = 100,
        max_bytes: int = EVERYTHING,
        search: tuple[str, str | None, list[str]] | None = None,
        rows: int = 10_000,
        milliseconds: int = 60_000,
        backwards: bool = False,
    ) -> Browsed:
        """The topic of the subscription when the state is `all`."""
        *seen, end = self.rows(
            f"select * from fastpubsub.browse_messages_2({', '.join(['%s'] * 14)})",
            keys.topic,
            None if state == "all" else keys.subscription,
            state,
            position,
            time,
            backwards,
            limit,
            max_bytes,
            True,
            *(search or (None, None, [])),
            rows,
            milliseconds,
        )
        return Browsed([Seen(*row[:8], *row[10:]) for row in seen], end[8], end[0], end[3], end[9])

    def metrics(self, keys: Keys, look: int = 10_000) -> Metrics:
        return self.judge(keys, look)[0]

    def kept(self, keys: Keys, retention: int = 0, *, now: datetime | None = NOW) -> Kept:
        return self.scrape(keys, 1, retention=retention, now=now)[2]

    def judge(
        self, keys: Keys, look: int = 10_000, milliseconds: int = 0, judged: Judged | None = None
    ) -> tuple[Metrics, Judged | None]:
        """Goes on from where another call came."""
        query = "select * from fastpubsub.subscription_metrics_2(%s, %s, %s, %s, %s, %s, %s)"
        return judgement(self.row(query, *keys, look, milliseconds, *(judged or (None, None, None))))

    def scrape(
        self,
        keys: Keys,
        look: int = 10_000,
        *,
        judged: Judged | None = None,
        retention: int = 0,
        now: datetime | None = NOW,
    ) -> tuple[Metrics, Judged | None, Kept]:
        query = """
            select m.*, k.* from fastpubsub.subscription_metrics_2(%s, %s, %s, 0, %s, %s, %s) as m
            cross join lateral fastpubsub.kept_log(
                %s, m.cursor_position + 1, m.leased_position, m.waiting_position, %s, %s
            ) as k
        """
        row = self.row(query, *keys, look, *(judged or (None, None, None)), keys.topic, retention, now)
        return *judgement(row), Kept(*row[21:])

    def leases(self, keys: Keys) -> list[Lease]:
        """One for each position, however long the rows are."""
        query = """
            select p, token, leased_at, expires_at, attempts, consumer_id
            from fastpubsub.leases cross join generate_series(position, last_position) as p
            where topic_key = %s and subscription_key = %s order by p
        """
        return [Lease(*row) for row in self.rows(query, *keys)]

    def leased(self, keys: Keys) -> list[Id]:
        """The ids by which their holders settle them."""
        return [Id(lease.position, lease.token, None) for lease in self.leases(keys)]

    def failures(self, keys: Keys, position: int = 1) -> list[Failed]:
        """Those that are kept, the oldest first."""
        query = """
            select failed_at, attempt, cause, reason, consumer_id from fastpubsub.failures
            where topic_key = %s and subscription_key = %s and position = %s order by failure_key
        """
        return [Failed(*row) for row in self.rows(query, *keys, position)]

    def retries(self, keys: Keys) -> list[Retry]:
        query = """
            select position, least(due_at, '9999-12-31 23:59:59.999999+00'), attempts, reason from fastpubsub.retries
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
            for table in ("messages", "message_keys", "idempotency_keys", *OF_SUBSCRIPTIONS)
            if (count := self.value(orphans_of(table)))
        }


OF_SUBSCRIPTIONS = (
    *(
        "claims",
        "leases",
        "retries",
        "parked",
        "busy_keys",
        "bundles",
        "failures",
        "dead_letters",
        "revived",
        "filter_history",
    ),
    "subscription_uses",
)


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


def runs(ids: Sequence[Id], values: Sequence[object]) -> tuple[tuple[list[Any], ...], list[Any], list[int]]:
    """Positions, tokens and times; values; lengths. Neighbours that share everything else go as one run."""
    found: list[tuple[Id, object]] = []
    lengths: list[int] = []
    for one, value in zip(ids, values, strict=True):
        if found and found[-1] == (one._replace(position=one.position - lengths[-1]), value):
            lengths[-1] += 1
        else:
            found.append((one, value))
            lengths.append(1)
    columns = tuple(map(list, zip(*(one for one, _ in found), strict=True))) or ([], [], [])
    return columns, [value for _, value in found], lengths


def judgement(row: Row) -> tuple[Metrics, Judged | None]:
    return Metrics(*(*row[:10], row[16], *row[18:21])), None if row[10] is None else Judged(*row[10:13])


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
