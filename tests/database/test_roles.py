"""The roles of docs/operations.md: each can do its task, and nothing else."""

import asyncio
import re
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
import pytest
from psycopg import sql

from fastpubsub.config import Settings
from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise
from tests import harness
from tests.conftest import Run
from tests.pages import DOCS, blocks

UNPRIVILEGED = "42501"


class Roles(NamedTuple):
    """URLs of one database."""

    migrator: str
    server: str
    metrics: str


@pytest.fixture
def roles(empty_database_url: str) -> Iterator[Roles]:
    """Made, and the schema migrated, as the page says."""
    name = normalise(empty_database_url).database or ""
    made = Roles(*(as_role(empty_database_url, f"{name}_{role}") for role in harness.ROLES))
    create, grant = harness.role_blocks(name, name)
    harness.execute(empty_database_url, sql.SQL(create))
    try:
        for role in harness.ROLES:
            alter = sql.SQL("alter role {} password 'test'").format(sql.Identifier(f"{name}_{role}"))
            harness.execute(empty_database_url, alter)
        migrations.upgrade(made.migrator)
        harness.execute(made.migrator, sql.SQL(grant))
        yield made
    finally:
        for role in harness.ROLES:
            leave = sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(f"{name}_{role}"))
            harness.execute(empty_database_url, leave)


def as_role(url: str, role: str) -> str:
    return normalise(url).set(username=role, password="test").render_as_string(hide_password=False)


def state_of(url: str, statement: str) -> str | None:
    """The SQLSTATE that the statement fails with."""
    with psycopg.connect(harness.libpq(url), autocommit=True) as connection:
        try:
            connection.execute(statement.encode())
        except psycopg.Error as error:
            return error.sqlstate
    return None


FORBIDDEN = [
    "create table fastpubsub.t (a integer)",
    "create function fastpubsub.f() returns void language sql as 'select'",
    "create schema another",
    "drop table fastpubsub.messages",
    "drop schema fastpubsub cascade",
    "drop function fastpubsub.notify_servers",
    "alter table fastpubsub.messages add column a integer",
    "alter function fastpubsub.notify_servers security definer",
    "truncate fastpubsub.messages",
    "create index on fastpubsub.messages (created_at)",
    "create rule r as on insert to fastpubsub.messages do instead nothing",
    "create role another",
    "copy fastpubsub.messages to program 'cat'",
    "copy fastpubsub.messages from '/etc/passwd'",
    "select pg_read_file('/etc/passwd')",
    "select * from pg_catalog.pg_authid",
    "alter system set fsync = off",
    "update fastpubsub.alembic_version set version_num = '0'",
    "select fastpubsub.publish('t', '{}')",
    "select fastpubsub.ack('s', '{x}')",
    "select fastpubsub.nack('s', '{x}')",
    "select fastpubsub.reject('s', '{x}')",
]


def test_who_serves_changes_no_form(roles: Roles) -> None:
    for statement in FORBIDDEN:
        assert state_of(roles.server, statement) in (UNPRIVILEGED, "42939"), statement
        assert state_of(roles.metrics, statement) in (UNPRIVILEGED, "42939"), statement
    assert state_of(roles.migrator, "create role another") == UNPRIVILEGED


async def test_who_serves_serves(roles: Roles) -> None:
    """A story in short; CI runs the tests of the services and the API with this role."""
    settings = Settings(_env_file=None, database_url=roles.server, **harness.PATIENT)
    async with harness.opened(settings) as client:
        async with asyncio.timeout(harness.START_SECONDS):
            while (await client.get("/readiness")).status_code != 200:
                pass
        (await client.post("/topics", json={"id": "t"})).raise_for_status()
        (await client.post("/subscriptions", json={"id": "s", "topic_id": "t"})).raise_for_status()
        (await client.post("/topics/t/messages", json=[{"n": 1}, {"n": 2}, {"n": 3}])).raise_for_status()
        pulled = (await client.get("/subscriptions/s/messages?consumer_id=c")).json()["data"]
        first, second, third = (one["ack_id"] for one in pulled)
        (await client.post("/subscriptions/s/acks", json=[first])).raise_for_status()
        (await client.post("/subscriptions/s/nacks", json=[second])).raise_for_status()
        (await client.post("/subscriptions/s/rejects", json={"ids": [third]})).raise_for_status()
        (await client.get("/subscriptions/s/dlq")).raise_for_status()
        later = {"messages": [{"payload": {}, "delay_seconds": 60}, {"payload": {}, "delay_seconds": 1}]}
        answer = await client.post("/topics/t/messages", json=later, headers={"Prefer": "return=representation"})
        delayed = f"/topics/t/delayed/{answer.raise_for_status().json()['ids'][0]}"
        (await client.patch(delayed, json={"delay_seconds": 70})).raise_for_status()
        (await client.delete(delayed)).raise_for_status()
        (await client.get("/topics/t/delayed")).raise_for_status()
        (await client.post("/topics/t/release")).raise_for_status()
        soon = await client.get("/subscriptions/s/messages?consumer_id=c&wait_seconds=20")
        assert [one["payload"] for one in soon.raise_for_status().json()["data"]] == [{}]
        (await client.post("/clients", json={"name": "n", "scopes": "*"})).raise_for_status()
        assert re.search(r'state="dead".*} 1\.0', (await client.get("/metrics")).text)
        (await client.delete("/topics/t")).raise_for_status()


def test_who_serves_lacks_nothing_that_the_doctor_knows_of(roles: Roles, run: Run) -> None:
    done = run("doctor", database_url=roles.server)
    assert "as this version needs" in done.stdout, done.stdout + done.stderr
    assert "may not read and write" not in done.stdout


def test_rights_on_tables_of_later_releases(roles: Roles) -> None:
    assert state_of(roles.migrator, "create table fastpubsub.later (a integer)") is None
    assert state_of(roles.server, "insert into fastpubsub.later values (1); delete from fastpubsub.later") is None
    assert state_of(roles.metrics, "select from fastpubsub.later") == UNPRIVILEGED


def test_who_looks_sees_no_payload_and_no_secret(roles: Roles) -> None:
    queries = [one.text for one in blocks(DOCS / "operations.md") if re.match("select", one.text)]
    for query in queries:
        assert state_of(roles.metrics, query) is None, query
    hidden = ["messages", "dead_letters", "subscriptions", "clients", "outbox", "revived", "idempotency_keys", "heads"]
    for table in hidden:
        assert state_of(roles.metrics, f"select * from fastpubsub.{table}") == UNPRIVILEGED, table
    for table in ("topics", "leases", "messages"):
        assert state_of(roles.metrics, f"delete from fastpubsub.{table}") == UNPRIVILEGED, table
