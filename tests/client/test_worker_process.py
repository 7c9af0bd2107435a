"""`fastpubsub worker` as people run it, through signals and servers that die."""

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastpubsub.client import AsyncClient, Client, Worker, pulling
from fastpubsub.client.worker import run_until_signal
from fastpubsub.stopping import BURST_SECONDS
from tests import harness, warm
from tests.client.conftest import QUICK
from tests.conftest import StartServer
from tests.lasting import Last
from tests.pages import Background, Shell
from tests.proxy import Proxy

# Several processes share one file: each line is one piece, because print writes its pieces one by one when unbuffered.
MODULE = """
import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel

from fastpubsub.client import Policy, Worker, consumer, pulling

consumer.CANCEL_SECONDS = 0.1
pulling.AGAIN = Policy(max_backoff=0.5)
here = Worker(concurrency=1, prefetch_seconds=0)
worker = Worker(concurrency=5, grace_seconds=float(os.environ.get("GRACE", "30")))
other = Worker()
idle = Worker()
misconfigured = Worker(client_id="without a secret")
not_a_worker = 1


class Order(BaseModel):
    order_id: int


@worker.subscriber("billing")
async def bill(order: Order) -> None:
    if order.order_id < 0:
        print("waiting\\n", end="", flush=True)
        await asyncio.sleep(-order.order_id)
    print(f"billed {order.order_id}\\n", end="", flush=True)


@here.subscriber("billing")
def compute(order: Order) -> None:
    print(f"computed by {os.getpid()}\\n", end="", flush=True)
    while not Path("go").exists():
        time.sleep(0.02)


@misconfigured.subscriber("billing")
async def never(order: Order) -> None: ...


@other.subscriber("audit")
def audit(order: Order) -> None:
    print(f"audited {order.order_id}\\n", end="", flush=True)
    if order.order_id < 0:
        time.sleep(-order.order_id)
"""


async def test_what_was_loaded_is_no_work_for_the_garbage_collector() -> None:
    kept: list[int] = []

    class Looking(Worker):
        async def serve(self, client: AsyncClient | None = None) -> None:
            kept.append(gc.get_freeze_count())

    gc.unfreeze()
    try:
        await run_until_signal([Looking()])
    finally:
        gc.unfreeze()
    assert kept[0] > len(sys.modules)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(MODULE)
    return tmp_path


def bus_of(url: str, ack_deadline: int = 60) -> Client:
    bus = Client(url)
    bus.create_topic("orders")
    for subscription in ("billing", "audit"):
        bus.create_subscription(
            subscription,
            "orders",
            ack_deadline_seconds=ack_deadline,
            backoff_min_seconds=0,
            backoff_max_seconds=0,
            max_delivery_attempts=1000,
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
def test_several_workers_until_a_signal(lasting_server: Last, folder: Path, number: signal.Signals) -> None:
    with bus_of(lasting_server().base_url) as bus:
        bus.publish("orders", {"order_id": 7})
        with start(folder, bus.url, "work:worker work:other --concurrency 2") as worker:
            worker.wait_until(lambda: acked(bus) == acked(bus, "audit") == 1)
            assert exit_code(worker, number) == 0
        assert {"billed 7", "audited 7"} <= set(worker.output().splitlines())
        assert worker.output().count("concurrency=2") == 2


def computed_by(worker: Background) -> set[int]:
    return {int(line.split()[2]) for line in worker.output().splitlines() if line.startswith("computed by")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_several_processes_until_a_signal(lasting_server: Last, folder: Path, number: signal.Signals) -> None:
    with bus_of(lasting_server().base_url) as bus:
        bus.publish("orders", *[{"order_id": 1}] * 3)
        with start(folder, bus.url, "work:here --processes 3") as worker:
            worker.wait_until(lambda: len(computed_by(worker)) == 3)
            worker.process.send_signal(number)
            (folder / "go").touch()
            assert worker.process.wait(60) == 0
        assert acked(bus) == 3
        assert worker.output().count("a worker has stopped") == 3


def test_a_process_that_is_killed_is_started_again(lasting_server: Last, folder: Path) -> None:
    with bus_of(lasting_server().base_url, ack_deadline=1) as bus:
        bus.publish("orders", *[{"order_id": 1}] * 2)
        with start(folder, bus.url, "work:here --processes 2") as worker:
            worker.wait_until(lambda: len(computed_by(worker)) == 2)
            os.kill(min(computed_by(worker)), signal.SIGKILL)
            worker.wait_until(lambda: worker.output().count("a worker starts") == 3)
            (folder / "go").touch()
            worker.wait_until(lambda: acked(bus) == 2)
            assert exit_code(worker) == 0
        assert "a process of the workers was killed by SIGKILL and is started again: process=" in worker.output()


def test_processes_do_not_outlive_their_parent(lasting_server: Last, folder: Path) -> None:
    """The installed command, because what starts the others here would be killed with its group."""
    command = [str(Path(sys.executable).with_name("fastpubsub")), "worker", "work:here", "--processes", "2"]
    with bus_of(lasting_server().base_url) as bus, (folder / "log").open("w+") as log:
        environment = os.environ | {"FASTPUBSUB_URL": bus.url}
        parent = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

        def said(sentence: str) -> bool:
            return (folder / "log").read_text().count(sentence) == 2

        for sentence, after in (("a worker starts", parent.kill), ("a worker has stopped", parent.wait)):
            deadline = time.monotonic() + 60
            while not said(sentence):
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            after()


def test_processes_that_fail_end_the_command(lasting_server: Last, folder: Path) -> None:
    with Client(lasting_server().base_url) as bus, start(folder, bus.url, "work:here --processes 2") as worker:
        assert worker.process.wait(60) == 1
        assert 'subscription "billing" does not exist' in worker.output()
        assert "a process of the workers has failed, so the others stop: process=" in worker.output()


def test_processes_that_cannot_be_loaded(folder: Path) -> None:
    with start(folder, "http://127.0.0.1:9", "work:nothing --processes 3") as worker:
        assert worker.process.wait(60) == 2
        assert "work:nothing: nothing is not a Worker" in worker.output()


@pytest.mark.parametrize("number", [1, 2])
def test_a_signal_reaches_a_process_that_still_loads(folder: Path, number: int) -> None:
    """The first one, for which the others wait, or one after it."""
    (folder / "slow.py").write_text(f"""
import os, time
from pathlib import Path
from work import worker
if len(list(Path().glob("loads-*"))) == {number - 1}:
    print("it loads", flush=True)
    time.sleep(600)
Path(f"loads-{{os.getpid()}}").touch()
""")
    with start(folder, "http://127.0.0.1:9", "slow:worker --processes 2") as worker:
        worker.wait_until(lambda: "it loads" in worker.output())
        assert exit_code(worker) == 0


def asked(port: int, path: str) -> tuple[int, str]:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}{path}")
    except httpx.TransportError as error:
        return 0, str(error)
    return answer.status_code, answer.text


def test_probes_and_figures(server: StartServer, folder: Path) -> None:
    running, port = server(), harness.free_port()
    with bus_of(running.base_url) as bus:
        bus.publish("orders", {"order_id": 7}, {"wrong": 1})
        with start(folder, bus.url, f"work:worker --health-port {port} --log-level warning") as worker:
            worker.wait_until(lambda: asked(port, "/ready") == (200, "ready\n"))
            assert asked(port, "/live") == (200, "alive\n")
            expected = {
                'fastpubsub_worker_messages_total{subscription="billing",outcome="ack"} 1',
                'fastpubsub_worker_messages_total{subscription="billing",outcome="reject"} 1',
                'fastpubsub_worker_handler_seconds_count{subscription="billing"} 2',
                'fastpubsub_worker_messages_in_flight{subscription="billing"} 0',
            }
            worker.wait_until(lambda: expected <= set(asked(port, "/metrics")[1].splitlines()))
            status, figures = asked(port, "/metrics")
            assert status == 200
            assert [family.name for family in text_string_to_metric_families(figures)] == [
                "fastpubsub_worker_messages",
                "fastpubsub_worker_handler_seconds",
                "fastpubsub_worker_messages_in_flight",
            ]
            assert asked(port, "/other")[0] == 404
            assert httpx.post(f"http://127.0.0.1:{port}/live").status_code == 405
            running.kill()
            worker.wait_until(lambda: asked(port, "/ready")[0] == 503)
            assert asked(port, "/live")[0] == 200
            assert exit_code(worker) == 0
        assert "a worker starts" not in worker.output()


def test_each_process_has_a_health_port(lasting_server: Last, folder: Path) -> None:
    port = harness.free_port()
    while (other := harness.free_port()) != port + 1:
        port = other
    arguments = f"work:worker --processes 2 --health-port {port}"
    with bus_of(lasting_server().base_url) as bus, start(folder, bus.url, arguments) as worker:
        worker.wait_until(lambda: [asked(port + n, "/ready")[0] for n in range(2)] == [200, 200])
        assert exit_code(worker) == 0


def test_a_health_port_that_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(folder, "http://127.0.0.1:9", f"work:worker --health-port {port}") as worker:
            assert worker.process.wait(60) == 2
            assert f"--health-port: cannot listen on 127.0.0.1:{port}" in worker.output()


def test_changed_files_are_loaded(lasting_server: Last, folder: Path) -> None:
    with bus_of(lasting_server().base_url) as bus:
        with start(folder, bus.url, "work:worker --reload") as worker:
            worker.wait_until(lambda: worker.output().count("a worker starts") == 1)
            save(folder, "a defect")
            worker.wait_until(lambda: "SyntaxError" in worker.output())
            save(folder, MODULE.replace("billed", "charged"))
            worker.wait_until(lambda: worker.output().count("a worker starts") == 2)
            bus.publish("orders", {"order_id": 7})
            worker.wait_until(lambda: acked(bus) == 1)
            assert exit_code(worker) == 0
        assert worker.output().count("work.py has changed: the workers start again") == 2
        assert "charged 7" in worker.output().splitlines()


def save(folder: Path, module: str) -> None:
    """At once: a file that is seen while it is written is seen to change twice."""
    (folder / "new").write_text(module)
    (folder / "new").replace(folder / "work.py")


def test_handlers_finish_before_it_ends(lasting_server: Last, folder: Path) -> None:
    with bus_of(lasting_server().base_url) as bus:
        bus.publish("orders", {"order_id": -1})
        with start(folder, bus.url) as worker:
            worker.wait_until(lambda: "waiting" in worker.output())
            assert exit_code(worker) == 0
        assert "billed -1" in worker.output()
        assert acked(bus) == 1


@pytest.mark.parametrize("arguments", ["work:worker", "work:other"])
def test_handlers_that_do_not_finish_are_left(lasting_server: Last, folder: Path, arguments: str) -> None:
    with bus_of(lasting_server().base_url) as bus:
        bus.publish("orders", {"order_id": -600})
        with start(folder, bus.url, arguments, GRACE="600") as worker:
            worker.wait_until(lambda: "waiting" in worker.output() or "audited" in worker.output())
            for _ in range(2):
                worker.process.send_signal(signal.SIGINT)
                time.sleep(3 * BURST_SECONDS)
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
        ("work:not_a_worker", "not_a_worker is not a Worker; work has: here, worker, other, idle, misconfigured"),
        ("work:idle", "idle has no subscribers"),
        ("work:missing", "missing is not a Worker"),
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


def test_a_subscription_that_does_not_exist(lasting_server: Last, folder: Path) -> None:
    done = fastpubsub(folder, "worker", "work:worker", url=lasting_server().base_url)
    assert done.returncode == 1
    assert 'subscription "billing" does not exist' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("work:other", 'subscription "audit" does not exist'),
        ("work:misconfigured", "a client id and its secret go together"),
        ("work:idle", "idle has no subscribers"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_one_of_two_is_wrong(lasting_server: Last, folder: Path, wrong: str, sentence: str, first: bool) -> None:
    with bus_of(lasting_server().base_url) as bus:
        bus.delete_subscription("audit")
        targets = [wrong, "work:worker"] if first else ["work:worker", wrong]
        done = fastpubsub(folder, "worker", *targets, url=bus.url)
    assert done.returncode == (1 if wrong == "work:other" else 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_is_named_twice_runs_once(lasting_server: Last, folder: Path) -> None:
    with bus_of(lasting_server().base_url) as bus:
        bus.publish("orders", {"order_id": 7})
        with start(folder, bus.url, "work:worker work:worker") as worker:
            worker.wait_until(lambda: acked(bus) == 1)
            assert exit_code(worker) == 0
        assert worker.output().count("a worker starts") == 1


def fastpubsub(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return warm.run(arguments, cwd=folder, env=harness.environment(settings))
