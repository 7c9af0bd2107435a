"""What a call read, by PostgreSQL's own counters of the running transaction: exact, and the same on every version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.database.store import Row, Store

T = TypeVar("T")

HOT = (
    "heads",
    "cursors",
    "messages",
    "claims",
    "leases",
    "retries",
    "dead_letters",
    "revived",
    "idempotency_keys",
    "message_keys",
    "busy_keys",
    "bundles",
    "parked",
    "failures",
)

COUNTERS = """
    select c.relname, t.relname = c.relname, pg_stat_get_xact_numscans(c.oid), pg_stat_get_xact_tuples_returned(c.oid),
        pg_stat_get_xact_blocks_fetched(c.oid)
    from pg_class as t
    left join pg_index as i on i.indrelid = t.oid
    join pg_class as c on c.oid in (t.oid, i.indexrelid)
    where t.relnamespace = 'fastpubsub'::regnamespace and t.relname = any(%s)
    group by 1, 2, 3, 4, 5
"""


@dataclass(frozen=True)
class Usage:
    """Tables read by sequential scans, indexes scanned, their entries looked at (dead ones too), blocks touched."""

    sequential: set[str]
    indexes: set[str]
    entries: int
    blocks: int


def analyse(store: Store, tables: Sequence[str]) -> None:
    """With statistics of every row: a sample, which ANALYZE takes of more rows by itself, is another one each time."""
    store.execute("set default_statistics_target = 10000")
    store.execute(f"vacuum analyze {', '.join(f'fastpubsub.{table}' for table in tables)}")
    store.execute("reset default_statistics_target")


def keep_autovacuum_away(store: Store, tables: Sequence[str]) -> None:
    for table in tables:
        store.execute(f"alter table fastpubsub.{table} set (autovacuum_enabled = off)")


Counters = dict[str, Row]


def counters(store: Store, tables: Sequence[str] = HOT) -> Counters:
    """Of the running transaction, by table and index."""
    return {row[0]: row[1:] for row in store.rows(COUNTERS, list(tables))}


def used(before: Counters, after: Counters) -> Usage:
    sequential: set[str] = set()
    indexes: set[str] = set()
    entries = blocks = 0
    for name, (is_table, *now) in after.items():
        scans, returned, fetched = (last - first for last, first in zip(now, before[name][1:], strict=True))
        if scans:
            (sequential if is_table else indexes).add(name)
        if not is_table:
            entries += returned
        blocks += fetched
    return Usage(sequential, indexes, entries, blocks)


def measure(store: Store, call: Callable[[], T], tables: Sequence[str] = HOT) -> tuple[T, Usage]:
    """Of the hot tables; within one transaction."""
    before = counters(store, tables)
    answer = call()
    return answer, used(before, counters(store, tables))
