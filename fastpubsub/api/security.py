"""Who may do what: decided from the token and the path, before a body is read."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response, params
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from fastpubsub.exceptions import TooLarge, Unauthenticated, UnsupportedMediaType
from fastpubsub.payloads import check_json
from fastpubsub.scopes import ANONYMOUS, NOBODY, SCOPES, Caller
from fastpubsub.services.authenticator import Authenticator

SCHEME = "oauth2"
FORM = "application/x-www-form-urlencoded"
CLOUDEVENTS = "application/cloudevents"
"""For the routes that know them: elsewhere their attributes would be taken for something else."""

MAX_LENGTH_DIGITS = 15

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Access(params.Depends):
    """What a route declares in `dependencies`; ScopedRoute takes it out, so that no request pays for solving it."""

    verb: str | None = None
    parameter: str | None = None
    forms: bool = False
    max_body_bytes: int | None = None
    direct: bool = False
    events: bool = False

    def check(self, request: Request, caller: Caller) -> None:
        if self.verb is None:
            return
        if self.parameter is None:
            caller.require_any(self.verb)
        else:
            caller.require(self.verb, request.path_params[self.parameter])


def requires(verb: str, parameter: str | None = None, *, direct: bool = False, events: bool = False) -> Access:
    """`verb` for the object that the path parameter names; without one, for any object, and the route looks closer.

    `direct`: the endpoint takes the request, answers a response, and needs nothing of FastAPI (see direct.py).
    `events`: it takes CloudEvents.
    """
    if verb not in SCOPES:
        raise ValueError(f"there is no scope {verb!r}")
    return Access(verb=verb, parameter=parameter, direct=direct, events=events)


def public(*, forms: bool = False, max_body_bytes: int | None = None) -> Access:
    """For everybody; where it takes a body, perhaps as a form and with a bound of its own."""
    return Access(forms=forms, max_body_bytes=max_body_bytes)


class ScopedRoute(APIRoute):
    """Authenticates, authorizes, reads and checks the body, in this order; then the endpoint runs."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        dependencies = list(options.pop("dependencies", None) or ())
        declared = [one for one in dependencies if isinstance(one, Access)]
        if len(declared) != 1:
            raise TypeError(f"{path} needs one of `requires(...)` and `public()` in its dependencies")
        self.access = declared[0]
        dependencies.remove(self.access)
        if self.access.verb is not None:
            options["openapi_extra"] = {"security": [{SCHEME: [self.access.verb]}]} | (
                options.get("openapi_extra") or {}
            )
        super().__init__(path, endpoint, dependencies=dependencies, **options)
        self.run = self.get_route_handler()

    def get_route_handler(self) -> Handler:
        handler = self.endpoint if self.access.direct else super().get_route_handler()
        access, is_parsed = self.access, self.body_field is not None
        takes_body = bool((self.methods or set()) - {"GET", "HEAD"})

        async def handle(request: Request) -> Response:
            state = request.app.state
            caller = await _identify(request, state.authenticator, access)
            request.scope.setdefault("state", {})["caller"] = caller
            access.check(request, caller)
            if takes_body:
                limit = access.max_body_bytes or state.settings.api_max_body_bytes
                _check_headers(request, access, limit)
                body = await _receive_body(request, limit)
                # The endpoints that FastAPI hands no parsed body check what they read themselves.
                if is_parsed and body:
                    check_json(body)
                request._body = body  # noqa: SLF001 - where Starlette keeps what it has read
            return await handler(request)

        return handle


def describe_security(app: FastAPI) -> None:
    """Declares the scheme that the routes refer to; the token's address is relative, so it follows the root path."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        flow = {"tokenUrl": "oauth/token", "scopes": SCOPES}
        scheme = {"type": "oauth2", "flows": {"clientCredentials": flow}}
        schema.setdefault("components", {}).setdefault("securitySchemes", {})[SCHEME] = scheme
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


async def _identify(request: Request, authenticator: Authenticator, access: Access) -> Caller:
    if not authenticator.enabled:
        return ANONYMOUS
    if access.verb is None:
        return NOBODY
    return await authenticator.authenticate(_bearer_token(request))


def header_token(request: Request) -> bytes | None:
    values = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if len(values) > 1:
        raise Unauthenticated("the request has more than one Authorization header; send one", "invalid_token")
    scheme, _, token = values[0].partition(b" ") if values else (b"", b"", b"")
    return token.strip(b" ") if scheme.lower() == b"bearer" else None


def stream_token(request: Request) -> bytes | None:
    """What has to stay valid as long as the stream is open; None when authentication is off."""
    return _bearer_token(request) if request.app.state.authenticator.enabled else None


def _bearer_token(request: Request) -> bytes:
    token = header_token(request)
    if token is None:
        raise Unauthenticated("this needs an access token of /oauth/token, sent as 'Authorization: Bearer <token>'")
    return token


def _check_headers(request: Request, access: Access, limit: int) -> None:
    length = media = b""
    is_chunked = False
    for name, value in request.scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"content-type":
            media = value
        elif name == b"transfer-encoding":
            is_chunked = True
    if _is_above(length, limit):
        raise _too_large(limit)
    if (is_chunked or length not in (b"", b"0")) and media != b"application/json":
        _check_media_type(media_type(request), access)


async def _receive_body(request: Request, limit: int) -> bytes:
    chunks = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _is_above(length: bytes, limit: int) -> bool:
    return length.isdigit() and (len(length) > MAX_LENGTH_DIGITS or int(length) > limit)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_media_type(sent: str, access: Access) -> None:
    is_json = sent == "application/json" or (
        sent.startswith("application/")
        and sent.endswith("+json")
        and (access.events or not sent.startswith(CLOUDEVENTS))
    )
    if not is_json and not (access.forms and sent == FORM):
        accepted = f"application/json' or '{FORM}" if access.forms else "application/json"
        raise UnsupportedMediaType(f"the body must have the Content-Type '{accepted}'")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes; send less at once")
