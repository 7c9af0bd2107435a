"""Delayed messages of real servers that are killed."""

import os
import signal
import time

import httpx
import psycopg

from tests.conftest import StartServer
from tests.harness import Server, libpq

COUNT = 600
SECONDS = 4
PATIENCE = 60.0
LATEST = 30.0
TRIALS = 5
"""Of each server."""


def create(server: Server) -> None:
    httpx.post(f"{server.base_url}/topics", json={"id": "t"}).raise_for_status()


def publish(server: Server, *messages: dict[str, object]) -> list[str]:
    response = httpx.post(
        f"{server.base_url}/topics/t/messages",
        json={"messages": list(messages)},
        headers={"Prefer": "return=representation"},
    )
    return list(response.raise_for_status().json()["ids"])


def is_cancelled(server: Server, id_: str) -> bool:
    """Otherwise the machine is so busy that it was due before."""
    response = httpx.delete(f"{server.base_url}/topics/t/delayed/{id_}")
    assert response.status_code in (204, 409), response.text
    return response.status_code == httpx.codes.NO_CONTENT


def test_killing_servers_loses_and_doubles_nothing(server: StartServer, database_url: str) -> None:
    """They die while messages become due all the time, and two others publish as well."""
    first, second, third = server(), server(), server()
    create(first)
    ids = publish(first, *({"payload": {"n": n}, "delay_seconds": 1 + n % SECONDS} for n in range(COUNT)))
    cancelled = [id_ for id_ in ids[SECONDS - 1 :: 50 * SECONDS] if is_cancelled(second, id_)]
    with psycopg.connect(libpq(database_url), autocommit=True) as watching:
        for dying, come in ((first, 1), (second, COUNT // 2)):
            wait_until(watching, come)
            os.killpg(dying.process.pid, signal.SIGKILL)
            dying.process.wait()
            dying.exit_code = 0
        numbers = wait_until(watching, COUNT - len(cancelled))
        late = watching.execute(
            "select max(m.created_at - f.due_at) from fastpubsub.messages as m"
            " join fastpubsub.fired_messages as f using (topic_key, position)"
        ).fetchone()
    gone = {int(ids.index(id_)) for id_ in cancelled}
    assert sorted(numbers) == [n for n in range(COUNT) if n not in gone]
    assert [n % SECONDS for n in numbers] == sorted(n % SECONDS for n in numbers)
    assert late is not None
    assert 0 <= late[0].total_seconds() < LATEST
    for id_ in set(ids) - set(cancelled):
        found = httpx.get(f"{third.base_url}/topics/t/delayed/{id_}").json()
        assert found["state"] == "published"
        break


def wait_until(watching: psycopg.Connection, count: int) -> list[int]:
    """Numbers of the messages in their order, once there are so many."""
    deadline = time.monotonic() + PATIENCE
    query = "select (payload ->> 'n')::int from fastpubsub.messages order by position"
    while time.monotonic() < deadline:
        numbers = [number for (number,) in watching.execute(query).fetchall()]
        if len(numbers) >= count:
            return numbers
        time.sleep(0.02)
    raise AssertionError("the messages did not come")


def test_a_message_comes_within_a_second(server: StartServer, database_url: str) -> None:
    """As long as a server runs; on a machine that is busy with other tests, not each time."""
    servers = [server(), server()]
    create(servers[0])
    late = "select min(extract(epoch from f.created_at - f.due_at)) from fastpubsub.fired_messages as f"
    with psycopg.connect(libpq(database_url), autocommit=True) as watching:
        seconds = PATIENCE
        for number in range(1, 2 * TRIALS + 1):
            publish(servers[number % 2], {"payload": {"n": number}, "delay_seconds": 1})
            wait_until(watching, number)
            (seconds,) = watching.execute(f"{late} where f.position is not null").fetchone() or (seconds,)
            if number > 1 and seconds < 1:
                return
    raise AssertionError(f"the soonest was {seconds} s late")
