"""Dead letters that are published to a topic, too, over HTTP."""

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import Calls, problem, success
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import MakeSettings

pytestmark = pytest.mark.shared_application

SUBSCRIPTION = "/subscriptions/s"


async def test_the_setting(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic("failed")
    await calls.topic_and_subscription()
    assert "dead_letter_topic" not in success(await client.get(SUBSCRIPTION), 200)
    changed = success(await client.patch(SUBSCRIPTION, json={"dead_letter_topic": "failed"}), 200)
    assert changed["dead_letter_topic"] == "failed"
    assert success(await client.patch(SUBSCRIPTION, json={"max_delivery_attempts": 3}), 200) == changed | {
        "max_delivery_attempts": 3
    }
    detail = problem(await client.delete("/topics/failed"), 409)
    assert detail.startswith('topic "failed" gets the dead letters of subscription "s": give that another')
    assert (await calls.subscription("fork", fork_of="s"))["dead_letter_topic"] == "failed"
    assert "dead_letter_topic" not in await calls.subscription("without", fork_of="s", dead_letter_topic="")
    for none in ("", None):
        assert "dead_letter_topic" not in success(
            await client.patch(SUBSCRIPTION, json={"dead_letter_topic": none}), 200
        )
        await client.patch(SUBSCRIPTION, json={"dead_letter_topic": "failed"})
    await calls.topic("strict", schema={"type": "object"})
    for wrong, status, words in (
        ("nowhere", 404, 'dead_letter_topic: topic "nowhere" does not exist'),
        ("t", 422, "dead_letter_topic is the topic of the subscription"),
        ("strict", 422, 'topic "strict" has a JSON Schema'),
        ("a b", 422, "dead_letter_topic"),
        (7, 422, "dead_letter_topic"),
    ):
        assert words in problem(await client.patch(SUBSCRIPTION, json={"dead_letter_topic": wrong}), status)
        body = {"id": "new", "topic_id": "t", "dead_letter_topic": wrong}
        assert words in problem(await client.post("/subscriptions", json=body), status)


class TestRights:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_who_sets_it_may_publish_to_it(self, client: httpx.AsyncClient, token: Tokens) -> None:
        admin, manager = token("*"), token("subscriptions:create topics:publish:other")
        for topic in ("t", "failed", "other"):
            success(await client.post("/topics", json={"id": topic}, headers=admin), 201)
        new = {"topic_id": "t", "dead_letter_topic": "failed"}
        problem(await client.post("/subscriptions", json={"id": "s", **new}, headers=manager), 403)
        success(await client.post("/subscriptions", json={"id": "s", **new}, headers=admin), 201)
        problem(await client.patch(SUBSCRIPTION, json={"dead_letter_topic": "failed"}, headers=manager), 403)
        fork = {"id": "fork", "topic_id": "t", "fork_of": "s"}
        problem(await client.post("/subscriptions", json=fork, headers=manager), 403)
        success(await client.post("/subscriptions", json=fork | {"dead_letter_topic": ""}, headers=manager), 201)
        success(await client.patch(SUBSCRIPTION, json={"max_delivery_attempts": 3}, headers=manager), 200)
        success(await client.patch(SUBSCRIPTION, json={"dead_letter_topic": "other"}, headers=manager), 200)
        success(await client.patch(SUBSCRIPTION, json={"dead_letter_topic": None}, headers=manager), 200)
