"""Migrations: the way up and down, two at once, locked tables, and the frozen copies of the procedures."""

import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import ExecStatus
from sqlalchemy import text

from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise
from fastpubsub.exceptions import Unavailable
from migrations import freeze
from tests import harness, warm
from tests.harness import START_SECONDS, execute, libpq

CATALOG = """
    select 'relation', c.relname, c.relkind::text, c.reloptions::text
    from pg_class as c where c.relnamespace = 'fastpubsub'::regnamespace
    union all
    select 'column', a.attrelid::regclass::text || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
        concat_ws(' ', a.attnotnull, a.attidentity, a.attstorage, pg_get_expr(d.adbin, d.adrelid))
    from pg_attribute as a
    join pg_class as c on c.oid = a.attrelid
    left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.relnamespace = 'fastpubsub'::regnamespace and a.attnum > 0 and not a.attisdropped
    union all
    select 'index', i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), null
    from pg_index as i join pg_class as c on c.oid = i.indexrelid where c.relnamespace = 'fastpubsub'::regnamespace
    union all
    select 'constraint', k.conname, pg_get_constraintdef(k.oid), null
    from pg_constraint as k where k.connamespace = 'fastpubsub'::regnamespace
    union all
    select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid), null
    from pg_proc as p where p.pronamespace = 'fastpubsub'::regnamespace
    union all
    select 'type', t.typname, t.typtype::text, null
    from pg_type as t where t.typnamespace = 'fastpubsub'::regnamespace
"""


def catalog(url: str) -> set[tuple[str, ...]]:
    with psycopg.connect(libpq(url)) as connection:
        return set(connection.execute(CATALOG).fetchall())


def kinds(rows: set[tuple[str, ...]]) -> set[str]:
    return {row[1] for row in rows if row[0] in ("relation", "function")}


def test_up_down_and_up_again(empty_database_url: str) -> None:
    assert migrations.current(empty_database_url) is None
    migrations.upgrade(empty_database_url)
    assert migrations.current(empty_database_url) == migrations.head()
    before = catalog(empty_database_url)
    migrations.downgrade(empty_database_url, "base")
    assert migrations.current(empty_database_url) is None
    assert kinds(catalog(empty_database_url)) == {"alembic_version", "alembic_version_pkc"}
    migrations.upgrade(empty_database_url)
    assert catalog(empty_database_url) == before


def test_each_step_down_and_up(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url)
    migrations.downgrade(empty_database_url, "0001")
    assert not any(row[0] == "function" for row in catalog(empty_database_url))
    migrations.upgrade(empty_database_url)
    assert migrations.current(empty_database_url) == migrations.head()


def test_several_at_once(empty_database_url: str, tmp_path: Path) -> None:
    environment = harness.environment({"database_url": empty_database_url})
    running = [warm.Process(["db-migrate"], cwd=tmp_path, env=environment) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert migrations.current(empty_database_url) == migrations.head()


def test_again_changes_nothing(database_url: str) -> None:
    before = catalog(database_url)
    migrations.upgrade(database_url)
    assert catalog(database_url) == before


def test_a_locked_table_is_waited_for_in_turns(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with psycopg.connect(libpq(database_url)) as reader:
        reader.execute("select from fastpubsub.topics")

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                reader.rollback()

        monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 0.02)
        monkeypatch.setattr("fastpubsub.database.migrations.time.sleep", wait)
        migrations.downgrade(database_url, "base")
    assert len(waits) == 3
    assert migrations.current(database_url) is None


def test_a_table_locked_for_too_long(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 0.02)
    monkeypatch.setattr(migrations, "ATTEMPTS", 2)
    with psycopg.connect(libpq(database_url)) as reader:
        reader.execute("select from fastpubsub.topics")
        with pytest.raises(Unavailable, match="held locks on the tables for too long"):
            migrations.downgrade(database_url, "base")
    assert migrations.current(database_url) == migrations.head()


def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    execute(database_url, sql.SQL("update fastpubsub.alembic_version set version_num = '9999'").format())
    with pytest.raises(Unavailable, match=r"'9999'.* a newer fastpubsub migrated the database"):
        migrations.upgrade(database_url)


def test_a_database_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="cannot be reached") as refused:
        migrations.upgrade("postgresql://u:secret@127.0.0.1:1/d")
    assert "secret" not in refused.value.detail


def test_a_server_that_takes_connections_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "CONNECT_TIMEOUT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"postgresql://user@127.0.0.1:{listener.getsockname()[1]}/database"
        for ask in (migrations.upgrade, migrations.current):
            with pytest.raises(Unavailable, match=r"cannot be reached.*timeout.*FASTPUBSUB_DATABASE_URL"):
                ask(url)


def test_a_user_without_rights_is_told_so(empty_database_url: str) -> None:
    name = normalise(empty_database_url).database or ""
    execute(empty_database_url, sql.SQL("create role {} login").format(sql.Identifier(name)))
    try:
        with pytest.raises(Unavailable, match=r"permission denied.*: migrate as a user who may create schemas"):
            migrations.upgrade(normalise(empty_database_url).set(username=name).render_as_string(False))
    finally:
        execute(empty_database_url, sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_a_password_with_signs_in_it(empty_database_url: str) -> None:
    url = normalise(empty_database_url).set(password="p%25@:/?#é").render_as_string(False)
    migrations.upgrade(url)
    assert migrations.current(url) == migrations.head()


DROP_PROCEDURES = """
do $$
declare
    v_procedure regprocedure;
begin
    for v_procedure in
        select p.oid from pg_proc as p
        where p.pronamespace = 'fastpubsub'::regnamespace and p.prorettype <> 'trigger'::regtype
    loop
        execute format('drop function %s', v_procedure);
    end loop;
end;
$$
"""


def for_older_servers() -> str:
    """The functions that only servers of earlier releases call, as SQL: they are in no file of their own."""
    # Those of a release call those of the next one.
    files = sorted((freeze.FOLDER / "versions").glob(f"*{freeze.FOR_OLDER_SERVERS}"), reverse=True)
    return "\n".join(file.read_text() for file in files)


def test_frozen_procedures_are_the_canonical_ones(database_url: str, empty_database_url: str) -> None:
    assert freeze.frozen() == freeze.canonical(), "freeze them: make migration NAME=what_changed"
    migrations.upgrade(empty_database_url)
    with psycopg.connect(libpq(empty_database_url)) as connection:
        connection.execute(DROP_PROCEDURES)
        for text in freeze.canonical().values():
            connection.execute(text.encode())
        connection.execute(for_older_servers().encode(), prepare=False)
    assert catalog(empty_database_url) == catalog(database_url)


def test_a_file_holds_the_one_procedure_of_its_name(database_url: str) -> None:
    with psycopg.connect(libpq(database_url)) as connection:
        found = connection.execute(
            "select proname from pg_proc"
            " where pronamespace = 'fastpubsub'::regnamespace and prorettype <> 'trigger'::regtype"
        )
        older = set(freeze.CREATED.findall(for_older_servers()))
        assert sorted(name for (name,) in found) == sorted([*freeze.canonical(), *older])


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations, which schema uses."""
    shutil.copytree(freeze.FOLDER, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(freeze.FOLDER.parent / "alembic.ini", tmp_path)
    monkeypatch.setattr(migrations, "folder", lambda: tmp_path / "migrations")
    return tmp_path


def test_freezing_changes(checkout: Path, database_url: str) -> None:
    """What is dropped, added and changed; a changed signature replaces the old one."""
    before = catalog(database_url)
    functions = checkout / "migrations" / "functions"
    (functions / "begin_call.sql").unlink()
    added = "create function fastpubsub.added() returns text language sql as $$ select '50% :name' $$;\n"
    (functions / "added.sql").write_text(added)
    changed = (functions / "get_client.sql").read_text() + "comment on function fastpubsub.get_client is 'changed';\n"
    (functions / "get_client.sql").write_text(changed)
    old = (functions / "get_topic.sql").read_text()
    other = old.replace("p_id text", "p_id text, p_added integer default 0")
    assert other != old
    (functions / "get_topic.sql").write_text(other)

    command = [sys.executable, "migrations/freeze.py", "--new", "four_changes"]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)

    revision = f"{int(migrations.head()):04}"
    up = (checkout / "migrations" / "versions" / f"{revision}_four_changes.up.sql").read_text()
    assert freeze.sections(up) == {
        "added": added,
        "begin_call": "drop function fastpubsub.begin_call;\n",
        "get_client": changed,
        "get_topic": other,
    }
    migrations.upgrade(database_url)
    after = catalog(database_url)
    assert {"added()"} <= {row[1].removeprefix("fastpubsub.") for row in after - before}
    ours = [row[1] for row in after if row[1].startswith("fastpubsub.get_topic(")]
    assert len(ours) == 1
    assert "integer" in ours[0]
    migrations.downgrade(database_url, "-1")
    assert catalog(database_url) == before


def test_no_timeout_of_the_database_ends_a_migration(empty_database_url: str) -> None:
    name = sql.Identifier(normalise(empty_database_url).database or "")
    timeouts = ("statement_timeout", "idle_in_transaction_session_timeout")
    for timeout in timeouts:
        change = sql.SQL("alter database {} set {} = '90s'").format(name, sql.Identifier(timeout))
        execute(empty_database_url, change)
    with migrations.engine_for(empty_database_url).begin() as connection:
        migrations.take_turns(connection)
        shown = [connection.execute(text(f"show {timeout}")).scalar_one() for timeout in timeouts]
        assert (shown, connection.execute(text("show client_encoding")).scalar_one()) == (["0", "0"], "UTF8")


LOCKED = """
    select l.relation::regclass::text from pg_locks as l
    where
        l.pid = pg_backend_pid() and l.relation = any(%s::oid[])
        and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""
TABLES = """
    select c.oid, c.relname, c.relfilenode from pg_class as c
    where c.relnamespace = 'fastpubsub'::regnamespace and c.relkind = 'r'
"""
FILLED = {"messages", "outbox", "dead_letters", "revived", "idempotency_keys", "retries", "claims"}
"""What may have millions of rows: others have one for each topic, each subscription or what is leased now."""


@pytest.mark.parametrize(("file", "before", "least"), [("0003_*.py", "0002", 10), ("0006_*.py", "0005", 0)])
def test_the_upgrade_of_a_filled_database_holds_up_nobody(
    empty_database_url: str, file: str, before: str, least: int
) -> None:
    """Each part before the last locks one table that is in use, the last one none; no table is written again, and none
    that may be large is read.
    """
    migrations.upgrade(empty_database_url, before)
    (path,) = (freeze.FOLDER / "versions").glob(file)
    *parts, last = migrations.parts_of(str(path), "up")
    assert len(parts) >= least
    with psycopg.connect(libpq(empty_database_url)) as connection:
        there = {relation: (name, place) for relation, name, place in connection.execute(TABLES).fetchall()}
        for part in parts:
            connection.execute(part.encode())
            locked = connection.execute(LOCKED, [list(there)]).fetchall()
            assert len(set(locked)) == 1, part
            read = connection.execute("select relname from pg_stat_xact_user_tables where seq_scan > 0").fetchall()
            assert not FILLED & {name for (name,) in read}, part
            connection.commit()
        connection.execute(last.encode())
        assert connection.execute(LOCKED, [list(there)]).fetchall() == []
        after = {relation: (name, place) for relation, name, place in connection.execute(TABLES).fetchall()}
        assert there.items() <= after.items()


WAITER = "select w.pid from pg_locks as w where not w.granted and w.relation = 'fastpubsub.cursors'::regclass"
HELD = """
    select h.relation::regclass::text from pg_locks as h
    where h.pid = %s and h.granted and h.relation = any(%s::oid[]) and h.mode <> 'AccessShareLock'
"""


def test_an_upgrade_that_waits_for_a_table_holds_no_other(empty_database_url: str) -> None:
    """So a call that has that table and wants others is in no deadlock with it."""
    migrations.upgrade(empty_database_url, "0002")
    with (
        psycopg.connect(libpq(empty_database_url)) as call,
        psycopg.connect(libpq(empty_database_url), autocommit=True) as watcher,
        ThreadPoolExecutor(1) as pool,
    ):
        tables = [relation for relation, _, _ in watcher.execute(TABLES).fetchall()]
        call.execute("select from fastpubsub.cursors")
        upgrade = pool.submit(migrations.upgrade, empty_database_url)
        deadline = time.monotonic() + START_SECONDS
        while (waiter := watcher.execute(WAITER).fetchone()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert watcher.execute(HELD, [*waiter, tables]).fetchall() == []
        call.commit()
        upgrade.result()
    assert migrations.current(empty_database_url) == migrations.head()


def test_leases_of_lonely_messages_after_a_downgrade(empty_database_url: str) -> None:
    """The servers of before would hand out what comes after one of them, if they did not know it."""
    migrations.upgrade(empty_database_url)
    with psycopg.connect(libpq(empty_database_url), autocommit=True) as connection:
        connection.execute("select fastpubsub.create_topic('orders')")
        connection.execute(
            "select fastpubsub.create_subscription('mail', 'orders', null, 60, 5, 0, 300, p_ordered => true)"
        )
        publish = "select fastpubsub.publish_messages(1, array['1', '2']::json[], p_ordering_keys => '{a,b}')"
        claim = "select positions from fastpubsub.claim_messages_2(1, 1, '{10}', '{c}', 1000000)"
        connection.execute(publish)
        assert connection.execute(claim).fetchall() == [([1, 2],)]
        migrations.downgrade(empty_database_url, "0005")
        connection.execute(publish)
        assert connection.execute(claim).fetchall() == [([],)]
        migrations.upgrade(empty_database_url)
        assert connection.execute(claim).fetchall() == [(None,)]
        assert connection.execute("select turn from fastpubsub.leases").fetchall() == [(0,)]


def test_a_claim_that_runs_during_a_downgrade_leaves_no_new_lease(empty_database_url: str) -> None:
    """Nobody would mend one that is committed between what the downgrade mends and what it locks."""
    migrations.upgrade(empty_database_url)
    with (
        psycopg.connect(libpq(empty_database_url)) as call,
        psycopg.connect(libpq(empty_database_url), autocommit=True) as watcher,
        ThreadPoolExecutor(1) as pool,
    ):
        watcher.execute("select fastpubsub.create_topic('orders')")
        watcher.execute(
            "select fastpubsub.create_subscription('mail', 'orders', null, 60, 5, 0, 300, p_ordered => true)"
        )
        watcher.execute("select fastpubsub.publish_messages(1, array['1']::json[], p_ordering_keys => '{a}')")
        call.execute("select fastpubsub.claim_messages_2(1, 1, '{10}', '{c}', 1000000)")
        assert call.execute("select turn from fastpubsub.leases").fetchall() == [(-1,)]
        downgrade = pool.submit(migrations.downgrade, empty_database_url, "0005")
        deadline = time.monotonic() + START_SECONDS
        while watcher.execute(WAITER).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        call.commit()
        downgrade.result()
        assert watcher.execute("select turn from fastpubsub.leases").fetchall() == [(0,)]


def test_an_interrupted_upgrade_goes_on(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url)
    complete = catalog(empty_database_url)
    migrations.downgrade(empty_database_url, "0002")
    (file,) = (freeze.FOLDER / "versions").glob("0003_*.py")
    with psycopg.connect(libpq(empty_database_url), autocommit=True) as connection:
        for part in migrations.parts_of(str(file), "up")[:-1]:
            connection.execute(part.encode())
    migrations.upgrade(empty_database_url)
    assert catalog(empty_database_url) == complete


INTERNAL_CHANGES: dict[str, set[str]] = {
    "0002": {
        "cut_leases",
        "filter_condition",
        "lock_subscription",
        "read_log",
        "read_matching_log",
        "take_due_retries",
        "take_leases",
        # Applications call it, from statements of their own: a prepared one fails once, then its driver prepares it
        # again.
        "publish",
        "were_created_at",
    },
    "0005": {"claim_in_order", "lock_subscription", "read_log_in_order", "take_turns", "were_created_at"},
    "0008": {"claim_in_order", "end_acked", "lock_subscription", "take_stretch", "take_turns"},
    "0011": {"lock_subscription", "take_turns"},
}
"""That are gone, or whose columns have changed, since a revision that landed, and whose servers do not call them."""

CALLS = """
    select p.proname, p.proargtypes::oid[], p.pronargs - p.pronargdefaults from pg_proc as p
    where p.pronamespace = 'fastpubsub'::regnamespace and p.prorettype <> 'trigger'::regtype
"""


@pytest.mark.parametrize("revision", INTERNAL_CHANGES)
def test_servers_of_a_landed_revision_go_on_calling(empty_database_url: str, revision: str) -> None:
    """With the statements that they have prepared, whose columns they take by their place."""
    migrations.upgrade(empty_database_url, revision)
    with psycopg.connect(libpq(empty_database_url), autocommit=True) as server:
        prepared: dict[bytes, str] = {}
        for name, types, fewest in server.execute(CALLS).fetchall():
            for count in {fewest, len(types)}:
                places = ", ".join(f"${place + 1}" for place in range(count))
                statement = f"{name} {count}".encode()
                called = f"select * from fastpubsub.{name}({places})".encode()
                result = server.pgconn.prepare(statement, called, types[:count])
                assert result.status == ExecStatus.COMMAND_OK, result.error_message
                prepared[statement] = name
        migrations.upgrade(empty_database_url)
        # As a session does of itself that has missed too much news. Else some plans are what they were.
        server.execute("discard plans")
        refused = {
            name: described.error_message
            for statement, name in prepared.items()
            if (described := server.pgconn.describe_prepared(statement)).status != ExecStatus.COMMAND_OK
        }
    assert set(refused) == INTERNAL_CHANGES[revision], refused


def test_a_function_of_another_signature_keeps_its_grants(empty_database_url: str) -> None:
    role = sql.Identifier("fastpubsub_test_application")
    rights = """
        select has_function_privilege('fastpubsub_test_application', p.oid, 'execute'), p.proacl::text ~ '[{,]=X'
        from pg_proc as p where p.proname = 'publish'
    """
    migrations.upgrade(empty_database_url, "0002")
    with psycopg.connect(libpq(empty_database_url), autocommit=True) as connection:
        connection.execute(sql.SQL("create role {}").format(role))
        try:
            connection.execute(sql.SQL("grant execute on function fastpubsub.publish to {}").format(role))
            for move, revision in ((migrations.upgrade, "head"), (migrations.downgrade, "0002")):
                move(empty_database_url, revision)
                assert connection.execute(rights).fetchall() == [(True, False)]
        finally:
            connection.execute(sql.SQL("drop owned by {}").format(role))
            connection.execute(sql.SQL("drop role {}").format(role))
