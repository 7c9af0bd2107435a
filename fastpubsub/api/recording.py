"""What is recorded of a request that changes something."""

import json

import msgspec
from fastapi import Request

from fastpubsub.database.changes import Change

HIDDEN = "(hidden)"
MAX_BODY_BYTES = 4096
"""Of a body that is recorded as it came; of a longer one its size is."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def change_by(request: Request, object_id: str | None = None) -> Change:
    """The change that a route makes to the object of its path, or to one with this id."""
    route = request.scope["route"]
    name = route.path.split("/")[1].removesuffix("s")
    return Change(
        request.state.caller.client_id,
        request.state.request_id,
        route.name,
        name,
        request.path_params.get(f"{name}_id", object_id),
        _recorded(await request.body()),
    )


def _recorded(body: bytes) -> str | None:
    if len(body) > MAX_BODY_BYTES:
        return json.dumps({"body_bytes": len(body)})
    return _without_secrets(body).decode() or None


def _without_secrets(body: bytes) -> bytes:
    """Without the values of the headers of a push; the rest is as it came."""
    try:
        members = _members.decode(body)
        push = json.loads(bytes(members["push"]))
        push["headers"] = dict.fromkeys(push["headers"], HIDDEN)
    except (msgspec.MsgspecError, KeyError, TypeError):
        return body
    members["push"] = msgspec.Raw(json.dumps(push).encode())
    return msgspec.json.encode(members)
