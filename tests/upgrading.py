"""From the last release to this one, under load; where its history is not there, from this one to a next one that is
made up.
"""

import asyncio
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import harness
from tests.pages import ROOT

SECONDS = 60.0
PAUSE_SECONDS = 0.01
SETTLE = {"Prefer": "return=representation"}
OLD, NEW = "old", "new"
LANDED = "1b71529e86663ff3705f3fb235c8d76059803173"
"""Before the first release: the last revision whose schema somebody may have, 0005."""


def last_release() -> str | None:
    """The tag of the last release, not of this very commit; before the first LANDED; None where neither is there."""
    tag = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^")
    return tag or git("rev-parse", "--quiet", "--verify", f"{LANDED}^{{commit}}")


def git(*arguments: str) -> str | None:
    """What it prints; None when it fails, or is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@dataclass
class Release:
    """A checkout of it, run by the Python of the tests."""

    folder: Path
    database_url: str

    @property
    def command(self) -> list[str | Path]:
        return ["env", f"PYTHONPATH={self.folder}", sys.executable, "-m", "fastpubsub.main"]

    def head(self) -> str:
        return max(file.name for file in (self.folder / "migrations/versions").glob("[0-9]*.py"))

    async def migrate(self) -> str:
        process = await asyncio.create_subprocess_exec(
            *self.command,
            "db-migrate",
            cwd=self.folder.parent,
            env=harness.environment({"database_url": self.database_url}),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        return said.decode()

    def start(self, stack: ExitStack) -> harness.Server:
        settings = {"database_url": self.database_url, "log_requests": False, "lease_expiry_interval_seconds": 0.1}
        started = harness.start_server(["server"], self.folder.parent, settings, command=self.command)
        stack.callback(started.stop)
        return started


def copy_this(folder: Path) -> None:
    for name in ("fastpubsub", "migrations"):
        shutil.copytree(ROOT / name, folder / name)  # with what is compiled
    shutil.copy(ROOT / "alembic.ini", folder)


def check_out(tag: str, folder: Path) -> None:
    folder.mkdir()
    archive = subprocess.run(["git", "archive", tag], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=folder, input=archive, check=True)


def make_up_a_next_release(folder: Path) -> None:
    """With a changed procedure, and a table that is changed under load."""
    changed = folder / "migrations/functions/publish_messages.sql"
    changed.write_text(changed.read_text() + "\ncomment on function fastpubsub.publish_messages is 'the next';\n")
    command = [sys.executable, "migrations/freeze.py", "--new", "of_the_next_release"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (up,) = (folder / "migrations/versions").glob("*_of_the_next_release.up.sql")
    with up.open("a") as file:
        file.write("\nalter table fastpubsub.messages add column of_the_next_release text default 'x';\n")


def make_releases(folder: Path, database_url: str) -> tuple[Release, Release]:
    """The last one, and this one."""
    old, new = (Release(folder / name, database_url) for name in (OLD, NEW))
    revision = last_release()
    if revision is None:
        copy_this(old.folder)
    else:
        check_out(revision, old.folder)
    copy_this(new.folder)
    if old.head() == new.head():
        make_up_a_next_release(new.folder)
    return old, new


@dataclass
class Load:
    """Publishes and consumes through any of the servers, and remembers what it was told."""

    clients: list[httpx.AsyncClient]
    published: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)
    again: set[int] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    stored_at: float = field(default_factory=time.monotonic)
    longest: float = 0.0
    """Seconds without a publish that was confirmed."""

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        with suppress(httpx.TransportError):
            answer = await self.clients[-1].request(method, path, json=body, headers=SETTLE)
            self.statuses[answer.status_code] += 1
            assert answer.status_code != 503 or "retry-after" in answer.headers
            return answer.json() if answer.is_success else None
        return None

    async def publish(self) -> None:
        number = 0
        while True:
            number += 1
            if await self.ask("POST", "/topics/t/messages", [{"n": number}]):
                self.published.add(number)
                self.longest = max(self.longest, time.monotonic() - self.stored_at)
                self.stored_at = time.monotonic()
                self.stored.set()
            await asyncio.sleep(PAUSE_SECONDS)

    async def consume(self) -> None:
        while True:
            await self.consume_once()
            await asyncio.sleep(PAUSE_SECONDS)

    async def consume_once(self) -> None:
        pulled = await self.ask("GET", "/subscriptions/busy/messages?consumer_id=c&batch_size=50")
        messages = {one["ack_id"]: one["payload"]["n"] for one in pulled["data"]} if pulled else {}
        self.again |= self.settled & set(messages.values())
        settled = await self.ask("POST", "/subscriptions/busy/acks", list(messages)) if messages else None
        self.settled |= {messages[one] for one in settled["settled"]} if settled else set()

    async def progress(self, count: int = 50) -> None:
        enough = len(self.published) + count
        async with asyncio.timeout(SECONDS):
            while len(self.published) < enough:
                self.stored.clear()
                await self.stored.wait()


async def until_readiness(client: httpx.AsyncClient, status: int, detail: str = "") -> None:
    """In between it may say that the database is down: on a busy machine the first look takes longer than it waits."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(httpx.TransportError):
                answer = await client.get("/readiness")
                if answer.status_code == status and detail in answer.text:
                    return
            await asyncio.sleep(PAUSE_SECONDS)


async def fill(client: httpx.AsyncClient) -> dict[str, Any]:
    """One message of each kind, in a subscription that the load leaves alone."""
    (await client.post("/topics", json={"id": "t"})).raise_for_status()
    for name in ("still", "busy"):
        body = {"id": name, "topic_id": "t", "ack_deadline_seconds": 3600, "backoff_min_seconds": 3600}
        body["backoff_max_seconds"] = 3600
        (await client.post("/subscriptions", json=body)).raise_for_status()
    (await client.post("/topics/t/messages", json=[{"n": -n} for n in range(5)])).raise_for_status()
    path = "/subscriptions/still"
    leased, acked, nacked, rejected = (await client.get(f"{path}/messages?consumer_id=c&batch_size=4")).json()["data"]
    (await client.post(f"{path}/acks", json=[acked["ack_id"]])).raise_for_status()
    (await client.post(f"{path}/nacks", json=[nacked["ack_id"]])).raise_for_status()
    (await client.post(f"{path}/rejects", json={"ids": [rejected["ack_id"]], "reason": "r"})).raise_for_status()
    return {"leased": leased["ack_id"], **await seen(client)}


async def seen(client: httpx.AsyncClient) -> dict[str, Any]:
    metrics = (await client.get("/subscriptions/still/metrics")).json()
    return {
        "metrics": {name: metrics[name] for name in ("delivered", "acked", "dlq")},
        "letters": (await client.get("/subscriptions/still/dlq")).json(),
        "subscriptions": (await client.get("/subscriptions")).json(),
    }


async def publish_ahead(client: httpx.AsyncClient, count: int) -> None:
    for first in range(0, count, 1000):
        messages = [{"n": -10 - number} for number in range(first, first + 1000)]
        (await client.post("/topics/t/messages", json=messages)).raise_for_status()


async def upgrade(old: Release, new: Release, ahead: int = 0) -> float:
    """Seconds without a confirmed publish, at most, while the schema was changed and servers were replaced. The
    database has `ahead` messages more. Raises AssertionError when something is lost, or comes again.
    """
    await old.migrate()
    with ExitStack() as stack:
        servers = [old.start(stack), new.start(stack)]
        of_old, of_new = (httpx.AsyncClient(base_url=one.base_url, timeout=SECONDS) for one in servers)
        async with of_old, of_new:
            await until_readiness(of_old, 200)
            await until_readiness(of_new, 503, "the schema is at revision")
            before = await fill(of_old)
            await publish_ahead(of_old, ahead)
            load = Load([of_old])
            running = [asyncio.create_task(one) for one in (load.publish(), load.consume())]
            await load.progress()
            load.longest = 0.0
            assert "the schema is at revision" in await new.migrate()
            await until_readiness(of_old, 503, "the schema is at revision")
            await until_readiness(of_new, 200)
            load.clients.append(of_new)
            await load.progress()
            held = load.longest
            servers[0].stop()
            await load.progress()
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            assert all(one.cancelled() for one in running), running
            leased = before.pop("leased")
            assert await seen(of_new) == before
            settled = await of_new.post("/subscriptions/still/acks", json=[leased], headers=SETTLE)
            assert settled.json()["settled"] == [leased]
            await everything_arrived(of_new, load)
    assert load.again == set()
    assert load.statuses.keys() <= {200, 201, 503}
    assert "Traceback" not in servers[1].output()
    assert (await new.migrate()).count(new.head()[:4]) == 2
    return held


async def everything_arrived(client: httpx.AsyncClient, load: Load) -> None:
    """What was confirmed, in the subscription that the load left alone."""
    (await client.post("/subscriptions/still/seek", json={"to": "earliest"})).raise_for_status()
    found: set[int] = set()
    while messages := (await client.get("/subscriptions/still/messages?consumer_id=c&batch_size=100")).json()["data"]:
        found |= {one["payload"]["n"] for one in messages}
    assert load.published <= found
    assert load.settled <= found
