"""What tests share is empty when one begins."""

from typing import Any

import httpx
import psycopg
import pytest

from tests import harness
from tests.api.calls import Calls, success
from tests.lasting import KEPT, Emptying

pytestmark = pytest.mark.shared_application

FILLED = """
    select fastpubsub.create_topic('t');
    select fastpubsub.publish('t', '{}');
    create table public.left_behind as select 1 as n;
"""


def left(connection: psycopg.Connection[Any]) -> list[str]:
    tables = connection.execute(
        "select schemaname, tablename from pg_tables where schemaname in ('fastpubsub', 'public')"
    )
    names = [f"{schema}.{name}" for schema, name in tables.fetchall() if name not in KEPT]
    return [name for name in names if connection.execute(f"select 1 from {name} limit 1".encode()).fetchone()]


def test_everything_goes_although_somebody_ended_its_connection(database_url: str) -> None:
    emptying = Emptying(database_url)
    with psycopg.connect(harness.libpq(database_url), autocommit=True) as connection:
        for _ in range(2):
            connection.execute(FILLED)
            assert {"fastpubsub.topics", "public.left_behind"} < set(left(connection))
            emptying.empty()
            assert left(connection) == []
            connection.execute("select pg_terminate_backend(%s)", [emptying._connection.info.backend_pid])
    emptying.close()


@pytest.mark.parametrize("_number", range(2))
async def test_a_shared_application_knows_nothing_of_the_test_before(client: httpx.AsyncClient, _number: int) -> None:
    calls = Calls(client)
    assert success(await client.get("/topics"), 200)["data"] == []
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    (message,) = await calls.pull()
    assert message["delivery_attempts"] == 1
