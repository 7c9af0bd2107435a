import json
import os
import re
import signal
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple, get_args

import pytest

from fastpubsub.cli.pushing import PushFormat
from fastpubsub.client import Client
from fastpubsub.client.webhooks import InvalidWebhook, verify
from fastpubsub.models.push import PushFormat as Formats
from tests import harness
from tests.cli.conftest import Cli, Running, Start, until
from tests.conftest import Run, StartServer

SECRET = "whsec_" + b64encode(b"s" * 32).decode()


class Received(NamedTuple):
    method: str
    path: str
    headers: Message
    body: bytes

    def verified(self, secret: str) -> str:
        return verify({name.lower(): value for name, value in self.headers.items()}, self.body, secret)


Answer = tuple[int, Mapping[str, str], bytes]


class Hook(ThreadingHTTPServer):
    """A service of a developer, which answers what a test tells it to."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.received: list[Received] = []
        self.answer: Callable[[Received], Answer] = lambda _: (200, {}, b"done")

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}/hook?a=1"

    def numbers(self) -> list[int]:
        return [json.loads(one.body)["n"] for one in self.received]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        hook = self.server
        assert isinstance(hook, Hook)
        received = Received(self.command, self.path, self.headers, body)
        hook.received.append(received)
        status, headers, said = hook.answer(received)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(said))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)

    do_OPTIONS = do_POST  # noqa: N815 - as the base class names it

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(port: int = 0) -> Iterator[Hook]:
    with Hook(port) as hook:
        Thread(target=hook.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield hook
        hook.shutdown()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as started:
        yield started


def lines(listening: Running, count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in listening.until_printed(count)]


def counts(bus: Client) -> tuple[int, int, int]:
    metrics = bus.metrics("billing")
    return metrics.available, metrics.delivered, metrics.acked


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_posts_what_was_published_signed_with_a_new_secret(
    start: Start, bus: Client, hook: Hook, number: signal.Signals
) -> None:
    text = b'{"total": 20.00, "text": "\xe6\x97\xa5"}'
    (id_,) = bus.publish("orders", json.loads(text))
    listening = start("listen", "billing", "--forward-to", hook.url)
    (line,) = lines(listening, 1)
    told = re.search("signed with (whsec_.+)", listening.errors)
    (received,) = hook.received
    assert told is not None
    assert received.verified(told[1]) == id_
    with pytest.raises(InvalidWebhook):
        received.verified(SECRET)
    assert (received.method, received.path, received.headers["fastpubsub-attempt"]) == ("POST", "/hook?a=1", "1")
    assert line.pop("milliseconds") < 60_000
    assert line.pop("at")[-1] == "Z"
    assert line == {"status": 200, "id": id_, "attempt": 1, "outcome": "ack", "said": "done"}
    until(lambda: counts(bus) == (0, 0, 1))
    assert listening.end(number) == 0


def test_the_payload_to_the_byte(start: Start, bus: Client, cli: Cli, hook: Hook) -> None:
    text = '{"total":  20.100, "big": 12345678901234567890123, "n": 1e400}'
    assert cli("publish", "orders", text).returncode == 0
    listening = start("listen", "billing", "--forward-to", hook.url, "--secret", SECRET)
    lines(listening, 1)
    assert hook.received[0].body == text.encode()
    assert hook.received[0].verified(SECRET)
    assert "whsec_" not in listening.errors


@pytest.mark.parametrize("form", [one.value for one in PushFormat])
def test_each_format(start: Start, bus: Client, hook: Hook, form: str) -> None:
    hook.answer = lambda _: (204, {"WebHook-Allowed-Origin": "*"}, b"")
    (id_,) = bus.publish("orders", {"n": 1}, attributes={"color": "red"}, ordering_key="k")
    listening = start("listen", "billing", "--forward-to", hook.url, "--secret", SECRET, "--format", form)
    lines(listening, 1)
    *asked, received = hook.received
    assert [one.method for one in asked] == (["OPTIONS"] if form.startswith("cloudevents") else [])
    assert received.verified(SECRET) == id_
    body = json.loads(received.body)
    if form == "pubsub":
        assert (json.loads(b64decode(body["message"]["data"])), body["message"]["messageId"]) == ({"n": 1}, id_)
        assert (body["message"]["attributes"], body["message"]["orderingKey"]) == ({"color": "red"}, "k")
    elif form == "cloudevents-structured":
        assert (body["data"], body["id"], body["color"], body["partitionkey"]) == ({"n": 1}, id_, "red", "k")
    else:
        assert body == {"n": 1}
        assert received.headers["ce-id"] == (id_ if form == "cloudevents" else None)
    assert listening.errors == ""


def test_the_formats_are_those_of_push() -> None:
    assert tuple(one.value for one in PushFormat) == get_args(Formats)


def test_says_who_would_get_no_events(start: Start, bus: Client, hook: Hook) -> None:
    bus.publish("orders", {"n": 1})
    listening = start("listen", "billing", "--forward-to", hook.url, "--format", "cloudevents")
    assert lines(listening, 1)[0]["outcome"] == "ack"
    assert "WebHook-Allowed-Origin" in listening.errors


def test_what_is_not_2xx_comes_again(start: Start, bus: Client, hook: Hook) -> None:
    def once_badly(_: Received) -> Answer:
        return (500, {}, b"\x1b[31mno") if len(hook.received) == 1 else (302, {"Location": "http://localhost:1"}, b"")

    hook.answer = once_badly
    bus.publish("orders", {"n": 1})
    listening = start("listen", "billing", "--forward-to", hook.url)
    first, second = lines(listening, 2)[:2]
    assert (first["status"], first["outcome"], first["said"]) == (500, "nack", "\x1b[31mno")
    assert (second["status"], second["outcome"], second["attempt"]) == (302, "nack", 2)
    until(lambda: bus.metrics("billing").dlq == 1)
    (letter,) = bus.list_dead_letters("billing")
    assert letter.reason == "nacked on delivery attempt 5 of 5: the endpoint answered 302"
    assert len(hook.received) == 5


def test_retry_after(start: Start, bus: Client, hook: Hook) -> None:
    hook.answer = lambda _: (503, {"Retry-After": "3600"}, b"")
    bus.publish("orders", {"n": 1})
    listening = start("listen", "billing", "--forward-to", hook.url)
    lines(listening, 1)
    bus.publish("orders", {"n": 2})
    lines(listening, 2)
    assert hook.numbers() == [1, 2]


def test_a_service_that_does_not_answer_in_time(start: Start, bus: Client, hook: Hook) -> None:
    hook.answer = lambda _: (time.sleep(3), (200, {}, b""))[1]  # type: ignore[func-returns-value]
    bus.publish("orders", {"n": 1})
    listening = start("listen", "billing", "--forward-to", hook.url, "--timeout-seconds", "0.5")
    (line,) = lines(listening, 1)[:1]
    assert (line["status"], line["outcome"], line["said"]) == (None, "nack", "no answer within 0.5 seconds")


def test_a_service_that_is_not_there_yet(start: Start, bus: Client) -> None:
    """Costs no attempts."""
    port = harness.free_port()
    bus.publish("orders", {"n": 1})
    listening = start("listen", "billing", "--forward-to", f"http://localhost:{port}/")
    line = lines(listening, 2)[1]
    assert (line["status"], line["outcome"]) == (None, "return")
    assert line["said"].startswith("no connection: ")
    with serving(port) as hook:
        listening.until(lambda: '"ack"' in listening.output)
        assert json.loads(listening.output.splitlines()[-1])["attempt"] == 1
        assert hook.numbers() == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_gives_back_what_it_holds(start: Start, bus: Client, hook: Hook, number: signal.Signals) -> None:
    hook.answer = lambda _: (time.sleep(20), (200, {}, b""))[1]  # type: ignore[func-returns-value]
    bus.publish("orders", {"n": 1}, {"n": 2})
    listening = start("listen", "billing", "--forward-to", hook.url)
    listening.until(lambda: hook.received)
    assert counts(bus) == (1, 1, 0)
    assert listening.end(number) == 0
    assert counts(bus) == (2, 0, 0)
    assert listening.output == ""


def test_a_lease_that_is_shorter_than_the_answer(start: Start, bus: Client, hook: Hook) -> None:
    bus.create_subscription("quick", "orders", ack_deadline_seconds=6)
    hook.answer = lambda _: (time.sleep(7), (200, {}, b""))[1]  # type: ignore[func-returns-value]
    bus.publish("orders", {"n": 1})
    listening = start("listen", "quick", "--forward-to", hook.url)
    assert lines(listening, 1)[0]["outcome"] == "ack"
    until(lambda: bus.metrics("quick").acked == 1)
    assert (hook.numbers(), "too late" in listening.errors) == ([1], False)


def test_in_the_order_of_the_subscription(start: Start, bus: Client, hook: Hook) -> None:
    bus.publish("orders", *({"n": n} for n in range(50)))
    listening = start("listen", "billing", "--forward-to", hook.url)
    lines(listening, 50)
    assert hook.numbers() == list(range(50))


def test_goes_on_when_the_server_comes_back(server: StartServer, bus: Client, start: Start, hook: Hook) -> None:
    port = harness.free_port()
    killed = server(api_port=port)
    listening = start("listen", "billing", "--forward-to", hook.url, url=killed.base_url)
    bus.publish("orders", {"n": 1})
    lines(listening, 1)
    killed.kill()
    listening.until(lambda: "trying again until it works" in listening.errors)
    server(api_port=port)
    bus.publish("orders", {"n": 2})
    lines(listening, 2)
    assert hook.numbers() == [1, 2]
    assert "it works again" in listening.errors


def test_with_the_client_of_a_context(
    server: StartServer, start: Start, bus: Client, cli: Cli, run: Run, hook: Hook
) -> None:
    guarded = server(auth_enabled=True, auth_secret_key="k" * 32).base_url
    made = dict(line.split("=") for line in run("create_client", "dev", "subscriptions:consume:billing").stdout.split())
    client = ["--client-id", made["client_id"]]
    assert cli("context", "add", "dev", "--url", guarded, *client, given=made["client_secret"]).returncode == 0
    bus.publish("orders", {"n": 1})
    listening = start("listen", "billing", "--forward-to", hook.url, "--context", "dev")
    assert lines(listening, 1)[0]["outcome"] == "ack"
    refused = cli("listen", "billing", "--forward-to", hook.url, url=guarded)
    assert (refused.returncode, "FASTPUBSUB_CLIENT_ID" in refused.stderr) == (1, True), refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--forward-to", "localhost:3000"], "--forward-to: this is not an address"),
        (["--forward-to", "ftp://localhost"], "--forward-to: this is not an address"),
        (["--forward-to", "http://localhost:0/"], "--forward-to has a port"),
        (["--forward-to", "http://localhost:99999/"], "--forward-to has a port"),
        (["--forward-to", "http://localhost/", "--secret", "abc"], "--secret is whsec_"),
        (["--forward-to", "http://localhost/", "--secret", "whsec_YQ=="], "--secret is whsec_"),
        (["--forward-to", "http://localhost/", "--secret", "whsec_é"], "--secret is whsec_"),
        (["--forward-to", "http://localhost/", "--format", "xml"], "--format"),
        ([], "--forward-to"),
    ],
)
def test_usage(cli: Cli, arguments: list[str], said: str) -> None:
    refused = cli("listen", "billing", *arguments)
    assert (refused.returncode, refused.stdout, said in refused.stderr) == (2, "", True), refused.stderr


def test_what_the_server_refuses(cli: Cli, hook: Hook) -> None:
    refused = cli("listen", "nope", "--forward-to", hook.url, "--secret", SECRET)
    assert (refused.returncode, refused.stderr) == (1, 'fastpubsub: subscription "nope" does not exist\n')
    nobody = cli("listen", "billing", "--forward-to", hook.url, url="http://127.0.0.1:1")
    assert (nobody.returncode, "does a server run there?" in nobody.stderr) == (1, True)


def test_a_subscription_that_is_pushed(server: StartServer, bus: Client, cli: Cli, hook: Hook) -> None:
    own = server(push_secret_key="k" * 32, push_enabled=False, push_allow_networks="127.0.0.0/8,::1/128")
    with Client(own.base_url) as client:
        client.create_subscription("pushed", "orders", push={"endpoint": "https://localhost:8443/"})
    refused = cli("listen", "pushed", "--forward-to", hook.url, "--secret", SECRET)
    assert (refused.returncode, "another subscription of its topic" in refused.stderr) == (1, True), refused.stderr


def test_a_reader_that_goes_away(start: Start, bus: Client, hook: Hook) -> None:
    """What was answered counts, printed or not."""
    bus.publish("orders", *({"n": n} for n in range(3)))
    reading, writing = os.pipe()
    listening = start("listen", "billing", "--forward-to", hook.url, "--secret", SECRET, stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert json.loads(pipe.readline())["status"] == 200
    bus.publish("orders", {"n": 3})
    assert (listening.end(), listening.errors) == (0, "")
    metrics = bus.metrics("billing")
    assert (metrics.acked, metrics.delivered) == (len(hook.received), 0)
