"""Settling with the next pull: what each half does has tests of its own."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastpubsub.api.pulls import only_acks
from tests.api.calls import REPRESENTATION, Calls, Json, ids_of, payloads, problem, success

pytestmark = pytest.mark.shared_application

NOTHING: dict[str, list[str]] = {"settled": [], "gone": [], "stale": []}


async def exchange(client: httpx.AsyncClient, body: Json, **parameters: Any) -> httpx.Response:
    query = {"consumer_id": "tester", **parameters}
    return await client.post("/subscriptions/s/pulls", params=query, json=body, headers=REPRESENTATION)


async def test_settles_and_pulls(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=3600, backoff_max_seconds=3600)
    await calls.publish(*({"n": n} for n in range(8)))
    a, b, c, d, e = ids_of(await calls.pull(5), "ack_id")
    body: Json = {
        "acks": [a],
        "nacks": [{"ids": [b]}, {"ids": [c], "undelivered": True}],
        "rejects": [{"ids": [d], "reason": "no"}],
        "leases": [{"ids": [e], "extend_seconds": 600}],
    }
    response = await exchange(client, body, batch_size=2)
    assert response.headers["preference-applied"] == "return=representation"
    answer = success(response, 200)
    assert payloads(answer.pop("data")) == [{"n": 2}, {"n": 5}], "what nobody has looked at comes again at once"
    settled = {"acks": [a], "nacks": [b, c], "rejects": [d], "leases": [e]}
    assert answer == {name: NOTHING | {"settled": ids} for name, ids in settled.items()}
    assert await calls.counts() == (3, 3, 1, 1)
    again = success(await exchange(client, body, batch_size=1), 200)
    assert again["acks"] == NOTHING | {"gone": [a]}
    assert again["nacks"] == NOTHING | {"gone": [b], "stale": [c]}
    assert [letter["reason"] for letter in await calls.dead_letters()] == ["no"]


async def test_without_the_wish_only_messages_are_answered(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1}, {"n": 2})
    (first,) = await calls.pull(1)
    url = "/subscriptions/s/pulls?consumer_id=c"
    answer = success(await client.post(url, json={"acks": [first["id"]]}), 200)
    assert payloads(answer.pop("data")) == [{"n": 2}]
    assert answer == {}
    assert await calls.counts() == (0, 1, 1, 0)


@pytest.mark.parametrize(
    ("body", "parameters", "status"),
    [
        ({"acks": ["no id"]}, {}, 422),
        ({"rejects": [{"ids": ["no id"]}]}, {}, 422),
        ({"nacks": [{"ids": [], "delay_seconds": -1}]}, {}, 422),
        ({"nacks": [{"ids": [], "delay_seconds": 1, "undelivered": True}]}, {}, 422),
        ({"nacks": [[]]}, {}, 422),
        ({"leases": [{"ids": []}]}, {}, 422),
        ({"acknowledged": []}, {}, 422),
        ({}, {"batch_size": 101}, 422),
        ({}, {"wait_seconds": 21}, 422),
        ({"nacks": [{"ids": ["550e8400-e29b-41d4-a716-446655440000"] * 1001}]}, {}, 413),
    ],
)
async def test_what_is_refused_settles_and_leases_nothing(
    client: httpx.AsyncClient, calls: Calls, body: Json, parameters: Json, status: int
) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1}, {"n": 2})
    held = ids_of(await calls.pull(1), "ack_id")
    problem(await exchange(client, {"acks": held} | body, **parameters), status)
    assert await calls.counts() == (1, 1, 0, 0)


async def test_the_part_with_a_wrong_id_is_named(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    detail = problem(await exchange(client, {"nacks": [{"ids": []}, {"ids": ["x"]}]}), 422)
    assert detail.startswith("nacks.1: id 0 of the list")


async def test_waiting_settles_at_once(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    held = ids_of(await calls.pull(), "ack_id")
    waiting = asyncio.create_task(exchange(client, {"acks": held}, wait_seconds=20))
    while await calls.counts() != (0, 0, 1, 0):
        pass
    assert not waiting.done()
    await calls.publish({"n": 2})
    answer = success(await waiting, 200)
    assert payloads(answer["data"]) == [{"n": 2}]
    assert answer["acks"]["settled"] == held


async def test_many_at_once_each_get_their_own(client: httpx.AsyncClient, calls: Calls) -> None:
    """One call of the database serves several; a wrong id is the fault of its request alone."""
    await calls.topic_and_subscription()
    await calls.publish(*({"n": n} for n in range(40)))
    held = ids_of(await calls.pull(20), "ack_id")
    answers = await asyncio.gather(
        *(exchange(client, {"acks": [one]}, batch_size=1) for one in held), exchange(client, {"acks": ["x"]})
    )
    problem(answers.pop(), 422)
    bodies = [success(answer, 200) for answer in answers]
    assert [body["acks"]["settled"] for body in bodies] == [[one] for one in held]
    assert sorted(message["payload"]["n"] for body in bodies for message in body["data"]) == list(range(20, 40))
    assert await calls.counts() == (0, 20, 20, 0)


async def test_a_nack_as_an_object(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=3600, backoff_max_seconds=3600)
    await calls.publish({"n": 1}, {"n": 2})
    first, second = await calls.pull(2)
    url = "/subscriptions/s/nacks"
    for body, status in (
        ({"ids": [], "reason": ""}, 422),
        ({"ids": [], "reason": "x" * 1025}, 422),
        ({"ids": [], "reason": "x", "undelivered": True}, 422),
        ({"ids": [], "surprise": 1}, 422),
        ({"reason": "x"}, 422),
        ({"ids": [first["ack_id"]] * 1001}, 413),
    ):
        problem(await client.post(url, json=body), status)
    problem(await client.post(f"{url}?delay_seconds=5", json={"ids": []}), 422)
    body = {"ids": [first["ack_id"]], "reason": "{until}: 100 % full", "delay_seconds": 60}
    assert (await client.post(url, json=body)).status_code == 204
    assert (await client.post(url, json={"ids": [second["ack_id"]], "undelivered": True})).status_code == 204
    explained = success(await client.get(f"/subscriptions/s/messages/{first['id']}"), 200)
    assert explained["reason"] == "nacked: {until}: 100 % full"
    assert explained["detail"].startswith("a consumer nacked delivery 1 ({until}: 100 % full), and the next one is due")
    (again,) = await calls.pull(2)
    assert again["id"] == second["id"]


ACK_IDS = st.from_regex(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[0-9a-f]{16}", fullmatch=True)


@given(st.lists(ACK_IDS, min_size=1))
def test_a_body_of_ack_ids_alone_is_read_by_itself(ids: list[str]) -> None:
    assert only_acks(json.dumps({"acks": ids}, separators=(",", ":")).encode()) == ids


@given(st.lists(ACK_IDS, min_size=1), st.data())
@example([], None)
def test_what_is_read_by_itself_is_what_json_says(ids: list[str], data: st.DataObject | None) -> None:
    """Whatever is put into the body, or cut out of it."""
    body = json.dumps({"acks": ids}, separators=(",", ":")).encode()
    if data is not None:
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 60)))
        put = st.sampled_from([b"", b'"', b",", b'","', b"\\u0041", b"\xff", b"0", b" ", b'"]}', b"]"])
        body = body[:start] + data.draw(put | st.binary(max_size=56)) + body[end:]
    if (found := only_acks(body)) is not None:
        assert json.loads(body) == {"acks": found}


@pytest.mark.parametrize("ids", [["x"], ["0" * 53], ["0" * 53, "-" * 53]])
async def test_a_body_of_what_looks_like_ack_ids(client: httpx.AsyncClient, calls: Calls, ids: list[str]) -> None:
    await calls.topic_and_subscription()
    assert "neither a message id" in problem(await exchange(client, {"acks": ids}), 422)
