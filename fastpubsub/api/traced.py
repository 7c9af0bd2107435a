"""A span for each request, by the semantic conventions for HTTP."""

from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastpubsub.api.headers import by_name
from fastpubsub.api.middleware import PROBES
from fastpubsub.traces import extracted, spans

CONTEXT = (b"traceparent", b"tracestate")
INTERNAL_ERROR = 500


class TracedRequests:
    """Goes around everything that answers; probes and WebSockets have no span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        headers = by_name(scope)
        carrier = {name.decode(): headers[name].decode("latin-1") for name in CONTEXT if name in headers}
        with spans.tracer.start_as_current_span(
            scope["method"], extracted(carrier), SpanKind.SERVER, _attributes(scope, headers)
        ) as span:

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _answered(span, message["status"])
                await send(message)

            try:
                await self._app(scope, receive, send_and_note)
            finally:
                _ended(span, scope)


def _attributes(scope: Scope, headers: dict[bytes, bytes]) -> dict[str, AttributeValue]:
    """Without the query, which names consumers and pages."""
    attributes: dict[str, AttributeValue] = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    if scope.get("server"):
        attributes["server.address"], attributes["server.port"] = scope["server"]
    if b"user-agent" in headers:
        attributes["user_agent.original"] = headers[b"user-agent"].decode("latin-1")
    return attributes


def _answered(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= INTERNAL_ERROR:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _ended(span: Span, scope: Scope) -> None:
    route = scope.get("route")
    if route is not None:
        span.update_name(f"{scope['method']} {route.path}")
        span.set_attribute("http.route", route.path)
    if request_id := scope["state"].get("request_id"):
        span.set_attribute("fastpubsub.request.id", request_id)
