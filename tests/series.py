"""Commands one after the other, and what became of each at the end."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def arguments() -> tuple[list[str], list[str]]:
    """Of this program: what stands before `--`, and what behind it."""
    separator = sys.argv.index("--")
    return sys.argv[1:separator], sys.argv[separator + 1 :]


def run(steps: Iterable[Step]) -> int:
    """The worst exit code."""
    results = [(step, *_run(step)) for step in steps]
    print()
    for step, code, summary in results:
        print(f"{step.name}: exit code {code}\n{summary}")
    return max(code for _, code, _ in results)


def _run(step: Step) -> tuple[int, str]:
    """The exit code, and the last line that it printed."""
    print(f"\n{step.name}", flush=True)
    environment = {**os.environ, **step.environment}
    with subprocess.Popen(step.command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        last = ""
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.rstrip() or last
    return process.returncode, last
