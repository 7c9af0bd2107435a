"""Gives every request an id, every answer its headers, and writes metrics and one line in the log."""

import logging
import random
import re
import time

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastpubsub.api.browsers import Browsers
from fastpubsub.api.errors import CLIENT_CLOSED_REQUEST, Problem, unexpected
from fastpubsub.api.headers import by_name
from fastpubsub.api.prometheus import RequestMetrics
from fastpubsub.api.request_log import RequestLog

logger = logging.getLogger("fastpubsub.requests")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
UNROUTED = "none"
API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""For answers that no browser shows as a page."""

UNCACHED = (b"cache-control", b"no-store")
PROBES = frozenset({"/liveness", "/readiness", "/metrics"})
SWITCHING_PROTOCOLS = 101
INTERNAL_ERROR = 1011


class RequestMiddleware:
    """Goes around the whole application; nothing that a route raises passes it."""

    def __init__(
        self,
        app: ASGIApp,
        sockets: ASGIApp,
        browsers: Browsers,
        metrics: RequestMetrics,
        log: RequestLog,
    ) -> None:
        self.app = app
        self.sockets = sockets
        self.browsers = browsers
        self.metrics = metrics
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await (self._socket if scope["type"] == "websocket" else self.app)(scope, receive, send)
            return
        started = time.perf_counter()
        headers = by_name(scope)
        scope["state"]["request_id"] = request_id = _request_id(headers)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message.get("headers", ()), request_id)
            await send(message)

        self.metrics.started()
        try:
            if refusal := self._refusal(scope, headers.get(b"content-encoding")):
                await refusal(scope, receive, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED_REQUEST
        except Exception as error:
            logger.exception("request_id=%s unexpected error", request_id)
            if not status:
                answer = await unexpected(Request(scope), error)
                await answer(scope, receive, send_with_headers)
        finally:
            self._finished(scope, status or CLIENT_CLOSED_REQUEST, time.perf_counter() - started)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = by_name(scope)
        scope["state"]["request_id"] = request_id = _request_id(headers)
        scope["method"] = "GET"
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in ("websocket.accept", "websocket.http.response.start"):
                status = message.get("status", SWITCHING_PROTOCOLS)
                message["headers"] = _with_ours(message.get("headers", ()), request_id)
            await send(message)

        self.metrics.started()
        try:
            await self.sockets(scope, receive, send_with_headers)
        except OSError:  # uvicorn's, when the connection is gone
            pass
        except Exception:
            logger.exception("request_id=%s unexpected error", request_id)
            await send_with_headers({"type": "websocket.close", "code": INTERNAL_ERROR})
        finally:
            self._finished(scope, status or CLIENT_CLOSED_REQUEST, time.perf_counter() - started)

    def _refusal(self, scope: Scope, encoding: bytes | None) -> Problem | None:
        """Refuses NUL, which PostgreSQL cannot store, and compressed bodies, which may inflate without a bound."""
        if why := self.browsers.refusal(scope):
            return Problem(Request(scope), 403, why)
        if encoding and encoding.strip().lower() != b"identity":
            return Problem(Request(scope), 415, "compressed bodies are not accepted; leave out Content-Encoding")
        if "\x00" in scope["path"]:
            return Problem(Request(scope), 404, "the path has a NUL character; leave it out")
        if b"%00" in scope["query_string"] or b"\x00" in scope["query_string"]:
            return Problem(Request(scope), 422, "the query has a NUL character; leave it out")
        return None

    def _finished(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        template = None if route is None else route.path
        self.metrics.finished(scope["method"], template or UNROUTED, status, seconds)
        level = logging.WARNING if status >= 500 else logging.DEBUG if template in PROBES else logging.INFO
        self.log.add(level, scope, template, status, seconds)


def _request_id(headers: dict[bytes, bytes]) -> str:
    """Returns that of the caller, or one made here unless it sent a valid one."""
    sent = headers.get(b"x-request-id")
    if sent and REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return f"{random.getrandbits(128):032x}"


def _with_ours(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    ours = [*headers, (b"x-request-id", request_id.encode("ascii")), (b"x-content-type-options", b"nosniff")]
    # A route that sets the lifetime of an answer sets its policy too.
    for name, _ in headers:
        if name == b"cache-control":
            return ours
    ours += (UNCACHED, API_POLICY)
    return ours
