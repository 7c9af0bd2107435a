"""Databases of tests on a cluster that somebody has: FASTPUBSUB_TEST_SPREAD=1 makes them spread, see `make test-citus`.

FASTPUBSUB_TEST_DATABASE_URL is one on the coordinator that has the extension and its nodes; each node lets its role in,
and may create databases.
"""

import os
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import sql

from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise

SHARDS = 8
CRASHED_SECONDS = 60.0
NODES = "select nodename, nodeport, groupid from pg_dist_node where noderole = 'primary' order by groupid"
NODE_OF = """
    select s.id, p.groupid, p.shardid from fastpubsub.topics as s
    inner join pg_dist_placement as p
        on p.shardid = get_shard_id_for_distribution_column('fastpubsub.heads', s.topic_key)
"""


def are_wanted() -> bool:
    return os.environ.get("FASTPUBSUB_TEST_SPREAD") == "1"


def nodes() -> list[tuple[str, int, int]]:
    """Addresses with groups; the coordinator, of group 0, is the first."""
    maintenance = os.environ["FASTPUBSUB_TEST_DATABASE_URL"]
    return [(str(host), int(port), int(group)) for host, port, group in patiently(of(maintenance), sql.SQL(NODES))]


def nodes_of(url: str) -> dict[str, tuple[int, int]]:
    """Topics with the group of their node, and their shard."""
    with psycopg.connect(of(url), autocommit=True) as connection:
        return {topic: (group, shard) for topic, group, shard in connection.execute(NODE_OF)}


def of(url: str, **changes: str | int) -> str:
    """The URL for psycopg, with changes."""
    parsed = normalise(url).set(drivername="postgresql", **changes)  # type: ignore[arg-type]
    return parsed.render_as_string(hide_password=False)


def everywhere(url: str, database: str, *statements: sql.Composed | sql.SQL) -> None:
    """Runs the statements on every node, each by itself."""
    for host, port, _ in nodes():
        for statement in statements:
            patiently(of(url, host=host, port=port, database=database), statement)


def patiently(url: str, statement: sql.Composed | sql.SQL) -> list[tuple[Any, ...]]:
    """On a node that a test may have crashed a moment ago."""
    deadline = monotonic() + CRASHED_SECONDS
    while True:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            if monotonic() > deadline:
                raise
            sleep(0.5)


def create(maintenance: str, name: str, *, is_spread: bool = True) -> None:
    """Migrated before it has nodes, as existing ones are. It may be cloned."""
    everywhere(maintenance, "postgres", sql.SQL("create database {}").format(sql.Identifier(name)))
    url = normalise(maintenance).set(database=name).render_as_string(hide_password=False)
    migrations.upgrade(url)
    everywhere(maintenance, name, sql.SQL("create extension citus"))
    (coordinator, port, _), *others = nodes()
    with psycopg.connect(of(maintenance, database=name), autocommit=True) as connection:
        connection.execute("select citus_set_coordinator_host(%s, %s)", [coordinator, port])
        for node in others:
            connection.execute("select citus_add_node(%s, %s)", node[:2])
    if is_spread:
        migrations.spread(url, SHARDS)


def clone(template: str, name: str) -> None:
    source = sql.Identifier(normalise(template).database or "")
    close = sql.SQL("alter database {} allow_connections false").format(source)
    end = sql.SQL("select pg_terminate_backend(pid, 60000) from pg_stat_activity where datname = {}").format(
        sql.Literal(normalise(template).database)
    )
    copy = sql.SQL("create database {} template {} strategy file_copy").format(sql.Identifier(name), source)
    everywhere(template, "postgres", close, end, copy)


def drop(url: str, name: str) -> None:
    with suppress(psycopg.errors.InvalidCatalogName):
        everywhere(url, "postgres", sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
