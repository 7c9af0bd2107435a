"""Trying a filter or a seek: what it would do, and that it does nothing."""

from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import REPRESENTATION, Calls, Json, ids_of, problem, success
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application

PATHS = ("/topics/t/filter/test", "/subscriptions/s/filter/test")


async def judge(client: httpx.AsyncClient, path: str, filter_: Any, **body: Any) -> Json:
    judged: Json = success(await client.post(path, json={"filter": filter_, **body}), 200)
    return judged


async def test_a_payload(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for path in PATHS:
        assert await judge(client, path, {"a": [1]}, payload={"a": 1}) == {"passes": True}
        assert await judge(client, path, None, payload={"a": 1}) == {"passes": True}
        assert await judge(client, path, {"a": [1], "b": [2]}, payload={"a": 1, "b": 3}) == {
            "passes": False,
            "field": "b",
            "expected": [2],
            "actual": 3,
            "detail": 'the filter keeps it out: its field "b" is none of the values that the filter takes; it is 3',
        }
        assert (await judge(client, path, {"A": [1]}, payload={"a": 1}))["similar_field"] == "a"


async def test_operators_are_told_apart_by_the_field_that_holds_them(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    wanted = {"total": [{"numeric": [">=", 100]}], "to": {"country": ["BR"]}, "$or": [{"a": [1]}, {"b": [1]}]}
    for path in PATHS:
        assert (await judge(client, path, wanted, payload={"total": 100.0, "to": {"country": "BR"}, "b": 1}))["passes"]
        low = await judge(client, path, wanted, payload={"total": 99})
        assert (low["field"], low["expected"], low["actual"]) == ("total", wanted["total"], 99)
        elsewhere = await judge(client, path, wanted, payload={"total": 100, "to": {"country": "US"}})
        assert (elsewhere["field"], elsewhere["actual"]) == ("to", {"country": "US"})
        neither = await judge(client, path, wanted, payload={"total": 100, "to": {"country": "BR"}, "$or": 1})
        assert neither["detail"] == 'the filter keeps it out: it passes none of the alternatives of "$or"'


async def test_attributes(client: httpx.AsyncClient, calls: Calls) -> None:
    wanted = {"$attributes": {"source": [{"prefix": "/shop"}]}}
    await calls.topic_and_subscription(filter=wanted)
    body = {"messages": [{"payload": {}, "attributes": {"source": source}} for source in ("/bank", "/shop/1")]}
    ids = success(await client.post("/topics/t/messages", json=body, headers=REPRESENTATION), 201)["ids"]
    for path in PATHS:
        assert (await judge(client, path, wanted, payload={}, attributes={"source": "/shop"}))["passes"]
        kept_out = await judge(client, path, wanted, payload={}, attributes={"source": "/bank"})
        assert kept_out == {
            "passes": False,
            "field": "$attributes",
            "expected": wanted["$attributes"],
            "actual": {"source": "/bank"},
            "detail": "the filter keeps it out: its attributes are not those that the filter takes; "
            'they are {"source": "/bank"}',
        }
        assert "they are" not in (await judge(client, path, wanted, payload={}))["detail"]
        judged = await judge(client, path, wanted, last=2)
        assert (ids_of(judged["passing"]), ids_of(judged["filtered"])) == ([ids[1]], [ids[0]])
        problem(await client.post(path, json={"filter": wanted, "attributes": {}}), 422)
    explained = success(await client.get(f"/subscriptions/s/messages/{ids[0]}"), 200)
    assert (explained["state"], explained["field"]) == ("filtered", "$attributes")
    assert [one["id"] for one in await calls.pull()] == [ids[1]]


async def test_ordering_keys(client: httpx.AsyncClient, calls: Calls) -> None:
    wanted = {"$message": [{"ordering_key": [{"prefix": "eu-"}]}]}
    await calls.topic_and_subscription(filter=wanted)
    published = [{"payload": {}, "ordering_key": "us-1"}, {"payload": {}, "ordering_key": "eu-1"}, {"payload": {}}]
    body = {"messages": published}
    ids = success(await client.post("/topics/t/messages", json=body, headers=REPRESENTATION), 201)["ids"]
    for path in PATHS:
        assert (await judge(client, path, wanted, payload={}, ordering_key="eu-2"))["passes"]
        kept_out = await judge(client, path, wanted, payload={}, ordering_key="us-1")
        assert kept_out == {
            "passes": False,
            "field": "$message",
            "expected": wanted["$message"],
            "actual": {"ordering_key": "us-1"},
            "detail": "the filter keeps it out: its ordering key is not one that the filter takes; "
            'it has {"ordering_key" : "us-1"}',
        }
        without = await judge(client, path, wanted, payload={"$message": "eu-1"})
        assert without["detail"] == "the filter keeps it out: its ordering key is not one that the filter takes"
        judged = await judge(client, path, wanted, last=3)
        assert (ids_of(judged["passing"]), ids_of(judged["filtered"])) == ([ids[1]], [ids[2], ids[0]])
        problem(await client.post(path, json={"filter": wanted, "ordering_key": "eu-1"}), 422)
        for key in ("", "a" * 129, "a\0"):
            problem(await client.post(path, json={"filter": wanted, "payload": {}, "ordering_key": key}), 422)
        half = b'{"filter": null, "payload": {}, "ordering_key": "\\ud800"}'
        problem(await client.post(path, content=half, headers={"Content-Type": "application/json"}), 422)
    explained = success(await client.get(f"/subscriptions/s/messages/{ids[0]}"), 200)
    assert (explained["state"], explained["field"]) == ("filtered", "$message")
    assert [one["id"] for one in await calls.pull()] == [ids[1]]


async def test_the_last_messages(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(filter={"n": [1]})
    ids = await calls.publish(*({"n": n % 3} for n in range(30)))
    for path in PATHS:
        judged = await judge(client, path, {"n": [1, 2]}, last=12)
        assert (judged["looked_at"], judged["passed"]) == (12, 8)
        assert ids_of(judged["filtered"]) == [ids[27], ids[24], ids[21], ids[18]]
        assert judged["filtered"][0].items() >= {"payload": {"n": 0}, "field": "n", "actual": 0}.items()
        assert len(judged["passing"]) == 5
        assert judged["passing"][0] == {"id": ids[29], "payload": {"n": 2}}
    judged = await judge(client, PATHS[1], {"n": [1, 2]})
    ahead = (judged["ahead_now"], judged["ahead_after"], judged["is_estimated"])
    assert ahead == (10, 20, False)
    assert len(await calls.pull()) == 10


async def test_a_subscription_that_another_process_made_again(
    client: httpx.AsyncClient, calls: Calls, connect: Connect
) -> None:
    """Its topic is another one, whose messages the caller may see, and not those of the topic that it had."""
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    assert (await judge(client, PATHS[1], None))["looked_at"] == 1
    await calls.topic("other")
    connection = await connect()
    await connection.execute("select fastpubsub.delete_subscription('s')")
    await connection.execute("select fastpubsub.create_subscription('s', 'other', null, 60, 5, 0, 0)")
    assert (await judge(client, PATHS[1], None))["looked_at"] == 0


async def test_large_payloads_are_not_all_shown(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    for _ in range(3):
        await calls.publish({"a": "x" * 500_000})
    judged = await judge(client, PATHS[0], None)
    assert ["payload" in one for one in judged["passing"]] == [True, True, False]


async def test_what_is_refused(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    deep = b'{"filter": null, "payload": {"a": %b1%b}}' % (b"[" * 100, b"]" * 100)
    nul = b'{"filter": null, "payload": {"a": "\\u0000"}}'
    headers = {"Content-Type": "application/json"}
    for path in PATHS:
        for content in (
            deep,
            nul,
            b"{}",
            b'{"filter": null, "payload": {}, "last": 1}',
            b'{"filter": null, "last": 1001}',
        ):
            problem(await client.post(path, content=content, headers=headers), 422)
        wrong: list[Any] = [{"a": []}, {"a": [{"like": "x"}]}, {"a": "x"}, [1]]
        for filter_ in wrong:
            problem(await client.post(path, json={"filter": filter_}), 422)
        problem(await client.post(path, json={"filter": None, "payload": {"a": "x" * 400_000}}), 413)
        problem(await client.post(path.replace("/t/", "/none/").replace("/s/", "/none/"), json={"filter": None}), 404)


async def test_a_seek_that_does_nothing(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=600)
    ids = await calls.publish(*({"n": n} for n in range(5)))
    one, _ = await calls.pull(2)
    await calls.nack(one["ack_id"])
    before = await calls.counts()
    body = {"to": ids[1], "dry_run": True}
    preview = success(await client.post("/subscriptions/s/seek", json=body), 200)
    counted = {"ahead_now": 3, "ahead_after": 4, "is_estimated": False, "ends_leased": 1, "ends_waiting": 1}
    assert preview.items() >= counted.items()
    assert preview["to"] == preview["from"] == one["created_at"]
    assert await calls.counts() == before
    latest = success(await client.post("/subscriptions/s/seek", json={"to": "latest", "dry_run": True}), 200)
    assert (latest["ahead_after"], latest["to"]) == (0, None)


class TestScopes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_who_sees_what(self, client: httpx.AsyncClient, calls: Calls, token: Tokens) -> None:
        client.headers.update(token("*"))
        await calls.topic_and_subscription()
        await calls.publish({"card": "4111"})
        for path, scope in zip(PATHS, ("topics:read", "subscriptions:read"), strict=True):
            for wanted in ({"card": ["x"]}, {"CARD": ["x"]}, None):
                narrow = await client.post(path, json={"filter": wanted}, headers=token(f"{scope} messages:read:u"))
                assert "4111" not in str(success(narrow, 200))
                assert '"card"' not in narrow.text.replace('"field":"card"', "").replace('\\"card\\"', "")
            whole = await client.post(path, json={"filter": {"card": ["x"]}}, headers=token(f"{scope} messages:read:t"))
            assert success(whole, 200)["filtered"][0]["actual"] == "4111"
            problem(await client.post(path, json={"filter": None}, headers=token(f"{scope}:other")), 403)
