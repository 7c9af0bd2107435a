"""Brokers that come as a program, in a folder of their own and without the rights of root."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.stack import HOST, START_SECONDS

NOBODY = "nobody"


def find(program: str, package: str, *folders: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", *folders])
    found = shutil.which(program, path=path)
    if found is None:
        raise BenchmarkError(f"{program} is not installed: on Debian and Ubuntu, apt-get install {package}")
    return found


class Program:
    """A broker that listens on a port of this machine."""

    def __init__(
        self, folder: Path, port: int, command: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.url = f"{HOST}:{port}"
        self.log = folder / "log"
        account = _account(folder)
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - a broker with our own arguments
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=account,
                group=account,
            )
        self._process_tree = psutil.Process(self._process.pid)
        try:
            self._wait(port)
        except BaseException:
            self.stop()
            raise

    @property
    def processes(self) -> list[psutil.Process]:
        return [self._process_tree]

    def stop(self) -> None:
        if self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(START_SECONDS)
        with suppress(ProcessLookupError):  # a script may end before what it has started
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + 2 * START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((HOST, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        end = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        raise BenchmarkError(f"{self._process.args!r} did not start, its log ends with: {' / '.join(end)}")


def version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a broker that was found
    return (done.stdout or done.stderr).strip()


def _account(folder: Path) -> int | None:
    """Whom root starts it as, and gives the folder to; user and group have the same number."""
    if os.geteuid():
        return None
    nobody = pwd.getpwnam(NOBODY).pw_uid
    os.chown(folder, nobody, nobody)
    return nobody
