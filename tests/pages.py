"""Pages of the documentation: their blocks, and a bash that runs them as a reader would.

A block in `bash` is run by a test; the block in `json`, `http` or `text` right behind it is what it must answer. Of an
`http` block the status, the headers that it shows and the body are compared. Commands that no test runs stand in `sh`.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic

import psutil

from tests import harness, warm

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SECONDS = 120.0

HEADING = re.compile(r"#+ (.+)")
FILE = re.compile(r"# (\w+\.py)\n")
"""How a block in `python` begins that a reader saves under this name."""

FENCE = re.compile(r"```(\w*)")

WITH_VARIABLES = 'set -aeo pipefail; test ! -e variables || . ./variables; . "$1"; export -p > variables'
"""Variables last from one script to the next, as in a terminal."""

GENERATED = re.compile(
    r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"|(?<=[0-9a-f]{12}\.)(?P<delivery>[0-9a-f]{16})"
    r"|(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z|(?<=\"exp\": )\d{10})"
    r"|(?P<token>eyJ[\w.-]+)"
    r"|(?P<secret>fps_[\w-]+)"
    r"|(?P<key>\b[0-9a-f]{32,64}\b)"
    r"|(?P<consumer>\b[\w.-]+:\d+:[0-9a-f]{8}\b)"
)
"""What no page can know beforehand: it shows something of the same form."""


@dataclass(frozen=True)
class Block:
    heading: str
    language: str
    text: str
    place: str


def proved(page: Path) -> list[tuple[str, str]]:
    """The rows of its tables whose last column is "proved by": the first cell, and the last."""
    found = []
    is_proving = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            is_proving = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" |")]
        if is_proving and not set(cells[-1]) <= set("-|"):
            found.append((cells[0], cells[-1]))
        is_proving = is_proving or cells[-1] == "proved by"
    return found


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in its order."""
    found = []
    heading = ""
    language: str | None = None
    text: list[str] = []
    start = 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence := FENCE.fullmatch(line):
            if language is None:
                language, text, start = fence[1], [], number
            else:
                found.append(Block(heading, language, "\n".join(text) + "\n", f"{page.name}:{start}"))
                language = None
        elif language is not None:
            text.append(line)
        elif title := HEADING.fullmatch(line):
            heading = title[1]
    assert language is None, f"{page.name}:{start} is not closed"
    return found


@dataclass
class Shell:
    """Bash in a folder of its own, with warm commands in the path. `changes` are made to every script first."""

    folder: Path
    settings: Mapping[str, object]
    changes: dict[str, str] = field(default_factory=dict)
    seconds: float = SECONDS
    """That a script may take."""

    def __post_init__(self) -> None:
        self.head = self.folder / "head"
        (self.folder / ".curlrc").write_text(f'silent\nshow-error\ndump-header = "{self.head}"\n')
        commands = self.folder / ".commands"
        commands.mkdir(exist_ok=True)
        self.inherited = warm.commands(commands)
        self.cold_path = f"{harness.COMMAND.parent}:{os.environ['PATH']}"
        self.environment = {
            **harness.environment(self.settings),
            "PATH": f"{commands}:{self.cold_path}",
            **dict.fromkeys(("CURL_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(self.folder)),
        }

    def run(self, script: str) -> str:
        """What it prints."""
        self.head.unlink(missing_ok=True)
        command = ["bash", "-c", WITH_VARIABLES, "bash", self._write(script)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            pass_fds=self.inherited,
            capture_output=True,
            text=True,
            timeout=self.seconds,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, script: str, command: str = "bash", *, cold: bool = False) -> "Background":
        """For what runs until it is stopped; `cold`, when it is to end at once by SIGKILL."""
        path = self._write(script)
        with (self.folder / f"{path}.log").open("wb") as log:
            process = subprocess.Popen(
                [command, path],
                cwd=self.folder,
                env=self.environment | ({"PATH": self.cold_path} if cold else {}),
                pass_fds=self.inherited,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Background(process, Path(log.name))

    def answer(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the last answer that curl got."""
        status, *lines = self.head.read_text().strip().split("\n\n")[-1].splitlines()
        pairs = (line.split(":", 1) for line in lines)
        return int(status.split()[1]), {name.lower(): value.strip() for name, value in pairs}

    def write(self, name: str, text: str) -> None:
        """As a reader would save it."""
        for old in sorted(self.changes, key=len, reverse=True):
            text = text.replace(old, self.changes[old])
        (self.folder / name).write_text(text, encoding="utf-8")

    def _write(self, script: str) -> str:
        name = f"script-{len(list(self.folder.glob('script-*')))}"
        self.write(name, script)
        return name


@dataclass
class Background:
    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = monotonic() + SECONDS
        while not condition():
            assert monotonic() < deadline, f"nothing of it in {SECONDS} s:\n{self.output()}"
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"ended with {self.process.wait(0.05)}:\n{self.output()}")

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        everybody = [psutil.Process(self.process.pid)]
        everybody += everybody[0].children(recursive=True)
        os.killpg(self.process.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(everybody, SECONDS)
        self.process.wait()
        assert not alive, f"did not stop within {SECONDS} s:\n{self.output()}"

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def walk(page: Path, shell: Shell) -> None:
    """Runs the `bash` blocks in order. What nothing is said about must succeed."""
    names: dict[str, str] = {}
    ran = 0
    for block, after in pairwise([*blocks(page), Block("", "", "", "")]):
        if block.language == "bash":
            run_block(block, after, shell, names)
            ran += 1
    assert ran, f"nothing on {page} runs"


def run_block(block: Block, after: Block, shell: Shell, names: dict[str, str]) -> None:
    """Runs one, and compares what it prints with the block after it."""
    shell.changes |= names
    printed, status, headers = ask(shell, block.text)
    shown = after.text if after.language in ("json", "text") else ""
    if after.language == "http":
        shown = compare_head(after, status, headers, names)
    else:
        assert status < 400, f"{block.place}: {status}\n{printed}"
    if shown:
        agree(canonical(shown), canonical(printed), names, after.place)


def ask(shell: Shell, script: str) -> tuple[str, int, dict[str, str]]:
    """What it prints, and the last answer. Readiness is asked again: a busy machine takes longer than it waits."""
    deadline = monotonic() + SECONDS
    while True:
        printed = shell.run(script)
        status, headers = shell.answer() if shell.head.exists() else (0, {})
        if "/readiness" not in script or status < 400 or monotonic() > deadline:
            return printed, status, headers


def compare_head(block: Block, status: int, headers: Mapping[str, str], names: dict[str, str]) -> str:
    """The rest of the block, which is the body."""
    head, _, body = block.text.partition("\n\n")
    first, *lines = head.splitlines()
    assert status == int(first.split()[1]), f"{block.place}: {status}"
    for name, value in (line.split(": ", 1) for line in lines):
        agree(value, headers.get(name.lower(), f"(no {name})"), names, block.place)
    return body


def canonical(text: str) -> str:
    """JSON has one form; everything else is as it is, but for space around it."""
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    except ValueError:
        return text.strip()


def agree(expected: str, actual: str, names: dict[str, str], place: str) -> None:
    """Equal but for what is generated; of that the same stands for the same, over the whole page. Times are free."""
    assert mask(actual) == mask(expected), f"{place}:\n{actual}"
    for made_up, real in zip(generated(expected), generated(actual), strict=True):
        if made_up not in names:
            assert real not in names.values(), f"{place}: {made_up} has another name above"
            names[made_up] = real
        assert names[made_up] == real, f"{place}: {made_up} is something else above"


def mask(text: str) -> str:
    return GENERATED.sub(lambda match: f"<{match.lastgroup}>", text)


def generated(text: str) -> Iterator[str]:
    return (match[0] for match in GENERATED.finditer(text) if match.lastgroup != "time")
