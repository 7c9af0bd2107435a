"""Closed loops: wrk, and what it says at the end. Every connection sends its next request when it has its answer."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

CONNECTIONS = 16
TIMEOUT_SECONDS = 10
WRK_COMES_FROM = "on Debian and Ubuntu, apt-get install wrk"
SCRIPTS = Path(__file__).parent / "lua"
RESULT = "RESULT "


@dataclass(frozen=True)
class Load:
    """What a run of wrk did."""

    requests: int
    seconds: float
    cpu_seconds: float
    latency_ms: dict[str, float]
    """By percentile, from the time of sending: a closed loop does not see what waited to be sent."""
    counts: dict[str, int]
    per_second: dict[int, int]
    """Messages settled by second of the clock."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class Wrk:
    """A run that is under way."""

    def __init__(self, address: str, script: str, seconds: float, *arguments: object) -> None:
        command = [
            find("wrk", WRK_COMES_FROM),
            "--threads=1",
            f"--connections={CONNECTIONS}",
            f"--duration={math.ceil(seconds) + 1}s",
            f"--timeout={TIMEOUT_SECONDS}s",
            f"--script={SCRIPTS / script}",
            f"http://{address}",
            "--",
            *map(str, arguments),
        ]
        # wrk knows whole seconds only; an interrupt ends a run like its duration, with the time that it took.
        self._timer = threading.Timer(seconds, self.interrupt)
        environment = {**os.environ, "BENCHMARKS_LUA": str(SCRIPTS)}
        self._process = subprocess.Popen(  # noqa: S603 - wrk with our own arguments
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self._timer.start()

    def finish(self) -> Load:
        if self._process.stdout is None:
            raise AssertionError
        with self._process.stdout as stdout:
            output = stdout.read()
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return _parse(output, usage.ru_utime + usage.ru_stime)

    def stop(self) -> None:
        """For when nobody wants the result any more."""
        self._timer.cancel()
        self._timer.join()
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def interrupt(self) -> None:
        """Ends it as its time would; the result is that of the time it took."""
        # Before wrk is ready for it, which takes a while on a busy machine, an interrupt would be its end.
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._process.returncode is None and not self._handles_interrupts() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)

    def _handles_interrupts(self) -> bool:
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return False
        (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)


def run(address: str, script: str, seconds: float, *arguments: object) -> Load:
    return finish(Wrk(address, script, seconds, *arguments))


def finish(wrk: Wrk) -> Load:
    try:
        return wrk.finish()
    finally:
        wrk.stop()


def find(program: str, how_to_install: str) -> str:
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise BenchmarkError(f"{program} is not installed: {how_to_install}")
    return found


def _parse(output: str, cpu_seconds: float) -> Load:
    lines = [line.removeprefix(RESULT) for line in output.splitlines() if line.startswith(RESULT)]
    if not lines:
        raise BenchmarkError(f"wrk ended without a result and said: {output.strip()[-500:]}")
    result = json.loads(lines[0])
    if any(result["errors"].values()):
        raise BenchmarkError(f"requests failed, so these figures mean nothing: {result['errors']}")
    return Load(
        requests=result["requests"],
        seconds=result["microseconds"] / 1e6,
        cpu_seconds=cpu_seconds,
        latency_ms={name: value / 1000 for name, value in result["latency"].items()},
        counts=result["counts"],
        per_second={int(second): messages for second, messages in result["seconds"].items()},
    )
