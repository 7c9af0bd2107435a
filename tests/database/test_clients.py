"""create_, get_, list_, update_ and delete_client, find_client_credentials, get_client_state, scopes_cover."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from fastpubsub.scopes import SCOPES, covers
from tests.conftest import Connect
from tests.harness import libpq

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)


async def call(connection: AsyncConnection, procedure: str, *arguments: object) -> list[tuple[Any, ...]]:
    places = ", ".join(["%s"] * len(arguments))
    query = f"select * from fastpubsub.{procedure}({places})"
    return await (await connection.execute(query.encode(), arguments)).fetchall()


async def create(connection: AsyncConnection, scopes: str = "topics:read", *, is_active: bool = True) -> UUID:
    ((client_id,),) = await call(connection, "create_client", "name", scopes, "hash", is_active, NOW)
    assert isinstance(client_id, UUID)
    return client_id


async def refused(connection: AsyncConnection, procedure: str, *arguments: object) -> str | None:
    """The SQLSTATE; the transaction goes on."""
    with pytest.raises(psycopg.Error) as raised:
        async with connection.transaction():
            await call(connection, procedure, *arguments)
    return raised.value.sqlstate


async def test_create_and_get(connection: AsyncConnection) -> None:
    client_id = await create(connection)
    assert await call(connection, "get_client", client_id) == [
        (client_id, "name", "topics:read", True, 1, NOW, NOW),
    ]


async def test_an_update_sets_all_and_counts_the_version(connection: AsyncConnection) -> None:
    client_id = await create(connection)
    changed = (client_id, "other", "topics:create", False, 2, NOW, LATER)
    assert await call(connection, "update_client", client_id, "other", "topics:create", False, None, LATER) == [changed]
    assert await call(connection, "get_client", client_id) == [changed]


async def test_an_update_without_is_active_keeps_it(connection: AsyncConnection) -> None:
    client_id = await create(connection, is_active=False)
    ((*_, is_active, version, _, _),) = await call(connection, "update_client", client_id, "name", "topics:read")
    assert (is_active, version) == (False, 2)


async def test_a_list_is_ordered_by_id(connection: AsyncConnection) -> None:
    ids = sorted([await create(connection) for _ in range(5)])
    assert [row[0] for row in await call(connection, "list_clients", 0, 100)] == ids
    assert [row[0] for row in await call(connection, "list_clients", 1, 3)] == ids[1:4]
    assert await call(connection, "list_clients", 2**31 - 1, 100) == []


async def test_a_list_can_be_of_some_ids(connection: AsyncConnection) -> None:
    wanted = sorted([await create(connection), await create(connection)])
    await create(connection)
    assert [row[0] for row in await call(connection, "list_clients", 0, 100, [*wanted, uuid4()])] == wanted
    assert await call(connection, "list_clients", 0, 100, []) == []


async def test_deleting(connection: AsyncConnection) -> None:
    client_id = await create(connection)
    await call(connection, "delete_client", client_id)
    assert await refused(connection, "get_client", client_id) == "FP404"


async def test_credentials_and_state(connection: AsyncConnection) -> None:
    client_id = await create(connection, "topics:read topics:create", is_active=False)
    assert await call(connection, "find_client_credentials", client_id) == [
        ("hash", None, "topics:read topics:create", False, 1),
    ]
    assert await call(connection, "get_client_state", client_id) == [(1, False)]


async def secrets(connection: AsyncConnection, client_id: UUID, now: datetime = NOW) -> tuple[Any, ...]:
    """The newest, the old one, and the version of tokens."""
    ((new, old, _, _, version),) = await call(connection, "find_client_credentials", client_id, now)
    return new, old, version


async def rotate(connection: AsyncConnection, client_id: UUID, secret: str, seconds: int, now: datetime = NOW) -> Any:
    ((expires_at,),) = await call(connection, "rotate_client_secret", client_id, secret, seconds, None, now)
    return expires_at


async def test_two_secrets_live_side_by_side(connection: AsyncConnection) -> None:
    client_id = await create(connection)
    assert await rotate(connection, client_id, "second", 60) == NOW + timedelta(seconds=60)
    assert await secrets(connection, client_id, NOW + timedelta(seconds=59)) == ("second", "hash", 1)
    ended = NOW + timedelta(seconds=60)
    assert await secrets(connection, client_id, ended) == ("second", None, 1)
    await rotate(connection, client_id, "third", 60, ended)
    assert await secrets(connection, client_id, ended) == ("third", "second", 1)


async def test_a_third_secret_ends_none_unasked(connection: AsyncConnection) -> None:
    client_id = await create(connection)
    await rotate(connection, client_id, "second", 60)
    arguments = (client_id, "third", 60, None, NOW + timedelta(seconds=59))
    assert await refused(connection, "rotate_client_secret", *arguments) == "FP409"
    assert await secrets(connection, client_id) == ("second", "hash", 1)
    assert await rotate(connection, client_id, "third", 0) is None
    assert await secrets(connection, client_id) == ("third", None, 2)


@pytest.mark.parametrize(("newest", "left"), [(False, "second"), (True, "hash")])
async def test_one_of_two_secrets_is_ended(connection: AsyncConnection, newest: bool, left: str) -> None:
    client_id = await create(connection)
    await rotate(connection, client_id, "second", 60)
    await call(connection, "revoke_client_secret", client_id, newest, None, NOW)
    assert await secrets(connection, client_id) == (left, None, 2), "nobody knows of which of them a token is"
    assert await refused(connection, "revoke_client_secret", client_id, newest, None, NOW) == "FP409"
    await rotate(connection, client_id, "third", 60)
    late = NOW + timedelta(seconds=60)
    assert await refused(connection, "revoke_client_secret", client_id, newest, None, late) == "FP409"


@pytest.mark.parametrize(
    ("procedure", "arguments"),
    [
        ("get_client", []),
        ("update_client", ["name", "*"]),
        ("delete_client", []),
        ("rotate_client_secret", ["hash", 60]),
        ("revoke_client_secret", [True]),
        ("find_client_credentials", []),
        ("get_client_state", []),
    ],
)
async def test_a_missing_client(connection: AsyncConnection, procedure: str, arguments: list[str]) -> None:
    assert await refused(connection, procedure, uuid4(), *arguments) == "FP404"


async def test_only_who_covers_a_client_changes_it(connection: AsyncConnection) -> None:
    client_id = await create(connection, "topics:publish:a subscriptions:read")
    for granted in ([], ["topics:publish:a"], ["topics:publish:b", "subscriptions:read"], ["clients:update"]):
        assert await refused(connection, "update_client", client_id, "name", "topics:read", True, granted) == "FP403"
        assert await refused(connection, "delete_client", client_id, granted) == "FP403"
        assert await refused(connection, "rotate_client_secret", client_id, "hash", 0, granted) == "FP403"
        assert await refused(connection, "revoke_client_secret", client_id, True, granted) == "FP403"
    assert await call(connection, "get_client_state", client_id) == [(1, True)]
    granted = ["topics:publish", "subscriptions:read"]
    await call(connection, "update_client", client_id, "name", "topics:publish:a", True, granted)
    await call(connection, "delete_client", client_id, ["*"])


async def test_a_hundred_updates_at_once_count_a_hundred(connect: Connect) -> None:
    connections = [await connect() for _ in range(10)]
    client_id = await create(connections[0])

    async def update_ten_times(connection: AsyncConnection) -> None:
        for _ in range(10):
            await call(connection, "update_client", client_id, "name", "topics:read", True)

    await asyncio.gather(*map(update_ten_times, connections))
    assert await call(connections[0], "get_client_state", client_id) == [(101, True)]


async def test_who_changes_waits_for_who_grants(connect: Connect) -> None:
    """What somebody else has just granted is judged too, not what was there when the call began."""
    first, second, watcher = await connect(), await connect(), await connect()
    client_id = await create(first)
    async with first.transaction():
        await call(first, "update_client", client_id, "name", "topics:read topics:delete", True)
        waiting = asyncio.create_task(
            refused(second, "update_client", client_id, "name", "topics:read", True, ["topics:read"])
        )
        await wait_until_blocked(watcher, second.info.backend_pid)
    assert await waiting == "FP403"


async def wait_until_blocked(watcher: AsyncConnection, pid: int) -> None:
    blocked = b"select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    while not await (await watcher.execute(blocked, [pid])).fetchone():
        pass


OBJECT_SCOPES = [f"{scope}:{object_id}" for scope in ("topics:read", "topics:publish") for object_id in ("a", "ab")]
ANY_SCOPES = st.sampled_from([*SCOPES, *OBJECT_SCOPES])


@pytest.fixture(scope="module")
def database(shared_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(libpq(shared_database_url), autocommit=True) as opened:
        yield opened


@given(granted=st.frozensets(ANY_SCOPES), wanted=st.lists(ANY_SCOPES, min_size=1, unique=True))
def test_procedures_and_python_agree_on_who_covers_whom(
    database: psycopg.Connection, granted: frozenset[str], wanted: list[str]
) -> None:
    answer = database.execute("select fastpubsub.scopes_cover(%s::text[], %s)", [list(granted), " ".join(wanted)])
    assert answer.fetchone() == (all(covers(granted, scope) for scope in wanted),)
