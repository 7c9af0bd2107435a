"""What must hold for the schema itself (invariant 13, and what the others rest on)."""

import re

import pytest

from tests.database.store import Store
from tests.database.usage import HOT

# Every hot table has only the indexes that its hot statements need.
INDEXES = {
    "heads": {"topic_key"},
    "cursors": {"topic_key, subscription_key", "dead_letter_topic"},
    "messages": {"topic_key, position"},
    "claims": {"topic_key, subscription_key, sequence"},
    "leases": {"topic_key, subscription_key, position", "topic_key, subscription_key, turn", "expires_at"},
    "retries": {"topic_key, subscription_key, due_at, position"},
    "dead_letters": {"topic_key, subscription_key, position"},
    "revived": {"topic_key, subscription_key, position"},
    "message_keys": {"topic_key, key_hash, position"},
    "busy_keys": {"topic_key, subscription_key, position"},
    "bundles": {"topic_key, subscription_key, key_hash, position"},
    "parked": {"topic_key, subscription_key, turn, position"},
    "failures": {"topic_key, subscription_key, position, failure_key"},
    "idempotency_keys": {"topic_key, client, key", "topic_key, created_at"},
}

KEYS = """
    select t.relname, i.indisunique, (
        select string_agg(a.attname, ', ' order by k.ordinal)
        from unnest(i.indkey::smallint[]) with ordinality as k (number, ordinal)
        join pg_attribute as a on a.attrelid = t.oid and a.attnum = k.number
    )
    from pg_index as i join pg_class as t on t.oid = i.indrelid
    where t.relnamespace = 'fastpubsub'::regnamespace and t.relname = any(%s)
"""


def test_every_key_of_a_topics_data_begins_with_the_topic(store: Store) -> None:
    found: dict[str, set[str]] = {}
    for table, is_key, columns in store.rows(KEYS, list(HOT)):
        assert columns.startswith("topic_key") or not is_key
        found.setdefault(table, set()).add(columns)
    assert found == INDEXES


def test_no_foreign_keys_and_no_triggers_but_that_of_a_commit(store: Store) -> None:
    query = "select count(*) from pg_constraint where connamespace = 'fastpubsub'::regnamespace and contype = 'f'"
    assert store.value(query) == 0
    query = """
        select g.tgname from pg_trigger as g join pg_class as t on t.oid = g.tgrelid
        where t.relnamespace = 'fastpubsub'::regnamespace
    """
    assert store.rows(query) == [("settlements_at_commit",)]


SOURCES = "select proname, prosrc from pg_proc where pronamespace = 'fastpubsub'::regnamespace"


def test_nothing_uses_the_time_of_the_transaction(store: Store) -> None:
    """Leases taken with now() would be handed out already expired after a wait."""
    times = re.compile(
        r"\b(now\(\)|current_timestamp|localtimestamp|transaction_timestamp|statement_timestamp)", re.IGNORECASE
    )
    assert [name for name, source in store.rows(SOURCES) if times.search(source)] == []


def test_payloads_that_cannot_be_read_are_the_only_errors_that_are_caught(store: Store) -> None:
    """An exception block costs a subtransaction: none on the hot path, nor for common payloads from SQL."""
    caught = [name for name, source in store.rows(SOURCES) if re.search(r"\bexception\s+when\b", source, re.IGNORECASE)]
    assert sorted(caught) == ["deciding_field", "is_found", "is_jsonb", "matching_positions"]


def test_every_table_is_named_with_its_schema(store: Store) -> None:
    tables = [name for (name,) in store.rows("select tablename from pg_tables where schemaname = 'fastpubsub'")]
    unqualified = re.compile(rf"\b(from|join|into|update|table)\s+({'|'.join(tables)})\b")
    assert [name for name, source in store.rows(SOURCES) if unqualified.search(source)] == []


def test_no_procedure_but_those_for_applications_runs_with_the_rights_of_another(store: Store) -> None:
    query = "select proname from pg_proc where pronamespace = 'fastpubsub'::regnamespace and prosecdef"
    assert {name for (name,) in store.rows(query)} == {"ack", "nack", "reject", "publish", "on_settlement"}


@pytest.mark.parametrize("table", HOT)
def test_orphans_would_be_found(store: Store, table: str) -> None:
    """The check that the other tests rely on."""
    keys = store.create()
    store.fill(keys.topic, 2)
    store.reject(keys, store.claim(keys).ids)
    store.reprocess(keys, [one._replace(token=None) for one in store.claim(keys).ids])
    assert store.orphans() == {}
    if table in ("heads", "cursors"):
        store.execute(f"delete from fastpubsub.{table}")
        assert ("messages" if table == "heads" else "claims") in store.orphans()
        return
    columns = [
        name
        for (name,) in store.rows(
            "select attname from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and attnotnull and attidentity = ''",
            f"fastpubsub.{table}",
        )
    ]
    values = {
        "topic_key": "99999999",
        "subscription_key": "99999999",
        "client": "'c'",
        "key": "'k'",
        "reason": "''",
        "consumer_id": "''",
        "payload": "'1'",
        "body_hash": "''",
        "revived": "false",
        "positions": "'{1}'",
    }
    times = dict.fromkeys(
        ("created_at", "died_at", "failed_at", "due_at", "retry_due_at", "expires_at", "leased_at"), "'2026-01-01'"
    )
    row = ", ".join((values | times).get(name, "1") for name in columns)
    store.execute(f"insert into fastpubsub.{table} ({', '.join(columns)}) values ({row})")
    assert store.orphans() == {table: 1}
