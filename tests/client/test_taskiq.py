"""taskiq over the bus: what the tests of its brokers for Redis and RabbitMQ try, and what a broker of ours promises."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from taskiq import AckableMessage, BrokerMessage, InMemoryBroker, SmartRetryMiddleware
from taskiq.api import run_receiver_task
from taskiq.receiver import Receiver

from fastpubsub.client import AsyncClient, Client, InvalidRequest, NotFound, leases
from fastpubsub.integrations.taskiq import BusBroker
from tests.client.test_docs import save
from tests.lasting import Last
from tests.pages import Shell

pytestmark = pytest.mark.shared_application

PATIENCE = 60.0
MakeBroker = Callable[..., BusBroker]


@pytest.fixture
async def make_broker(transport: httpx.ASGITransport) -> AsyncIterator[MakeBroker]:
    made: list[BusBroker] = []

    def make(**settings: Any) -> BusBroker:
        made.append(BusBroker(transport=transport, **settings))
        return made[-1]

    yield make
    for broker in made:
        await broker.shutdown()


@pytest.fixture
async def broker(make_broker: MakeBroker) -> BusBroker:
    started = make_broker()
    await started.startup()
    return started


def sent(message: bytes, **labels: Any) -> BrokerMessage:
    return BrokerMessage(task_id="id", task_name="name", message=message, labels=labels)


async def first(broker: BusBroker) -> AckableMessage:
    async with asyncio.timeout(PATIENCE), aclosing(broker.listen()) as messages:
        return await anext(messages)


async def ack(message: AckableMessage) -> None:
    acked = message.ack()
    assert acked is not None
    await acked


@pytest.mark.parametrize(
    "message",
    [
        b"my_msg",
        b"",
        b"\x82\xa1a\x01\xff\x00",
        b"[1]",
        b'{"n": NaN}',
        b'{"text": "\\u0000"}',
        b'{"text": "\\ud800"}',
        b'{"base64": "bm8="}',
        b"[" * 100_000,
    ],
)
async def test_what_is_kicked_is_heard_to_the_byte(broker: BusBroker, bus: AsyncClient, message: bytes) -> None:
    await broker.kick(sent(message))
    heard = await first(broker)
    assert heard.data == message
    await ack(heard)
    assert (await bus.metrics("taskiq")).acked == 1


async def test_a_json_object_can_be_read_by_people(broker: BusBroker, bus: AsyncClient) -> None:
    task = {"task_id": "1", "args": [1, 2.5, 2**70, "é", None, {"a": [True]}]}
    await broker.kick(sent(json.dumps(task).encode()))
    assert (await bus.browse_topic("taskiq")).data[0].payload == task
    assert json.loads((await first(broker)).data) == task


async def test_startup_creates_what_is_not_there(make_broker: MakeBroker, bus: AsyncClient) -> None:
    broker = make_broker(topic="images", subscription="resizers", max_delivery_attempts=7, ack_deadline_seconds=90)
    await broker.startup()
    subscription = await bus.get_subscription("resizers")
    assert (subscription.topic_id, subscription.max_delivery_attempts, subscription.ack_deadline_seconds) == (
        "images",
        7,
        90,
    )
    again = make_broker(topic="images", subscription="resizers")
    await again.startup()
    assert await bus.get_subscription("resizers") == subscription


async def test_a_second_startup_changes_nothing(broker: BusBroker, bus: AsyncClient) -> None:
    """Taskiq starts a broker that a program has started, too: a second client would never be closed."""
    opened = broker._client
    await broker.startup()
    assert broker._client is opened
    await broker.kick(sent(b"{}"))
    await broker.shutdown()
    await broker.startup()
    assert broker._client is not opened
    assert (await bus.metrics("taskiq")).available == 1


async def test_startup_can_create_nothing(make_broker: MakeBroker) -> None:
    broker = make_broker(declare=False)
    await broker.startup()
    with pytest.raises(NotFound):
        await broker.kick(sent(b"{}"))


async def test_a_broker_that_was_not_started(make_broker: MakeBroker) -> None:
    with pytest.raises(RuntimeError, match=r"await broker.startup\(\) first"):
        await make_broker().kick(sent(b"{}"))


@pytest.mark.parametrize(("delay", "delayed"), [(None, 0), (0, 0), ("-1", 0), (3600, 1), ("3599.5", 1)])
async def test_a_delay(broker: BusBroker, bus: AsyncClient, delay: Any, delayed: int) -> None:
    await broker.kick(sent(b"{}", delay=delay))
    assert len((await bus.list_delayed("taskiq")).data) == delayed
    assert (await bus.metrics("taskiq")).available == 1 - delayed


async def test_a_delay_that_is_none(broker: BusBroker) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        await broker.kick(sent(b"{}", delay="soon"))
    with pytest.raises(InvalidRequest):
        await broker.kick(sent(b"{}", delay=10**9))


async def test_what_was_not_acked_goes_to_another_worker_at_once(make_broker: MakeBroker, broker: BusBroker) -> None:
    await broker.kick(sent(b"task"))
    assert (await first(broker)).data == b"task"
    await broker.shutdown()
    another = make_broker()
    await another.startup()
    heard = await first(another)
    assert heard.data == b"task"
    await ack(heard)


async def test_what_waits_in_a_worker_that_stops_uses_up_no_attempt(broker: BusBroker, bus: AsyncClient) -> None:
    for number in range(3):
        await broker.kick(sent(b"%d" % number))
    await ack(await first(broker))
    assert [message.delivery_attempts for message in await bus.pull("taskiq")] == [1, 1]


async def test_a_task_that_outlives_the_listener_keeps_its_lease(
    broker: BusBroker, bus: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops closes the listener first, and then waits for its tasks."""
    monkeypatch.setattr(leases, "FIRST_SECONDS", 0.3)
    await broker.kick(sent(b"task"))
    heard = await first(broker)
    ends_at = await lease_end(bus)
    async with asyncio.timeout(PATIENCE):
        while await lease_end(bus) == ends_at:
            pass
    await ack(heard)
    assert (await bus.metrics("taskiq")).acked == 1


async def lease_end(bus: AsyncClient) -> datetime | None:
    (leased,) = (await bus.browse("taskiq", "leased")).data
    return leased.lease_expires_at


async def test_a_task_is_run_and_its_error_is_its_result(broker: BusBroker, bus: AsyncClient) -> None:
    results = InMemoryBroker().result_backend
    broker.with_result_backend(results)
    broker.is_worker_process = True

    @broker.task(task_name="divide")
    async def divide(dividend: int, divisor: int) -> float:
        return dividend / divisor

    receiving = asyncio.create_task(run_receiver_task(broker))
    good, bad = await divide.kiq(7, divisor=2), await divide.kiq(7, 0)
    assert (await good.wait_result(timeout=PATIENCE)).return_value == 3.5
    assert isinstance((await bad.wait_result(timeout=PATIENCE)).error, ZeroDivisionError)
    async with asyncio.timeout(PATIENCE):
        while (await bus.metrics("taskiq")).acked < 2:
            pass
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)


async def test_a_retry_waits_at_the_server(broker: BusBroker, bus: AsyncClient) -> None:
    broker.add_middlewares(SmartRetryMiddleware(default_delay=3600))

    @broker.task(task_name="fail", retry_on_error=True)
    async def fail() -> None:
        raise OSError

    await fail.kiq()
    heard = await first(broker)
    await Receiver(broker, max_async_tasks=1).callback(heard)
    (delayed,) = (await bus.list_delayed("taskiq")).data
    assert delayed.payload is not None
    assert delayed.payload["task_name"] == "fail"
    assert (await bus.metrics("taskiq")).acked == 1


@pytest.mark.long
def test_the_page(lasting_server: Last, tmp_path: Path) -> None:
    url = lasting_server().base_url
    shell = Shell(tmp_path, {"url": url}, {"http://localhost:8000": url})
    save(shell, "taskiq.md")
    with Client(url) as bus, shell.start("exec taskiq worker tasks:broker --workers 1", cold=True) as worker:
        assert shell.run("python shop.py") == "it is at /images/7-200.jpg\n"
        worker.wait_until(lambda: bus.metrics("images").acked == 2)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENCE) == 0
    printed = worker.output()
    assert printed.index("resizing 7 to 200") < printed.index("resizing 8 to 200")
    assert "Traceback" not in printed
