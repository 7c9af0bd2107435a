"""The examples of the pages about the client: each block runs as a reader would run it.

A `python` block that begins with `# name.py` is that file; every other one is a program of its own. `text` right behind
a program is what it prints.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from fastpubsub.client import Client
from fastpubsub.push.signing import new_secret
from tests import harness
from tests.lasting import Last
from tests.pages import DOCS, FILE, Block, Shell, agree, blocks, canonical

LOOKS = """
import bills, transactions
from fastapi.testclient import TestClient
from fastpubsub.testing import InMemoryBus
from pages import app, bus

memory = InMemoryBus()
memory.subscription("counting", topic_id="views")
with bus.override(memory.transport), TestClient(app) as client:
    assert client.get("/pages/a").json() == {"page": "a"}
print(memory.published("views"))
"""


@pytest.fixture
def shell(lasting_server: Last, tmp_path: Path) -> Shell:
    url = lasting_server().base_url
    return Shell(tmp_path, {"url": url}, {"http://localhost:8000": url})


@pytest.fixture
def bus(shell: Shell) -> Iterator[Client]:
    with Client(shell.environment["FASTPUBSUB_URL"]) as client:
        yield client


def save(shell: Shell, page: str) -> list[str]:
    """The files of a page."""
    names = []
    for block in blocks(DOCS / page):
        if named := FILE.match(block.text):
            text = block.text
            for old, new in shell.changes.items():
                text = text.replace(old, new)
            (shell.folder / named[1]).write_text(text)
            names.append(named[1])
    return names


def run_tests(folder: Path, file: str = ".") -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", file]
    command[3:3] = ["-p", "asyncio"]
    # Our own plugins would take longer to load than everything else.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def walk(page: str, shell: Shell) -> None:
    save(shell, page)
    ran = 0
    for block, after in pairwise([*blocks(DOCS / page), Block("", "", "", "")]):
        if block.language != "python" or FILE.match(block.text):
            continue
        printed = shell.run(f"python - <<'PYTHON'\n{block.text}PYTHON\n")
        agree(canonical(after.text if after.language == "text" else ""), canonical(printed), {}, block.place)
        ran += 1
    assert ran, f"nothing on {page} runs"


@pytest.mark.long
def test_client(shell: Shell) -> None:
    walk("client.md", shell)


def test_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path, {})
    assert {*save(shell, "push.md"), *save(shell, "workers.md")} >= {"hook.py", "test_hook.py", "conftest.py"}
    monkeypatch.setenv("PUSH_SECRETS", new_secret())
    run_tests(tmp_path, "test_hook.py")


def test_workers(shell: Shell, bus: Client) -> None:
    for name in ("email-sender", "payments", "reports", "jobs"):
        bus.create_topic(name)
        bus.create_subscription(name, name)
    walk("workers.md", shell)
    bus.publish("email-sender", {"email": "user@example.com"}, {"name": "without address"})
    accounts = {"account": "a", "amount": 20}, {"account": "a", "amount": 0}, {"account": "closed", "amount": 1}
    bus.publish("payments", *accounts)
    bus.publish("reports", {"pages": 3})
    with shell.start(
        "exec fastpubsub worker emails:worker payments:worker reports:worker returns:worker measured:worker"
    ) as worker:
        worker.wait_until(lambda: states(bus, "email-sender") == (0, 1, 1))
        worker.wait_until(lambda: states(bus, "payments") == (1, 1, 1))
        worker.wait_until(lambda: states(bus, "reports") == (0, 1, 0))
        worker.wait_until(lambda: {"shipping", "returns", "refunds"} <= {one.id for one in bus.list_subscriptions()})
        bus.publish("parcels", {"country": "BR"}, {"country": "US", "returned": True})
        worker.wait_until(lambda: (states(bus, "shipping"), states(bus, "returns")) == ((0, 1, 0), (0, 1, 0)))
        bus.publish("refunds", {"amount": 5})
        worker.wait_until(lambda: states(bus, "refunds") == (0, 1, 0))
        worker.stop()
    printed = set(worker.output().splitlines())
    assert printed >= {"sending to user@example.com", "paid 20.0 to a", "report of 3 pages"}
    assert printed >= {"shipping to BR", "taking back from US"}
    assert printed >= {"attempt 1 commits ['refund of 5']", "it took a moment"}
    (letter,) = bus.list_dead_letters("email-sender")
    assert letter.reason == "the payload does not match Notification: email: Field required"
    started = "a worker starts: subscription_id=email-sender concurrency=10 subscription= message=\n"
    with shell.start("exec python logged.py") as program:
        program.wait_until(lambda: started in program.output())


def test_lines_of_code() -> None:
    (by_hand,) = (one for one in blocks(DOCS / "examples.md") if one.heading.startswith("Example 10"))
    worker = next(one for one in blocks(DOCS / "workers.md") if one.language == "python")
    said = re.search(
        r"in (\d+) lines of code; the worker \[below\]\(#a-worker\) has (\d+)",
        " ".join((DOCS / "workers.md").read_text().split()),
    )
    assert said is not None
    assert [lines_of_code(by_hand.text), lines_of_code(worker.text)] == [int(said[1]), int(said[2])]


def lines_of_code(text: str) -> int:
    """Without comments, docstrings and empty lines."""
    without = re.sub(r'"""(?s:.*?)"""', "", text)
    return sum(1 for line in without.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def test_the_test_of_a_worker(tmp_path: Path) -> None:
    save(Shell(tmp_path, {}), "workers.md")
    run_tests(tmp_path)


def test_fastapi(shell: Shell, bus: Client) -> None:
    bus.create_topic("orders")
    bus.create_subscription("billing", "orders")
    files = save(shell, "fastapi.md")
    port = harness.free_port()
    with shell.start(f"exec python -m uvicorn shop:app --port {port}") as shop, httpx.Client() as http:
        shop.wait_until(lambda: answers(http, f"http://127.0.0.1:{port}/backlog"))
        order = {"order_id": 7, "total": 20}
        created = http.post(f"http://127.0.0.1:{port}/orders", json=order)
        assert created.status_code == 202, created.text
        assert http.get(f"http://127.0.0.1:{port}/ready").status_code == 200
        shop.wait_until(lambda: states(bus, "billing") == (0, 1, 0))
        shop.stop()
    assert "billed 7" in shop.output().splitlines()
    assert files == ["shop.py", "pages.py", "transactions.py", "bills.py", "test_shop.py"]
    assert shell.run(f"python - <<'PYTHON'\n{LOOKS}PYTHON\n") == "[{'page': 'a'}]\n"


def test_the_test_of_an_application(shell: Shell) -> None:
    save(shell, "fastapi.md")
    run_tests(shell.folder)


def answers(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(url).is_success
    except httpx.TransportError:
        return False


def states(bus: Client, subscription: str) -> tuple[int, int, int]:
    """Waiting, done, dead."""
    metrics = bus.metrics(subscription)
    return metrics.available, metrics.acked, metrics.dlq
