"""Pulls that wait: what wakes them, whom it wakes, and what is left when they end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import psycopg
import pytest

from fastpubsub.config import Settings
from fastpubsub.message_ids import MessageIds, ack_id
from fastpubsub.services import wakeups
from fastpubsub.services.claiming import Claim
from fastpubsub.services.waiting_lines import WaitingLine
from tests.api.calls import PATIENCE, Calls, ids_of, payloads, problem, success
from tests.api.conftest import app_of
from tests.conftest import Connect, MakeSettings
from tests.pages import ROOT
from tests.together import together

pytestmark = pytest.mark.shared_application

PATH = "/subscriptions/s/messages"

Act = Callable[[Calls], Awaitable[object]]


@pytest.fixture
def settings(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Nobody is woken by the net below."""
    monkeypatch.setattr(wakeups, "POLL_SECONDS_WITHOUT_LISTEN", 3600.0)
    return make_settings(pull_max_waiting=50, wake_poll_seconds=3600)


@pytest.fixture
def line(client: httpx.AsyncClient) -> Callable[[], Awaitable[WaitingLine]]:
    async def find(name: str = "s") -> WaitingLine:
        state = app_of(client).state
        keys = await state.directory.subscriptions.key(name)
        async with asyncio.timeout(PATIENCE):
            while (found := state.wakeups.lines.find(keys)) is None:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
        assert isinstance(found, WaitingLine)
        return found

    return find


async def until_waiting(line: WaitingLine, count: int = 1) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(line._waiting) < count:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0)


@pytest.fixture
def start(client: httpx.AsyncClient, line: Callable[[], Awaitable[WaitingLine]]) -> Callable[..., Any]:
    """Starts pulls, and returns when they wait, or have been answered on a machine where that took long."""

    @asynccontextmanager
    async def pulls(count: int = 1, **parameters: Any) -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
        parameters = {"consumer_id": "c", "wait_seconds": 20, **parameters}
        tasks = [asyncio.create_task(client.get(PATH, params=parameters)) for _ in range(count)]
        try:
            found = await line()
            async with asyncio.timeout(PATIENCE):
                while len(found._waiting) + sum(task.done() for task in tasks) < count:  # noqa: ASYNC110 - nobody tells it
                    await asyncio.sleep(0)
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    return pulls


async def answered(task: asyncio.Task[httpx.Response]) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return payloads(success(await task, 200)["data"])


async def test_what_is_there_is_answered_at_once(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    response = await client.get(f"{PATH}?consumer_id=c&wait_seconds=20")
    assert payloads(success(response, 200)["data"]) == [{"n": 1}]


async def test_the_time_is_over(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    begun = asyncio.get_running_loop().time()
    assert success(await client.get(f"{PATH}?consumer_id=c&wait_seconds=1"), 200) == {"data": []}
    assert asyncio.get_running_loop().time() - begun >= 1


@together("value", ["-1", "21", "1.5", "x", "", "%20", "٣"])
async def test_times_that_cannot_be(client: httpx.AsyncClient, calls: Calls, value: str) -> None:
    await calls.ready()
    assert "wait_seconds" in problem(await client.get(f"{PATH}?consumer_id=c&wait_seconds={value}"), 422)


@together(
    "prefer, waits",
    [
        ("wait=20", True),
        ("return=representation, wait=20", True),
        ("Wait = 20; foo", True),
        ('wait="9"', True),
        ("wait=999999", True),
        ("wait=0", False),
        ("wait", False),
        ("wait=x", False),
        ("await=20", False),
        ("wait=" + "9" * 100, False),
    ],
)
async def test_preferring_to_wait(
    client: httpx.AsyncClient, calls: Calls, line: Callable[[], Awaitable[WaitingLine]], prefer: str, waits: bool
) -> None:
    await calls.ready()
    pull = asyncio.create_task(client.get(f"{PATH}?consumer_id=c", headers={"Prefer": prefer}))
    if waits:
        await until_waiting(await line())
        await calls.publish({"n": 1})
    assert await answered(pull) == ([{"n": 1}] if waits else [])


async def test_a_parameter_is_stronger_than_a_preference(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    response = await client.get(f"{PATH}?consumer_id=c&wait_seconds=0", headers={"Prefer": "wait=20"})
    assert success(response, 200) == {"data": []}


# what wakes


async def publish(calls: Calls) -> None:
    await calls.publish({"n": 1})


async def publish_with_a_key(calls: Calls) -> None:
    response = await calls.client.post("/topics/t/messages", json=[{"n": 1}], headers={"Idempotency-Key": "k"})
    success(response, 204)


async def nack(calls: Calls) -> None:
    await calls.nack((await held(calls))[0], delay_seconds=0)


async def nack_for_a_second(calls: Calls) -> None:
    await calls.nack((await held(calls))[0], delay_seconds=1)


async def reprocess(calls: Calls) -> None:
    await calls.reject(*await held(calls))
    await calls.reprocess((await calls.dead_letters())[0]["id"])


async def seek(calls: Calls) -> None:
    await calls.seek("earliest")


async def held(calls: Calls) -> list[str]:
    return list(app_of(calls.client).state.held)


ACTS = [publish, publish_with_a_key, nack, nack_for_a_second, reprocess, seek]


@pytest.mark.parametrize("act", ACTS)
async def test_what_wakes(client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any], act: Act) -> None:
    await calls.topic_and_subscription()
    if act not in (publish, publish_with_a_key):
        await calls.publish({"n": 1})
        app_of(client).state.held = [(await calls.pull_one())["ack_id"]]
    async with start() as (pull,):
        await act(calls)
        assert await answered(pull) == [{"n": 1}]


async def test_an_expired_lease_wakes(
    client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any], connect: Connect
) -> None:
    await calls.topic_and_subscription(backoff_min_seconds=1)
    await calls.publish({"n": 1})
    await calls.pull_one()
    async with start() as (pull,):
        connection: psycopg.AsyncConnection = await connect()
        await connection.execute("update fastpubsub.leases set expires_at = clock_timestamp() - interval '1 ms'")
        assert await answered(pull) == [{"n": 1}]


async def test_a_retry_that_waited_already_when_the_consumer_came(calls: Calls, start: Callable[..., Any]) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1}, {"n": 2})
    first, second = await calls.pull()
    await calls.nack(first["id"], delay_seconds=1)
    await calls.nack(second["id"], delay_seconds=2)
    async with start() as (pull,):
        assert await answered(pull) == [{"n": 1}]
    async with start() as (pull,):
        assert await answered(pull) == [{"n": 2}]


async def test_another_filter_wakes(client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any]) -> None:
    """What the old filter skipped is behind the cursor, so the new one matters for what comes."""
    await calls.topic_and_subscription(filter={"n": [2]})
    async with start() as (pull,):
        await calls.publish({"n": 1})
        success(await client.patch("/subscriptions/s", json={"filter": {"n": [3]}}), 200)
        await calls.publish({"n": 3})
        assert await answered(pull) == [{"n": 3}]


async def test_what_the_filter_skips_wakes_nobody_for_long(calls: Calls, start: Callable[..., Any]) -> None:
    await calls.topic_and_subscription(filter={"n": [2]})
    async with start() as (pull,):
        for _ in range(5):
            await calls.publish({"n": 1})
        assert not pull.done()
        await calls.publish({"n": 2})
        assert await answered(pull) == [{"n": 2}]


async def test_what_is_given_back_wakes(client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any]) -> None:
    await calls.topic_and_subscription()
    await calls.publish({"n": 1})
    claiming = app_of(client).state.claiming
    claim = await claiming.pull("s", 1, "somebody")
    async with start() as (pull,):
        claiming.give_back(claim)
        assert await answered(pull) == [{"n": 1}]


async def test_a_deleted_subscription_ends_all(
    client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any]
) -> None:
    await calls.topic_and_subscription()
    async with start(30) as pulls:
        success(await client.delete("/subscriptions/s"), 204)
        app_of(client).state.wakeups.look_everywhere()
        for pull in pulls:
            async with asyncio.timeout(PATIENCE):
                problem(await pull, 404)


@pytest.mark.own_application
async def test_stopping_answers_at_once(client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any]) -> None:
    await calls.topic_and_subscription()
    async with start(3) as pulls:
        app_of(client).state.stopping.set()
        for pull in pulls:
            assert await answered(pull) == []
    assert await calls.pull() == []
    assert success(await client.get(f"{PATH}?consumer_id=c&wait_seconds=20"), 200) == {"data": []}


# who is woken


class Counted:
    """Calls of one procedure."""

    def __init__(self, client: httpx.AsyncClient, procedure: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert (ROOT / f"migrations/functions/{procedure}.sql").exists()
        database = app_of(client).state.database
        fetch = database.fetch_one
        self.calls = 0

        async def counting(name: str, *arguments: object) -> Any:
            self.calls += name == procedure
            return await fetch(name, *arguments)

        monkeypatch.setattr(database, "fetch_one", counting)


def ack_ids(claim: Claim) -> list[str]:
    return [
        ack_id(MessageIds(claim.keys.topic_key, created_at).at(position), claim.token)
        for created_at, position in zip(claim.created_at, claim.positions, strict=True)
    ]


async def done(pulls: list[asyncio.Task[httpx.Response]], count: int) -> list[asyncio.Task[httpx.Response]]:
    async with asyncio.timeout(PATIENCE):
        pending = set(pulls)
        while len(pulls) - len(pending) < count:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    return [pull for pull in pulls if pull.done()]


async def test_one_message_wakes_one_of_many(
    client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.topic_and_subscription()
    async with start(40) as pulls:
        claims = Counted(client, "claim_messages_2", monkeypatch)
        await calls.publish({"n": 1})
        assert [await answered(pull) for pull in await done(pulls, 1)] == [[{"n": 1}]]
        assert claims.calls <= 3
        await calls.publish(*[{"n": n} for n in range(25)])
        assert sorted([len(await answered(pull)) for pull in await done(pulls, 4)]) == [1, 5, 10, 10]
        assert claims.calls <= 8
        assert len([pull for pull in pulls if pull.done()]) == 4


async def test_who_comes_while_others_wait_asks_nobody(
    client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.topic_and_subscription()
    async with start():
        claims = Counted(client, "claim_messages_2", monkeypatch)
        async with start(20):
            assert claims.calls == 0


async def exchange(client: httpx.AsyncClient, held: list[str]) -> httpx.Response:
    return await client.post("/subscriptions/s/pulls?consumer_id=c&wait_seconds=20", json={"acks": held})


async def test_who_settles_and_waits_claims_once_for_a_message(
    client: httpx.AsyncClient,
    calls: Calls,
    start: Callable[..., Any],
    line: Callable[[], Awaitable[WaitingLine]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not once more before it waits: what it settled with has found nothing."""
    await calls.topic_and_subscription()
    async with start():
        opened = await line()
    claims = Counted(client, "claim_messages_2", monkeypatch)
    await calls.publish({"n": 0})
    held = ids_of(await calls.pull(1), "ack_id")
    first = claims.calls
    async with asyncio.timeout(PATIENCE):
        for n in range(1, 6):
            waiting = asyncio.create_task(exchange(client, held))
            await until_waiting(opened)
            await calls.publish({"n": n})
            answer = success(await waiting, 200)
            assert payloads(answer["data"]) == [{"n": n}]
            held = ids_of(answer["data"], "ack_id")
            # The look soon after the line was opened may cause one more.
            assert n <= claims.calls - first <= n + 1


async def test_what_comes_after_a_settle_and_before_the_wait_is_not_missed(
    client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.topic_and_subscription()
    async with start():
        pass
    await calls.publish({"n": 1})
    held = ids_of(await calls.pull(1), "ack_id")
    database = app_of(client).state.database
    fetch = database.fetch_one

    async def fetch_and_publish(name: str, *arguments: object) -> Any:
        row = await fetch(name, *arguments)
        if name == "settle_and_claim_2":
            await calls.publish({"n": 2})
        return row

    monkeypatch.setattr(database, "fetch_one", fetch_and_publish)
    async with asyncio.timeout(PATIENCE):
        assert payloads(success(await exchange(client, held), 200)["data"]) == [{"n": 2}]


async def test_what_a_limit_keeps_back_is_there_for_the_next_one_after_an_exchange(
    client: httpx.AsyncClient,
    calls: Calls,
    start: Callable[..., Any],
    line: Callable[[], Awaitable[WaitingLine]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exchange of another consumer gets what was published while a pull was finding nothing."""
    monkeypatch.setattr(wakeups, "HEARD_SECONDS", 0.0)
    await calls.topic_and_subscription(max_in_flight=2)
    async with start():
        opened = await line()
    await calls.publish({"n": 0})
    held = ids_of(await calls.pull(1), "ack_id")
    database = app_of(client).state.database
    fetch = database.fetch_one

    async def fetch_and_exchange(name: str, *arguments: object) -> Any:
        row = await fetch(name, *arguments)
        if name == "claim_messages_2":
            monkeypatch.setattr(database, "fetch_one", fetch)
            await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
            answer = success(await exchange(client, held), 200)
            assert payloads(answer["data"]) == [{"n": 1}, {"n": 2}]
            held[:] = ids_of(answer["data"], "ack_id")
        return row

    monkeypatch.setattr(database, "fetch_one", fetch_and_exchange)
    async with start() as (pulling,):
        await until_waiting(opened)
        settling = asyncio.create_task(exchange(client, held))
        assert await answered(pulling) == [{"n": 3}]
        settling.cancel()


async def test_a_stream_claims_once_for_a_message(
    client: httpx.AsyncClient, calls: Calls, line: Callable[[], Awaitable[WaitingLine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once more to learn that there was only one; a claim that was full is followed by another.

    The look soon after the line was opened may find a message that is being claimed, and cause a claim for nothing.
    """
    await calls.topic_and_subscription()
    deliveries = app_of(client).state.deliveries.stream("s", "c", 4)

    async def get() -> list[bytes]:
        delivery = await anext(deliveries)
        delivery.is_sent = True
        await calls.ack(*ack_ids(delivery.claim))
        return list(delivery.claim.payloads)

    async with contextlib.aclosing(deliveries), asyncio.timeout(PATIENCE):
        coming = asyncio.create_task(get())
        await until_waiting(await line())
        claims = Counted(client, "claim_messages_2", monkeypatch)
        for n in range(5):
            await calls.publish({"n": n})
            assert await coming == [b'{"n":%d}' % n]
            coming = asyncio.create_task(get())
            await until_waiting(await line())
            assert n + 1 <= claims.calls <= n + 2
        await calls.publish(*[{"n": n} for n in range(5, 10)])
        assert await coming == [b'{"n":%d}' % n for n in range(5, 9)]
        assert await get() == [b'{"n":9}']
        assert 7 <= claims.calls <= 8


@pytest.mark.parametrize("act", ACTS)
async def test_what_wakes_a_stream_that_did_not_wait_then(client: httpx.AsyncClient, calls: Calls, act: Act) -> None:
    """Its last claim had taken all that there was."""
    await calls.topic_and_subscription()
    deliveries = app_of(client).state.deliveries.stream("s", "c", 10)
    async with contextlib.aclosing(deliveries), asyncio.timeout(PATIENCE):
        await calls.publish({"n": 0})
        (await anext(deliveries)).is_sent = True
        if act not in (publish, publish_with_a_key):
            await calls.publish({"n": 1})
            app_of(client).state.held = [(await calls.pull_one())["ack_id"]]
        await act(calls)
        delivery = await anext(deliveries)
        delivery.is_sent = True
        assert delivery.claim.payloads[-1] == b'{"n":1}'


@pytest.mark.own_application
async def test_everything_reaches_those_who_wait(client: httpx.AsyncClient, calls: Calls) -> None:
    """Publishers and consumers at once, without the net."""
    await calls.topic_and_subscription()
    received: list[int] = []

    async def consume() -> None:
        while len(received) < 200:
            response = await client.get(f"{PATH}?consumer_id=c&batch_size=3&wait_seconds=20")
            received.extend(message["n"] for message in payloads(success(response, 200)["data"]))

    consumers = [asyncio.create_task(consume()) for _ in range(10)]
    for n in range(0, 200, 2):
        await calls.publish({"n": n}, {"n": n + 1})
    async with asyncio.timeout(PATIENCE):
        while len(received) < 200:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0.01)
    app_of(client).state.wakeups.lines.end()
    await asyncio.gather(*consumers)
    assert sorted(received) == list(range(200))


async def test_too_many(client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any]) -> None:
    await calls.topic_and_subscription()
    async with start(50):
        refused = await client.get(f"{PATH}?consumer_id=c&wait_seconds=20")
        problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        assert await calls.pull() == [], "who does not wait takes no place"


async def test_who_leaves_frees_the_place_and_holds_nothing(
    client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any]
) -> None:
    await calls.topic_and_subscription()
    async with start(50) as pulls:
        for pull in pulls[:49]:
            pull.cancel()
        await asyncio.gather(*pulls[:49], return_exceptions=True)
        await calls.publish({"n": 1})
        assert await answered(pulls[49]) == [{"n": 1}]
    assert "fastpubsub_waiting_consumers 0.0\n" in (await client.get("/metrics")).text


async def test_the_gauge(client: httpx.AsyncClient, calls: Calls, start: Callable[..., Any]) -> None:
    await calls.topic_and_subscription()
    async with start(3):
        assert "fastpubsub_waiting_consumers 3.0\n" in (await client.get("/metrics")).text


async def test_a_consumer_that_leaves_is_answered(client: httpx.AsyncClient, start: Any, calls: Calls) -> None:
    """And nobody else."""
    await calls.topic_and_subscription()
    async with start(1, consumer_id="leaves") as (mine,), start(1, consumer_id="stays") as (other,):
        assert (await client.delete("/subscriptions/s/waits", params={"consumer_id": "leaves"})).status_code == 204
        async with asyncio.timeout(PATIENCE):
            assert success(await mine, 200) == {"data": []}
        assert not other.done()
        await calls.publish({"n": 1})
        async with asyncio.timeout(PATIENCE):
            assert len(success(await other, 200)["data"]) == 1
    problem(await client.delete("/subscriptions/nowhere/waits", params={"consumer_id": "leaves"}), 404)
    problem(await client.delete("/subscriptions/s/waits"), 422)


class TestBytes:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"pull_max_bytes": 100_000})

    async def test_what_does_not_fit_into_an_answer_is_for_the_next_one(
        self, calls: Calls, start: Callable[..., Any]
    ) -> None:
        """Of the log, and of retries: one waiting consumer has room for all of them, and gets the first."""
        await calls.topic_and_subscription()
        async with start(3, batch_size=100) as waiting:
            await calls.publish(*[{"n": number, "a": "x" * 60_000} for number in range(3)])
            pulled = [success(await asyncio.wait_for(task, PATIENCE), 200)["data"] for task in waiting]
        assert sorted([payload["n"] for payload in payloads(messages)] for messages in pulled) == [[0], [1], [2]]
        async with start(3, batch_size=100) as waiting:
            await calls.nack(*ids_of([message for messages in pulled for message in messages]), delay_seconds=0)
            numbers = [payload["n"] for task in waiting for payload in await answered(task)]
        assert sorted(numbers) == [0, 1, 2]
