"""The standby of a node takes its place, for good: `make test-citus STANDBY=host:port`, by a role as for the faults.

It is a streaming standby, synchronous, of a node with topics. Afterwards the cluster has it in the place of that node.
"""

import asyncio
import os
from time import monotonic

import psycopg

from tests import spread_databases
from tests.nodes.load import TOPICS, Load
from tests.nodes.there import run_there, urls

STOP = "kill -QUIT $(head -n 1 postmaster.pid)"
IDENTITY = "select system_identifier from pg_control_system()"
DATABASES = "select datname from pg_database where datallowconn and not datistemplate"
REPLACE = "select citus_update_node(nodeid, %s, %s, true) from pg_dist_node where groupid = %s and noderole = 'primary'"


def identity(url: str) -> int:
    """A standby has that of its node."""
    with psycopg.connect(url, autocommit=True) as connection:
        (row,) = connection.execute(IDENTITY).fetchall()
        return int(row[0])


def take_place(standby: str, group: int, host: str, port: int) -> None:
    """In every database of the cluster, so that it serves other runs."""
    with psycopg.connect(standby, autocommit=True) as connection:
        connection.execute("select pg_promote()")
    maintenance = os.environ["FASTPUBSUB_TEST_DATABASE_URL"]
    with psycopg.connect(spread_databases.of(maintenance), autocommit=True) as connection:
        names = [name for (name,) in connection.execute(DATABASES)]
    for name in names:
        with psycopg.connect(spread_databases.of(maintenance, database=name), autocommit=True) as connection:
            if connection.execute("select 1 from pg_extension where extname = 'citus'").fetchone():
                connection.execute(REPLACE, [host, port, group])


async def test_the_standby_of_a_node_takes_its_place(database_url: str, load: Load) -> None:
    host, _, port = os.environ["FASTPUBSUB_TEST_STANDBY"].rpartition(":")
    standby = spread_databases.of(database_url, host=host, port=int(port), database="postgres")
    (group,) = [one for one, url in urls().items() if identity(url) == identity(standby)]
    placed = spread_databases.nodes_of(database_url)
    lost = {topic for topic, (one, _) in placed.items() if one == group}
    assert set() < lost < set(TOPICS), "all topics are on one node"

    async def fail_over() -> None:
        await asyncio.sleep(2)
        await asyncio.to_thread(run_there, group, STOP)
        started = monotonic()
        await load.until_refused(lost)
        await asyncio.to_thread(take_place, standby, group, host, int(port))
        promoted = monotonic() - started
        confirmed = len(load.confirmed_of(lost))
        while len(load.confirmed_of(lost)) < confirmed + 10 * len(lost):  # noqa: ASYNC110 - of several topics
            await asyncio.sleep(0.05)
        print(f"promoted after {promoted:.1f} s, its topics were used again after {monotonic() - started:.1f} s")

    await load.run(fail_over())
    load.check(may_come_again=True)
    assert set(load.refused) <= lost
    print(f"a standby takes the place of a node: {load.told()}")
