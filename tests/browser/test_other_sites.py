"""What pages of other sites can do through a real browser to a server without authentication: nothing."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests import harness
from tests.chromium import EVIL, Browser
from tests.conftest import StartServer
from tests.lasting import Last

PAGE = """<!doctype html><title>evil</title><a id="docs" href="TARGET/docs">docs</a>
<iframe name="frame"></iframe>
<form id="form" method="post" target="frame" enctype="text/plain" action="TARGET/subscriptions/s/nacks">
<input name='["' value='"]'></form>
<script>
const pull = 'TARGET/subscriptions/s/messages?consumer_id=';
window.outcomes = {};
const tried = (name) => (event) => { window.outcomes[name] = event.type || String(event); };
function load(tag, name, attribute) {
    const element = document.createElement(tag);
    element.onload = element.onerror = tried(name);
    element[attribute || 'src'] = pull + name;
    if (tag === 'link') element.rel = 'stylesheet';
    document.body.append(element);
}
load('img', 'img'); load('script', 'script'); load('iframe', 'iframe'); load('link', 'link', 'href');
fetch(pull + 'opaque', {mode: 'no-cors', credentials: 'include'}).then(tried('opaque'), tried('opaque'));
fetch(pull + 'cors').then(tried('cors'), tried('cors'));
fetch('TARGET/topics/t', {method: 'DELETE', mode: 'cors'}).then(tried('delete'), tried('delete'));
fetch('TARGET/topics/t/messages', {method: 'POST', mode: 'no-cors', body: '[{"from": "evil"}]'})
    .then(tried('post'), tried('post'));
navigator.sendBeacon('TARGET/subscriptions/s/acks', '["x"]');
const events = new EventSource('TARGET/subscriptions/s/stream?consumer_id=events');
events.onopen = events.onerror = (event) => { tried('events')(event); events.close(); };
const socket = new WebSocket('TARGET/subscriptions/s/ws?consumer_id=socket'.replace('http', 'ws'));
socket.onopen = socket.onerror = tried('socket');
frames.frame.name;
document.querySelector('iframe[name=frame]').addEventListener('load', tried('form'));
document.querySelector('#form').submit();
</script>"""
WAYS = {"img", "script", "iframe", "link", "opaque", "cors", "delete", "post", "events", "socket", "form"}


@contextmanager
def site(target: str) -> Iterator[str]:
    """Of somebody else, with a page that does what it can to the target."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = PAGE.replace("TARGET", target).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", harness.free_port()), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{EVIL}:{server.server_port}"
        server.shutdown()


def prepare(started: harness.Server) -> str:
    """Its address, as developers write it."""
    url = started.base_url.replace("127.0.0.1", "localhost")
    for path, body in (("topics", {"id": "t"}), ("subscriptions", {"id": "s", "topic_id": "t"})):
        httpx.post(f"{url}/{path}", json=body).raise_for_status()
    httpx.post(f"{url}/topics/t/messages", json=[{"n": 1}]).raise_for_status()
    return url


def test_a_page_of_another_site(browser: Browser, lasting_server: Last) -> None:
    started = lasting_server()
    target = prepare(started)
    with site(target) as evil:
        browser.open(f"{evil}/")
        browser.wait_for(f"return Object.keys(window.outcomes).length >= {len(WAYS)}")
        outcomes = browser.run("return window.outcomes")
        assert outcomes.keys() == WAYS
        assert outcomes["socket"] == outcomes["events"] == "error"
        (message,) = httpx.get(f"{target}/subscriptions/s/messages", params={"consumer_id": "me"}).json()["data"]
        assert (message["payload"], message["delivery_attempts"]) == ({"n": 1}, 1), "nobody has had it"
        metrics = httpx.get(f"{target}/subscriptions/s/metrics").json()
        assert (metrics["available"], metrics["delivered"], metrics["dlq"]) == (0, 1, 0), "and nobody has published"
        # A link to the pages of the server works all the same.
        browser.run("document.querySelector('#docs').click()")
        browser.wait_for("return document.querySelectorAll('.opblock').length > 10")
    refused = re.findall(r"method=\w+ path=\S+ status=403", started.output())
    assert len(refused) >= len(WAYS), started.output()


def test_a_name_that_leads_here(browser: Browser, lasting_server: Last) -> None:
    """DNS rebinding: for the browser, the page and the server are one site."""
    target = prepare(lasting_server())
    for path in ("/topics", "/subscriptions/s/messages?consumer_id=evil", "/docs"):
        browser.open(target.replace("localhost", EVIL) + path)
        shown = browser.run("return document.body.innerText")
        assert "must have a known Host" in shown, shown
    (message,) = httpx.get(f"{target}/subscriptions/s/messages", params={"consumer_id": "me"}).json()["data"]
    assert message["delivery_attempts"] == 1


def test_a_site_that_is_named(browser: Browser, server: StartServer) -> None:
    started = server(api_allowed_hosts=EVIL)
    with site(prepare(started)) as friend:
        browser.open(f"{friend}/")
        assert browser.wait_for("return window.outcomes.socket") == "open"
