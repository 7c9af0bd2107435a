"""`/subscriptions`, to the letter of the spec, and what was added to it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import JSON, Calls, Json, payloads, problem, success
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import MakeSettings

pytestmark = pytest.mark.shared_application

DEFAULTS = {
    "filter": None,
    "max_delivery_attempts": 5,
    "backoff_min_seconds": 5,
    "backoff_max_seconds": 300,
    "ack_deadline_seconds": 60,
}


async def test_create_as_the_spec_has_it(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic("user-events")
    body = {
        "id": "user-processor",
        "topic_id": "user-events",
        "filter": {"country": ["BR", "US"]},
        "max_delivery_attempts": 7,
        "backoff_min_seconds": 1,
        "backoff_max_seconds": 30,
    }
    created = success(await client.post("/subscriptions", json=body), 201)
    assert created.items() >= {**DEFAULTS, **body}.items()
    time = datetime.fromisoformat(created["created_at"])
    assert created["created_at"].endswith("Z")
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
    assert success(await client.get("/subscriptions/user-processor"), 200) == created
    assert success(await client.get("/subscriptions"), 200) == {"data": [created]}


async def test_defaults(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    assert (await calls.subscription()).items() >= {"id": "s", "topic_id": "t", **DEFAULTS}.items()
    nulls: Json = dict.fromkeys(DEFAULTS)
    assert (await calls.subscription("nulls", **nulls)).items() >= DEFAULTS.items()
    high = await calls.subscription("high", backoff_min_seconds=400)
    assert (high["backoff_min_seconds"], high["backoff_max_seconds"]) == (400, 400)


async def test_an_id_is_taken_once_and_the_topic_has_to_be_there(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    await calls.topic("u")
    created = await calls.subscription()
    for topic in ("t", "u"):
        refused = await client.post("/subscriptions", json={"id": "s", "topic_id": topic, "max_delivery_attempts": 9})
        assert problem(refused, 409) == 'subscription "s" already exists'
    refused = await client.post("/subscriptions", json={"id": "other", "topic_id": "nowhere"})
    assert problem(refused, 404) == 'topic "nowhere" does not exist'
    assert success(await client.get("/subscriptions"), 200) == {"data": [created]}


LIMITS = {
    "max_delivery_attempts": (1, 1000),
    "backoff_min_seconds": (0, 604800),
    "backoff_max_seconds": (5, 604800),
    "ack_deadline_seconds": (1, 43200),
}
NO_NUMBERS: list[Any] = [False, True, 2**31, 2**40, 2**63, 10**30, -(2**40), 1.5, "x", "", [], {}]


async def test_limits(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for name, (low, high) in LIMITS.items():
        for value in (low, high):
            body: Json = {name: value}
            assert (await calls.subscription(f"{name}-{value}", **body))[name] == value
        for value in [low - 1, high + 1, *NO_NUMBERS]:
            body = {"id": "s", "topic_id": "t", name: value}
            problem(await client.post("/subscriptions", json=body), 422)
    body = {"id": "s", "topic_id": "t", "backoff_min_seconds": 10, "backoff_max_seconds": 9}
    assert "backoff_max_seconds" in problem(await client.post("/subscriptions", json=body), 422)
    problem(await client.get("/subscriptions/s"), 404)


NO_SUBSCRIPTIONS: list[Any] = [
    {},
    [],
    None,
    "s",
    {"id": "s"},
    {"topic_id": "t"},
    {"id": "s", "topic_id": "t", "x": 1},
    {"id": "a b", "topic_id": "t"},
    {"id": "..", "topic_id": "t"},
    {"id": "s", "topic_id": "t\n"},
    {"id": "s", "topic_id": None},
    {"id": "s", "topic_id": "t", "start_from": "now"},
    {"id": "s", "topic_id": "t", "start_from": None},
    {"id": "s", "topic_id": "t", "start_from": "2026-01-01"},
    {"id": "s", "topic_id": "t", "start_from": "2026-01-01T00:00:00"},
    {"id": "s", "topic_id": "t", "start_from": "-infinity"},
    {"id": "s", "topic_id": "t", "start_from": "10000-01-01T00:00:00Z"},
]


async def test_what_is_no_subscription(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for body in NO_SUBSCRIPTIONS:
        problem(await client.post("/subscriptions", json=body), 422)
    assert success(await client.get("/subscriptions"), 200) == {"data": []}


NO_FILTERS: list[Any] = [
    [],
    "x",
    1,
    True,
    {"a": []},
    {"a": "x"},
    {"a": 1},
    {"a": None},
    {"a": [["x"]]},
    {"a": [{"b": 1}]},
    {"a": {"b": "x"}},
    {f"f{number}": [1] for number in range(101)},
    {"a": list(range(1001))},
]
FILTERS: list[Json] = [
    {"a": ["x", 1, 1.5, True, False, -0.0, 10**20]},
    {"": [""]},
    {'quote"\\$.*?[@]': ['"; drop table --', "$", "é漢"]},
    {"a": ["x" * 1000]},
    {f"f{number}": list(range(10)) for number in range(100)},
    {
        "total": [{"numeric": [">=", 100.50, "<", 1e3]}, None],
        "address": {"country": ["BR", {"anything-but": {"prefix": ["x"]}}]},
        "$or": [{"file": [{"suffix": ".png"}]}, {"file": [{"exists": False}]}],
    },
]


async def test_filters(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for number, filter_ in enumerate(FILTERS):
        created = await calls.subscription(f"s{number}", filter=filter_)
        assert created["filter"] == filter_
        assert success(await client.get(f"/subscriptions/s{number}"), 200) == created
    assert (await calls.subscription("empty", filter={}))["filter"] is None
    assert (await calls.subscription("null", filter=None))["filter"] is None
    for filter_ in NO_FILTERS:
        body = {"id": "s", "topic_id": "t", "filter": filter_}
        problem(await client.post("/subscriptions", json=body), 422)
        problem(await client.patch("/subscriptions/s0", json={"filter": filter_}), 422)
    assert success(await client.get("/subscriptions/s0"), 200)["filter"] == FILTERS[0]


NUMBERS = ["18446744073709551621", "1e308", "-1e-308", "1e1000", "0.1000000000000000055511151231257827"]


async def test_numbers_of_a_filter_are_compared_exactly(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for number, text in enumerate(NUMBERS):
        body = f'{{"id":"s{number}","topic_id":"t","filter":{{"n":[{text}]}}}}'
        success(await client.post("/subscriptions", content=body, headers=JSON), 201)
    await calls.publish_text(*[f'{{"n":{text}}}' for text in NUMBERS], '{"n":18446744073709551620}', '{"n":0.1}')
    for number, text in enumerate(NUMBERS):
        answer = await calls.pull_text(name=f"s{number}")
        assert answer.count('"payload"') == 1
        assert f'"payload":{{"n":{text}}}' in answer


async def test_list_in_pages(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    names = [f"s{number:02}" for number in range(12)]
    for name in reversed(names):
        await calls.subscription(name)

    async def page(query: str) -> list[str]:
        return [one["id"] for one in success(await client.get(f"/subscriptions{query}"), 200)["data"]]

    assert await page("") == names[:10]
    assert await page("?offset=10") == names[10:]
    assert await page("?offset=3&limit=2") == names[3:5]
    assert await page("?limit=100") == names


async def test_what_does_not_exist(client: httpx.AsyncClient) -> None:
    for name in ("s", "%00", "s%00", "%2E%2E", "%C3%A9", "%FF", "0" * 300, "%"):
        path = f"/subscriptions/{name}"
        problem(await client.get(path), 404)
        problem(await client.patch(path, json={}), 404)
        problem(await client.delete(path), 404)
        problem(await client.get(f"{path}/metrics"), 404)
        problem(await client.get(f"{path}/messages?consumer_id=c"), 404)
        problem(await client.get(f"{path}/dlq"), 404)
        problem(await client.post(f"{path}/seek", json={"to": "latest"}), 404)
        for verb in ("acks", "nacks", "dlq/reprocess"):
            for ids in ([], ["550e8400-e29b-41d4-a716-446655440000"]):
                problem(await client.post(f"{path}/{verb}", json=ids), 404)
        problem(await client.post(f"{path}/rejects", json={"ids": []}), 404)
        problem(await client.post(f"{path}/leases", json={"ids": [], "extend_seconds": 1}), 404)
        problem(await client.request("DELETE", f"{path}/dlq", json=[]), 404)


async def test_delete(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    held = await calls.pull_one()
    response = await client.delete("/subscriptions/s")
    assert (response.status_code, response.content) == (204, b"")
    problem(await client.get("/subscriptions/s"), 404)
    problem(await client.delete("/subscriptions/s"), 404)
    problem(await client.post("/subscriptions/s/acks", json=[held["ack_id"]]), 404)
    await calls.subscription()
    assert await calls.pull() == []
    assert (await calls.ack(held["id"], held["ack_id"]))["gone"] == [held["id"], held["ack_id"]]
    assert await calls.counts() == (0, 0, 0, 0)


# where a subscription starts


async def test_start_from(calls: Calls) -> None:
    await calls.topic()
    await calls.publish({"n": 1})
    await calls.publish({"n": 2})
    await calls.subscription("default")
    await calls.subscription("latest", start_from="latest")
    await calls.subscription("earliest", start_from="earliest")
    second = (await calls.pull(name="earliest"))[1]["created_at"]
    await calls.subscription("time", start_from=second)
    elsewhere = datetime.fromisoformat(second).astimezone().isoformat()
    await calls.subscription("zone", start_from=elsewhere)
    await calls.subscription("before", start_from="1970-01-01T00:00:00Z")
    await calls.subscription("long-before", start_from="0001-01-01T00:00:00+14:00")
    await calls.subscription("after", start_from="9999-12-31T23:59:59-14:00")
    await calls.publish({"n": 3})
    expected = {
        "default": [3],
        "latest": [3],
        "time": [2, 3],
        "zone": [2, 3],
        "before": [1, 2, 3],
        "long-before": [1, 2, 3],
        "after": [3],
    }
    for name, numbers in expected.items():
        assert payloads(await calls.pull(name=name)) == [{"n": number} for number in numbers], name


async def test_fork_of(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    original = await calls.subscription(filter={"n": [1, 2.0, 4]}, max_delivery_attempts=7)
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3}, {"n": 4})
    one, _ = await calls.pull(2)
    await calls.ack(one["ack_id"])
    fork = await calls.subscription("fork", fork_of="s", ack_deadline_seconds=9)
    assert fork == original | {"id": "fork", "ack_deadline_seconds": 9, "created_at": fork["created_at"]}
    assert payloads(await calls.pull(name="fork")) == [{"n": 2}, {"n": 4}]
    assert payloads(await calls.pull()) == [{"n": 4}]
    everything = await calls.subscription("everything", fork_of="fork", filter=None)
    assert everything["filter"] is None
    assert payloads(await calls.pull(name="everything")) == [{"n": 2}, {"n": 3}, {"n": 4}]


async def test_what_cannot_be_forked(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_max_seconds=20)
    success(await client.post("/topics", json={"id": "other"}), 201)
    refused: list[tuple[int, Json, str]] = [
        (404, {"fork_of": "nobody"}, 'subscription "nobody" does not exist'),
        (404, {"fork_of": "new"}, 'subscription "new" does not exist'),
        (422, {"fork_of": "s", "topic_id": "other"}, 'fork_of: subscription "s" is not of the topic "other"'),
        (422, {"fork_of": "s", "start_from": "latest"}, "give either start_from or fork_of"),
        (422, {"fork_of": "s", "backoff_min_seconds": 21}, "backoff_max_seconds must not be below backoff_min_seconds"),
        (422, {"fork_of": "a b"}, "fork_of"),
    ]
    for status, body, detail in refused:
        answer = await client.post("/subscriptions", json={"id": "new", "topic_id": "t"} | body)
        assert detail in problem(answer, status)
    problem(await client.get("/subscriptions/new"), 404)


class TestScopesOfForks:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_both_are_named(self, client: httpx.AsyncClient, calls: Calls, token: Tokens) -> None:
        """Whoever may change a subscription may see its settings."""
        client.headers.update(token("*"))
        await calls.topic_and_subscription()
        body = {"id": "fork", "topic_id": "t", "fork_of": "s"}
        for refused in ("subscriptions:create:fork subscriptions:consume", "subscriptions:create:s"):
            problem(await client.post("/subscriptions", json=body, headers=token(refused)), 403)
        for name, allowed in (
            ("fork", "subscriptions:create:fork subscriptions:create:s"),
            ("all", "subscriptions:create"),
        ):
            success(await client.post("/subscriptions", json=body | {"id": name}, headers=token(allowed)), 201)


# PATCH


async def test_patch_changes_what_it_names(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    expected = await calls.subscription(filter={"a": [1]})
    changes: list[Json] = [
        {"filter": {"b": ["x", 2]}},
        {"max_delivery_attempts": 9},
        {"ack_deadline_seconds": 7},
        {"backoff_min_seconds": 0},
        {"backoff_max_seconds": 8},
        {"backoff_min_seconds": 20, "backoff_max_seconds": 20},
        {"filter": None, "max_delivery_attempts": 1},
    ]
    for change in changes:
        expected |= change
        assert success(await client.patch("/subscriptions/s", json=change), 200) == expected
        assert success(await client.get("/subscriptions/s"), 200) == expected
    for nothing in ({}, dict.fromkeys(["max_delivery_attempts", "backoff_min_seconds", "ack_deadline_seconds"])):
        assert success(await client.patch("/subscriptions/s", json=nothing), 200) == expected


async def test_patch_refuses_as_a_whole(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    before = await calls.subscription(backoff_min_seconds=10, backoff_max_seconds=20)
    bad: list[Any] = [
        {"backoff_min_seconds": 21},
        {"backoff_max_seconds": 9},
        {"backoff_min_seconds": 5, "backoff_max_seconds": 4},
        {"filter": {"a": []}, "max_delivery_attempts": 3},
        {"max_delivery_attempts": 0, "ack_deadline_seconds": 5},
        {"id": "other"},
        {"topic_id": "other"},
        {"start_from": "earliest"},
        [],
        None,
    ]
    for body in bad:
        problem(await client.patch("/subscriptions/s", json=body), 422)
    assert success(await client.get("/subscriptions/s"), 200) == before


async def test_a_new_filter_judges_what_is_ahead(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(filter={"a": [1]})
    await calls.publish({"a": 1, "n": 1}, {"a": 2, "n": 2}, {"a": 1, "n": 3})
    assert payloads(await calls.pull(1)) == [{"a": 1, "n": 1}]
    success(await client.patch("/subscriptions/s", json={"filter": {"a": [2]}}), 200)
    assert payloads(await calls.pull()) == [{"a": 2, "n": 2}]
    success(await client.patch("/subscriptions/s", json={"filter": None}), 200)
    await calls.publish({"n": 4})
    assert payloads(await calls.pull()) == [{"n": 4}], "what the old filter skipped does not come back"


async def test_a_new_deadline_holds_for_the_next_delivery(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(ack_deadline_seconds=1)
    success(await client.patch("/subscriptions/s", json={"ack_deadline_seconds": 43200}), 200)
    await calls.publish({})
    lease = datetime.fromisoformat((await calls.pull_one())["lease_expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11) < lease <= timedelta(hours=12)


# metrics


async def test_metrics(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_delivery_attempts=1)
    assert (
        success(await client.get("/subscriptions/s/metrics"), 200).items()
        >= {
            "subscription_id": "s",
            "available": 0,
            "delivered": 0,
            "acked": 0,
            "dlq": 0,
        }.items()
    )
    await calls.publish(*[{"n": number} for number in range(10)])
    assert await calls.counts() == (10, 0, 0, 0)
    first, second, third, *_ = await calls.pull(5)
    assert await calls.counts() == (5, 5, 0, 0)
    await calls.ack(first["id"])
    await calls.nack(second["id"])
    await calls.reject(third["id"])
    assert await calls.counts() == (5, 2, 1, 2)
    await calls.reprocess(second["id"])
    await calls.purge(third["id"])
    assert await calls.counts() == (6, 2, 1, 0)


# settings give the defaults


class TestSettings:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(
            subscription_max_attempts=2,
            subscription_backoff_min_seconds=3,
            subscription_backoff_max_seconds=4,
            cleanup_stuck_messages_lock_timeout_seconds=9,
        )

    async def test_defaults(self, calls: Calls) -> None:
        await calls.topic()
        created = await calls.subscription()
        assert (
            created.items()
            >= {
                "max_delivery_attempts": 2,
                "backoff_min_seconds": 3,
                "backoff_max_seconds": 4,
                "ack_deadline_seconds": 9,
            }.items()
        )
        assert json.dumps(created["filter"]) == "null"
