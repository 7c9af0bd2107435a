"""Spans of the server, sent to a collector by OTLP.

It needs the extra `otel`, and only the `traced` modules import it, where FASTPUBSUB_TRACES_ENABLED is on: who traces
nothing pays nothing. What the spans are of and where they go is up to the OTEL_… variables of the SDK.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fastpubsub import __version__

logger = logging.getLogger(__name__)

PROTOCOL = "http/protobuf"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
LAST_EXPORT_SECONDS = 2.0
_LINKS = context.create_key("fastpubsub-links")
_propagator = TraceContextTextMapPropagator()


class Spans:
    """Those of this process; none before `start`, which begins a thread and so comes after a fork."""

    def __init__(self) -> None:
        self.tracer: trace.Tracer = trace.NoOpTracer()
        self._provider: TracerProvider | None = None

    def start(self) -> None:
        for variable in PROTOCOLS:
            if (protocol := os.environ.get(variable, PROTOCOL)) != PROTOCOL:
                logger.warning("traces are sent by %s, although %s is %s", PROTOCOL, variable, protocol)
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer("fastpubsub", __version__)

    def stop(self) -> None:
        """Sends what is left; what a collector does not take in a moment is lost, for the SDK itself waits long."""
        provider, self._provider = self._provider, None
        self.tracer = trace.NoOpTracer()
        if provider is not None:
            ending = Thread(target=provider.shutdown, daemon=True)
            ending.start()
            ending.join(LAST_EXPORT_SECONDS)


spans = Spans()


def extracted(carrier: Mapping[str, str]) -> Context:
    """The context that `traceparent` and `tracestate` name, which may be none."""
    return _propagator.extract(carrier, context=Context())


def injected() -> dict[str, str]:
    """`traceparent` and `tracestate` of the current span, if there is one."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def of_message(attributes: bytes | None) -> Context:
    """The context that a message carries; attributes are JSON."""
    return extracted(json.loads(attributes)) if attributes and b"traceparent" in attributes else Context()


@contextmanager
def coalesced(contexts: Sequence[Context]) -> Iterator[None]:
    """Whose requests the next call is made for: its span is in the trace of the first, with links to the others."""
    known = [one for each in contexts for one in (trace.get_current_span(each).get_span_context(), *links(each))]
    first = next((each for each in contexts if trace.get_current_span(each).is_recording()), contexts[0])
    own = trace.get_current_span(first).get_span_context()
    others = {one.span_id: one for one in known if one.is_valid and one.span_id != own.span_id}
    token = context.attach(context.set_value(_LINKS, tuple(others.values()), first))
    try:
        yield
    finally:
        context.detach(token)


def links(of: Context | None = None) -> tuple[trace.SpanContext, ...]:
    """The requests that a call is made for, besides that of the current span."""
    found = context.get_value(_LINKS, of)
    return found if isinstance(found, tuple) else ()


def _resource() -> Resource:
    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "fastpubsub"}))
    return resource
