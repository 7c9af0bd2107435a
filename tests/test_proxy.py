"""The proxy cuts a call where it is told to: what the database has of it shows that."""

import psycopg
import pytest

from tests import harness
from tests.conftest import Connect
from tests.proxy import Proxy, Stage

QUERY = "select * from fastpubsub.create_topic(%s, null)"


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize(("stage", "stored"), [(Stage.UNSENT, 0), (Stage.UNCOMMITTED, 0), (Stage.UNANSWERED, 1)])
async def test_a_call_is_cut(database_url: str, connect: Connect, stage: Stage, stored: int, prepare: bool) -> None:
    observer = await connect()
    async with Proxy(database_url) as proxy:
        async with await psycopg.AsyncConnection.connect(harness.libpq(proxy.url), autocommit=True) as connection:
            await connection.execute(QUERY, ["before"], prepare=prepare)
            done = proxy.cut_call("create_topic", stage)
            await connection.execute("select 1")
            assert not done.is_set()
            with pytest.raises(psycopg.OperationalError):
                await connection.execute(QUERY, ["cut"], prepare=prepare)
        assert done.is_set()
        async with await psycopg.AsyncConnection.connect(harness.libpq(proxy.url), autocommit=True) as connection:
            await connection.execute(QUERY, ["after"])
    async with observer.transaction():
        await observer.execute("lock table fastpubsub.topics")  # the session that was cut may just be rolling back
        found = await (await observer.execute("select id from fastpubsub.topics order by id")).fetchall()
    assert len([name for (name,) in found if name == "cut"]) == stored
    assert {"before", "after"} <= {name for (name,) in found}
