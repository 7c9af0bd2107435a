"""`fastpubsub worker` as people run it, through signals and servers that die."""

import asyncio
import logging
import signal
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from fastpubsub.client import AsyncClient, Client, Worker, pulling
from tests import harness
from tests.client.conftest import QUICK
from tests.conftest import StartServer
from tests.pages import Background, Shell
from tests.proxy import Proxy

MODULE = """
import asyncio
import os
import time

from pydantic import BaseModel

from fastpubsub.client import Policy, Worker, consumer, pulling

consumer.CANCEL_SECONDS = 0.1
pulling.AGAIN = Policy(max_backoff=0.5)
worker = Worker(concurrency=5, grace_seconds=float(os.environ.get("GRACE", "30")))
other = Worker()
not_a_worker = 1


class Order(BaseModel):
    order_id: int


@worker.subscriber("billing")
async def bill(order: Order) -> None:
    if order.order_id < 0:
        print("waiting", flush=True)
        await asyncio.sleep(-order.order_id)
    print("billed", order.order_id, flush=True)


@other.subscriber("audit")
def audit(order: Order) -> None:
    print("audited", order.order_id, flush=True)
    if order.order_id < 0:
        time.sleep(-order.order_id)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(MODULE)
    return tmp_path


def bus_of(url: str, ack_deadline: int = 60) -> Client:
    bus = Client(url)
    bus.create_topic("orders")
    for subscription in ("billing", "audit"):
        bus.create_subscription(
            subscription, "orders", ack_deadline_seconds=ack_deadline, backoff_min_seconds=0, backoff_max_seconds=0
        )
    return bus


def start(folder: Path, url: str, arguments: str = "work:worker", **environment: str) -> Background:
    shell = Shell(folder, {"url": url})
    shell.environment |= environment
    return shell.start(f"exec fastpubsub worker {arguments}")


def exit_code(worker: Background, number: signal.Signals = signal.SIGTERM) -> int:
    worker.process.send_signal(number)
    return worker.process.wait(60)


def acked(bus: Client, subscription: str = "billing") -> int:
    return bus.metrics(subscription).acked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_several_workers_until_a_signal(server: StartServer, folder: Path, number: signal.Signals) -> None:
    with bus_of(server().base_url) as bus:
        bus.publish("orders", {"order_id": 7})
        with start(folder, bus.url, "work:worker work:other --concurrency 2") as worker:
            worker.wait_until(lambda: acked(bus) == acked(bus, "audit") == 1)
            assert exit_code(worker, number) == 0
        assert {"billed 7", "audited 7"} <= set(worker.output().splitlines())
        assert worker.output().count("concurrency=2") == 2


def test_handlers_finish_before_it_ends(server: StartServer, folder: Path) -> None:
    with bus_of(server().base_url) as bus:
        bus.publish("orders", {"order_id": -1})
        with start(folder, bus.url) as worker:
            worker.wait_until(lambda: "waiting" in worker.output())
            assert exit_code(worker) == 0
        assert "billed -1" in worker.output()
        assert acked(bus) == 1


@pytest.mark.parametrize("arguments", ["work:worker", "work:other"])
def test_handlers_that_do_not_finish_are_left(server: StartServer, folder: Path, arguments: str) -> None:
    with bus_of(server().base_url) as bus:
        bus.publish("orders", {"order_id": -600})
        with start(folder, bus.url, arguments, GRACE="600") as worker:
            worker.wait_until(lambda: "waiting" in worker.output() or "audited" in worker.output())
            worker.process.send_signal(signal.SIGINT)
            worker.wait_until(lambda: bus.metrics("billing").delivered + bus.metrics("audit").delivered == 1)
            assert exit_code(worker, signal.SIGINT) == (0 if arguments == "work:worker" else 1)
        subscription = "billing" if arguments == "work:worker" else "audit"
        assert len(bus.pull(subscription)) == 1


def test_a_server_that_is_killed_and_comes_back(server: StartServer, folder: Path) -> None:
    port = harness.free_port()
    killed = server(api_port=port)
    with bus_of(killed.base_url, ack_deadline=2) as bus:
        bus.publish("orders", *({"order_id": n} for n in range(300)))
        with start(folder, bus.url) as worker:
            worker.wait_until(lambda: worker.output().count("billed") > 50)
            killed.kill()
            worker.wait_until(lambda: "no messages can be pulled" in worker.output())
            server(api_port=port)
            bus.publish("orders", {"order_id": 300})
            worker.wait_until(lambda: acked(bus) == 301)
            assert exit_code(worker) == 0
        lines = {line for line in worker.output().splitlines() if line.startswith("billed")}
        assert lines == {f"billed {n}" for n in range(301)}
        assert "Traceback" not in worker.output()


async def test_a_database_that_goes_away_and_comes_back(
    server: StartServer, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pulling, "AGAIN", QUICK)
    seen: asyncio.Queue[int] = asyncio.Queue()
    worker = Worker(concurrency=2)

    @worker.subscriber("billing")
    async def handle(payload: dict[str, Any]) -> None:
        await seen.put(payload["n"])

    async with AsyncExitStack() as stack, asyncio.timeout(60):
        proxy = await stack.enter_async_context(Proxy(database_url))
        started = await asyncio.to_thread(server, database_url=proxy.url)
        bus = await stack.enter_async_context(AsyncClient(started.base_url))
        await bus.create_topic("orders")
        await bus.create_subscription("billing", "orders")
        task = asyncio.create_task(worker.serve(bus))
        await bus.publish("orders", {"n": 1})
        assert await seen.get() == 1
        with caplog.at_level(logging.WARNING, "fastpubsub.client"):
            await proxy.close()
            while "no messages can be pulled" not in caplog.text:  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.05)
        await stack.enter_async_context(Proxy(database_url, proxy.port))
        await bus.publish("orders", {"n": 2})
        while await seen.get() != 2:
            pass
        worker.stop()
        await task


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("work", "write MODULE:WORKER"),
        ("nowhere:worker", "there is no module nowhere"),
        ("work:not_a_worker", "not_a_worker is no Worker; those of work are: worker, other"),
        ("work:missing", "missing is no Worker"),
    ],
)
def test_wrong_targets(folder: Path, target: str, sentence: str) -> None:
    done = fastpubsub(folder, "worker", target)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_defect_of_the_module_is_shown(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n")
    done = fastpubsub(tmp_path, "worker", "broken:worker")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'nowhere_at_all'" in done.stderr


def test_a_subscription_that_does_not_exist(server: StartServer, folder: Path) -> None:
    done = fastpubsub(folder, "worker", "work:worker", url=server().base_url)
    assert done.returncode == 1
    assert 'subscription "billing" does not exist' in done.stderr
    assert "Traceback" not in done.stderr


def fastpubsub(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = harness.environment(settings)
    command = [str(harness.COMMAND), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
