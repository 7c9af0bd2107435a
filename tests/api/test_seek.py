"""Seeking: replaying and skipping."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from fastpubsub.services.maintenance import trim_messages
from tests.api.calls import Calls, ids_of, payloads, problem
from tests.api.conftest import app_of

pytestmark = pytest.mark.shared_application


async def numbers(calls: Calls, name: str = "s") -> list[int]:
    return [payload["n"] for payload in payloads(await calls.pull(name=name))]


async def test_where_to(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    ids = [(await calls.publish({"n": number}))[0] for number in range(5)]
    messages = await calls.pull()
    await calls.ack(*ids_of(messages))
    times = [message["created_at"] for message in messages]
    after = (datetime.fromisoformat(times[4]) + timedelta(seconds=1)).isoformat()
    places: dict[str, list[int]] = {
        "earliest": [0, 1, 2, 3, 4],
        "latest": [],
        ids[0]: [0, 1, 2, 3, 4],
        ids[3]: [3, 4],
        ids[4].upper(): [4],
        times[0]: [0, 1, 2, 3, 4],
        after: [],
        "1970-01-01T00:00:00Z": [0, 1, 2, 3, 4],
        "0001-01-01T00:00:00+23:59": [0, 1, 2, 3, 4],
        "9999-12-31T23:59:59.999999-23:59": [],
    }
    for to, expected in places.items():
        response = await client.post("/subscriptions/s/seek", json={"to": to})
        assert (response.status_code, response.content) == (204, b""), to
        assert await numbers(calls) == expected, to
    first_of_its_time = times.index(times[2])
    await calls.seek(times[2])
    assert await numbers(calls) == list(range(first_of_its_time, 5))


async def test_attempts_start_again_and_acked_does_not_shrink(calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=0)
    await calls.publish({"n": 0}, {"n": 1})
    first, second = await calls.pull()
    await calls.ack(first["id"])
    await calls.nack(second["id"])
    assert (await calls.pull_one())["delivery_attempts"] == 2
    await calls.seek("earliest")
    assert await calls.counts() == (2, 0, 1, 0)
    assert [message["delivery_attempts"] for message in await calls.pull()] == [1, 1]


async def test_an_old_ack_id_changes_nothing(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 0})
    old = await calls.pull_one()
    await calls.seek("earliest")
    for verb in ("acks", "nacks"):
        assert await calls.settle(verb, [old["ack_id"]]) == {"settled": [], "gone": [old["ack_id"]], "stale": []}
    assert await calls.counts() == (1, 0, 0, 0)
    new = await calls.pull_one()
    assert new["id"] == old["id"]
    stale = {"settled": [], "gone": [], "stale": [old["ack_id"]]}
    assert await calls.ack(old["ack_id"]) == stale
    assert await calls.nack(old["ack_id"], delay_seconds=0) == stale
    assert await calls.reject(old["ack_id"]) == stale
    assert await calls.extend(old["ack_id"]) == []
    assert (await client.post("/subscriptions/s/acks", json=[old["ack_id"]])).status_code == 204
    assert await calls.counts() == (0, 1, 0, 0)
    assert (await calls.ack(new["ack_id"]))["settled"] == [new["ack_id"]]


async def test_waiting_retries_end_and_dead_letters_stay(calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=0)
    await calls.publish({"n": 0}, {"n": 1}, {"n": 2})
    first, second, third = await calls.pull()
    await calls.nack(first["id"])
    await calls.reject(second["id"])
    await calls.ack(third["id"])
    await calls.seek("latest")
    assert await calls.pull() == []
    assert await calls.counts() == (0, 0, 1, 1)
    await calls.reprocess(second["id"])
    assert await numbers(calls) == [1]


async def test_other_subscriptions_do_not_notice(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.subscription("other")
    await calls.publish({"n": 0}, {"n": 1})
    held, _ = await calls.pull(name="other")
    await calls.pull()
    await calls.seek("earliest")
    assert await calls.counts("other") == (0, 2, 0, 0)
    assert (await calls.ack(held["ack_id"], name="other"))["settled"] == [held["ack_id"]]
    assert await numbers(calls) == [0, 1]


async def test_behind_what_was_trimmed_it_stands_before_what_is_kept(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    ids = await calls.publish(*[{"n": number} for number in range(5)])
    await calls.ack(*ids_of(await calls.pull()))
    assert await trim_messages(app_of(client).state.database, 0) == 4
    for to in ("earliest", ids[0], "1970-01-01T00:00:00Z"):
        await calls.seek(to)
        assert await numbers(calls) == [4], to


async def test_what_is_no_place(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.topic("u")
    (elsewhere,) = await calls.publish({"n": 0}, topic="u")
    await calls.publish({"n": 1})
    held = await calls.pull_one()
    places: list[Any] = [
        None,
        "",
        "now",
        "EARLIEST",
        "2026-01-01T00:00:00",
        "10000-01-01T00:00:00Z",
        "-infinity",
        "550e8400-e29b-41d4-a716-446655440000",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        elsewhere,
        held["ack_id"],
        {},
        [],
        True,
        "1e400",
        10**400,
    ]
    for place in places:
        problem(await client.post("/subscriptions/s/seek", json={"to": place}), 422)
    bodies: list[Any] = [{}, [], None, "earliest", {"to": "earliest", "x": 1}]
    for body in bodies:
        problem(await client.post("/subscriptions/s/seek", json=body), 422)
    assert (await calls.ack(held["ack_id"]))["settled"] == [held["ack_id"]], "nothing was sought"


async def test_seeking_while_consumers_pull_loses_and_doubles_nothing(calls: Calls) -> None:
    """Whoever got a message before the seek cannot settle it any more; everybody after it gets each once."""
    await calls.topic_and_subscription()
    await calls.publish(*[{"n": number} for number in range(100)])
    await asyncio.gather(*[calls.pull(5) for _ in range(5)], calls.seek("earliest"), *[calls.pull(5) for _ in range(5)])
    await calls.seek("earliest")
    found = []
    while messages := await calls.pull(7):
        found += [message["payload"]["n"] for message in messages]
        assert (await calls.ack(*ids_of(messages, "ack_id")))["settled"] == ids_of(messages, "ack_id")
    assert found == list(range(100))
