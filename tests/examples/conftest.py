"""Applications of examples/, each copied into a folder of its own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fastpubsub.client import Client
from tests import harness
from tests.conftest import StartServer
from tests.pages import ROOT, Background, Shell

EXAMPLES = ROOT / "examples"


@pytest.fixture
def bus(server: StartServer) -> Iterator[Client]:
    with Client(server().base_url) as client:
        yield client


@pytest.fixture
def copied(bus: Client, tmp_path: Path) -> Callable[[str], Shell]:
    """A shell in a copy of an example, which knows the bus."""

    def copy(name: str) -> Shell:
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "uploads"))
        return Shell(folder, {"url": bus.url})

    return copy


Serve = Callable[[Shell, str, int], Background]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(shell, "chat:app", port)` as soon as it answers."""
    with ExitStack() as stack:

        def start(shell: Shell, app: str, port: int) -> Background:
            started = stack.enter_context(shell.start(f"exec python -m uvicorn {app} --port {port}"))
            started.wait_until(lambda: answers(port))
            return started

        yield start


def answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.TransportError:
        return False
    return True


@pytest.fixture
def port() -> int:
    return harness.free_port()
