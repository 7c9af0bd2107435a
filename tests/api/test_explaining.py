"""What became of a message, in words and members, and who may read which of them."""

import httpx
import pytest

from fastpubsub.config import Settings
from fastpubsub.services.maintenance import trim_messages
from tests.api.calls import Calls, Json, expire_leases, ids_of, problem, success
from tests.api.conftest import Tokens, app_of
from tests.attacks import KEY
from tests.conftest import Connect, MakeSettings

pytestmark = pytest.mark.shared_application


async def explain(client: httpx.AsyncClient, message_id: str, name: str = "s") -> Json:
    explained: Json = success(await client.get(f"/subscriptions/{name}/messages/{message_id}"), 200)
    assert explained["message_id"] == message_id
    return explained


async def test_every_state(client: httpx.AsyncClient, calls: Calls) -> None:
    """In the words that people read."""
    await calls.topic()
    (early,) = await calls.publish({"a": 1})
    await calls.subscription(filter={"a": [1]}, backoff_min_seconds=600)
    ids = await calls.publish(*({"a": a} for a in (1, 2, 1, 1, 1, 1, 1)))
    leased, nacked, rejected, acked = [message["ack_id"] for message in await calls.pull(4)]
    await calls.nack(nacked)
    await calls.reject(rejected, reason="no such customer")
    await calls.ack(acked)
    expected = {
        early: ("before_subscription", "it was published before the position at which the subscription began"),
        ids[0]: ("leased", 'consumer "tester" got delivery 1 at '),
        ids[1]: (
            "filtered",
            'the filter keeps it out: its field "a" is none of the values that the filter takes; it is 2',
        ),
        ids[2]: ("waiting", "a consumer nacked delivery 1, and the next one is due at "),
        ids[3]: ("dead", ", after 1 delivery: no such customer"),
        ids[4]: ("settled", "it was acknowledged, or purged as a dead letter"),
        ids[5]: ("ahead", "no consumer has had it yet: it is the next message of the log"),
        ids[6]: ("ahead", "no consumer has had it yet: 1 other message comes before it"),
    }
    for id_, (state, words) in expected.items():
        explained = await explain(client, id_)
        assert (explained["state"], words in explained["detail"]) == (state, True), explained
    await calls.seek("latest")
    assert (await explain(client, ids[5]))["state"] == "skipped"
    assert "cannot be told apart" in (await explain(client, ids[4]))["detail"]
    assert leased


async def test_a_dead_letter_outlives_its_message(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    await calls.topic_and_subscription()
    dead, trimmed, _ = await calls.publish({"a": 1}, {"a": 2}, {"a": 3})
    first, *others = [message["ack_id"] for message in await calls.pull()]
    await calls.reject(first, reason="no")
    await calls.ack(*others)
    connection = await connect()
    await connection.execute("select fastpubsub.trim_messages(topic_key, 0, p_wait => true) from fastpubsub.topics")
    found = success(await client.get(f"/messages/{dead}"), 200)
    assert (found["payload"], found["subscriptions"][0]["state"]) == ({"a": 1}, "dead")
    assert "payload" not in success(await client.get(f"/messages/{trimmed}"), 200)


async def test_why_a_message_waits(client: httpx.AsyncClient, calls: Calls, connect: Connect) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=600)
    ids = await calls.publish(*({"n": n} for n in range(4)))
    nacked, returned, dead, late = [message["ack_id"] for message in await calls.pull()]
    explained = await explain(client, ids[3])
    assert explained["leased_at"] < explained["lease_expires_at"]
    await calls.nack(nacked)
    await calls.nack(returned, undelivered="true")
    await calls.reject(dead, reason="no")
    await calls.reprocess(ids[2])
    await expire_leases(await connect(), app_of(client).state.database)
    expected = {
        "nacked": "a consumer nacked delivery 1, and",
        "returned": "a delivery was given back before it was looked at, and does not count;",
        "reprocessed": "it was a dead letter and was reprocessed, and",
        "lease expired": "the ack deadline of delivery 1 passed, and",
    }
    assert late
    for id_, (reason, words) in zip(ids, expected.items(), strict=True):
        explained = await explain(client, id_)
        assert (explained["state"], explained["reason"]) == ("waiting", reason)
        assert explained["detail"].startswith(words)
        assert "leased_at" not in explained


async def test_a_name_that_differs_in_case(client: httpx.AsyncClient, calls: Calls) -> None:
    """The first thing that everybody gets wrong."""
    await calls.topic_and_subscription(filter={"Country": ["BR"]})
    (id_,) = await calls.publish({"country": "BR"})
    assert await calls.pull() == []
    explained = await explain(client, id_)
    assert explained["detail"] == 'the filter keeps it out: it has no field "Country", but it has "country"'
    assert (explained["field"], explained["expected"], explained["similar_field"]) == ("Country", ["BR"], "country")
    assert explained["filter"] == {"Country": ["BR"]}


async def test_what_the_topic_no_longer_has(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(filter={"a": [1]})
    ids = await calls.publish({"a": 1}, {"a": 2}, {"a": 2})
    await calls.ack(*ids_of(await calls.pull()))
    await client.patch("/topics/t", json={"retention_seconds": 0})
    await trim_messages(app_of(client).state.database, 0)
    assert (await explain(client, ids[0]))["state"] == "trimmed"
    found = success(await client.get(f"/messages/{ids[0]}"), 200)
    assert ("payload" in found, found["topic_id"]) == (False, "t")


async def test_all_subscriptions_of_a_message(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic()
    for name in ("c", "a", "b"):
        await calls.subscription(name, filter={"n": [7]} if name == "b" else None)
    (id_,) = await calls.publish({"n": 1.50})
    await calls.pull(name="a")
    found = success(await client.get(f"/messages/{id_.upper()}"), 200)
    assert (found["id"], found["topic_id"], found["payload"]) == (id_, "t", {"n": 1.5})
    assert [(one["subscription_id"], one["state"]) for one in found["subscriptions"]] == [
        ("a", "leased"),
        ("b", "filtered"),
        ("c", "ahead"),
    ]
    page = success(await client.get(f"/messages/{id_}", params={"offset": 1, "limit": 1}), 200)
    assert [one["subscription_id"] for one in page["subscriptions"]] == ["b"]


async def test_what_is_no_message(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.topic("other")
    (elsewhere,) = await calls.publish({}, topic="other")
    (id_,) = await calls.publish({})
    next_one = f"{id_[:-1]}{int(id_[-1], 16) + 1:x}"
    of_another_time = f"{int(id_[0], 16) ^ 1:x}{id_[1:]}"
    for wrong in (next_one, of_another_time, "00000000-0000-4000-8000-000000000000"):
        for path in ("/messages/", "/subscriptions/s/messages/"):
            assert "there is no message" in problem(await client.get(path + wrong), 404)
    for path in ("/messages/", "/subscriptions/s/messages/"):
        assert "a message id is a UUID" in problem(await client.get(f"{path}1"), 422)
    assert "is not of the topic" in problem(await client.get(f"/subscriptions/s/messages/{elsewhere}"), 422)
    assert "does not exist" in problem(await client.get(f"/subscriptions/none/messages/{id_}"), 404)


class TestScopes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_who_sees_what(self, client: httpx.AsyncClient, calls: Calls, token: Tokens) -> None:
        client.headers.update(token("*"))
        await calls.topic()
        for name in ("mine", "theirs"):
            await calls.subscription(name, filter={"card": ["x"]})
        (id_,) = await calls.publish({"card": "4111 1111"})

        async def get(path: str, scopes: str) -> httpx.Response:
            return await client.get(path, headers=token(scopes))

        narrow = await get(f"/messages/{id_}", "subscriptions:read:mine")
        assert [one["subscription_id"] for one in success(narrow, 200)["subscriptions"]] == ["mine"]
        one = await get(f"/subscriptions/mine/messages/{id_}", "subscriptions:read:mine messages:read:u")
        assert (success(one, 200)["state"], one.json()["field"]) == ("filtered", "card")
        assert "4111" not in narrow.text + one.text
        for scope in ("messages:read", "messages:read:t"):
            whole = await get(f"/messages/{id_}", f"subscriptions:read:mine {scope}")
            assert success(whole, 200)["payload"] == {"card": "4111 1111"}
            assert whole.json()["subscriptions"][0]["actual"] == "4111 1111"
        problem(await get(f"/subscriptions/theirs/messages/{id_}", "subscriptions:read:mine"), 403)
        # Whoever sees nothing of a topic does not learn its name, either.
        problem(await get(f"/messages/{id_}", "subscriptions:read:none"), 404)
