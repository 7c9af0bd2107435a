"""Ordered subscriptions: the endpoint gets the messages of a key one after the other, whatever it answers."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable

import httpx
import pytest

from tests.api.calls import PATIENCE, Calls, success
from tests.push.endpoint import OK, Endpoint, Received, Speak, answer

pytestmark = pytest.mark.shared_application


async def pushed(
    calls: Calls,
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    ordered: bool,
    *keys: str | None,
    attempts: int = 10,
    **settings: str,
) -> None:
    """With these messages, which were published before anything was pushed."""
    await calls.topic()
    await calls.subscription(
        "s",
        ordered=ordered,
        max_delivery_attempts=attempts,
        backoff_min_seconds=0,
        backoff_max_seconds=0,
        **settings,
    )
    messages = [{"payload": {"n": n}} | ({} if key is None else {"ordering_key": key}) for n, key in enumerate(keys)]
    success(await client.post("/topics/t/messages", json={"messages": messages}), 204)
    success(await client.patch("/subscriptions/s", json={"push": {"endpoint": endpoint.url}}), 200)


def number(received: Received) -> int:
    return int(json.loads(received.body)["n"])


def once(allowed: asyncio.Event) -> Callable[[Received], Speak]:
    """Answers nothing before that."""

    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await allowed.wait()
        writer.write(OK)

    return lambda _: write


async def test_a_key_waits_for_its_answer_and_others_do_not(
    calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    endpoint.answers = once(answering := asyncio.Event())
    await pushed(calls, client, endpoint, True, "a", "a", None, "b")
    received = await endpoint.until(3)
    assert sorted(map(number, received)) == [0, 2, 3]
    answering.set()
    assert number((await endpoint.until(4))[3]) == 1


async def test_without_order_nothing_waits(calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint) -> None:
    endpoint.answers = once(answering := asyncio.Event())
    await pushed(calls, client, endpoint, False, "a", "a", "a", "a")
    assert sorted(map(number, await endpoint.until(4))) == [0, 1, 2, 3]
    answering.set()


async def test_nothing_overtakes_what_fails(calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint) -> None:
    """Every third request is answered with 500; the order of what is acknowledged is that of each key."""
    acknowledged: dict[int, list[int]] = defaultdict(list)
    attempts: dict[int, int] = defaultdict(int)

    def answers(received: Received) -> bytes:
        n = number(received)
        attempts[n] += 1
        if n % 3 == 0 and attempts[n] < 3:
            return answer(422)
        acknowledged[n % 4].append(n)
        return OK

    endpoint.answers = answers
    await pushed(calls, client, endpoint, True, *(str(n % 4) for n in range(40)))
    await endpoint.until(40 + 2 * 14)
    assert acknowledged == {key: list(range(key, 40, 4)) for key in range(4)}
    assert {n: count for n, count in attempts.items() if count > 1} == dict.fromkeys(range(0, 40, 3), 3)
    headers = [int(one.headers["fastpubsub-attempt"]) for one in endpoint.received]
    assert sorted(headers) == [1] * 40 + [2] * 14 + [3] * 14, "what is given back unseen costs no attempt"


async def test_a_dead_letter_lets_its_key_go_on(calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint) -> None:
    endpoint.answers = lambda received: answer(500) if number(received) == 0 else OK
    await pushed(calls, client, endpoint, True, "k", "k", "k", attempts=2)
    assert [number(one) for one in await endpoint.until(4)] == [0, 0, 1, 2]


@pytest.mark.parametrize("status", [500, 400])
async def test_a_dead_letter_can_hold_its_key(
    calls: Calls, client: httpx.AsyncClient, endpoint: Endpoint, status: int
) -> None:
    """By its last attempt, or because the endpoint rejects it."""
    broken = {0}
    endpoint.answers = lambda received: answer(status) if number(received) in broken else OK
    await pushed(calls, client, endpoint, True, "k", "k", "k", attempts=1, on_dead_letter="hold")
    async with asyncio.timeout(PATIENCE):
        while not (dead := await calls.dead_letters()):  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0)
    broken.clear()
    await calls.reprocess(dead[0]["id"])
    assert [number(one) for one in await endpoint.until(4)] == [0, 0, 1, 2]
