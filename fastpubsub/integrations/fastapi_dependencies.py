"""Dependencies of subscribers, found by FastAPI itself: what works in a route works in a subscriber of its application.

`get_dependant` and `solve_dependencies` are not documented: tests/client/test_fastapi_dependencies.py says what of them
is used.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any, get_args, get_origin

from fastapi import Depends, FastAPI
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.requests import Request

from fastpubsub.client.dependencies import Solve
from fastpubsub.client.signatures import Dependency, Injected

PATH = "/"


class FastAPISolver:
    """`application` and `state` are those of the application, as long as it runs.

    A dependency that takes the request gets one without headers or a body: its `state` has what the lifespan has put
    there, and `state.message`, or for a batch `state.messages`.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.application: FastAPI | None = None
        self.state = state

    def __call__(self, name: str, injected: Sequence[Injected], is_batch: bool) -> Solve:
        dependant = get_dependant(path=PATH, call=_function_of(injected))
        if _flat(dependant, "body_params"):
            raise TypeError(f"{name}: a dependency takes the body of a request, which a message does not have")
        dependants = _flat(dependant, "dependencies")
        if any(one.background_tasks_param_name for one in dependants):
            raise TypeError(
                f"{name}: a dependency takes BackgroundTasks, which no answer would start: call what they call"
            )
        for one in dependants:
            # All are closed before the message is settled. With two scopes, one function would be called twice: `once`
            # would remember the message in another transaction than that of the work.
            one.scope = "function"

        member = "messages" if is_batch else "message"

        async def solve(message: Any, stack: AsyncExitStack) -> dict[str, Any]:
            solved = await solve_dependencies(
                request=self._request({member: message}, stack),
                dependant=dependant,
                dependency_overrides_provider=self.application,
                async_exit_stack=stack,
                embed_body_fields=False,
            )
            if solved.errors:
                raise TypeError(f"dependencies of {name} take what a message does not have: {_missing(solved.errors)}")
            return dict(solved.values)

        return solve

    def _request(self, state: Mapping[str, Any], stack: AsyncExitStack) -> Request:
        return Request(
            {
                "type": "http",
                "method": "POST",
                "scheme": "http",
                "path": PATH,
                "query_string": b"",
                "headers": [],
                "app": self.application,
                "state": {**self.state, **state},
                "fastapi_inner_astack": stack,
                "fastapi_function_astack": stack,
            }
        )


def _function_of(injected: Sequence[Injected]) -> Callable[..., None]:
    """With these arguments and no others: of the payload FastAPI would make a body."""

    def function() -> None: ...

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(one.name, keyword, annotation=_annotation(one)) for one in injected]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _annotation(injected: Injected) -> Any:
    annotation, mark = injected.annotation, injected.mark
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if isinstance(mark, Dependency):
        mark = Depends(mark.dependency, use_cache=mark.use_cache)
    return Annotated[Any if kind is inspect.Parameter.empty else kind, mark]


def _flat(dependant: Any, member: str) -> list[Any]:
    return [*getattr(dependant, member), *(one for child in dependant.dependencies for one in _flat(child, member))]


def _missing(errors: Sequence[Any]) -> str:
    return ", ".join(".".join(str(part) for part in error["loc"]) for error in errors)
