"""What the recipes tell to type works as it stands: their commands, their SQL, and their workers."""

import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import psycopg
import pytest

from fastpubsub.client import Client
from tests.harness import libpq
from tests.lasting import Last
from tests.pages import DOCS, FILE, Block, Shell, blocks, run_block

RECIPES = DOCS / "recipes"
RECIPE = RECIPES / "idempotent-consumer.md"
DATABASE = "postgresql+psycopg://shop:secret@localhost/shop"
TYPED = ("bash", "sql")
SUBSCRIPTIONS = {"charge", "stock", "bookkeeping", "resize", "ledger-of-workers"}


@pytest.fixture
def bus(lasting_server: Last) -> Iterator[Client]:
    with Client(lasting_server().base_url) as client:
        yield client


@pytest.fixture
def shell(lasting_server: Last, bus: Client, tmp_path: Path) -> Shell:
    """A folder with the files of the page about idempotent consumers, and a server on the port that the pages name."""
    address = httpx.URL(bus.url)
    changes = {"localhost:8000": address.netloc.decode(), DATABASE: lasting_server().database_url}
    shell = Shell(tmp_path, {"url": bus.url}, changes)
    for page in RECIPES.glob("*.md"):
        for block in blocks(page):
            if named := FILE.match(block.text):
                shell.write(named[1], block.text)
    return shell


@pytest.mark.parametrize("page", sorted(RECIPES.glob("*.md")), ids=lambda page: page.stem)
def test_what_is_typed(page: Path, shell: Shell, lasting_server: Last) -> None:
    names: dict[str, str] = {}
    with psycopg.connect(libpq(lasting_server().database_url), autocommit=True) as connection:
        for block, after in pairwise([*blocks(page), Block("", "", "", "")]):
            if block.language == "sql":
                connection.execute(block.text.encode())
            elif block.language == "bash":
                run_block(block, after, shell, names)
    assert any(block.language in (*TYPED, "python") for block in blocks(page)) or page.stem == "index"


def test_every_recipe_is_listed() -> None:
    text = (RECIPES / "index.md").read_text()
    assert all(f"({page.name})" in text for page in RECIPES.glob("*.md") if page.stem != "index")


@pytest.mark.long
def test_a_message_that_comes_twice_changes_nothing_twice(shell: Shell, bus: Client, lasting_server: Last) -> None:
    with psycopg.connect(libpq(lasting_server().database_url), autocommit=True) as connection:
        connection.execute("create table if not exists public.stock (product text primary key, available int)")
        connection.execute("truncate public.stock")
        connection.execute("insert into public.stock values ('teapot', 10)")
        workers = ("charging:worker", "stock:worker", "bookkeeping:worker", "resizing:worker", "ledger:worker")
        with shell.start(f"exec fastpubsub worker {' '.join(workers)}") as worker:
            worker.wait_until(lambda: {one.id for one in bus.list_subscriptions()} >= SUBSCRIPTIONS)
            bus.publish("charges", {"account": "a", "cents": 5})
            bus.publish("stock-sales", {"product": "teapot"})
            bus.publish("payments", {"cents": 7})
            bus.publish("resizes", {"image_id": 7, "width": 40})
            bus.publish("accounts", {"event": "opened"}, ordering_key="alice")
            worker.wait_until(lambda: {bus.metrics(one).acked for one in SUBSCRIPTIONS} == {1})
            bus.seek("bookkeeping", to="earliest")
            worker.wait_until(lambda: bus.metrics("bookkeeping").acked == 2)
        assert connection.execute("select available from public.stock").fetchall() == [(9,)]
        connection.execute("drop table public.stock")
    assert "Idempotency-Key:" in worker.output()
    assert "resizing 7 to 40" in worker.output()
    assert "alice opened" in worker.output()
    with sqlite3.connect(shell.folder / "books.db") as books:
        assert books.execute("select cents from entries").fetchall() == [(7,)]
