"""What does not match the schema of its topic, with a relay that finds the same wrong with all."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.database.outbox import Relay
from tests.database.store import Row, Store


class Refused(NamedTuple):
    key: int
    refused_at: Any
    reason: str
    payload: str
    attributes: Any
    ordering_key: str | None
    deliver_at: Any
    delayed_key: int | None
    ttl_seconds: int | None
    expires_at: Any
    looked_at: int


def move(store: Store, topic: int, rows: Sequence[tuple[int, int, str | None]], schema_version: int = 0) -> Row:
    """Rows of the outbox with what is wrong with each."""
    transactions, ordinals, reasons = ([row[i] for row in rows] for i in range(3))
    query = "select * from fastpubsub.relay_messages_2(%s, %s::bigint[], %s::bigint[], %s, %s::text[])"
    return store.row(query, topic, transactions, ordinals, schema_version, reasons)


def rows(store: Store, topic: int, reason: str | None = None) -> list[tuple[int, int, str | None]]:
    """Of the outbox."""
    listed = Relay(store).look()
    every = zip(listed.topics, listed.transactions, listed.ordinals, strict=True)
    return [(transaction, ordinal, reason) for key, transaction, ordinal in every if key == topic]


def refuse_all(store: Store, topic: int, reason: str = "no", schema_version: int = 0) -> int:
    _, moved, dropped, refused = move(store, topic, rows(store, topic, reason), schema_version)
    assert (moved, dropped) == (0, 0)
    return int(refused)


def listed(
    store: Store, topic: int, after: int | None = None, limit: int = 100, max_bytes: int = 1 << 20, keys: Any = None
) -> list[Refused]:
    query = "select * from fastpubsub.list_refused_messages(%s, %s, %s, %s, %s::bigint[])"
    return [Refused(*row) for row in store.rows(query, topic, after, limit, max_bytes, keys)]


def publish(store: Store, topic: int, *keys: int, reasons: Sequence[str | None] = (), schema_version: int = 0) -> Any:
    given = list(reasons) or [None] * len(keys)
    query = "select fastpubsub.publish_refused_messages(%s, %s::bigint[], %s::text[], %s)"
    return store.value(query, topic, list(keys), given, schema_version)


def purge(store: Store, topic: int, *keys: int) -> Any:
    return store.value("select fastpubsub.purge_refused_messages(%s, %s::bigint[])", topic, list(keys))


def count(store: Store, limit: int = 1000, topics: list[str] | None = None) -> list[Row]:
    return store.rows("select * from fastpubsub.count_refused_messages(%s, 100, %s)", limit, topics)


def trim(store: Store, seconds: int = 3600, now: Any = None) -> int:
    return int(store.value("select fastpubsub.trim_refused_messages(%s, 5000, %s)", seconds, now))
