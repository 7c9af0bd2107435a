"""Answers every refusal as a problem of RFC 9457, `application/problem+json`."""

import http
import json
import re
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from fastpubsub.exceptions import (
    FastpubsubError,
    InvalidRequest,
    PermissionDenied,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from fastpubsub.models import sentence

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
MAX_DETAIL = 1000
"""Characters; an id in it comes from the caller."""

MAX_ERRORS = 10
MAX_TEXT = 200
"""Characters of one text of a validation error; a name in it comes from the caller."""

# Python before 3.13 has the names of an older RFC.
TITLES = {kind.status: kind.title for kind in (TooLarge, InvalidRequest)}
INTERNAL_ERROR = "the server failed unexpectedly; its log has the error under this request id"

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Any other refusal has the same form; only a 422 has `errors`.",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "title": "Problem",
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {
                            "type": "string",
                            "const": "about:blank",
                            "description": "the status says what kind of problem it is",
                        },
                        "title": {"type": "string", "description": "the status in words"},
                        "status": {"type": "integer", "description": "the status of the answer"},
                        "detail": {"type": "string", "description": "what is wrong, why, and what to do"},
                        "request_id": {"type": "string", "description": "the id of the request in the log"},
                        "errors": {
                            "type": "array",
                            "items": {"type": "object"},
                            "description": "one item for each wrong member or parameter",
                        },
                    },
                }
            }
        },
    }
}
"""What the OpenAPI document says of every route."""

_NOT_QUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


class Problem(Response):
    media_type = MEDIA_TYPE

    def __init__(
        self,
        request: Request,
        status: int,
        detail: str,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": title or _phrase(status),
            "status": status,
            "detail": detail if len(detail) <= MAX_DETAIL else f"{detail[: MAX_DETAIL - 1]}…",
        }
        if request_id := request.scope.get("state", {}).get("request_id"):
            body["request_id"] = request_id
        super().__init__(_encode(body | extra), status, headers)


def install(app: FastAPI) -> None:
    """RequestMiddleware answers what is raised outside of FastAPI's layers, and logs what nobody expected."""
    app.add_exception_handler(FastpubsubError, refused)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, not_routed)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, unexpected)


async def refused(request: Request, error: FastpubsubError) -> Response:
    if error.status >= 500:
        request.scope["state"]["error"] = error.detail
    extra = {"errors": error.errors} if isinstance(error, InvalidRequest) and error.errors else {}
    return Problem(request, error.status, error.detail, error.title, _headers(error), **extra)


async def invalid(request: Request, error: RequestValidationError) -> Response:
    errors = [_shown(one) for one in error.errors()[:MAX_ERRORS]]
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"]) or "the request"
    return Problem(request, 422, f"{where}: {first['msg']}", errors=errors)


async def not_routed(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return Problem(request, 404, "there is nothing at this path", headers=headers)
    if error.status_code == 405:
        allowed = ", ".join(sorted(allowed_methods(request)))
        detail = f"this path does not accept this method; it accepts {allowed}"
        return Problem(request, 405, detail, headers=headers | {"Allow": allowed})
    return Problem(request, error.status_code, str(error.detail), headers=headers)


async def left(request: Request, error: Exception) -> Response:
    """Nobody reads it; it is how such a request is counted and logged."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def unexpected(request: Request, error: Exception) -> Response:
    """The caller learns nothing about it, unless the server runs in debug mode."""
    if request.app.state.settings.api_debug:
        return Problem(request, 500, INTERNAL_ERROR, traceback="".join(traceback.format_exception(error)))
    return Problem(request, 500, INTERNAL_ERROR)


def allowed_methods(request: Request) -> set[str]:
    """Returns all methods of the path: the router itself names only those of the first route that matches."""
    methods: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods


def _headers(error: FastpubsubError) -> dict[str, str]:
    if isinstance(error, Unavailable | TooManyRequests):
        return {"Retry-After": str(error.retry_after_seconds)}
    if isinstance(error, Unauthenticated):
        described = {"error": error.error, "error_description": error.detail} if error.error else {}
        return {"WWW-Authenticate": _challenge(**described)}
    if isinstance(error, PermissionDenied) and error.scope:
        return {"WWW-Authenticate": _challenge(error="insufficient_scope", scope=error.scope)}
    if isinstance(error, TooLarge):
        # The rest of the body is not worth reading.
        return {"Connection": "close"}
    return {}


def _challenge(**parameters: str) -> str:
    """RFC 6750, section 3."""
    quoted = [f'{name}="{_NOT_QUOTABLE.sub(" ", value)}"' for name, value in parameters.items()]
    return ", ".join(['Bearer realm="fastpubsub"', *quoted])


def _shown(error: Any) -> dict[str, Any]:
    """Leaves out the input, which may be a secret or not JSON."""
    return {
        "type": error["type"],
        "loc": [part if isinstance(part, int) else str(part)[:MAX_TEXT] for part in error["loc"]],
        "msg": sentence(error)[:MAX_TEXT],
    }


def _phrase(status: int) -> str:
    return TITLES.get(status) or http.HTTPStatus(status).phrase


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
