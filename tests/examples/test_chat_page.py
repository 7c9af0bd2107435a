"""The page of the chat, in a real browser with two windows."""

import signal
from collections.abc import Callable
from statistics import median

import pytest

from fastpubsub.client import Client
from tests.chromium import Browser
from tests.examples.conftest import Serve
from tests.pages import SECONDS, Shell

HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
SHOWN = "return [...document.querySelectorAll('#messages li')].map((item) => item.lastChild.textContent.slice(2))"
CONNECTED = "return document.querySelector('#state').textContent === 'connected'"
LOST = "return document.querySelector('#state').textContent.startsWith('connection lost')"
NOW = "performance.timeOrigin + performance.now()"

WATCH = f"""
    window.seen = {{}};
    new MutationObserver((records) => {{
        for (const record of records) for (const item of record.addedNodes)
            window.seen[item.lastChild.textContent.slice(2)] = {NOW};
    }}).observe(document.querySelector('#messages'), {{childList: true}});
"""
TYPE = f"""
    document.querySelector('#name').value = arguments[0];
    document.querySelector('#text').value = arguments[1];
    document.querySelector('#form button').click();
    return {NOW};
"""


class Windows:
    """Two of them, with the chat."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.handles = [browser.window(), browser.new_window()]
        for handle in self.handles:
            browser.switch(handle)
            browser.open(url)
            browser.wait_for(CONNECTED)
            browser.run(WATCH)

    def say(self, window: int, name: str, text: str) -> float:
        """When it was sent, in milliseconds."""
        self.browser.switch(self.handles[window])
        return float(self.browser.run(TYPE, name, text))

    def seen(self, window: int, text: str) -> float:
        """When it was shown."""
        self.browser.switch(self.handles[window])
        self.browser.wait_for(f"return {text!r} in window.seen")
        return float(self.browser.run("return window.seen[arguments[0]]", text))

    def wait_for(self, script: str) -> None:
        """In both."""
        for handle in self.handles:
            self.browser.switch(handle)
            self.browser.wait_for(script)

    def shown(self) -> list[list[str]]:
        """In each, from the top."""
        shown = []
        for handle in self.handles:
            self.browser.switch(handle)
            shown.append(self.browser.run(SHOWN))
        return shown


def test_what_is_typed_in_one_window_is_in_the_other(
    browser: Browser, copied: Callable[[str], Shell], serve: Serve, port: int, record_property: Callable[..., None]
) -> None:
    chat = serve(copied("chat"), "chat:app", port)
    windows = Windows(browser, f"http://localhost:{port}")
    times = []
    for number in range(20):
        sent = windows.say(number % 2, "Alice", f"message {number}")
        times.append(windows.seen(1 - number % 2, f"message {number}") - sent)
    record_property("milliseconds", f"median {median(times):.0f}, longest {max(times):.0f}")
    print(f"from one window to the other in ms: median {median(times):.1f}, longest {max(times):.1f}")
    windows.say(0, HOSTILE[:40], HOSTILE)
    windows.wait_for(f"return document.body.innerText.includes({HOSTILE!r})")
    for shown in windows.shown():
        assert shown == [*(f"message {number}" for number in range(20)), HOSTILE]
    assert browser.run("return [window.hacked === undefined, document.querySelector('#messages img')]") == [True, None]
    origin = f"http://localhost:{port}/"
    assert [url for url in browser.loaded() if not url.startswith((origin, "data:", "chrome:"))] == []
    chat.stop()
    assert "Traceback" not in chat.output()


@pytest.mark.long
def test_a_restart_of_the_application_loses_nothing(
    browser: Browser, bus: Client, copied: Callable[[str], Shell], serve: Serve, port: int
) -> None:
    shell = copied("chat")
    chat = serve(shell, "chat:app", port)
    bus.publish("chat", *({"name": "Bob", "text": f"before {number}"} for number in range(60)))
    windows = Windows(browser, f"http://localhost:{port}")
    expected = [f"before {number}" for number in range(10, 60)]
    windows.wait_for(f"{SHOWN}.at(-1) === 'before 59'")
    assert windows.shown() == [expected, expected], "the last fifty"
    for number in (signal.SIGTERM, signal.SIGKILL):
        chat.process.send_signal(number)
        chat.process.wait(SECONDS)
        windows.wait_for(LOST)
        bus.publish("chat", *({"name": "Bob", "text": f"meanwhile {number}"} for number in range(60)))
        chat = serve(shell, "chat:app", port, cold=True)
        windows.wait_for(CONNECTED)
        windows.say(1, "Alice", "after")
        expected += [*(f"meanwhile {number}" for number in range(60)), "after"]
        windows.wait_for(f"{SHOWN}.length >= {len(expected)}")
        assert windows.shown() == [expected, expected]
