"""Pause, resume and purge: what pulls, streams, metrics and explanations say, and who may."""

import asyncio
import contextlib

import httpx
import pytest

from fastpubsub.config import Settings
from fastpubsub.services.waiting_lines import WaitingLine
from fastpubsub.services.wakeups import Wakeups
from tests.api.calls import PATIENCE, Calls, Json, ids_of, payloads, problem, success, until_waiting
from tests.api.conftest import Tokens, app_of, one_after_the_other
from tests.attacks import KEY
from tests.conftest import MakeSettings

pytestmark = pytest.mark.shared_application

PULL = "/subscriptions/s/messages"
NOTHING = {"data": [], "paused": True}


async def post(client: httpx.AsyncClient, verb: str, name: str = "s") -> Json:
    answer: Json = success(await client.post(f"/subscriptions/{name}/{verb}"), 200)
    return answer


async def pull(client: httpx.AsyncClient, wait_seconds: int = 0) -> Json:
    parameters: dict[str, str | int] = {"consumer_id": "c", "wait_seconds": wait_seconds}
    answer: Json = success(await client.get(PULL, params=parameters), 200)
    return answer


async def test_a_pull_gets_nothing_and_says_why(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    created = success(await client.get("/subscriptions/s"), 200)
    assert not {"is_paused", "paused_at"} & created.keys()
    paused = await post(client, "pause")
    assert (paused["is_paused"], paused["paused_at"] > paused["created_at"]) == (True, True)
    assert success(await client.get("/subscriptions/s"), 200) == paused == await post(client, "pause")
    assert success(await client.get("/subscriptions"), 200)["data"] == [paused]
    assert await pull(client) == NOTHING
    await calls.publish({"n": 1})
    assert await pull(client) == NOTHING
    assert success(await client.get("/subscriptions/s/metrics"), 200)["paused"] is True
    assert await post(client, "resume") == created == await post(client, "resume")
    assert "paused" not in success(await client.get("/subscriptions/s/metrics"), 200)
    assert payloads((await pull(client))["data"]) == [{"n": 1}]


async def test_settling_with_the_next_pull(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1}, {"n": 2})
    (one,) = await calls.pull(1)
    await post(client, "pause")
    headers = {"Prefer": "return=representation"}
    answer = await client.post("/subscriptions/s/pulls?consumer_id=c", json={"acks": [one["ack_id"]]}, headers=headers)
    assert success(answer, 200)["acks"]["settled"] == [one["ack_id"]]
    assert success(answer, 200).items() >= NOTHING.items()


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked before a pause is not told after it."""
    one_after_the_other(monkeypatch, Wakeups, "_look_once")


async def look(client: httpx.AsyncClient) -> WaitingLine:
    """Asks the database once what is ready, as `Wakeups` does; whom it wakes is out of the line when this returns."""
    state = app_of(client).state
    keys = await state.directory.subscriptions.key("s")
    state.wakeups.look(keys)
    await state.wakeups._look_once()
    line: WaitingLine = state.wakeups.lines.find(keys)
    return line


async def test_who_waits_is_answered_once(client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event) -> None:
    """At once when it is paused; who comes later waits, and gets what comes when it is resumed."""
    await calls.topic_and_subscription()
    async with asyncio.timeout(PATIENCE):
        first = asyncio.create_task(pull(client, 20))
        await waits.wait()
        await post(client, "pause")
        assert await first == NOTHING
        waits.clear()
        later = asyncio.create_task(pull(client, 20))
        await waits.wait()
        await calls.publish({"n": 1})
        await until_waiting(await look(client), later)
        await post(client, "resume")
        assert payloads((await later)["data"]) == [{"n": 1}]
    await post(client, "pause")
    assert await pull(client, 1) == NOTHING


async def test_a_publish_wakes_again_after_a_pause_without_messages(
    client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event
) -> None:
    await calls.topic_and_subscription()
    await post(client, "pause")
    async with asyncio.timeout(PATIENCE):
        task = asyncio.create_task(pull(client, 20))
        await waits.wait()
        assert (await look(client)).is_paused
        await post(client, "resume")
        assert not (await look(client)).is_paused
        await calls.publish({"n": 1})
        assert payloads((await task)["data"]) == [{"n": 1}]


async def test_a_stream_stays_and_gets_nothing(client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event) -> None:
    await calls.topic_and_subscription()
    deliveries = app_of(client).state.deliveries.stream("s", "c", 10)
    async with contextlib.aclosing(deliveries), asyncio.timeout(PATIENCE):
        await calls.publish({"n": 1})
        first = await anext(deliveries)
        assert first.claim.payloads == [b'{"n":1}']
        first.is_sent = True
        coming = asyncio.create_task(anext(deliveries))
        await waits.wait()
        await post(client, "pause")
        assert (await look(client)).is_paused
        await calls.publish({"n": 2})
        await until_waiting(await look(client), coming)
        await post(client, "resume")
        assert (await coming).claim.payloads == [b'{"n":2}']


async def test_explanations_and_gauges(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=600)
    nacked, ahead = await calls.publish({"n": 1}, {"n": 2})
    await calls.nack((await calls.pull(1))[0]["ack_id"])
    paused = await post(client, "pause")
    for id_, words in ((nacked, "the next one is due"), (ahead, "it is the next message of the log")):
        explained = success(await client.get(f"/subscriptions/s/messages/{id_}"), 200)
        assert explained["paused_at"] == paused["paused_at"]
        start = f"the subscription has been paused since {paused['paused_at']}, and hands out nothing; "
        assert (explained["detail"].startswith(start), words in explained["detail"]) == (True, True)
    await calls.subscription("other")
    scraped = (await client.get("/metrics")).text
    for name, value in (("s", "1.0"), ("other", "0.0")):
        assert f'fastpubsub_subscription_paused{{subscription="{name}",topic="t"}} {value}' in scraped


async def test_purge(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=600)
    ids = await calls.publish(*({"n": n} for n in range(5)))
    dead, nacked, held = await calls.pull(3)
    await calls.reject(dead["ack_id"])
    await calls.nack(nacked["ack_id"])
    assert await post(client, "purge") == {"purged": 4, "is_estimated": False}
    assert await calls.counts() == (0, 0, 0, 1)
    assert (await calls.ack(held["ack_id"]))["gone"] == [held["ack_id"]]
    assert ids_of(await calls.dead_letters()) == ids[:1]
    explained = success(await client.get(f"/subscriptions/s/messages/{ids[4]}"), 200)
    assert explained["state"] == "purged"
    assert explained["detail"] == f"the purge at {explained['sought_at']} settled it before any consumer had it"
    explained = success(await client.get(f"/subscriptions/s/messages/{ids[2]}"), 200)
    assert (explained["state"], "a seek or purge at" in explained["detail"]) == ("settled", True)


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    for verb in ("pause", "resume", "purge"):
        assert "does not exist" in problem(await client.post(f"/subscriptions/none/{verb}"), 404)


class TestScopes:
    @pytest.fixture
    def settings(self, make_settings: MakeSettings) -> Settings:
        return make_settings(auth_enabled=True, auth_secret_key=KEY)

    async def test_who_may(self, client: httpx.AsyncClient, calls: Calls, token: Tokens) -> None:
        client.headers.update(token("*"))
        await calls.topic_and_subscription()
        scopes = {"pause": "subscriptions:create", "resume": "subscriptions:create", "purge": "subscriptions:consume"}
        for verb, scope in scopes.items():
            others = " ".join({"subscriptions:create", "subscriptions:consume", "subscriptions:read"} - {scope})
            for refused in (others, f"{scope}:other"):
                problem(await client.post(f"/subscriptions/s/{verb}", headers=token(refused)), 403)
            for allowed in (scope, f"{scope}:s"):
                success(await client.post(f"/subscriptions/s/{verb}", headers=token(allowed)), 200)
