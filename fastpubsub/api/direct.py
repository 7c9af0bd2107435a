"""Calls the routes of the message path without FastAPI's layers.

FastAPI documents and mounts them like any other route, but a request for one of them needs nothing that its layers do:
no parameters to solve, no models, no exit stacks. They are found by their path here and run with the same admission and
the same error answers. Whatever is unusual, such as a root path, goes the ordinary way to the same endpoint.
"""

from collections.abc import Iterable

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fastpubsub.api import errors
from fastpubsub.api.security import ScopedRoute
from fastpubsub.exceptions import FastpubsubError

_PARTS = 4
"""Of `/subscriptions/{subscription_id}/acks`, split at the slashes."""


class DirectRoutes:
    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes: dict[tuple[str, str, str], tuple[ScopedRoute, str]] = {}
        for route in routes:
            if isinstance(route, ScopedRoute) and route.access.direct:
                _, kind, parameter, what = route.path.split("/")
                for method in route.methods or ():
                    self._routes[method, kind, what] = route, parameter.strip("{}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            parts = scope["path"].split("/")
            if len(parts) == _PARTS and (found := self._routes.get((scope["method"], parts[1], parts[3]))) and parts[2]:
                route, parameter = found
                scope["route"] = route
                scope["path_params"] = {parameter: parts[2]}
                await _answer(route, scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _answer(route: ScopedRoute, scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    try:
        response = await route.run(request)
    except FastpubsubError as error:
        response = await errors.refused(request, error)
    except RequestValidationError as error:
        response = await errors.invalid(request, error)
    await response(scope, receive, send)
