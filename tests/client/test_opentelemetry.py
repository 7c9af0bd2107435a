"""Traces that messages carry, seen by a collector in a process of its own."""

import json
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

from fastpubsub.client import Client, Outgoing, Worker
from fastpubsub.client.requests import publish, publishing
from fastpubsub.integrations.opentelemetry import MessageFilter, instrument
from fastpubsub.testing import InMemoryBus
from tests import harness
from tests.examples.conftest import answers
from tests.lasting import Last
from tests.pages import DOCS, FILE, Background, Shell, blocks

COLLECTOR = Path(__file__).with_name("collector.py")
PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[13]")
PUBLISHER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from fastpubsub.client import Client
from fastpubsub.integrations.opentelemetry import instrument

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
instrument()
with Client() as bus, provider.get_tracer("shop").start_as_current_span("POST /orders"):
    bus.publish("traced", {"order": 1}, {"order": 13})
"""


@pytest.fixture(autouse=True)
def _carry_nothing_afterwards() -> Iterator[None]:
    yield
    publishing.carry(None)


@pytest.fixture
def tracer() -> trace.Tracer:
    return TracerProvider().get_tracer("test")


@pytest.mark.long
@pytest.mark.interpreter
def test_publisher_and_worker_are_one_trace(lasting_server: Last, tmp_path: Path) -> None:
    port, url = harness.free_port(), lasting_server().base_url
    shell = Shell(tmp_path, {"url": url}, {"http://localhost:8000": url})
    shell.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    (page,) = (block.text for block in blocks(DOCS / "tracing.md") if FILE.match(block.text))
    shell.write("traced.py", page)
    shell.write("publisher.py", PUBLISHER)
    with Client(url) as bus, shell.start(shlex.join(["exec", sys.executable, str(COLLECTOR), str(port)])) as collector:
        collector.wait_until(lambda: answers(port))
        bus.create_topic("traced")
        bus.create_subscription("traced-billing", "traced", max_delivery_attempts=1)
        shell.run("python publisher.py")
        with shell.start("exec fastpubsub worker traced:worker") as worker:
            worker.wait_until(lambda: len(spans(collector)) == 3)
    request, *processed = spans(collector)
    good, bad = sorted(processed, key=lambda span: len(span["events"]))
    assert [request["name"], good["name"]] == ["POST /orders", "process traced-billing"]
    assert {good["trace"], bad["trace"]} == {request["trace"]}
    assert {good["parent"], bad["parent"]} == {request["id"]}
    assert good["kind"] == 5  # a consumer
    assert (good["status"], good["events"]) == (0, [])
    assert (bad["status"], bad["events"], bad["attributes"]["error.type"]) == (2, ["exception"], "ValueError")
    attributes = good["attributes"]
    assert attributes["messaging.destination.subscription.name"] == "traced-billing"
    assert attributes["messaging.fastpubsub.message.delivery_attempts"] == 1
    assert f"trace={request['trace']} message={attributes['messaging.message.id']} billing 1" in worker.output()


def spans(collector: Background) -> list[dict[str, Any]]:
    return [json.loads(line) for line in collector.output().splitlines() if line.startswith("{")]


def attributes_of(content: bytes | None) -> list[dict[str, str]]:
    body = json.loads(content or b"")
    return [one.get("attributes", {}) for one in body["messages"]] if isinstance(body, dict) else [{} for _ in body]


def test_nothing_is_carried_without_a_span_or_before_it_is_turned_on(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("before"):
        before = publish("t", {"n": 1})
    instrument()
    for request in (before, publish("t", {"n": 1})):
        assert request.content == b'[{"n":1}]'
        assert request.headers.keys() == {"Prefer", "Idempotency-Key"}


def test_the_request_says_of_which_trace_it_is(tracer: trace.Tracer) -> None:
    """For the spans of the server, and also where its messages may not change."""
    instrument()
    with tracer.start_as_current_span("request") as span:
        of_ours, of_theirs = publish("t", {"n": 1}), publish("t", {"n": 1}, idempotency_key="order-1")
    for request in (of_ours, of_theirs):
        found = PARENT.fullmatch(request.headers["traceparent"])
        assert found
        assert int(found[2], 16) == span.get_span_context().span_id


def test_what_a_message_carries(tracer: trace.Tracer) -> None:
    instrument()
    own = Outgoing({}, {"traceparent": "mine"})
    full = Outgoing({}, {str(number): "" for number in range(99)})
    with tracer.start_as_current_span("request") as span:
        token = context.attach(baggage.set_baggage("secret", "x"))
        plain, kept, unchanged = attributes_of(publish("t", {"n": 1}, own, full, attributes={"a": "b"}).content)
        context.detach(token)
        again = publish("t", {"n": 1}, idempotency_key="order-1").content
    found = PARENT.fullmatch(plain["traceparent"])
    assert found
    assert int(found[1], 16) == span.get_span_context().trace_id
    assert plain.keys() == {"a", "traceparent"}
    assert kept == {"a": "b", "traceparent": "mine"}
    assert len(unchanged) == 100
    assert again == b'[{"n":1}]'


async def test_plain_functions_and_their_logs_know_the_span(tracer: trace.Tracer) -> None:
    memory, worker, seen = InMemoryBus(), Worker(), []
    memory.subscription("billing", topic_id="orders")
    instrument(worker, tracer_provider=TracerProvider())

    @worker.subscriber("billing")
    def bill(_order: dict[str, int]) -> None:
        seen.append(noted())

    with memory.client() as bus, tracer.start_as_current_span("request") as span:
        (message_id,) = bus.publish("orders", {"n": 1})
    await memory.drain(worker)
    assert seen == [(str(message_id), "billing", trace.format_trace_id(span.get_span_context().trace_id))]
    assert noted() == ("", "", "")


def noted() -> tuple[str, ...]:
    """What a record of the log gets."""
    record = logging.makeLogRecord({})
    assert MessageFilter().filter(record)
    return tuple(vars(record)[name] for name in ("message_id", "subscription_id", "trace_id"))


async def test_what_is_returned_again_is_published_once(tracer: trace.Tracer) -> None:
    """Although each attempt is a span of its own."""
    memory, worker, attempts = InMemoryBus(), Worker(), []
    memory.subscription("billing", topic_id="orders", backoff_min_seconds=0)
    memory.subscription("invoices", topic_id="invoices")
    instrument(worker, tracer_provider=TracerProvider())

    @worker.middleware
    async def fail_once(_message: Any, call_next: Any) -> Any:
        result = await call_next()
        attempts.append(result)
        if len(attempts) == 1:
            raise RuntimeError("after it was published")
        return result

    @worker.subscriber("billing", publish_to="invoices")
    async def bill(_order: dict[str, int]) -> dict[str, int]:
        return {"invoice": 1}

    with memory.client() as bus, tracer.start_as_current_span("request"):
        bus.publish("orders", {"n": 1})
    await memory.drain(worker)
    memory.advance(seconds=1)
    await memory.drain(worker)
    assert len(attempts) == 2
    assert memory.published("invoices") == [{"invoice": 1}]
