"""Settling: acks, nacks, rejects and leases, by message id and by ack_id."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from fastpubsub.config import Settings
from fastpubsub.services.maintenance import release_expired_leases
from tests.api.calls import (
    REPRESENTATION,
    Calls,
    Json,
    expire_leases,
    ids_of,
    payloads,
    problem,
    success,
    until_blocked,
)
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application

STRANGER = "550e8400-e29b-41d4-a716-446655440000"
VERBS = ["acks", "nacks", "rejects"]


async def settle(client: httpx.AsyncClient, verb: str, ids: list[str], headers: Any = None) -> httpx.Response:
    body = {"ids": ids} if verb in ("rejects", "leases") else ids
    return await client.post(f"/subscriptions/s/{verb}", json=body, headers=headers)


# as the spec has it: bare message ids, and nothing to read in the answer


@pytest.mark.parametrize("verb", VERBS)
async def test_by_message_id(client: httpx.AsyncClient, calls: Calls, verb: str) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=3600, backoff_max_seconds=3600)
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    first, second, _ = ids_of(await calls.pull())
    response = await settle(client, verb, [first, second])
    assert (response.status_code, response.content) == (204, b"")
    assert await calls.pull() == []
    expected = {"acks": (0, 1, 2, 0), "nacks": (2, 1, 0, 0), "rejects": (0, 1, 0, 2)}
    assert await calls.counts() == expected[verb]


@pytest.mark.parametrize("name", ["id", "ack_id"])
@pytest.mark.parametrize("verb", VERBS)
async def test_what_became_of_each(client: httpx.AsyncClient, calls: Calls, verb: str, name: str) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=3600, backoff_max_seconds=3600)
    never, mine, other = await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    messages = await calls.pull()
    before = next(message[name] for message in messages if message["id"] == never)
    await calls.ack(before)
    held = [message[name] for message in messages if message["id"] in (mine, other)]
    ids = [held[1], STRANGER, before, held[0], STRANGER]
    response = await settle(client, verb, ids, REPRESENTATION)
    assert response.headers["preference-applied"] == "return=representation"
    assert success(response, 200) == {"settled": [held[1], held[0]], "gone": [STRANGER, before, STRANGER], "stale": []}
    again = success(await settle(client, verb, ids, REPRESENTATION), 200)
    assert (again["settled"], again["stale"]) == ([], []), "a repetition is gone, never stale"


async def test_ids_of_another_subscription_or_topic_change_nothing(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.subscription("other")
    await calls.topic("u")
    await calls.subscription("elsewhere", "u")
    await calls.publish({"n": 1})
    await calls.publish({"n": 1}, topic="u")
    held, others, elsewhere = [await calls.pull_one(name) for name in ("s", "other", "elsewhere")]
    outcomes = await calls.ack(others["ack_id"], elsewhere["ack_id"], elsewhere["id"])
    assert outcomes == {"settled": [], "gone": [elsewhere["ack_id"], elsewhere["id"]], "stale": [others["ack_id"]]}
    assert await calls.counts() == (0, 1, 0, 0)
    assert (await calls.ack(held["ack_id"]))["settled"] == [held["ack_id"]]
    assert [await calls.counts(name) for name in ("other", "elsewhere")] == [(0, 1, 0, 0), (0, 1, 0, 0)]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_late_consumer_changes_nothing_for_the_one_that_holds_the_message(
    client: httpx.AsyncClient, calls: Calls, connect: Connect, verb: str
) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=0)
    await calls.publish({"n": 1})
    late = await calls.pull_one()
    await expire_leases(await connect(), app_of(client).state.database)
    assert await calls.counts() == (1, 0, 0, 0)
    assert success(await settle(client, verb, [late["ack_id"]], REPRESENTATION), 200)["gone"] == [late["ack_id"]]
    holder = await calls.pull_one()
    assert holder["delivery_attempts"] == 2
    assert success(await settle(client, verb, [late["ack_id"]], REPRESENTATION), 200)["stale"] == [late["ack_id"]]
    assert await calls.extend(late["ack_id"]) == []
    assert await calls.counts() == (0, 1, 0, 0)
    assert (await calls.ack(holder["ack_id"]))["settled"] == [holder["ack_id"]]
    assert success(await settle(client, verb, [late["ack_id"]], REPRESENTATION), 200)["gone"] == [late["ack_id"]]
    assert await calls.counts() == (0, 0, 1, 0)


async def test_a_bare_id_whose_message_waits_for_a_retry_changes_nothing(calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=3600, backoff_max_seconds=3600)
    await calls.publish({"n": 1})
    message = await calls.pull_one()
    await calls.nack(message["id"])
    assert (await calls.settle("acks", [message["id"]]))["gone"] == [message["id"]]
    assert (await calls.settle("nacks", [message["id"]], delay_seconds=0))["gone"] == [message["id"]]
    assert (await calls.reject(message["id"]))["gone"] == [message["id"]]
    assert await calls.extend(message["id"]) == []
    assert await calls.pull() == []
    assert await calls.counts() == (1, 0, 0, 0)


async def test_the_same_message_twice_in_a_list(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    message = await calls.pull_one()
    outcomes = await calls.ack(message["id"], message["ack_id"], message["id"])
    assert outcomes["stale"] == []
    assert len(outcomes["settled"]) + len(outcomes["gone"]) == 3
    assert await calls.counts() == (0, 0, 1, 0)


async def test_the_form_of_an_id_does_not_matter(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1}, {"n": 2})
    first, second = await calls.pull()
    ids = [first["id"].upper(), second["ack_id"].upper()]
    assert (await calls.ack(*ids))["settled"] == ids


NO_IDS: list[Any] = [
    None,
    {},
    "x",
    1,
    {"ids": []},
    ["x"],
    [""],
    [1],
    [None],
    [["x"]],
    [STRANGER, "x"],
    [f"{STRANGER}."],
    [f"{STRANGER}.x"],
    [STRANGER[:-1]],
    [f"{STRANGER}\n"],
    [f"{STRANGER}\u0000"],
    [f" {STRANGER}"],
    [STRANGER.replace("-", "")],
]


async def test_what_is_no_list_of_ids(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    held = await calls.pull_one()
    for body in NO_IDS:
        # A nack may be an object, with a reason.
        verbs = ["acks", "dlq/reprocess"] if body == {"ids": []} else ["acks", "nacks", "dlq/reprocess"]
        for verb in verbs:
            problem(await client.post(f"/subscriptions/s/{verb}", json=body), 422)
        problem(await client.request("DELETE", "/subscriptions/s/dlq", json=body), 422)
        if not isinstance(body, dict):
            problem(await client.post("/subscriptions/s/rejects", json={"ids": body}), 422)
            problem(await client.post("/subscriptions/s/leases", json={"ids": body, "extend_seconds": 9}), 422)
    with_a_bad_one = [held["id"], "x"]
    problem(await client.post("/subscriptions/s/acks", json=with_a_bad_one), 422)
    assert await calls.counts() == (0, 1, 0, 0), "nothing of a list with a bad id is done"


async def test_nothing(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for verb in VERBS:
        assert (await settle(client, verb, [])).status_code == 204
        nothing: Json = {"settled": [], "gone": [], "stale": []}
        assert success(await settle(client, verb, [], REPRESENTATION), 200) == nothing
    assert await calls.extend() == []


# nacks


async def waits(connection: psycopg.AsyncConnection) -> float:
    """Seconds until the message that waits is due."""
    cursor = await connection.execute("select extract(epoch from due_at - clock_timestamp()) from fastpubsub.retries")
    ((seconds,),) = await cursor.fetchall()
    return float(seconds)


async def test_backoff(calls: Calls, connect: Connect) -> None:
    """`backoff_min_seconds`, then twice as long each time, up to `backoff_max_seconds`."""
    connection = await connect()
    await calls.topic_and_subscription(backoff_min_seconds=100, backoff_max_seconds=500, max_delivery_attempts=10)
    await calls.publish({"n": 1})
    for attempt, expected in enumerate([100, 200, 400, 500, 500], 1):
        message = await calls.pull_one()
        assert message["delivery_attempts"] == attempt
        await calls.nack(message["ack_id"])
        assert expected - 5 < await waits(connection) <= expected
        await connection.execute("update fastpubsub.retries set due_at = clock_timestamp()")


async def test_delay_seconds(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    connection = await connect()
    await calls.topic_and_subscription(backoff_min_seconds=100, backoff_max_seconds=100)
    await calls.publish({"n": 1})
    await calls.nack((await calls.pull_one())["id"], delay_seconds=604800)
    assert 604800 - 5 < await waits(connection) <= 604800
    await connection.execute("update fastpubsub.retries set due_at = clock_timestamp()")
    await calls.nack((await calls.pull_one())["id"], delay_seconds=0)
    message = await calls.pull_one()
    assert message["delivery_attempts"] == 3, "due at once"
    for bad in ("-1", "604801", "x", "", "1.5", f"{2**31}", f"{2**63}", "%00"):
        problem(await client.post(f"/subscriptions/s/nacks?delay_seconds={bad}", json=[message["id"]]), 422)
    assert await calls.counts() == (0, 1, 0, 0)


async def test_the_last_attempt(calls: Calls) -> None:
    await calls.topic_and_subscription(max_delivery_attempts=2, backoff_min_seconds=0)
    await calls.publish({"n": 1})
    await calls.nack((await calls.pull_one())["id"], delay_seconds=0)
    last = await calls.pull_one()
    assert last["delivery_attempts"] == 2
    await calls.nack(last["ack_id"], delay_seconds=0)
    assert await calls.pull() == []
    (letter,) = await calls.dead_letters()
    assert (letter["id"], letter["payload"], letter["delivery_attempts"]) == (last["id"], {"n": 1}, 2)
    assert letter["reason"] == "nacked on delivery attempt 2 of 2"


async def test_what_was_nacked_comes_before_what_is_ahead(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish(*[{"n": number} for number in range(5)])
    first, second = await calls.pull(2)
    await calls.nack(second["ack_id"], first["ack_id"], delay_seconds=0)
    assert [payload["n"] for payload in payloads(await calls.pull(4))] == [0, 1, 2, 3]


# rejects


async def test_reasons(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    first, second, third = ids_of(await calls.pull())
    reason = 'a "quoted" </script> 漢字 \\ \n reason'
    await calls.reject(first, reason=reason)
    await calls.reject(second)
    await calls.reject(third, reason="r" * 1024)
    assert [letter["reason"] for letter in await calls.dead_letters()] == [reason, "rejected", "r" * 1024]
    no_reasons: list[Any] = ["", "r" * 1025, 1, None, [], "\u0000", "\ud800"]
    for bad in no_reasons:
        body = json.dumps({"ids": [first], "reason": bad})
        headers = {"Content-Type": "application/json"}
        problem(await client.post("/subscriptions/s/rejects", content=body, headers=headers), 422)
    bodies: list[Any] = [{}, {"reason": "x"}, {"ids": [], "x": 1}, []]
    for malformed in bodies:
        problem(await client.post("/subscriptions/s/rejects", json=malformed), 422)


async def test_consumers_that_reject_at_once_each_give_their_reason(calls: Calls, connect: Connect) -> None:
    await calls.topic_and_subscription()
    await calls.publish(*[{"n": number} for number in range(10)])
    messages = await calls.pull()
    async with await connect() as blocker, blocker.transaction():
        await blocker.execute("select from fastpubsub.cursors for update")
        rejecting = [
            asyncio.create_task(calls.reject(message["id"], reason=f"reason {message['payload']['n']}"))
            for message in messages
        ]
        await until_blocked(await connect())
    await asyncio.gather(*rejecting)
    letters = await calls.dead_letters(limit=100)
    assert [letter["reason"] for letter in letters] == [f"reason {letter['payload']['n']}" for letter in letters]


# leases


async def test_extend(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    connection = await connect()
    await calls.topic_and_subscription(ack_deadline_seconds=60)
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    first, second, third = await calls.pull()
    await calls.ack(third["id"])
    ids = [third["id"], first["ack_id"], STRANGER, second["id"]]
    assert await calls.extend(*ids, seconds=43200) == [first["ack_id"], second["id"]]
    cursor = await connection.execute("select min(expires_at) - clock_timestamp() from fastpubsub.leases")
    ((left,),) = await cursor.fetchall()
    assert timedelta(hours=11) < left <= timedelta(hours=12)
    assert await calls.extend(first["id"], seconds=1) == [first["id"]], "a lease can be shortened"
    bad: list[Json] = [
        *(
            {"ids": [first["id"]], "extend_seconds": value}
            for value in (0, -1, 43201, 2**31, 2**63, 1.5, "x", True, None)
        ),
        {"ids": [first["id"]]},
        {"extend_seconds": 5},
        {"ids": [first["id"]], "extend_seconds": 5, "x": 1},
    ]
    for body in bad:
        problem(await client.post("/subscriptions/s/leases", json=body), 422)


async def test_an_extended_lease_outlives_its_first_deadline(
    client: httpx.AsyncClient, calls: Calls, connect: Connect
) -> None:
    connection = await connect()
    await calls.topic_and_subscription(ack_deadline_seconds=600, backoff_min_seconds=0)
    await calls.publish({"n": 1}, {"n": 2})
    first, second = await calls.pull()
    assert datetime.fromisoformat(first["lease_expires_at"]) > datetime.now(UTC)
    await connection.execute("update fastpubsub.leases set expires_at = clock_timestamp() + interval '30 s'")
    await calls.extend(first["ack_id"], seconds=600)
    await connection.execute(
        "update fastpubsub.leases set expires_at = now() where expires_at < now() + interval '1 m'"
    )
    await release_expired_leases(app_of(client).state.database)
    assert ids_of(await calls.pull()) == [second["id"]]
    assert (await calls.ack(first["ack_id"]))["settled"] == [first["ack_id"]]


# limits


class TestLimits:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(settle_max_ids=3)

    async def test_ids(self, client: httpx.AsyncClient, calls: Calls) -> None:
        await calls.topic_and_subscription()
        await calls.publish(*[{}] * 4)
        ids = ids_of(await calls.pull())
        for verb in VERBS:
            assert "3 of one request" in problem(await settle(client, verb, ids), 413)
        problem(await client.post("/subscriptions/s/leases", json={"ids": ids, "extend_seconds": 5}), 413)
        problem(await client.post("/subscriptions/s/dlq/reprocess", json=ids), 413)
        problem(await client.request("DELETE", "/subscriptions/s/dlq", json=ids), 413)
        assert await calls.counts() == (0, 4, 0, 0)
        assert len((await calls.ack(*ids[:3]))["settled"]) == 3


# together


async def test_settles_that_wait_go_together_and_each_gets_its_own_answer(calls: Calls, connect: Connect) -> None:
    await calls.topic_and_subscription()
    await calls.publish(*[{"n": number} for number in range(60)])
    messages = await calls.pull()
    parts = [messages[start : start + 3] for start in range(0, 60, 3)]
    async with await connect() as blocker, blocker.transaction():
        await blocker.execute("select from fastpubsub.leases for update")
        acking = [
            asyncio.create_task(calls.ack(part[0]["id"], STRANGER, part[1]["ack_id"], part[2]["id"])) for part in parts
        ]
        await until_blocked(await connect())
    for part, outcomes in zip(parts, await asyncio.gather(*acking), strict=True):
        assert outcomes == {
            "settled": [part[0]["id"], part[1]["ack_id"], part[2]["id"]],
            "gone": [STRANGER],
            "stale": [],
        }
    assert await calls.counts() == (0, 0, 60, 0)


async def test_two_who_settle_the_same_message_at_once(calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish(*[{"n": number} for number in range(20)])
    messages = await calls.pull()
    asked: list[tuple[str, dict[str, Any]]] = [("acks", {}), ("nacks", {"delay_seconds": 3600})] * 2
    both = [calls.settle(verb, ids_of(messages), **query) for verb, query in asked]
    outcomes = await asyncio.gather(*both)
    settled = [id_ for one in outcomes for id_ in one["settled"]]
    available, _, acked, _ = await calls.counts()
    assert available + acked == 20
    assert sorted(set(settled)) == ids_of(messages)


async def test_what_was_not_looked_at_is_uncounted(calls: Calls) -> None:
    await calls.topic_and_subscription(max_delivery_attempts=1, backoff_min_seconds=3600, backoff_max_seconds=3600)
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    for _ in range(5):
        first, second, third = await calls.pull()
        assert [one["delivery_attempts"] for one in (first, second, third)] == [1, 1, 1]
        given = [first["ack_id"], third["id"], STRANGER, second["id"] + ".0123456789abcdef"]
        outcomes = await calls.nack(*given, undelivered="true")
        assert outcomes == {"settled": given[:2], "gone": [STRANGER], "stale": given[3:]}
        assert await calls.nack(first["ack_id"], undelivered="true") == {
            "settled": [],
            "gone": [first["ack_id"]],
            "stale": [],
        }
        await calls.nack(second["ack_id"], undelivered="true")
    assert await calls.counts() == (3, 0, 0, 0)
    first, *_ = await calls.pull()
    assert (await calls.nack(first["id"], undelivered="false"))["settled"] == [first["id"]]
    assert await calls.counts() == (0, 2, 0, 1)


@pytest.mark.parametrize("query", ["undelivered=yes", "undelivered=", "undelivered=true&delay_seconds=0"])
async def test_what_is_not_looked_at_cannot_be_said_otherwise(
    client: httpx.AsyncClient, calls: Calls, query: str
) -> None:
    await calls.topic_and_subscription()
    await calls.publish({})
    message = await calls.pull_one()
    problem(await client.post(f"/subscriptions/s/nacks?{query}", json=[message["ack_id"]]), 422)
    assert await calls.counts() == (0, 1, 0, 0)
