"""The push of a subscription in the console: against a service that fails, and works again."""

from collections.abc import Iterator

import httpx
import pytest

from tests.browser.pilot import Pilot
from tests.browser.test_console import EVIL, SHOWN
from tests.chromium import Browser
from tests.cli.test_listen import Hook, serving
from tests.lasting import Last

SETTINGS = {
    "push_secret_key": "k" * 32,
    "push_allow_http": True,
    "push_allow_networks": "127.0.0.0/8,::1/128",
    "push_allow_ports": "*",
}


TESTED = "document.querySelector('[aria-label=Test] [role=status]')"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as started:
        yield started


@pytest.fixture
def pilot(browser: Browser, lasting_server: Last, hook: Hook) -> Iterator[Pilot]:
    pilot = Pilot(browser, lasting_server(**SETTINGS).base_url)
    push = {"endpoint": hook.url, "headers": {"X-Key": "very secret"}, "reject_on": [400]}
    with httpx.Client(base_url=pilot.base_url) as http:
        http.post("/topics", json={"id": "orders"}).raise_for_status()
        body = {"id": "hooks", "topic_id": "orders", "backoff_min_seconds": 0, "push": push}
        http.post("/subscriptions", json=body).raise_for_status()
    yield pilot
    assert pilot.complaints() == []
    assert browser.run("return window.pwned") is None
    pilot.cdp("Emulation.clearDeviceMetricsOverride")
    pilot.cdp("Emulation.setEmulatedMedia", features=[])


def publish(pilot: Pilot, number: int) -> None:
    httpx.post(f"{pilot.base_url}/topics/orders/messages", json=[{"n": number}]).raise_for_status()


def test_what_became_of_pushes_and_requests_by_hand(pilot: Pilot, hook: Hook) -> None:
    hook.answer = lambda _: (400, {}, EVIL.encode())
    pilot.open("#/subscriptions/hooks?tab=push")
    pilot.sees(hook.url, "X-Key", "Nothing was pushed lately", "closed")
    publish(pilot, 1)
    pilot.sees("reject", "400", "window.pwned=1")
    assert pilot.browser.run(SHOWN)
    assert "very secret" not in pilot.text()
    hook.answer = lambda _: (200, {}, b"booked")
    pilot.press("Send again")
    pilot.sees("The endpoint answered 200 after", "booked")
    pilot.fill("Payload", '{"total": 1.10}')
    pilot.press("Send a test")
    pilot.browser.wait_for(f"return {TESTED}?.innerText.includes('booked')")
    first, again, test = (one.body for one in hook.received)
    assert (first, again, test) == (b'{"n":1}', b'{"n":1}', b'{"total": 1.10}')
    pilot.press("Rotate secret")
    pilot.press("Rotate secret", "dialog button")
    pilot.sees("This is the only time that the secret is shown.", "whsec_", "Two secrets until")
    pilot.press("seek", "main a")
    pilot.sees("What comes next", "The oldest message that is kept")


def test_a_breaker_that_opens(pilot: Pilot, hook: Hook) -> None:
    """And everything on the page is there for everyone."""
    hook.answer = lambda _: (500, {}, b"no")
    pilot.open("#/subscriptions/hooks?tab=push")
    for number in range(5):
        publish(pilot, number)
    pilot.sees("The endpoint has failed since", "the endpoint answered 500: no", "nack")
    faults = []
    for width, scheme in ((1280, "light"), (360, "dark")):
        pilot.look(width, scheme)
        faults.append(pilot.faults())
    assert faults == [[], []]
    assert not pilot.browser.run("return document.documentElement.scrollWidth > 360")
    hook.answer = lambda _: (200, {}, b"")
    pilot.browser.wait_for("return !document.body.innerText.includes('The endpoint has failed since')")
