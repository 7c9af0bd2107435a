"""Reaches the nodes of the cluster themselves, and the machines that they run on."""

import functools
import os
from contextlib import suppress

import psycopg
from psycopg import sql

from fastpubsub.database.urls import normalise
from tests import spread_databases


@functools.cache
def urls() -> dict[int, str]:
    """Of the nodes, by their groups; the coordinator has 0. While it is away, nobody else could say."""
    url = os.environ["FASTPUBSUB_TEST_DATABASE_URL"]
    return {
        group: spread_databases.of(url, host=host, port=port, database="postgres")
        for host, port, group in spread_databases.nodes()
    }


def run_there(group: int, program: str) -> None:
    """On the machine of the node, in the folder of its data; the connection may not survive it."""
    url = urls()[group]
    with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("copy (select) to program {}").format(sql.Literal(program)))


def slow_commits(database_url: str, group: int) -> None:
    """A commit on the node waits before it is on disk, so that a crash is likely to come in between."""
    name = sql.Identifier(normalise(database_url).database or "")
    with psycopg.connect(urls()[group], autocommit=True) as connection:
        connection.execute(sql.SQL("alter database {} set commit_delay = 50000").format(name))
        connection.execute(sql.SQL("alter database {} set commit_siblings = 0").format(name))
