"""A span for each request, by the semantic conventions for HTTP."""

from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastpubsub.api.headers import by_name
from fastpubsub.api.middleware import PROBES
from fastpubsub.traces import extracted, spans

CONTEXT = (b"traceparent", b"tracestate")
SWITCHING_PROTOCOLS = 101
INTERNAL_ERROR = 500
BROKEN = 1011
"""The code with which a WebSocket is closed after an error of the server."""


class TracedRequests:
    """Goes around everything that answers; probes have no span, and that of a WebSocket lasts until it is closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        headers = by_name(scope)
        carrier = {name.decode(): headers[name].decode("latin-1") for name in CONTEXT if name in headers}
        with spans.tracer.start_as_current_span(
            _method(scope), extracted(carrier), SpanKind.SERVER, _attributes(scope, headers)
        ) as span:

            async def send_and_note(message: Message) -> None:
                match message["type"]:
                    case "http.response.start" | "websocket.http.response.start":
                        _answered(span, message["status"])
                    case "websocket.accept":
                        _answered(span, SWITCHING_PROTOCOLS)
                    case "websocket.close" if message.get("code") == BROKEN:
                        _failed(span, str(BROKEN))
                await send(message)

            try:
                await self._app(scope, receive, send_and_note)
            finally:
                _ended(span, scope)


def _method(scope: Scope) -> str:
    """A WebSocket begins as a GET."""
    return str(scope.get("method", "GET"))


def _attributes(scope: Scope, headers: dict[bytes, bytes]) -> dict[str, AttributeValue]:
    """Without the query, which names consumers and pages."""
    attributes: dict[str, AttributeValue] = {
        "http.request.method": _method(scope),
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
        _failed(span, str(status))


def _failed(span: Span, why: str) -> None:
    span.set_attribute("error.type", why)
    span.set_status(StatusCode.ERROR)


def _ended(span: Span, scope: Scope) -> None:
    route = scope.get("route")
    if route is not None:
        span.update_name(f"{_method(scope)} {route.path}")
        span.set_attribute("http.route", route.path)
    if request_id := scope["state"].get("request_id"):
        span.set_attribute("fastpubsub.request.id", request_id)
