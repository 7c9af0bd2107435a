"""The applications of the examples end at one signal, in one go, also while pages are connected."""

import os
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from websockets.sync.client import ClientConnection, connect

from fastpubsub.client import Client
from tests import harness
from tests.examples.conftest import EXAMPLES, Serve
from tests.pages import Shell

SECONDS = 60.0
SERVICE_RESTART = 1012
APPS = {"chat": "chat:app", "deferred": "deferred:app", "orders": "shop:app", "webhooks": "payments:app"}


def open_page(stack: ExitStack, bus: Client, port: int) -> ClientConnection:
    """Which follows the chat."""
    page = stack.enter_context(connect(f"ws://127.0.0.1:{port}/live"))
    bus.publish("chat", {"name": "Bob", "text": "hello"})
    page.recv(SECONDS)
    return page


def test_these_are_all() -> None:
    pages = (page.read_text() for page in EXAMPLES.glob("*/README.md"))
    assert {app for page in pages for app in re.findall(r"-m uvicorn (\S+)", page)} == set(APPS.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_them(
    number: signal.Signals, bus: Client, copied: Callable[[str], Shell], serve: Serve
) -> None:
    with ExitStack() as stack:
        programs, pages = [], []
        for folder, app in APPS.items():
            shell, port = copied(folder), harness.free_port()
            shell.environment["PUSH_SECRETS"] = f"whsec_{'A' * 32}"
            shell.environment["DATABASE_URL"] = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
            programs.append(serve(shell, app, port))
            if app == "chat:app":
                pages = [open_page(stack, bus, port) for _ in range(3)]
        for program in programs:
            os.killpg(program.process.pid, number)
        for program in programs:
            # uvicorn raises the signal again when everything is closed, and swallows a Ctrl-C.
            assert program.process.wait(SECONDS) in (0, -number)
            assert "Application shutdown complete" in program.output()
            assert not re.search("Traceback|ERROR|Cancelled", program.output()), program.output()
        for page in pages:
            page.close()
        assert [page.close_code for page in pages] == [SERVICE_RESTART] * 3
