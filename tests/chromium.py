"""A headless Chromium, driven by the WebDriver protocol."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import harness

SECONDS = 60.0
DRIVER = shutil.which("chromedriver")
EVIL = "evil.example"
"""Leads to this machine, as a name does whose owner wants it to."""

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,2000",
    f"--host-resolver-rules=MAP {EVIL} 127.0.0.1",
]


class Browser:
    """Of the WebDriver protocol what these tests need."""

    def __init__(self, driver: str, profile: Path) -> None:
        self.http = httpx.Client(base_url=driver, timeout=60)
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        made = self.http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        self.session = f"/session/{made['sessionId']}"

    def close(self) -> None:
        self.http.delete(self.session)
        self.http.close()

    def open(self, url: str) -> None:
        self.post("/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        return self.post("/execute/sync", {"script": script, "args": arguments})

    def wait_for(self, script: str) -> Any:
        """Until the script returns something true."""
        deadline = time.monotonic() + SECONDS
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, self.run("return document.body.innerText")
            time.sleep(0.05)
        return found

    def loaded(self) -> list[str]:
        """Those that were answered, by whomever."""
        return [one["response"]["url"] for one in self._events("Network.responseReceived")]

    def challenges(self) -> list[str]:
        """What answers have asked for in WWW-Authenticate, since the last look."""
        answers = [one["headers"] for one in self._events("Network.responseReceivedExtraInfo")]
        return [value for headers in answers for name, value in headers.items() if name.lower() == "www-authenticate"]

    def _events(self, method: str) -> list[Any]:
        entries = [json.loads(entry["message"])["message"] for entry in self.post("/se/log", {"type": "performance"})]
        return [one["params"] for one in entries if one["method"] == method]

    def post(self, path: str, body: object) -> Any:
        answer = self.http.post(self.session + path, json=body).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def window(self) -> str:
        """The one that scripts run in."""
        return str(self.http.get(f"{self.session}/window").json()["value"])

    def new_window(self) -> str:
        made = self.post("/window/new", {"type": "window"})
        return str(made["handle"])

    def switch(self, window: str) -> None:
        self.post("/window", {"handle": window})

    def begin_again(self) -> None:
        """With one window, and nothing in it or noted of it."""
        first, *others = self.http.get(f"{self.session}/window/handles").json()["value"]
        for other in others:
            self.switch(other)
            self.http.delete(f"{self.session}/window")
        self.switch(first)
        self.open("about:blank")
        self.post("/se/log", {"type": "performance"})


@pytest.fixture(scope="session")
def lasting_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def browser(lasting_browser: Browser) -> Browser:
    """One for all tests of a process: sites are others by their ports."""
    lasting_browser.begin_again()
    return lasting_browser


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    port = harness.free_port()
    assert DRIVER is not None
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        assert any("started successfully" in line for line in driver.stdout)
        opened = Browser(f"http://127.0.0.1:{port}", profile)
        try:
            yield opened
        finally:
            opened.close()
    finally:
        driver.terminate()
        driver.communicate()
