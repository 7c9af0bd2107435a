"""Every command of the examples' pages; those of one page in a folder with nothing but the wheel.

What serves or works until it is stopped runs in the background. What only asks is asked again until the answer is the
one that the page shows: it says "a moment later".
"""

import re
import shutil
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests import clusters, harness
from tests.examples.conftest import EXAMPLES, answers
from tests.pages import DOCS, FILE, SECONDS, Background, Block, Shell, agree, blocks, canonical, compare_head

BACKGROUND = re.compile(r"^(fastpubsub (dev|server|worker)|python -m uvicorn|python mail.py)\b", re.MULTILINE)
TUTORIAL = DOCS / "tutorial.md"
ASKS = re.compile(r"curl http://\S+\n")
NOTHING = Block("", "", "", "")
OF_THE_WHEEL = "orders"
NAMES = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())


class Reader:
    """Does what a page says."""

    def __init__(self, page: Path, shell: Shell, ports: dict[str, int]) -> None:
        self.page = page
        self.shell = shell
        self.ports = ports
        self.names: dict[str, str] = {}
        self.running: list[Background] = []

    def read(self) -> None:
        with ExitStack() as stack:
            for block, after in pairwise([*blocks(self.page), NOTHING]):
                self.shell.changes |= self.names
                if file := FILE.match(block.text):
                    self.shell.write(file[1], block.text)
                elif block.language == "bash":
                    self.do(block, after, stack)
        self.outputs = [background.output() for background in self.running]

    def do(self, block: Block, after: Block, stack: ExitStack) -> None:
        if BACKGROUND.search(block.text):
            self.running.append(stack.enter_context(self.shell.start(block.text)))
            self.wait_until_it_serves(block.text)
        elif ASKS.fullmatch(block.text):
            self.ask(block, after)
        else:
            self.run(block, after)

    def wait_until_it_serves(self, script: str) -> None:
        port = self.ports["8000" if re.search("fastpubsub (dev|server)", script) else "8001"]
        self.running[-1].wait_until(lambda: answers(port))

    def ask(self, block: Block, after: Block) -> None:
        deadline = monotonic() + SECONDS
        while monotonic() < deadline:
            with suppress(AssertionError):
                return self.run(block, after)
            sleep(0.05)
        return self.run(block, after)

    def run(self, block: Block, after: Block) -> None:
        printed = self.shell.run(block.text)
        names = dict(self.names)
        shown = after.text if after.language == "json" else ""
        if after.language == "http":
            shown = compare_head(after, *self.shell.answer(), names)
        elif self.shell.head.exists():
            assert self.shell.answer()[0] < 400, f"{block.place}:\n{printed}"
        if shown:
            agree(canonical(shown), canonical(printed), names, after.place)
        self.names = names


class Newcomer(Reader):
    """Starts the mail server when the worker has missed it, as the tutorial says."""

    def wait_until_it_serves(self, script: str) -> None:
        super().wait_until_it_serves(script)
        if "fastpubsub worker" in script:
            self.running[-1].wait_until(lambda: "ConnectionRefusedError" in self.running[-1].output())


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in NAMES if name != OF_THE_WHEEL])
def test_every_command_works(name: str, tmp_path: Path) -> None:
    went_well(reader(name, tmp_path))


@pytest.mark.long
def test_every_command_works_with_the_wheel(installed: Path, tmp_path: Path) -> None:
    of_the_wheel = reader(OF_THE_WHEEL, tmp_path)
    of_the_wheel.shell.environment["PATH"] = f"{installed}:{of_the_wheel.shell.environment['PATH']}"
    of_the_wheel.shell.environment.pop("PYTHONPATH", None)
    went_well(of_the_wheel)


def went_well(reader: Reader) -> None:
    reader.read()
    assert not [output for output in reader.outputs if "Traceback" in output]


@pytest.mark.long
def test_a_newcomer_types_the_tutorial(empty_database_url: str, installed: Path, tmp_path: Path) -> None:
    """From an empty folder, with the wheel and a database of their own."""
    ports = {number: harness.free_port() for number in ("8000", "8001", "8025")}
    shell = Shell(tmp_path, {"api_port": ports["8000"]})
    shell.environment["PATH"] = f"{installed}:{shell.environment['PATH']}"
    shell.environment.pop("PYTHONPATH", None)
    shell.changes |= {"postgresql+psycopg://postgres:secret@localhost:5432/postgres": empty_database_url}
    shell.changes |= {old: str(new) for old, new in ports.items()}
    newcomer = Newcomer(TUTORIAL, shell, ports)
    newcomer.read()
    assert newcomer.outputs[-1].count("To: ada@example.com") == 1


def reader(name: str, parent: Path) -> Reader:
    """In a copy of the example, and with a database that `fastpubsub dev` need not make first."""
    folder = parent / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "uploads"))
    ports = {"8000": harness.free_port(), "8001": harness.free_port()}
    shell = Shell(folder, {"api_port": ports["8000"], "url": f"http://127.0.0.1:{ports['8000']}"})
    shell.changes |= {f"localhost:{old}": f"localhost:{new}" for old, new in ports.items()}
    shell.changes |= {f"--port {old}": f"--port {new}" for old, new in ports.items()}
    clusters.fill(folder / ".fastpubsub", migrated=True)
    return Reader(folder / "README.md", shell, ports)


def test_each_is_listed() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [(name, name) for name in NAMES]
    assert all((EXAMPLES / name / "README.md").exists() for name in NAMES)
