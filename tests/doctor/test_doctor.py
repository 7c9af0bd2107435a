"""What `fastpubsub doctor` finds, each in a database where it is really so."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import httpx
import psycopg
import pytest
from psycopg import sql

from fastpubsub.config import Settings
from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise
from fastpubsub.doctor import connection, examination
from fastpubsub.doctor.checks.connections import examine_processes
from fastpubsub.doctor.checks.server import clock
from fastpubsub.doctor.connection import DoctorConnection
from fastpubsub.doctor.examination import examine
from fastpubsub.doctor.findings import Finding
from fastpubsub.doctor.report import document, table, worst
from fastpubsub.embedded import EmbeddedPostgres
from fastpubsub.message_ids import MessageIds
from fastpubsub.services.maintenance import release_expired_leases
from tests import clusters, harness
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings, Run, StartServer
from tests.pages import DOCS
from tests.proxy import Proxy

SECONDS = 60.0
KEY = "3c6e0b8a9c15224a8228b9a98ca1531d"

Findings = Callable[[str], Awaitable[list[Finding]]]


@pytest.fixture
def settings(make_settings: MakeSettings, database_url: str) -> Settings:
    """Of an operator, who sees what others do, whatever role the server has."""
    return make_settings(database_url=database_url)


@pytest.fixture
def findings(settings: Settings) -> Findings:
    """Of one check, when nothing may last at all."""

    async def look(check: str) -> list[Finding]:
        return of(await examine(settings, patience=0), check)

    return look


def of(found: list[Finding], check: str) -> list[Finding]:
    return [one for one in found if one.check == check]


def only(found: list[Finding], check: str) -> Finding:
    (one,) = of(found, check)
    return one


def problems(found: list[Finding]) -> list[str]:
    return [one.check for one in found if one.level == "problem"]


def set_for_database(url: str, name: str, value: str) -> None:
    database = sql.Identifier(normalise(url).database or "")
    statement = sql.SQL("alter database {} set {} = {}")
    harness.execute(url, statement.format(database, sql.Identifier(name), sql.Literal(value)))


@pytest.fixture
def durable(cluster_folder: Path) -> Iterator[str]:
    """A PostgreSQL as it should be."""
    with EmbeddedPostgres(clusters.fill(cluster_folder / "postgres", migrated=True)) as postgres:
        yield postgres.url()


def test_when_everything_is_as_it_should_be(durable: str, server: StartServer, run: Run) -> None:
    settings = {"database_url": durable, "auth_enabled": True, "auth_secret_key": KEY}
    server(**settings, database_require_durability=True)
    done = run("doctor", "--json", **settings, database_require_durability=True)
    report = json.loads(done.stdout)
    assert [one for one in report["findings"] if one["level"] != "ok"] == []
    assert (done.returncode, done.stderr, report["status"]) == (0, "", "ok")
    platform = "secret_key pooler writable durability clock servers connections processes snapshots schema"
    expected = {*platform.split(), "tables", "leases", "outbox", "delayed", "refused", "schedules", "kept"}
    assert {one["check"] for one in report["findings"]} > expected
    for_people = run("doctor", **settings, database_require_durability=True)
    assert for_people.returncode == 0
    assert for_people.stdout.endswith(f"0 problems, 0 warnings, {len(report['findings'])} ok\n")


def test_every_finding_says_why_and_what_to_do(run: Run, empty_database_url: str) -> None:
    done = run("doctor", database_url=empty_database_url)
    assert done.returncode == 1
    assert "PROBLEM  schema" in done.stdout
    report = json.loads(run("doctor", "--json", database_url=empty_database_url).stdout)
    bad = [one for one in report["findings"] if one["level"] != "ok"]
    assert bad
    assert all(one["why"] and one["next_step"] for one in bad)
    assert done.stdout.count("why: ") == done.stdout.count("do: ") == len(bad)


def test_every_check_is_on_the_page_of_commands() -> None:
    sources = "".join(file.read_text() for file in Path(examination.__file__).parent.rglob("*.py"))
    checks = set(re.findall(r'\b(?:ok|warning|problem|looked)\(\s*"(\w+)"', sources))
    _, _, page = (DOCS / "cli.md").read_text().partition("| check | looks at |")
    rows = page.partition("\n\n")[0].splitlines()[2:]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])} == checks - {
        "server",
        "subscriptions",
    }


def test_wrong_usage(run: Run) -> None:
    assert run("doctor", "--patience", "-1").returncode == 2
    assert run("doctor", database_url=None).returncode == 2


def test_a_database_that_is_down(run: Run) -> None:
    done = run("doctor", "--json", database_url=f"postgresql://u:hunter2@127.0.0.1:{harness.free_port()}/shop")
    assert (done.returncode, done.stderr) == (1, "")
    assert "hunter2" not in done.stdout
    (finding,) = (one for one in json.loads(done.stdout)["findings"] if one["check"] == "database")
    assert finding["level"] == "problem"
    assert finding["what"].startswith("the database shop at 127.0.0.1 as u cannot be reached: ")


async def test_a_database_that_takes_connections_and_says_nothing(
    make_settings: MakeSettings, database_url: str
) -> None:
    async with Proxy(database_url) as proxy:
        proxy.pause()
        found = await examine(make_settings(database_url=proxy.url, database_connect_timeout_seconds=2))
    assert problems(found) == ["database"]


async def test_a_database_that_stops_answering(
    make_settings: MakeSettings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CUT_SECONDS", 3.0)
    async with Proxy(database_url) as proxy:
        proxy.hang_on = b"inspect_tables"
        found = await examine(make_settings(database_url=proxy.url, database_connect_timeout_seconds=2))
    assert only(found, "schema").level == "ok"
    for check in ("tables", "leases", "outbox", "delayed", "refused", "schedules", "subscriptions", "kept"):
        assert only(found, check).what.startswith("this could not be checked: ")


@pytest.mark.long
async def test_an_examination_that_takes_too_long(
    make_settings: MakeSettings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "DEADLINE_SECONDS", 3.0)
    monkeypatch.setattr(connection, "CUT_SECONDS", 4.0)
    async with Proxy(database_url) as proxy:
        proxy.hang_on = b"inspect_leases"
        async with asyncio.timeout(SECONDS):
            found = await examine(make_settings(database_url=proxy.url))
    assert [one.what for one in found if one.level == "problem"] == ["the checks did not finish within 3 s"]


async def test_no_schema_an_older_and_a_newer_one(make_settings: MakeSettings, empty_database_url: str) -> None:
    async def revision() -> Finding:
        found = await examine(make_settings(database_url=empty_database_url))
        assert problems(found) == ["schema"]
        assert of(found, "tables") == []
        return only(found, "schema")

    assert (await revision()).what == "the database has no fastpubsub schema"
    migrations.upgrade(empty_database_url, "0001")
    assert (await revision()).next_step == "fastpubsub db-migrate"
    migrations.upgrade(empty_database_url)
    harness.execute(empty_database_url, sql.SQL("update fastpubsub.alembic_version set version_num = '9999'").format())
    assert (await revision()).next_step.startswith("install the newer fastpubsub")


@pytest.fixture
def unsafe(cluster_folder: Path) -> Iterator[EmbeddedPostgres]:
    switched_off = dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit", "autovacuum"), "off")
    settings = {**switched_off, "max_connections": "12"}
    with EmbeddedPostgres(clusters.fill(cluster_folder / "postgres", migrated=True), settings=settings) as postgres:
        yield postgres


async def test_a_server_with_unsafe_settings(unsafe: EmbeddedPostgres, make_settings: MakeSettings) -> None:
    settings = make_settings(database_url=unsafe.url(), database_require_durability=True)
    found = await examine(settings)
    durability = {one.what: one.level for one in of(found, "durability")}
    assert durability == {
        "fsync is off": "problem",
        "full_page_writes is off": "problem",
        "synchronous_commit is off": "warning",
    }
    assert only(found, "autovacuum").level == "problem"
    assert only(found, "connections").what.endswith(
        " of 9 connections are in use; one server with these settings takes up to 17"
    )
    assert only(found, "connections").level == "warning"
    assert only(found, "servers").level == "warning"
    allowed = await examine(make_settings(database_url=unsafe.url(), database_require_durability=False))
    assert {one.level for one in of(allowed, "durability")} == {"warning"}


async def test_the_connections_of_all_processes(durable: str, make_settings: MakeSettings) -> None:
    # They live for seconds after they have said so: in the next hour nobody misses any.
    say = "select from fastpubsub.record_process(%s, %s, false, clock_timestamp() + interval '1 hour')"
    settings = make_settings(database_url=durable)
    with psycopg.connect(harness.libpq(durable), autocommit=True) as connection:
        assert of(await examine(settings), "processes") == []
        connection.execute(say, [1, 17])
        assert only(await examine(settings), "processes").level == "ok"
        for process in range(2, 13):
            connection.execute(say, [process, 17])
        many = only(await examine(settings), "processes")
        assert many.what.startswith("12 processes of servers take up to 204 connections together, and 19")
        assert many.what.endswith(" of 197 are left for them")
        assert "add up to at most 14, raise max_connections so that 20" in many.next_step
        for process in range(13, 81):
            connection.execute(say, [process, 17])
        too_many = only(await examine(settings), "processes")
        assert too_many.next_step.endswith("run fewer processes, or put a pooler in between")
        database = DoctorConnection(settings)
        pooled = await examine_processes(database, is_pooled=True)
        await database.close()
        assert [(one.level, one.what) for one in pooled] == [
            ("ok", "80 processes of servers take up to 1360 connections of the pooler")
        ]


async def test_a_slot_that_nobody_uses_and_a_standby(unsafe: EmbeddedPostgres, make_settings: MakeSettings) -> None:
    with psycopg.connect(harness.libpq(unsafe.url()), autocommit=True) as connection:
        connection.execute("select pg_create_physical_replication_slot('forgotten', true)")
    slot = only(await examine(make_settings(database_url=unsafe.url())), "snapshots")
    assert slot.what.startswith("the physical replication slot forgotten is not in use")
    assert "pg_drop_replication_slot('forgotten')" in slot.next_step
    unsafe.stop()
    (unsafe.cluster / "standby.signal").touch()
    (unsafe.cluster / "standby.signal").chmod(0o666)
    unsafe.start()
    found = await examine(make_settings(database_url=unsafe.url()))
    assert problems(found) == ["writable", "autovacuum"]
    assert of(found, "writable")[0].what == "the database is a standby"
    assert not any("could not be checked" in one.what for one in found)


async def test_a_read_only_database_of_another_isolation(settings: Settings, database_url: str) -> None:
    set_for_database(database_url, "default_transaction_isolation", "serializable")
    set_for_database(database_url, "default_transaction_read_only", "on")
    assert problems(await examine(settings)) == ["writable", "isolation"]


async def test_a_held_snapshot_and_its_owner(findings: Findings, connect: Connect) -> None:
    holder = await connect()
    await holder.execute("set application_name = 'report'")
    await holder.execute("begin isolation level repeatable read")
    await holder.execute("select 'of the\n \x1b[31m report'")
    (held,) = [one for one in await findings("snapshots") if f"process {holder.info.backend_pid} " in one.what]
    assert held.level == "warning"
    assert "application report" in held.what
    assert held.what.endswith("idle in transaction; its statement: select 'of the ?[31m report'")
    assert f"pg_terminate_backend({holder.info.backend_pid})" in held.next_step
    await holder.execute("rollback")
    assert not any(f"process {holder.info.backend_pid} " in one.what for one in await findings("snapshots"))


async def test_what_is_not_held_for_long_is_no_finding(settings: Settings, connect: Connect) -> None:
    holder = await connect()
    await holder.execute("begin isolation level repeatable read")
    await holder.execute("select 1")
    assert not any(f"process {holder.info.backend_pid} " in one.what for one in await examine(settings, patience=3600))


async def test_a_prepared_transaction(findings: Findings, connect: Connect) -> None:
    holder = await connect()
    await holder.execute("begin")
    await holder.execute("select pg_current_xact_id()")
    await holder.execute("prepare transaction 'left-behind'")
    try:
        assert any(
            one.level == "warning" and "prepared transaction 'left-behind'" in one.what
            for one in await findings("snapshots")
        )
    finally:
        await holder.execute("rollback prepared 'left-behind'")


async def test_a_table_that_is_not_vacuumed(findings: Findings, connect: Connect) -> None:
    connection = await connect()
    await connection.execute("alter table fastpubsub.revived set (autovacuum_enabled = false)")
    await connection.execute(
        "insert into fastpubsub.revived (topic_key, subscription_key, position, created_at, payload)"
        " select 1, 1, n, clock_timestamp(), '{}' from generate_series(1, 60000) as n"
    )
    await connection.execute("delete from fastpubsub.revived")
    await connection.close()  # its counts are known to others then
    deadline = monotonic() + SECONDS
    while len(found := await findings("tables")) < 2:
        assert monotonic() < deadline, found
        await asyncio.sleep(0.1)
    assert found[0].what == "autovacuum is off for the table revived"
    assert found[1].what.startswith("the table revived has 60,000 dead rows beside 0, ")


async def test_a_role_that_may_do_little(make_settings: MakeSettings, connect: Connect, database_url: str) -> None:
    administrator, holder = await connect(), await connect()
    role = normalise(database_url).database or ""
    name = sql.Identifier(role)
    poor = make_settings(database_url=normalise(database_url).set(username=role).render_as_string(False))
    await holder.execute("begin isolation level repeatable read")
    await holder.execute("select 'secret'")
    await administrator.execute(sql.SQL("create role {} login").format(name))
    try:
        found = await examine(poor, patience=0)
        assert problems(found) == ["privileges"]
        assert only(found, "privileges").what == f"the role {role} may not read and write the schema fastpubsub"
        assert "secret" not in document(found)
        await administrator.execute(sql.SQL("grant usage on schema fastpubsub to {}").format(name))
        await administrator.execute(sql.SQL("grant select on all tables in schema fastpubsub to {}").format(name))
        found = await examine(poor, patience=0)
        assert problems(found) == ["privileges"]
        assert "leases" in only(found, "privileges").what
        grant = sql.SQL("grant insert, update, delete on all tables in schema fastpubsub to {}")
        await administrator.execute(grant.format(name))
        found = await examine(poor, patience=0)
        assert problems(found) == []
        assert only(found, "outbox").level == "ok"
    finally:
        await administrator.execute(sql.SQL("drop owned by {}; drop role {}").format(name, name))


async def test_a_pooler_that_is_none(make_settings: MakeSettings) -> None:
    assert only(await examine(make_settings()), "pooler").what == "there is no pooler"
    found = only(await examine(make_settings(database_pooler="transaction")), "pooler")
    assert (found.level, found.next_step) == ("warning", "set FASTPUBSUB_DATABASE_POOLER=none")


@pytest.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A topic with a subscription and three messages, two of them with a consumer."""
    (await client.post("/topics", json={"id": "t"})).raise_for_status()
    (await client.post("/subscriptions", json={"id": "s", "topic_id": "t"})).raise_for_status()
    (await client.post("/topics/t/messages", json=[{"n": 1}, {"n": 2}, {"n": 3}])).raise_for_status()
    pulled = await client.get("/subscriptions/s/messages?consumer_id=worker-7&batch_size=2")
    pulled.raise_for_status()
    return client


async def test_delayed_messages(findings: Findings, connect: Connect) -> None:
    (ok,) = await findings("delayed")
    assert ok.what == "0 delayed messages wait for their time"
    connection = await connect()
    await connection.execute("select fastpubsub.create_topic('t')")
    await connection.execute(
        "insert into fastpubsub.fired_messages"
        " select topic_key, '2026-01-01', 0, null, '2026-01-01' from fastpubsub.heads"
    )
    await connection.execute(
        "update fastpubsub.heads set has_delayed = true, held_after = '2025-01-01', held_until = '2025-02-01'"
    )
    for key, due in enumerate(("2025-01-15", "2026-01-02")):
        await connection.execute(
            "insert into fastpubsub.delayed_messages select topic_key, %s, %s, %s, '{}' from fastpubsub.heads",
            (key, due, due),
        )
    held, overdue = await findings("delayed")
    assert held.what.startswith("1 delayed messages are held")
    assert overdue.what.startswith("a delayed message is overdue for")


async def test_refused_messages(findings: Findings, connect: Connect) -> None:
    (ok,) = await findings("refused")
    assert ok.what == "no message from SQL was refused by a schema"
    connection = await connect()
    await connection.execute("select fastpubsub.create_topic('t')")
    for count, what in ((1, "1 message from SQL"), (2, "3 messages from SQL")):
        await connection.execute(
            "insert into fastpubsub.refused_messages (topic_key, refused_at, reason, payload)"
            " select topic_key, now(), 'no', '{}' from fastpubsub.topics, generate_series(1, %s)",
            [count],
        )
        (found,) = await findings("refused")
        assert found.what == f"{what} did not match the schema of the topic t"
        assert found.next_step.startswith("look at `fastpubsub refused list t`")


async def test_schedules(findings: Findings, connect: Connect) -> None:
    (ok,) = await findings("schedules")
    assert ok.what == "0 schedules are active, 0 are paused"
    connection = await connect()
    await connection.execute(
        "insert into fastpubsub.schedules"
        " (topic_key, id, payload, interval_seconds, catch_up, created_at, next_at, problem)"
        " values (1, 's', '{}', 60, 'once', '2026-01-01', '2026-01-01', 'no')"
    )
    failing, overdue = await findings("schedules")
    assert failing.what == "1 schedules cannot publish"
    assert overdue.what.startswith("a schedule is overdue for")


async def test_a_backlog_and_dead_letters(settings: Settings, filled: httpx.AsyncClient, connect: Connect) -> None:
    ids = (await filled.get("/subscriptions/s/messages?consumer_id=other&batch_size=1")).json()["data"]
    await filled.post("/subscriptions/s/rejects", json={"ids": [ids[0]["ack_id"]], "reason": "broken"})
    await filled.post("/topics/t/messages", json=[{"n": 4}])
    patient_one, impatient = await examine(settings, patience=3600), await examine(settings, patience=0)
    assert of(patient_one, "backlog") == []
    assert only(impatient, "backlog").what.startswith("the subscription s is behind: 1 messages not delivered yet")
    for found in (patient_one, impatient):
        assert only(found, "dead_letters").what == "the subscription s has 1 dead letters"
    assert only(impatient, "subscriptions").what == "1 subscriptions: 1 messages to deliver, 2 with consumers"
    connection = await connect()
    assert only(impatient, "kept").level == "ok"
    await connection.execute("update fastpubsub.messages set created_at = '2026-01-01 00:00+00' where position < 4")
    kept = only(await examine(settings), "kept")
    assert re.fullmatch(
        r"the message [0-9a-f-]{36} of the subscription s, published at 2026-01-01 00:00 UTC, is held by a consumer: "
        r"it keeps 3 messages of the topic t, about 264 bytes, beyond the retention",
        kept.what,
    )


async def test_held_keys(settings: Settings, filled: httpx.AsyncClient) -> None:
    await filled.post("/subscriptions", json={"id": "o", "topic_id": "t", "ordered": True, "on_dead_letter": "hold"})
    await filled.post("/topics/t/messages", json={"messages": [{"payload": {}, "ordering_key": "k"}]})
    (message,) = (await filled.get("/subscriptions/o/messages?consumer_id=c")).json()["data"]
    await filled.post("/subscriptions/o/rejects", json={"ids": [message["ack_id"]], "reason": "broken"})
    found = only(await examine(settings, patience=3600), "held_keys")
    assert found.what == "1 ordering key is held by a dead letter of the subscription o"


async def test_what_keeps_the_log_is_named_with_its_cost(
    settings: Settings, filled: httpx.AsyncClient, connect: Connect
) -> None:
    await filled.post("/subscriptions", json={"id": "idle", "topic_id": "t", "start_from": "earliest"})
    pulled = (await filled.get("/subscriptions/s/messages?consumer_id=c&batch_size=9")).json()["data"]
    await filled.post("/subscriptions/s/acks", json=[one["ack_id"] for one in pulled])
    connection = await connect()
    await connection.execute("update fastpubsub.messages set created_at = '2026-01-01 00:00+00'")
    await connection.execute("update fastpubsub.leases set expires_at = clock_timestamp() - interval '1 ms'")
    await release_expired_leases(app_of(filled).state.database)
    kept = {one.what for one in of(await examine(settings), "kept")}
    cost = "it keeps 3 messages of the topic t, about 264 bytes, beyond the retention"
    first = MessageIds(1, datetime(2026, 1, 1, tzinfo=UTC)).at(1)
    assert kept == {
        f"the subscription idle has not read the messages published at 2026-01-01 00:00 UTC and later: {cost}",
        f"the message {first} of the subscription s, published at 2026-01-01 00:00 UTC, waits for a retry: {cost}",
    }


async def test_a_lease_that_nobody_releases(settings: Settings, filled: httpx.AsyncClient, connect: Connect) -> None:
    connection = await connect()
    lease = only(await examine(settings, patience=0), "leases")
    assert lease.what.startswith("the first lease to end is that of consumer 'worker-7' in the subscription s, in ")
    async with connection.transaction():
        await connection.execute("select from fastpubsub.jobs where name = 'release_expired_leases' for update")
        other = await connect()
        await other.execute("update fastpubsub.leases set expires_at = clock_timestamp() - interval '1 hour'")
        stuck = only(await examine(settings, patience=300), "leases")
    assert stuck.level == "warning"
    assert stuck.what.startswith("a lease expired 1:0")


async def test_an_outbox_that_nobody_empties(database_url: str, settings: Settings, connect: Connect) -> None:
    connection = await connect()
    await connection.execute("select fastpubsub.create_topic('t')")
    for _ in range(2):
        await connection.execute("select fastpubsub.publish('t', '{}')")
    outbox = only(await examine(settings, patience=0), "outbox")
    assert outbox.what == "2 messages published from SQL wait, and the first one is not moved"
    deadline = monotonic() + SECONDS
    async with harness.opened(settings):
        while only(await examine(settings), "outbox").level != "ok":
            assert monotonic() < deadline
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"api_host": "0.0.0.0"}, "warning"),
        ({"api_host": "shop.example.com"}, "warning"),
        ({"api_host": "127.0.0.1"}, "ok"),
        ({"api_host": "::1"}, "ok"),
        ({"api_host": "0.0.0.0", "auth_enabled": True, "auth_secret_key": KEY}, "ok"),
    ],
)
async def test_authentication(make_settings: MakeSettings, changes: dict[str, object], level: str) -> None:
    assert only(await examine(make_settings(**changes)), "authentication").level == level


@pytest.mark.parametrize(
    ("key", "level"), [(KEY, "ok"), ("k" * 40, "problem"), ("KEY_OF_AT_LEAST_32_BYTES________x", "problem")]
)
async def test_secret_keys(make_settings: MakeSettings, key: str, level: str) -> None:
    found = await examine(make_settings(auth_secret_key=key))
    assert only(found, "secret_key").level == level
    assert key not in document(found) + table(found)


async def test_a_setting_with_a_wrong_name(settings: Settings) -> None:
    found = await examine(settings, ["FASTPUBSUB_DATABASE_POLER", "FASTPUBSUB_DATABASE_URL"])
    assert "did you mean FASTPUBSUB_DATABASE_POOLER" in only(found, "settings").what


def test_clocks() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    second = timedelta(seconds=1)
    assert clock(noon, noon - second, noon + second).level == "ok"
    assert clock(noon, noon + 7 * second, noon + 8 * second).what.endswith(" differ by 7.0 s")
    assert clock(noon, noon - 9 * second, noon - 8 * second).level == "warning"


def test_the_worst_counts() -> None:
    good, bad = Finding("a", "ok", "w"), Finding("b", "warning", "w", "y", "n")
    assert [worst([good]), worst([good, bad]), worst([bad, Finding("c", "problem", "w")])] == [
        "ok",
        "warning",
        "problem",
    ]
