"""Carries traces with messages: what is published in a span, and what is done about it elsewhere, is one trace.

    from fastpubsub.integrations.opentelemetry import instrument

    instrument(worker)

It needs `opentelemetry-api`; what becomes of the spans is up to your SDK.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fastpubsub.client import Delivery, Reject, Retry
from fastpubsub.client import MessageFilter as MessageFilter  # noqa: PLC0414 - for those who import it from here
from fastpubsub.client.layers import Deliveries
from fastpubsub.client.requests import publishing
from fastpubsub.client.router import Router

MAX_ATTRIBUTES = 98
"""A message may have 100, and a trace needs two."""

_propagator = TraceContextTextMapPropagator()


def instrument(*routers: Router, tracer_provider: trace.TracerProvider | None = None) -> None:
    """Lets every message that this process publishes in a span carry `traceparent` and `tracestate` as attributes.

    Each function of these workers, routers and buses runs in a span whose parent they name; that of a batch is linked
    to all of them. A message that has a `traceparent` keeps it. One that is published with an `idempotency_key` of
    yours carries none: its repetition must be the same. Baggage is never carried. Call it once, before the worker
    starts.
    """
    publishing.carry(_with_trace)
    MessageFilter.span_trace = staticmethod(_trace_id)
    tracer = trace.get_tracer("fastpubsub", tracer_provider=tracer_provider)
    for router in routers:
        router.middleware(_traced(tracer))


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def _with_trace(attributes: Mapping[str, str] | None) -> Mapping[str, str] | None:
    given = attributes or {}
    if "traceparent" in given or len(given) > MAX_ATTRIBUTES:
        return attributes
    carried: dict[str, str] = {}
    _propagator.inject(carried)
    return {**given, **carried} if carried else attributes


def _first(work: Deliveries) -> Delivery:
    return work[0] if isinstance(work, list) else work


def _link(delivery: Delivery) -> trace.Link:
    return trace.Link(
        trace.get_current_span(_propagator.extract(delivery.attributes or {}, Context())).get_span_context()
    )


def _traced(tracer: trace.Tracer) -> Callable[[Deliveries, Callable[[], Awaitable[Any]]], Awaitable[Any]]:
    async def in_span(work: Deliveries, call_next: Callable[[], Awaitable[Any]]) -> Any:
        is_batch = isinstance(work, list)
        parent = None if is_batch else _propagator.extract(_first(work).attributes or {})
        links = [link for link in map(_link, work) if link.context.is_valid] if isinstance(work, list) else []
        with tracer.start_as_current_span(
            f"process {_first(work).subscription_id}",
            parent,
            trace.SpanKind.CONSUMER,
            _attributes(work),
            links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            return await _noting(span, call_next)

    return in_span


async def _noting(span: trace.Span, call_next: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call_next()
    except BaseException as error:
        span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        span.set_attribute("error.type", type(error).__qualname__)
        if not isinstance(error, Retry | Reject):
            span.record_exception(error)
        raise


def _attributes(work: Deliveries) -> dict[str, str | int]:
    """By the semantic conventions for messaging."""
    common: dict[str, str | int] = {
        "messaging.system": "fastpubsub",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.subscription.name": _first(work).subscription_id,
    }
    if isinstance(work, list):
        return {**common, "messaging.batch.message_count": len(work)}
    return {
        **common,
        "messaging.message.id": str(work.id),
        "messaging.fastpubsub.message.delivery_attempts": work.delivery_attempts,
    }
