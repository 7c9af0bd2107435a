"""The pages in a real browser, which reports every request that it makes."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import harness
from tests.conftest import Run, StartServer

SECONDS = 30.0
DRIVER = shutil.which("chromedriver")
KEY = "k" * 32
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
        entries = [json.loads(entry["message"])["message"] for entry in self.post("/se/log", {"type": "performance"})]
        return [one["params"]["response"]["url"] for one in entries if one["method"] == "Network.responseReceived"]

    def post(self, path: str, body: object) -> Any:
        answer = self.http.post(self.session + path, json=body).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    port = harness.free_port()
    assert DRIVER is not None
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        assert any("started successfully" in line for line in driver.stdout)
        opened = Browser(f"http://127.0.0.1:{port}", tmp_path / "profile")
        try:
            yield opened
        finally:
            opened.close()
    finally:
        driver.terminate()
        driver.communicate()


@pytest.mark.parametrize(
    ("path", "rendered"),
    [
        ("/docs", "return document.querySelectorAll('.opblock').length > 10"),
        ("/redoc", "return document.querySelectorAll('[data-section-id]').length > 10"),
    ],
)
def test_a_page_renders_and_loads_nothing_from_elsewhere(
    browser: Browser, server: StartServer, path: str, rendered: str
) -> None:
    base_url = server().base_url
    browser.open(base_url + path)
    browser.wait_for(rendered)
    loaded = browser.loaded()
    assert f"{base_url}/openapi.json" in loaded
    assert [url for url in loaded if not url.startswith((f"{base_url}/", "data:", "blob:", "chrome:"))] == []


def test_authorize_with_client_id_and_secret(browser: Browser, server: StartServer, run: Run) -> None:
    made = run("create_client", "browser", "topics:read", auth_enabled=True, auth_secret_key=KEY)
    credentials = dict(re.findall(r"^(client_\w+)=(.*)$", made.stdout, re.MULTILINE))
    base_url = server(auth_enabled=True, auth_secret_key=KEY).base_url
    browser.open(f"{base_url}/docs")
    browser.wait_for("return document.querySelector('button.authorize')")
    browser.run("document.querySelector('button.authorize').click()")
    browser.wait_for("return document.querySelector('#client_secret_clientCredentials, .auth-container input')")
    fill = """
        const inputs = '.auth-container input[type=text], .auth-container input[type=password]';
        const [id, secret] = document.querySelectorAll(inputs);
        const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
        for (const [input, value] of [[id, arguments[0]], [secret, arguments[1]]]) {
            set.call(input, value);
            input.dispatchEvent(new Event('input', {bubbles: true}));
        }
        document.querySelector('.auth-btn-wrapper button.authorize').click();
    """
    browser.run(fill, credentials["client_id"], credentials["client_secret"])
    browser.wait_for("return document.body.innerText.includes('Logout')")
    browser.run("document.querySelector('.btn-done').click()")
    browser.run("document.querySelector('[id$=get_topics] button, [id*=list_topics] .opblock-summary-control').click()")
    browser.wait_for("return document.querySelector('button.execute')")
    browser.run("document.querySelector('button.execute').click()")
    status = browser.wait_for(
        "const cell = document.querySelector('.live-responses-table tbody .response-col_status');"
        "return cell && cell.innerText"
    )
    assert status.startswith("200")
