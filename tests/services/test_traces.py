"""Calls that are made for several requests, in the spans of a tracer in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.database.opening import open_database
from fastpubsub.exceptions import NotFound, Unavailable
from fastpubsub.payloads import Batch
from fastpubsub.push.dispatcher import pusher_class
from fastpubsub.push.pusher import Pusher
from fastpubsub.services.appends import Appends
from fastpubsub.services.coalescer import Coalescer
from fastpubsub.services.coalescing import make_appends, make_coalescer
from fastpubsub.services.directory import Directory
from fastpubsub.services.publishing import Publishing
from fastpubsub.services.wakeups import Wakeups
from fastpubsub.traces import extracted, of_message, spans
from tests.api.calls import until_blocked
from tests.conftest import Connect
from tests.services.test_appends import hold

Finished = InMemorySpanExporter


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


@pytest.fixture
def traced(settings: Settings) -> Settings:
    return settings.model_copy(update={"traces_enabled": True})


def named(finished: Finished, name: str) -> list[ReadableSpan]:
    return [span for span in finished.get_finished_spans() if span.name == name]


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return int(span.parent.span_id)


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


@pytest.fixture
async def database(traced: Settings) -> AsyncIterator[Database]:
    opened = open_database(traced)
    yield opened
    await opened.close()


async def test_a_call_is_in_the_trace_of_its_first_request_and_linked_to_the_others(
    traced: Settings, finished: Finished, database: Database
) -> None:
    await database.fetch_one("create_topic", "t")
    is_called, may_return = asyncio.Event(), asyncio.Event()

    async def call(topic_id: str, requests: Sequence[int]) -> list[int]:
        is_called.set()
        await may_return.wait()
        await database.fetch_one("resolve_topic", topic_id)
        return [-request for request in requests]

    coalescer = make_coalescer(traced, call)

    async def request(number: int) -> int:
        with spans.tracer.start_as_current_span(f"request {number}"):
            return await coalescer.submit("t", number)

    first = asyncio.create_task(request(0))
    await is_called.wait()
    others = [asyncio.create_task(request(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    may_return.set()
    assert await asyncio.gather(first, *others) == [0, -1, -2, -3]
    requests = [named(finished, f"request {number}")[0] for number in range(4)]
    alone, together = named(finished, "SELECT fastpubsub.resolve_topic")
    assert (parent(alone), linked(alone)) == (span_id(requests[0]), set())
    assert parent(together) == span_id(requests[1])
    assert linked(together) == {span_id(requests[2]), span_id(requests[3])}
    assert alone.attributes is not None
    assert together.attributes is not None
    assert alone.attributes["db.stored_procedure.name"] == "fastpubsub.resolve_topic"
    assert "db.operation.batch.size" not in alone.attributes
    assert together.attributes["db.operation.batch.size"] == 3


async def test_one_call_for_several_topics(
    traced: Settings, finished: Finished, database: Database, connect: Connect
) -> None:
    for topic in ("busy", "a", "b"):
        await database.fetch_one("create_topic", topic)
    shared = (Directory(database), traced, Counters(CollectorRegistry(), 10), Wakeups(database, traced))
    publishing = Publishing(database, *shared)

    async def publish(topic: str) -> None:
        with spans.tracer.start_as_current_span(f"publish to {topic}"):
            await publishing.publish(topic, Batch([b"{}"], None, 2))

    for topic in ("busy", "a", "b"):
        await publishing.publish(topic, Batch([b"{}"], None, 2))
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy")
        busy = asyncio.create_task(publish("busy"))
        await until_blocked(looking)
        await asyncio.gather(publish("a"), publish("b"))
    await busy
    await publishing.close()
    (together,) = named(finished, "SELECT fastpubsub.publish_to_topics")
    requests = {span_id(named(finished, f"publish to {topic}")[0]) for topic in ("a", "b")}
    assert {parent(together), *linked(together)} == requests
    (alone,) = named(finished, "SELECT fastpubsub.publish_messages")
    assert parent(alone) == span_id(named(finished, "publish to busy")[0])


async def test_what_is_refused_and_what_fails(traced: Settings, finished: Finished, database: Database) -> None:
    with spans.tracer.start_as_current_span("request"):
        with pytest.raises(NotFound):
            await database.fetch_one("resolve_topic", "nothing")
        with pytest.raises(Unavailable):
            await database.fetch_one("procedure_of_the_next_version")
    (refused,) = named(finished, "SELECT fastpubsub.resolve_topic")
    (failed,) = named(finished, "SELECT fastpubsub.procedure_of_the_next_version")
    assert refused.attributes is not None
    assert failed.attributes is not None
    assert (refused.status.status_code, refused.attributes["db.response.status_code"]) == (StatusCode.UNSET, "FP404")
    assert (failed.status.status_code, failed.attributes["error.type"]) == (StatusCode.ERROR, "42883")
    assert not [*refused.events, *failed.events]


async def test_what_nobody_asked_for_has_no_span(finished: Finished, database: Database) -> None:
    await database.fetch_one("create_topic", "t")
    assert not finished.get_finished_spans()


async def test_who_traces_nothing_has_the_plain_classes(settings: Settings, database: Database) -> None:
    async def call(_key: str, requests: Sequence[int]) -> Sequence[int]:
        return requests

    assert type(open_database(settings)) is Database
    assert type(make_coalescer(settings, call)) is Coalescer
    assert type(make_appends(settings, database)) is Appends
    assert pusher_class(settings) is Pusher


@pytest.mark.parametrize(
    "traceparent", ["", "00", "é", f"00-{'0' * 32}-{'0' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01", "x" * 10_000]
)
def test_what_is_no_trace_is_none(traceparent: str) -> None:
    carrier = {"traceparent": traceparent, "tracestate": "=,;"}
    for context in (extracted(carrier), of_message(json.dumps(carrier).encode()), of_message(b"{}"), of_message(None)):
        assert not trace.get_current_span(context).get_span_context().is_valid
