"""Applications of examples/, each copied into a folder of its own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fastpubsub.client import Client
from tests import harness
from tests.lasting import Last, Lasting
from tests.pages import ROOT, Background, Shell

EXAMPLES = ROOT / "examples"


@pytest.fixture
def lasting(lasting_server: Last) -> Lasting:
    return lasting_server()


@pytest.fixture
def bus(lasting: Lasting) -> Iterator[Client]:
    with Client(lasting.base_url) as client:
        yield client


@pytest.fixture
def copied(bus: Client, tmp_path: Path) -> Callable[[str], Shell]:
    """A shell in a copy of an example, which knows the bus."""

    def copy(name: str) -> Shell:
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "uploads"))
        return Shell(folder, {"url": bus.url})

    return copy


Serve = Callable[..., Background]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(shell, "chat:app", port)` as soon as it answers."""
    with ExitStack() as stack:

        def start(shell: Shell, app: str, port: int, *, cold: bool = False) -> Background:
            command = f"exec python -m uvicorn {app} --port {port}"
            started = stack.enter_context(shell.start(command, cold=cold))
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
