"""Decides from the token and the path what a caller may do, before a body is read."""

import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response, params
from fastapi.routing import APIRoute

from fastpubsub.api import bodies
from fastpubsub.api.bodies import check_headers, receive_body
from fastpubsub.api.errors import DOCUMENTED
from fastpubsub.api.headers import every
from fastpubsub.api.requests import check_query
from fastpubsub.api.scrapes import scraper
from fastpubsub.exceptions import Unauthenticated
from fastpubsub.json_text import check_object
from fastpubsub.scopes import ANONYMOUS, NOBODY, SCOPES, Caller
from fastpubsub.services.authenticator import SLOW_SECONDS, Authenticator

SCHEME = "oauth2"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Access(params.Depends):
    """A declaration in a route's `dependencies`; ScopedRoute removes it, so that no request pays for solving it."""

    verb: str | None = None
    parameter: str | None = None
    forms: bool = False
    limit: bodies.Limit = bodies.small
    direct: bool = False
    events: bool = False
    query: frozenset[str] = frozenset()
    alternative: str | None = None
    unless: Callable[[Request], Caller | None] | None = None

    def check(self, request: Request, caller: Caller) -> None:
        if self.verb is None:
            return
        if self.parameter is None:
            if self.alternative is None or caller.objects(self.alternative) == frozenset():
                caller.require_any(self.verb)
        else:
            caller.require(self.verb, request.path_params[self.parameter])


def requires(
    verb: str,
    parameter: str | None = None,
    *,
    limit: bodies.Limit = bodies.small,
    direct: bool = False,
    events: bool = False,
    alternative: str | None = None,
) -> Access:
    """Requires `verb` for the object that the path parameter names; without one, for any object, and the route checks.

    `limit`: of the body, where a small one does not fit.
    `direct`: the endpoint takes the request, answers a response, and needs nothing of FastAPI (see direct.py).
    `events`: it takes CloudEvents.
    `alternative`: a verb that admits as well, where there is no parameter.
    """
    if verb not in SCOPES:
        raise ValueError(f"there is no scope {verb!r}")
    return Access(verb=verb, parameter=parameter, limit=limit, direct=direct, events=events, alternative=alternative)


def scraping() -> Access:
    """Admits the callers that `scrapes.py` admits, and tokens with the scope."""
    return Access(verb="metrics:read", unless=scraper)


def public(*, forms: bool = False, query: Iterable[str] = ()) -> Access:
    """Declares that everyone may call the route; its body may be a form.

    `query`: parameters that are not documented, because the endpoint refuses them in its own words.
    """
    return Access(forms=forms, query=frozenset(query))


class ScopedRoute(APIRoute):
    """Authenticates, authorizes, checks the names of the query, reads and checks the body, in this order; then the
    endpoint runs.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        dependencies = list(options.pop("dependencies", None) or ())
        declared = [one for one in dependencies if isinstance(one, Access)]
        if len(declared) != 1:
            raise TypeError(f"{path} needs one of `requires(...)` and `public()` in its dependencies")
        self.access = declared[0]
        dependencies.remove(self.access)
        if self.access.verb is not None:
            verbs = filter(None, (self.access.verb, self.access.alternative))
            options["openapi_extra"] = {"security": [{SCHEME: [verb]} for verb in verbs]} | (
                options.get("openapi_extra") or {}
            )
        options["responses"] = DOCUMENTED | (options.get("responses") or {})
        options["operation_id"] = _operation_id(endpoint.__name__)
        super().__init__(path, endpoint, dependencies=dependencies, **options)
        self.run = self.get_route_handler()

    def get_route_handler(self) -> Handler:
        handler = self.endpoint if self.access.direct else super().get_route_handler()
        access, is_parsed = self.access, self.body_field is not None
        takes_body = is_parsed or "requestBody" in (self.openapi_extra or {})
        may_have_body = bool((self.methods or set()) - {"GET", "HEAD"})
        query = access.query | _documented_query(self)

        async def handle(request: Request) -> Response:
            state = request.app.state
            caller = await _identify(request, state.authenticator, access)
            request.scope["state"]["caller"] = caller
            access.check(request, caller)
            if request.scope["query_string"]:
                check_query(request, query)
            if may_have_body:
                limit = access.limit(state.settings)
                check_headers(request, limit, forms=access.forms, events=access.events)
                started = time.monotonic()
                body = await receive_body(request, limit)
                if time.monotonic() - started > SLOW_SECONDS:
                    await _identify(request, state.authenticator, access)
                # The endpoints that FastAPI hands no parsed body check what they read themselves.
                if is_parsed and body:
                    check_object(body)
                request._body = body if takes_body else b""  # noqa: SLF001 - where Starlette keeps what it has read
            return await handler(request)

        return handle


def _operation_id(name: str) -> str:
    """Returns `createTopic` for `create_topic`: what generated clients call their methods."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _documented_query(route: APIRoute) -> frozenset[str]:
    """Returns the parameters that FastAPI reads, and those that other endpoints declare for the OpenAPI document."""
    declared = (route.openapi_extra or {}).get("parameters", ())
    read = {parameter.alias for parameter in route.dependant.query_params}
    return frozenset(read | {one["name"] for one in declared if one["in"] == "query"})


async def _identify(request: Request, authenticator: Authenticator, access: Access) -> Caller:
    if access.unless is not None and (caller := access.unless(request)) is not None:
        return caller
    if not authenticator.enabled:
        return ANONYMOUS
    if access.verb is None:
        return NOBODY
    return await authenticator.authenticate(_bearer_token(request))


def header_token(request: Request) -> bytes | None:
    values = every(request.scope, b"authorization")
    if len(values) > 1:
        raise Unauthenticated("the request has more than one Authorization header; send one", "invalid_token")
    scheme, _, token = values[0].partition(b" ") if values else (b"", b"", b"")
    return token.strip(b" ") if scheme.lower() == b"bearer" else None


def lasting_token(request: Request) -> bytes | None:
    """Returns the token that has to stay valid while the request waits or the stream is open; None without one."""
    return _bearer_token(request) if request.app.state.authenticator.enabled else None


def _bearer_token(request: Request) -> bytes:
    token = header_token(request)
    if token is None:
        raise Unauthenticated("this needs an access token of /oauth/token, sent as 'Authorization: Bearer <token>'")
    return token
