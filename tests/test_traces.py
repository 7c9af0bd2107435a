"""Spans of servers, which a collector in a process of its own gets; and what a server without them does not load."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from websockets.sync.client import connect

from fastpubsub import setting_checks
from fastpubsub.client import Client, NotFound
from fastpubsub.client.requests import publishing
from fastpubsub.config import ConfigurationError, load_settings
from fastpubsub.integrations.opentelemetry import instrument
from tests import harness
from tests.conftest import StartServer
from tests.examples.conftest import answers
from tests.pages import Background, Shell
from tests.push.endpoint import Endpoint
from tests.push.test_processes import SETTINGS

COLLECTOR = Path(__file__).parent / "client" / "collector.py"
PATIENCE = 60.0
LOADED = """
import sys
from fastpubsub.api.app import build, create_app
from fastpubsub.config import Settings
import asyncio

app = create_app(Settings(_env_file=None, database_url="postgresql://nobody@127.0.0.1:1/none"))

async def start():
    build(app.state)
    app.build_middleware_stack()

asyncio.run(start())
ours = ("fastpubsub.traces", "opentelemetry.sdk", "opentelemetry.exporter")
print(*(name for name in sys.modules if name.startswith(ours) or name.endswith(".traced")))
"""


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    port = harness.free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with Shell(tmp_path, {}).start(shlex.join(["exec", sys.executable, str(COLLECTOR), str(port)])) as started:
        started.wait_until(lambda: answers(port))
        yield started


@pytest.fixture
def tracer() -> Iterator[trace.Tracer]:
    instrument()
    yield TracerProvider(shutdown_on_exit=False).get_tracer("test")
    publishing.carry(None)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as started:
        yield started


def spans(collector: Background, trace_id: str) -> dict[str, dict[str, Any]]:
    """Of a trace, by name."""
    seen = [json.loads(line) for line in collector.output().splitlines() if line.startswith("{")]
    return {span["name"]: span for span in seen if span["trace"] == trace_id}


async def test_from_the_publisher_to_the_endpoint_is_one_trace(
    server: StartServer, collector: Background, endpoint: Endpoint, tracer: trace.Tracer
) -> None:
    started = server(traces_enabled=True, **SETTINGS)
    with Client(started.base_url) as bus:
        bus.create_topic("t")
        bus.create_subscription("pushed", "t", push={"endpoint": endpoint.url})
        bus.create_subscription("pulled", "t")
        with tracer.start_as_current_span("POST /orders") as span:
            bus.publish("t", {"n": 1})
        (received,) = await endpoint.until(1)
        (message,) = bus.pull("pulled")
    own = span.get_span_context()
    trace_id, span_id = f"{own.trace_id:032x}", f"{own.span_id:016x}"
    names = ("POST /topics/{topic_id}/messages", "SELECT fastpubsub.publish_messages_once", "push pushed")
    collector.wait_until(lambda: spans(collector, trace_id).keys() >= {*names})
    seen = spans(collector, trace_id)
    request, call, push = (seen[name] for name in names)
    assert (request["parent"], call["parent"], push["parent"]) == (span_id, request["id"], span_id)
    assert (request["kind"], call["kind"], push["kind"]) == (2, 3, 3)  # of a server, of clients
    assert {one["service"] for one in seen.values()} == {"fastpubsub"}
    attributes = request["attributes"]
    assert attributes["http.response.status_code"] == 201
    assert attributes["http.route"] == "/topics/{topic_id}/messages"
    assert attributes["url.path"] == "/topics/t/messages"
    assert attributes["fastpubsub.request.id"]
    assert received.headers["traceparent"].split("-")[1:3] == [trace_id, push["id"]]
    assert message.attributes is not None
    assert message.attributes["traceparent"].split("-")[1:3] == [trace_id, span_id]
    assert pulls_linked_to(collector, span_id) == ["GET /subscriptions/{subscription_id}/messages"]


def pulls_linked_to(collector: Background, span_id: str) -> list[str]:
    def linked() -> list[str]:
        seen = [json.loads(line) for line in collector.output().splitlines() if line.startswith("{")]
        return [span["name"] for span in seen if span_id in span["links"]]

    collector.wait_until(linked)
    return linked()


async def test_push_hands_on_the_trace_without_spans_of_its_own(
    server: StartServer, endpoint: Endpoint, tracer: trace.Tracer
) -> None:
    with Client(server(**SETTINGS).base_url) as bus:
        bus.create_topic("t")
        bus.create_subscription("pushed", "t", push={"endpoint": endpoint.url})
        with tracer.start_as_current_span("POST /orders") as span:
            bus.publish("t", {"n": 1})
        bus.publish("t", {"n": 2})
        first, second = sorted(await endpoint.until(2), key=lambda one: one.body)
    own = span.get_span_context()
    assert first.headers["traceparent"].split("-")[1:3] == [f"{own.trace_id:032x}", f"{own.span_id:016x}"]
    assert "traceparent" not in second.headers


def test_probes_have_no_span(server: StartServer, collector: Background) -> None:
    """The server was asked whether it is ready before."""
    started = server(traces_enabled=True)
    wanted = {"GET /topics/{topic_id}", "SELECT fastpubsub.get_topic"}
    with Client(started.base_url) as bus, pytest.raises(NotFound):
        bus.get_topic("nothing")
    collector.wait_until(lambda: names(collector) >= wanted)
    started.stop()
    assert names(collector) == wanted


def test_a_websocket_has_a_span(server: StartServer, collector: Background, tracer: trace.Tracer) -> None:
    started = server(traces_enabled=True)
    own = f"00-{'1' * 32}-{'2' * 16}-01"
    url = f"{started.base_url.replace('http', 'ws')}/subscriptions/s/ws"
    with Client(started.base_url) as bus:
        bus.create_topic("t")
        bus.create_subscription("s", "t")
        with connect(f"{url}?consumer_id=c", additional_headers={"traceparent": own}) as socket:
            with tracer.start_as_current_span("POST /orders") as publishing_span:
                bus.publish("t", {"n": 1})
            socket.recv(PATIENCE)
    name = "GET /subscriptions/{subscription_id}/ws"
    collector.wait_until(lambda: name in spans(collector, "1" * 32))
    span = spans(collector, "1" * 32)[name]
    assert (span["parent"], span["kind"]) == ("2" * 16, 2)
    assert span["attributes"]["http.response.status_code"] == 101
    assert span["attributes"]["http.route"] == "/subscriptions/{subscription_id}/ws"
    assert span["links"] == [f"{publishing_span.get_span_context().span_id:016x}"]


def names(collector: Background) -> set[str]:
    return {json.loads(line)["name"] for line in collector.output().splitlines() if line.startswith("{")}


def test_a_collector_that_is_not_there_costs_nobody_anything(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a request nor the end of the server waits for it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{harness.free_port()}")
    started = server(traces_enabled=True)
    with Client(started.base_url) as bus:
        bus.create_topic("t")
        assert len(bus.publish("t", *[{"n": number} for number in range(100)])) == 100
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(PATIENCE) == 0


def test_who_traces_nothing_loads_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == "\n"


def test_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(setting_checks, "find_spec", find_nothing)
    monkeypatch.setenv("FASTPUBSUB_TRACES_ENABLED", "true")
    with pytest.raises(ConfigurationError, match=r"FASTPUBSUB_TRACES_ENABLED: .* 'fastpubsub-server\[otel\]'"):
        load_settings()
