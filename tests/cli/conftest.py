"""The commands as people run them: processes of their own, against one server, which is empty when a test begins."""

import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from fcntl import ioctl
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from fastpubsub.client import Client
from tests import harness, warm
from tests.lasting import Last, Lasting

SECONDS = 120.0

Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]


def until(condition: Callable[[], Any], otherwise: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"nothing of it in {SECONDS} s: {otherwise()}"
        time.sleep(0.02)


SILENCE = re.compile(r"^(still waiting for an answer to|the server has answered) .*\n", re.MULTILINE)
"""What a command says of a server that answers late, as any may on a busy machine; tests/client tests that it does."""


def without_silence(done: Done) -> Done:
    done.stderr = SILENCE.sub("", done.stderr)
    return done


def make_pipe(file: Path) -> None:
    """Instead of the file; whoever opens it without care waits forever."""
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.fixture(autouse=True)
def _own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts and tokens of the test, and not those of whoever runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server()


@pytest.fixture
def database_url(lasting: Lasting) -> str:
    """For servers of other settings beside the one that lasts."""
    return lasting.database_url


@pytest.fixture
def bus(lasting: Lasting) -> Iterator[Client]:
    """With the topic `orders` and its subscription `billing`, and nothing else."""
    with Client(lasting.base_url) as client:
        client.create_topic("orders")
        client.create_subscription("billing", "orders", backoff_min_seconds=0, backoff_max_seconds=0)
        yield client


@pytest.fixture
def cli(bus: Client, tmp_path: Path) -> Cli:
    """Runs `fastpubsub …` to its end: `cli("publish", "orders", "-", given="{}").stdout`."""

    def run(*arguments: str, given: str = "", **settings: object) -> Done:
        environment = harness.environment({"url": bus.url, **settings})
        return without_silence(warm.run(arguments, cwd=tmp_path, env=environment, given=given, timeout=SECONDS))

    return run


class Running:
    """A command that goes on, and what it has printed so far."""

    def __init__(self, folder: Path, url: str, *arguments: str, **options: Any) -> None:
        self._files = [folder / f"{len(list(folder.glob('*.out')))}.{end}" for end in ("out", "err")]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = warm.Process(
                arguments,
                cwd=folder,
                env=harness.environment({"url": url}),
                **{"stdout": out, "stderr": err, **options},
            )

    @property
    def output(self) -> str:
        return self._files[0].read_text()

    @property
    def errors(self) -> str:
        return self._files[1].read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        def holds() -> bool:
            return bool(condition()) or self.process.poll() is not None

        until(holds, lambda: f"{self.output[-2000:]}\n{self.errors}")
        assert condition(), f"it ended with {self.process.poll()}:\n{self.output[-2000:]}\n{self.errors}"

    def until_printed(self, count: int) -> list[str]:
        """So many lines, and others that are whole by now."""
        self.until(lambda: self.output.count("\n") >= count)
        return self.output.rpartition("\n")[0].splitlines()

    def end(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


Start = Callable[..., Running]


@pytest.fixture
def start(bus: Client, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def started(*arguments: str, url: str = bus.url, **options: Any) -> Running:
            running = Running(tmp_path, url, *arguments, **options)
            stack.callback(running.process.wait)
            stack.callback(running.process.kill)
            return running

        yield started


class Terminal:
    """Runs a command on a terminal of so many columns."""

    def __init__(self, url: str, folder: Path, columns: int) -> None:
        self._url = url
        self._folder = folder
        self._size = struct.pack("HHHH", 24, columns, 0, 0)

    def run(
        self,
        *arguments: str,
        typed: bytes = b"",
        cold: bool = False,
        variables: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> tuple[int, str]:
        """Its exit code, and what is to be seen then; a `cold` interpreter heeds PYTHONPATH."""
        ours, its = pty.openpty()
        ioctl(its, termios.TIOCSWINSZ, self._size)
        environment = harness.environment({"url": self._url}) | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        environment |= variables
        try:
            streams: dict[str, Any] = {"stdin": its, "stdout": its, "stderr": its, **options}
            process: warm.Process | subprocess.Popen[bytes]
            if cold:
                command = [str(harness.COMMAND), *arguments]
                process = subprocess.Popen(command, cwd=self._folder, env=environment, **streams)
            else:
                process = warm.Process(arguments, cwd=self._folder, env=environment, **streams)
        finally:
            os.close(its)
        os.write(ours, typed)
        seen = bytearray()
        with suppress(OSError):  # that is how the end of a terminal looks
            while chunk := os.read(ours, 65536):
                seen += chunk
        os.close(ours)
        return process.wait(SECONDS), seen.decode().replace("\r\n", "\n")


@pytest.fixture
def terminal(bus: Client, tmp_path: Path) -> Callable[[int], Terminal]:
    return lambda columns: Terminal(bus.url, tmp_path, columns)
