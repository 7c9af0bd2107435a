"""The pages in a real browser, which reports every request that it makes."""

import re

import httpx
import pytest

from tests.chromium import Browser
from tests.conftest import Run, StartServer
from tests.lasting import Last

KEY = "k" * 32
FILL = """
    const inputs = '.auth-container input[type=text], .auth-container input[type=password]';
    const [id, secret] = document.querySelectorAll(inputs);
    const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
    for (const [input, value] of [[id, arguments[0]], [secret, arguments[1]]]) {
        set.call(input, value);
        input.dispatchEvent(new Event('input', {bubbles: true}));
    }
    document.querySelector('.auth-btn-wrapper button.authorize').click();
"""


@pytest.mark.parametrize(
    ("path", "rendered"),
    [
        ("/docs", "return document.querySelectorAll('.opblock').length > 10"),
        ("/redoc", "return document.querySelectorAll('[data-section-id]').length > 10"),
    ],
)
def test_a_page_renders_and_loads_nothing_from_elsewhere(
    browser: Browser, lasting_server: Last, path: str, rendered: str
) -> None:
    base_url = lasting_server().base_url
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
    browser.run(FILL, credentials["client_id"], "wrong & %")
    browser.wait_for("return document.body.innerText.includes('the client secret is wrong')")
    (challenge,) = browser.challenges()
    assert challenge == 'Bearer realm="fastpubsub"', "the browser would open a dialog of its own"
    browser.run(FILL, credentials["client_id"], credentials["client_secret"])
    browser.wait_for("return document.body.innerText.includes('Logout')")
    browser.run("document.querySelector('.btn-done').click()")
    assert execute(browser, "topics-listTopics").startswith("200")
    browser.open("about:blank")
    browser.open(f"{base_url}/docs")
    browser.wait_for("return document.querySelector('button.authorize.locked')")
    assert execute(browser, "topics-listTopics").startswith("200"), "the login is lost with the page"
    assert credentials["client_secret"] not in browser.run(
        "return JSON.stringify({...sessionStorage, ...localStorage})"
    )
    other = browser.new_window()
    browser.switch(other)
    browser.open(f"{base_url}/docs")
    browser.wait_for("return document.querySelector('button.authorize.unlocked')")


def test_topic_subscription_publish_pull_and_ack_need_no_typing(browser: Browser, lasting_server: Last) -> None:
    server = lasting_server()
    browser.open(f"{server.base_url}/docs")
    steps = {
        "topics-createTopic": "201",
        "subscriptions-createSubscription": "201",
        "topics-publishMessages": "201",
        "messages-pullMessages": "200",
        "messages-ackMessages": "200",
    }
    for operation, status in steps.items():
        assert execute(browser, operation).startswith(status), operation
    metrics = httpx.get(f"{server.base_url}/subscriptions/user-events-processor/metrics").json()
    assert (metrics["acked"], metrics["available"], metrics["delivered"]) == (1, 0, 0)
    assert execute(browser, "messages-explainMessage").startswith("200")
    assert "acknowledged" in answer(browser, "messages-explainMessage")


def test_a_stream_says_that_it_has_no_end(browser: Browser, lasting_server: Last) -> None:
    server = lasting_server()
    httpx.post(f"{server.base_url}/topics", json={"id": "user-events"})
    browser.open(f"{server.base_url}/docs")
    assert execute(browser, "topics-followTopic").startswith("200")
    assert f'curl -N "{server.base_url}/topics/user-events/stream' in answer(browser, "topics-followTopic")


def execute(browser: Browser, operation: str) -> str:
    """Opens an operation, presses Execute, and returns the status, as the page shows it.

    Alone with those of its tag: with each change the page renders all operations that are open to sight.
    """
    tag = operation.partition("-")[0]
    block = f"document.getElementById('operations-{operation}')"
    browser.wait_for(f"return document.getElementById('operations-tag-{tag}')")
    for wanted in (f":not(#operations-tag-{tag})[data-is-open=true]", f"#operations-tag-{tag}[data-is-open=false]"):
        browser.run(f"document.querySelectorAll('.opblock-tag{wanted}').forEach((one) => one.click())")
    browser.wait_for(f"return {block}")
    browser.run(f"{block}.querySelector('.opblock-summary-control').click()")
    browser.wait_for(f"return {block}.querySelector('button.execute')")
    browser.run(f"{block}.querySelector('button.execute').click()")
    cell = f"{block}.querySelector('.live-responses-table tbody .response-col_status')"
    return str(browser.wait_for(f"return {cell} && {cell}.innerText"))


def answer(browser: Browser, operation: str) -> str:
    place = f"#operations-{operation} .live-responses-table tbody"
    return str(browser.run(f"return document.querySelector('{place}').innerText"))
