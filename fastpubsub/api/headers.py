"""The headers of a request by name: each layer asks for some, and walking over all of them took a while each time."""

from starlette.types import Scope


def by_name(scope: Scope) -> dict[bytes, bytes]:
    """Returns each header by its name in lower case; of several with one name, the last."""
    state = scope.setdefault("state", {})
    headers: dict[bytes, bytes] | None = state.get("headers")
    if headers is None:
        headers = state["headers"] = dict(scope["headers"])
    return headers


def every(scope: Scope, name: bytes) -> list[bytes]:
    """Returns the values of all headers with that name."""
    return [value for each, value in scope["headers"] if each == name] if name in by_name(scope) else []
