"""Carries traces with messages: what is published in a span, and what is done about it elsewhere, is one trace.

    from fastpubsub.integrations.opentelemetry import instrument

    instrument(worker)

It needs `opentelemetry-api`; what becomes of the spans is up to your SDK.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fastpubsub.client import Delivery, Reject, Retry
from fastpubsub.client.requests import publishing
from fastpubsub.client.router import Router

MAX_ATTRIBUTES = 98
"""A message may have 100, and a trace needs two."""

_propagator = TraceContextTextMapPropagator()
_delivery: ContextVar[Delivery | None] = ContextVar("delivery", default=None)


def instrument(*routers: Router, tracer_provider: trace.TracerProvider | None = None) -> None:
    """Lets every message that this process publishes in a span carry `traceparent` and `tracestate` as attributes.

    Each function of these workers, routers and buses runs in a span whose parent they name. A message that has a
    `traceparent` keeps it. One that is published with an `idempotency_key` of yours carries none: its repetition must
    be the same. Baggage is never carried. Call it once, before the worker starts.
    """
    publishing.carry(_with_trace)
    tracer = trace.get_tracer("fastpubsub", tracer_provider=tracer_provider)
    for router in routers:
        router.middleware(_traced(tracer))


class MessageFilter(logging.Filter):
    """Gives each record `message_id`, `subscription_id` and `trace_id`, empty outside of instrumented functions.

    Add it to a handler of `logging`, and name them in its format: `%(message_id)s`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        delivery = _delivery.get()
        record.message_id = "" if delivery is None else str(delivery.id)
        record.subscription_id = "" if delivery is None else delivery.subscription_id
        context = trace.get_current_span().get_span_context()
        record.trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
        return True


def _with_trace(attributes: Mapping[str, str] | None) -> Mapping[str, str] | None:
    given = attributes or {}
    if "traceparent" in given or len(given) > MAX_ATTRIBUTES:
        return attributes
    carried: dict[str, str] = {}
    _propagator.inject(carried)
    return {**given, **carried} if carried else attributes


def _traced(tracer: trace.Tracer) -> Callable[[Delivery, Callable[[], Awaitable[Any]]], Awaitable[Any]]:
    async def in_span(delivery: Delivery, call_next: Callable[[], Awaitable[Any]]) -> Any:
        parent = _propagator.extract(delivery.attributes or {})
        token = _delivery.set(delivery)
        try:
            with tracer.start_as_current_span(
                f"process {delivery.subscription_id}",
                parent,
                trace.SpanKind.CONSUMER,
                _attributes(delivery),
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                return await _noting(span, call_next)
        finally:
            _delivery.reset(token)

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


def _attributes(delivery: Delivery) -> dict[str, str | int]:
    """By the semantic conventions for messaging."""
    return {
        "messaging.system": "fastpubsub",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.subscription.name": delivery.subscription_id,
        "messaging.message.id": str(delivery.id),
        "messaging.fastpubsub.message.delivery_attempts": delivery.delivery_attempts,
    }
