"""Signals to stop, to a process and to its group, once and again, for everything here that runs until it is told."""

import itertools
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from fastpubsub.api.processes import STOPPING
from fastpubsub.stopping import BURST_SECONDS, CUT, Orders
from tests import clusters, harness, warm
from tests.lasting import Last
from tests.pages import ROOT

SOON = 60.0
APART = 5 * BURST_SECONDS
PUBLISHES = 6
NUMBERS = (signal.SIGTERM, signal.SIGINT)
SETTINGS = {"database_lock_timeout_seconds": 30, "database_call_timeout_seconds": 30, "log_requests": False}
WORK = """
import asyncio

from fastpubsub.client import Worker

worker = Worker()


@worker.subscriber("s")
async def work(message: dict) -> None:
    print("working", flush=True)
    await asyncio.sleep(2)
    print("done", flush=True)
"""

Publishing = list[Future[int | None]]


def to_group(pid: int, number: int) -> None:
    os.killpg(pid, number)


WORKERS = {"server": 2, "a server of one worker": 1}
SENDERS = {"itself": os.kill, "its group": to_group}


def commands(url: str, port: int) -> dict[str, tuple[list[str], list[str]]]:
    """What to run instead of a warm `fastpubsub`, and arguments."""
    on_database = ["--port", str(port), "--database-url", url]
    return {
        **{what: ([], ["server"]) for what in WORKERS},
        "dev": ([], ["dev", *on_database]),
        "make run": (["make"], ["-C", str(ROOT), "-o", ".venv/.installed", "run", f"ARGS={shlex.join(on_database)}"]),
    }


@contextmanager
def started(what: str, url: str, folder: Path) -> Iterator[harness.Server]:
    port = harness.free_port()
    settings: dict[str, object] = {**SETTINGS, "api_port": port}
    settings |= {"database_url": url, "api_num_workers": WORKERS[what]} if what in WORKERS else {}
    command, arguments = commands(url, port)[what]
    server = harness.start_server(arguments, folder, settings, command=command, port=port)
    try:
        server.wait_until_ready()
        if what in WORKERS:
            until(
                lambda: len(workers_of(server)) == WORKERS[what]
            )  # the first one may be ready before the last is there
        yield server
    finally:
        end(server)


def end(server: harness.Server) -> None:
    family = (
        [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        if (server.process.poll() is None)
        else []
    )
    for process in family:
        process.kill()
    server.process.wait()


@contextmanager
def waiting_publishes(server: harness.Server, url: str) -> Iterator[tuple[psycopg.Connection, Publishing]]:
    """Publishes that wait for the database until the connection rolls back; each ends with its status, or without."""
    httpx.post(f"{server.base_url}/topics", json={"id": "t"}, timeout=SOON).raise_for_status()
    with psycopg.connect(harness.libpq(url)) as blocker, ThreadPoolExecutor(PUBLISHES) as pool:
        blocker.execute("select from fastpubsub.heads for update")
        publishing = [pool.submit(publish, server, number) for number in range(PUBLISHES)]
        until(lambda: in_progress(server) > PUBLISHES)
        yield blocker, publishing


def in_progress(server: harness.Server) -> float:
    """This request, too."""
    scraped = re.search(r"^http_requests_inprogress (.*)$", httpx.get(f"{server.base_url}/metrics").text, re.MULTILINE)
    return float(scraped[1]) if scraped else 0.0


def publish(server: harness.Server, number: int) -> int | None:
    try:
        return httpx.post(f"{server.base_url}/topics/t/messages", json=[{"n": number}], timeout=SOON).status_code
    except httpx.TransportError:
        return None


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stored(url: str) -> set[int]:
    with psycopg.connect(harness.libpq(url)) as connection:
        return {row[0]["n"] for row in connection.execute("select payload from fastpubsub.messages").fetchall()}


def is_quiet(output: str) -> bool:
    unwanted = ("Traceback", "CancelledError", "Error while closing socket", "level=ERROR", "was sent")
    return not any(text in output for text in unwanted)


@pytest.mark.parametrize(
    ("what", "to"),
    [
        *itertools.product(WORKERS, SENDERS),
        ("dev", "itself"),
        ("make run", "its group"),
    ],
)
def test_a_second_signal_changes_nothing(what: str, to: str, database_url: str, tmp_path: Path) -> None:
    with started(what, database_url, tmp_path) as server:
        with waiting_publishes(server, database_url) as (blocker, publishing):
            serving = the_one_that_serves(server)
            for number in NUMBERS:
                SENDERS[to](serving.pid if to == "itself" else server.process.pid, number)
                time.sleep(APART)
            assert not any(one.done() for one in publishing)
            blocker.rollback()
            statuses = [one.result() for one in publishing]
        until(lambda: harness.is_over(serving))
        # make itself is ended by the signals that its group gets.
        assert server.process.wait(SOON) == 0 or (what == "make run" and to == "its group")
        assert set(statuses) <= {204, 503, None}
        assert stored(database_url) >= {number for number, status in enumerate(statuses) if status == 204}
        assert not stored(database_url) & {number for number, status in enumerate(statuses) if status == 503}
        assert 204 in statuses
        assert is_quiet(server.output()), server.output()


def the_one_that_serves(server: harness.Server) -> psutil.Process:
    """Not make, nor a shell of it."""
    family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    return next((one for one in family if one.cmdline()[1:2] and one.cmdline()[1].endswith("/fastpubsub")), family[0])


@pytest.mark.parametrize("what", [*WORKERS, "dev"])
def test_a_third_signal_ends_without_an_answer(what: str, database_url: str, tmp_path: Path) -> None:
    with started(what, database_url, tmp_path) as server:
        with waiting_publishes(server, database_url) as (blocker, publishing):
            # On a busy machine two of them may arrive as one.
            for number in itertools.islice(itertools.cycle(NUMBERS), 30):
                if server.process.poll() is None:
                    to_group(server.process.pid, number)
                    time.sleep(APART)
            assert server.process.wait(SOON) == CUT
            assert [one.result() for one in publishing] == [None] * PUBLISHES
            blocker.rollback()
        assert is_quiet(server.output()), server.output()
        assert "ending at once" in server.output()


@pytest.mark.parametrize(
    ("what", "number"),
    [
        *itertools.product(WORKERS, STOPPING),
        *(("dev", number) for number in (signal.SIGQUIT, signal.SIGHUP)),
    ],
)
def test_one_signal_to_an_idle_group(what: str, number: signal.Signals, database_url: str, tmp_path: Path) -> None:
    with started(what, database_url, tmp_path) as server:
        to_group(server.process.pid, number)
        assert server.process.wait(SOON) == 0
        assert is_quiet(server.output()), server.output()


def workers_of(server: harness.Server) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


@pytest.mark.parametrize("to", SENDERS)
def test_hang_up_starts_new_workers_and_loses_nothing(to: str, database_url: str, tmp_path: Path) -> None:
    with started("server", database_url, tmp_path) as server:
        before = workers_of(server)
        with waiting_publishes(server, database_url) as (blocker, publishing):
            SENDERS[to](server.process.pid, signal.SIGHUP)
            until(lambda: len(workers_of(server) - before) == 2)
            assert not any(one.done() for one in publishing)
            blocker.rollback()
            assert [one.result() for one in publishing] == [204] * PUBLISHES
        until(lambda: not workers_of(server) & before)
        assert publish(server, PUBLISHES) == 204
        assert stored(database_url) == {*range(PUBLISHES + 1)}
        assert server.stop() == 0
        assert is_quiet(server.output()), server.output()


def test_one_worker_less_loses_nothing(database_url: str, tmp_path: Path) -> None:
    with started("server", database_url, tmp_path) as server:
        with waiting_publishes(server, database_url) as (blocker, publishing):
            os.kill(server.process.pid, signal.SIGTTOU)
            time.sleep(APART)
            assert not any(one.done() for one in publishing)
            blocker.rollback()
            assert [one.result() for one in publishing] == [204] * PUBLISHES
        until(lambda: len(workers_of(server)) == 1)
        os.kill(server.process.pid, signal.SIGTTIN)
        until(lambda: len(workers_of(server)) == 2)
        assert server.stop() == 0
        assert is_quiet(server.output()), server.output()


def test_what_is_not_finished_in_its_time_gets_no_answer(database_url: str, tmp_path: Path) -> None:
    """Nobody knows whether it will be stored, so no status would be right."""
    settings = {**SETTINGS, "database_url": database_url, "api_shutdown_grace_seconds": 1}
    server = harness.start_server(["server"], tmp_path, settings)
    try:
        server.wait_until_ready()
        with waiting_publishes(server, database_url) as (blocker, publishing):
            os.kill(server.process.pid, signal.SIGTERM)
            assert [one.result() for one in publishing] == [None] * PUBLISHES
            blocker.rollback()
        assert server.process.wait(SOON) == 0
        assert "Traceback" not in server.output()
    finally:
        end(server)


@pytest.mark.parametrize(("to", "times"), [("itself", 1), ("its group", 2), ("itself", 3)])
def test_dev_stops_its_database_and_says_where_the_data_stays(tmp_path: Path, to: str, times: int) -> None:
    clusters.fill(tmp_path / ".fastpubsub", migrated=True)
    port = harness.free_port()
    server = harness.start_server(["dev", "--port", str(port)], tmp_path, {}, port=port)
    try:
        server.wait_until_ready()
        (postgres,) = psutil.Process(server.process.pid).children()
        for _ in range(times):
            if server.process.poll() is None:
                SENDERS[to](server.process.pid, signal.SIGINT)
                time.sleep(APART)
        server.process.wait(SOON)
        assert harness.is_over(postgres)
        last = server.output().splitlines()[-1]
        assert last == f"fastpubsub: stopped; the data stays in {tmp_path / '.fastpubsub'}"
        assert is_quiet(server.output()), server.output()
    finally:
        end(server)


@pytest.mark.parametrize("to", SENDERS)
def test_a_worker_finishes_its_handlers_whatever_comes_second(to: str, tmp_path: Path, lasting_server: Last) -> None:
    (tmp_path / "work.py").write_text(WORK)
    with ExitStack() as stack:
        server = lasting_server()
        for path, body in (("/topics", {"id": "t"}), ("/subscriptions", {"id": "s", "topic_id": "t"})):
            httpx.post(server.base_url + path, json=body).raise_for_status()
        httpx.post(f"{server.base_url}/topics/t/messages", json=[{}]).raise_for_status()
        log = stack.enter_context((tmp_path / "worker.log").open("wb"))
        environment = harness.environment({"url": server.base_url})
        process = warm.Process(["worker", "work:worker"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
        stack.callback(process.kill)
        until(lambda: "working" in (tmp_path / "worker.log").read_text())
        for number in NUMBERS:
            SENDERS[to](process.pid, number)
            time.sleep(APART)
        assert process.wait(SOON) == 0
        output = (tmp_path / "worker.log").read_text()
        assert "done" in output
        assert is_quiet(output)
        metrics = httpx.get(f"{server.base_url}/subscriptions/s/metrics").json()
        assert (metrics["acked"], metrics["delivered"]) == (1, 0)


def test_signals_of_one_moment_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = Orders()

    def came(now: float) -> tuple[int, bool]:
        monkeypatch.setattr(time, "monotonic", lambda: now)
        return orders.came(), orders.hurried

    moments = {5.0: (1, False), 5.05: (1, False), 5.12: (1, False), 6.0: (2, False), 7.0: (3, True)}
    assert {now: came(now) for now in moments} == moments
