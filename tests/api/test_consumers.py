"""Who holds messages or waits for some, at all processes. Data rules: tests/database/test_consumers.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from fastpubsub.api.requests import page_token
from fastpubsub.services.consumers import MAX_TOLD, Consumers
from tests.api.calls import PATIENCE, Calls, Json, problem, success
from tests.api.conftest import app_of
from tests.together import together

pytestmark = pytest.mark.shared_application

PATH = "/subscriptions/s/consumers"


async def consumers(client: httpx.AsyncClient, **parameters: str | int) -> dict[str, Json]:
    found = success(await client.get(PATH, params=parameters), 200)
    return {one.pop("consumer_id"): one for one in found["data"]}


@asynccontextmanager
async def waiting(client: httpx.AsyncClient, consumer_id: str) -> AsyncIterator[None]:
    """A pull that waits."""
    parameters = {"consumer_id": consumer_id, "wait_seconds": "20"}
    task = asyncio.create_task(client.get("/subscriptions/s/messages", params=parameters))
    try:
        async with asyncio.timeout(PATIENCE):
            while not (await consumers(client)).get(consumer_id, {}).get("pulls"):  # noqa: ASYNC110 - nobody tells it
                await asyncio.sleep(0)
        yield
    finally:
        await client.delete("/subscriptions/s/waits", params={"consumer_id": consumer_id})
        await task


def another_process(client: httpx.AsyncClient) -> Consumers:
    state = app_of(client).state
    return Consumers(state.database, state.directory, state.wakeups.lines)


async def test_holders_and_those_who_wait(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    assert await consumers(client) == {}
    await calls.publish({"n": 1}, {"n": 2})
    begun = datetime.now(UTC) - timedelta(minutes=1)
    await calls.pull(consumer="</script>")
    async with waiting(client, "é" * 255):
        found = await consumers(client)
    assert list(found) == ["</script>", "é" * 255]
    holder, waiter = found.values()
    assert holder == {
        "leased": 2,
        "oldest_leased_at": holder["seen_at"],
        "pulls": 0,
        "streams": 0,
        "waits_since": None,
        "seen_at": holder["seen_at"],
    }
    assert (waiter["leased"], waiter["oldest_leased_at"], waiter["pulls"]) == (0, None, 1)
    assert begun < datetime.fromisoformat(waiter["waits_since"]) <= datetime.fromisoformat(waiter["seen_at"])
    assert list(await consumers(client)) == ["</script>"]


async def test_who_waits_at_another_process(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    other = another_process(client)
    stream = other.open_stream("s", "streamer")
    other.open_stream("deleted", "nobody")
    assert await consumers(client) == {}
    await other.write()
    found = await consumers(client)
    assert {name: (one["pulls"], one["streams"]) for name, one in found.items()} == {"streamer": (0, 1)}
    other.close_stream(stream)
    assert list(await consumers(client)) == ["streamer"]
    await other.write()
    assert await consumers(client) == {}


async def test_a_consumer_at_both(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    async with waiting(client, "c"):
        await another_process(client).write()
        assert (await consumers(client))["c"]["pulls"] == 2


async def test_no_more_than_a_thousand_of_a_process(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    other = another_process(client)
    for n in range(MAX_TOLD + 1):
        other.open_stream("s", f"c{n:04}")
    await other.write()
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = success(await client.get(PATH, params={"limit": 100, **more}), 200)
        seen += [one["consumer_id"] for one in page["data"]]
        if "next_page_token" not in page:
            break
        more = {"page_token": page["next_page_token"]}
    assert seen == [f"c{n:04}" for n in range(MAX_TOLD)], "those that have waited for the longest time"


@together("token", ["", "x", "AA", page_token("c" * 256), page_token("a") + "==", "é"])
async def test_a_token_that_no_answer_had(client: httpx.AsyncClient, calls: Calls, token: str) -> None:
    await calls.ready()
    assert "page_token" in problem(await client.get(f"{PATH}?page_token={token}"), 422)


async def test_a_subscription_that_is_not_there(client: httpx.AsyncClient) -> None:
    assert "does not exist" in problem(await client.get(PATH), 404)
