"""The orders, while their workers are killed."""

import asyncio
import os
import re
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from fastpubsub.client import AsyncClient, Client
from tests import harness
from tests.examples.conftest import Serve
from tests.lasting import Lasting
from tests.pages import Background, Shell

SECONDS = 60.0
ORDERS = 10
CENTS = 1999
STEPS = ("inventory", "payment", "email")
WORKERS = "exec fastpubsub worker shop:bus.worker"


class Shop:
    def __init__(self, shell: Shell, port: int, database_url: str) -> None:
        self.shell = shell
        self.url = f"http://127.0.0.1:{port}"
        self.database_url = database_url

    def order(self, quantity: int = 1) -> int:
        order = {"product": "teapot", "quantity": quantity, "email": "alice@example.com"}
        return int(httpx.post(f"{self.url}/orders", json=order).raise_for_status().json()["id"])

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(harness.libpq(self.database_url)) as connection:
            return connection.execute(text.encode()).fetchall()

    def statuses(self) -> Counter[str]:
        return Counter(status for (status,) in self.query("select status from orders"))


@pytest.fixture
def shop(copied: Callable[[str], Shell], serve: Serve, port: int, lasting: Lasting) -> Shop:
    shell = copied("orders")
    shell.environment["DATABASE_URL"] = lasting.database_url
    shell.run("python shop.py && python shop.py")
    serve(shell, "shop:app", port)
    return Shop(shell, port, lasting.database_url)


def kill(worker: Background) -> None:
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()


@contextmanager
def held_up(shop: Shop) -> Iterator[None]:
    """Some orders do not get through the inventory, and some are charged and not told that they are."""
    with psycopg.connect(harness.libpq(shop.database_url), autocommit=True) as connection:
        connection.execute(b"""
            create function hold_up() returns trigger language plpgsql as $$
            begin
                if (new.id % 10, new.status) in ((1, 'reserved'), (2, 'paid')) then
                    perform pg_advisory_xact_lock_shared(1);
                end if;
                return new;
            end $$;
            create trigger hold_up before update on orders for each row execute function hold_up();
            select pg_advisory_lock(1);
        """)
        yield


@pytest.mark.long
def test_a_worker_that_is_killed_loses_nothing_and_charges_nobody_twice(shop: Shop, bus: Client) -> None:
    httpx.put(f"{shop.url}/stock/teapot", params={"available": 2 * ORDERS}).raise_for_status()
    ids = [shop.order() for _ in range(ORDERS)]
    with ExitStack() as stack:
        with held_up(shop):
            first = stack.enter_context(shop.shell.start(WORKERS, cold=True))
            first.wait_until(lambda: shop.statuses() == {"done": ORDERS - 2, "placed": 1, "reserved": 1})
            first.wait_until(lambda: [in_hand(bus, step) for step in STEPS] == [1, 1, 0])
            kill(first)
        ids += [shop.order() for _ in range(ORDERS)]
        second = stack.enter_context(shop.shell.start(WORKERS, cold=True))
        second.wait_until(lambda: len(shop.query("select from orders where cents > 0")) > ORDERS)
        kill(second)
        last = stack.enter_context(shop.shell.start(WORKERS))
        last.wait_until(lambda: acked(bus) == [2 * ORDERS] * 3)
        assert shop.statuses() == {"done": 2 * ORDERS}
        for subscription in STEPS:
            bus.seek(subscription, "earliest")
        last.wait_until(lambda: acked(bus) == [4 * ORDERS] * 3)
        printed = "".join(worker.output() for worker in (first, second))
        done_last = re.findall(r"order (\d+) is on its way", last.output())
    assert sorted(shop.query("select id, cents from orders")) == [(order, CENTS) for order in ids]
    assert shop.query("select available from stock where product = 'teapot'") == [(0,)]
    done_before = {int(order) for order in re.findall(r"order (\d+) is on its way", printed)}
    assert done_before | {int(order) for order in done_last} == set(ids)
    assert len(set(done_last)) == len(done_last)
    assert "Traceback" not in printed + last.output()
    steps = ("placed", "reserved", "paid", "done")
    announced = Counter((order, step) for order in ids for step in steps)
    deadline = time.monotonic() + SECONDS
    while (found := asyncio.run(published(bus))) != announced:  # the server moves what SQL published after the commit
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    for subscription in STEPS:
        metrics = bus.metrics(subscription)
        assert (metrics.available, metrics.delivered, metrics.dlq) == (0, 0, 0)


def in_hand(bus: Client, subscription: str) -> int:
    return bus.metrics(subscription).delivered


def acked(bus: Client) -> list[int]:
    return [bus.metrics(step).acked for step in STEPS]


async def published(bus: Client) -> Counter[tuple[int, str]]:
    """How often each step of each order was announced, until now."""
    now = {"now": uuid.uuid4().hex}
    found: Counter[tuple[int, str]] = Counter()
    async with AsyncClient(bus.url) as client:
        await client.publish("orders", now)
        async for message in client.follow("orders", recent=1000):
            if message.payload == now:
                break
            if "now" not in message.payload:
                found[message.payload["id"], message.payload["status"]] += 1
    return found


def test_what_cannot_be_delivered_waits_for_somebody(shop: Shop, bus: Client) -> None:
    with shop.shell.start(WORKERS) as worker:
        refused, taken = shop.order(11), shop.order(10)
        worker.wait_until(lambda: shop.statuses() == {"placed": 1, "done": 1} and bus.metrics("inventory").dlq == 1)
        assert shop.query("select id from orders where cents > 0") == [(taken,)]
        (letter,) = bus.list_dead_letters("inventory")
        assert (letter.payload["id"], letter.reason) == (refused, "there are no 11 of teapot")
        httpx.put(f"{shop.url}/stock/teapot", params={"available": 11}).raise_for_status()
        bus.reprocess_dead_letters("inventory", letter)
        worker.wait_until(lambda: shop.statuses() == {"done": 2})
    order = httpx.get(f"{shop.url}/orders/{refused}").json()
    assert (order["id"], order["status"], order["cents"]) == (refused, "done", 11 * CENTS)


def test_hostile_orders(shop: Shop) -> None:
    for body in (
        '{"product": "\\ud800", "quantity": 1, "email": "a"}',
        '{"product": "a", "quantity": NaN, "email": "a"}',
        "[",
    ):
        headers = {"Content-Type": "application/json"}
        assert httpx.post(f"{shop.url}/orders", content=body, headers=headers).status_code == 422
    order = {"product": "teapot", "quantity": 1, "email": "a@example.com"}
    for change in (
        {"quantity": 0},
        {"quantity": 10**30},
        {"product": ""},
        {"email": "a\0b"},
        {"email": "x" * 201},
        {"product": 1},
    ):
        assert httpx.post(f"{shop.url}/orders", json=order | change).status_code == 422
    assert httpx.put(f"{shop.url}/stock/%00", params={"available": 1}).status_code == 422
    for unknown in ("0", str(2**63), "x"):
        assert httpx.get(f"{shop.url}/orders/{unknown}").status_code == 422
    assert httpx.get(f"{shop.url}/orders/7").status_code == 404
    assert shop.query("select count(*) from orders") == [(0,)]
