"""What the options of `fastpubsub worker` do: some subscribers, processes that are replaced, and what the log says."""

import json
import re
from pathlib import Path

import pytest

from fastpubsub.client import Client
from tests.client.test_worker_process import acked, exit_code, fastpubsub, start
from tests.lasting import Last

MODULE = """
import asyncio
import logging
import os

from fastpubsub.client import Message, Topic, Worker

worker, other = Worker(concurrency=1, prefetch_seconds=0), Worker()
orders = Topic("orders")
logger = logging.getLogger("shop")


@worker.subscriber("billing", topic=orders)
async def bill(order: dict[str, int]) -> None:
    print(f"billed by {os.getpid()}\\n", end="", flush=True)


@worker.subscriber("audit", topic=orders)
async def audit(order: dict[str, int]) -> None:
    await asyncio.sleep(0)
    logger.warning("audited %d", order["n"])


@other.subscriber("archive", topic="archive")
def archive(order: dict[str, int]) -> None:
    logger.warning("archived %d", order["n"])


@other.subscriber("batches", topic="archive")
def several(orders: list[dict[str, int]]) -> None:
    logger.warning("in a batch")


logger.warning("outside")
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(MODULE)
    return tmp_path


def test_some_subscribers(lasting_server: Last, folder: Path) -> None:
    url = lasting_server().base_url
    with Client(url) as bus, start(folder, url, "work:worker work:other --subscription audit") as worker:
        worker.wait_until(lambda: "audit" in {one.id for one in bus.list_subscriptions()})
        bus.publish("orders", {"n": 7})
        worker.wait_until(lambda: acked(bus, "audit") == 1)
        assert exit_code(worker) == 0
        assert [one.id for one in bus.list_subscriptions()] == ["audit"]
    assert "audited 7" in worker.output()


def test_a_subscriber_that_is_not_there(folder: Path) -> None:
    options = ("--subscription", "audit", "--subscription", "nowhere")
    done = fastpubsub(folder, "worker", "work:worker", "work:other", *options)
    assert done.returncode == 2
    there = "archive, audit, batches, billing"
    assert done.stderr.endswith(f"--subscription nowhere: there is no such subscriber, but: {there}\n")


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_are_replaced(lasting_server: Last, folder: Path, processes: int) -> None:
    url = lasting_server().base_url
    options = f"work:worker --subscription billing --max-messages 2 --processes {processes}"
    with Client(url) as bus, start(folder, url, options) as worker:
        worker.wait_until(lambda: "billing" in {one.id for one in bus.list_subscriptions()})
        bus.publish("orders", *({"n": n} for n in range(6)))
        worker.wait_until(lambda: acked(bus) == 6)
        assert exit_code(worker) == 0
        assert bus.metrics("billing").delivered == 0
    by = re.findall(r"billed by (\d+)", worker.output())
    assert len(by) == 6
    assert max(by.count(one) for one in by) == 2
    assert "2 messages are done: this process of the workers ends" in worker.output()


def test_the_log_says_of_which_message_a_record_is(lasting_server: Last, folder: Path) -> None:
    url = lasting_server().base_url
    with Client(url) as bus, start(folder, url, "work:worker work:other", FASTPUBSUB_LOG_STYLE="json") as worker:
        worker.wait_until(lambda: len(bus.list_subscriptions()) == 4)
        (audited,) = bus.publish("orders", {"n": 1}, attributes={"traceparent": PARENT})
        (archived,) = bus.publish("archive", {"n": 2}, attributes={"traceparent": "no trace"})
        worker.wait_until(lambda: acked(bus, "audit") + acked(bus, "archive") + acked(bus, "batches") == 3)
        assert exit_code(worker) == 0
    lines = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]
    about = {line["message"]: {name: line[name] for name in line if name.endswith("_id")} for line in lines}
    assert about["audited 1"] == {"message_id": str(audited), "subscription_id": "audit", "trace_id": TRACE}
    assert about["archived 2"] == {"message_id": str(archived), "subscription_id": "archive"}
    assert about["in a batch"] == {"subscription_id": "batches"}
    assert about["outside"] == {}


def test_a_format_may_name_the_message(lasting_server: Last, folder: Path) -> None:
    url, style = lasting_server().base_url, "%(message)s of=%(subscription_id)s/%(message_id)s trace=%(trace_id)s"
    with Client(url) as bus, start(folder, url, FASTPUBSUB_LOG_FORMATTER=style) as worker:
        worker.wait_until(lambda: len(bus.list_subscriptions()) == 2)
        (id_,) = bus.publish("orders", {"n": 1}, attributes={"traceparent": PARENT})
        worker.wait_until(lambda: acked(bus, "audit") == 1)
        assert exit_code(worker) == 0
    assert f"audited 1 of=audit/{id_} trace={TRACE}\n" in worker.output()
    assert "outside of=/ trace=\n" in worker.output()
