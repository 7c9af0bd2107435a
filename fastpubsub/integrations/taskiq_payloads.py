"""What taskiq sends, bytes of any kind, as payloads, which are JSON objects."""

import base64
import json
from typing import Any

WRAPPED = "base64"
"""The only member of a payload for bytes that are not a JSON object, or not one that PostgreSQL can store."""


def payload_of(message: bytes) -> dict[str, Any]:
    """As it is, when it is a JSON object that can be stored, so that people and filters can read it."""
    try:
        payload = json.loads(message, parse_constant=_refuse)
        written = json.dumps(payload, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return _wrapped(message)
    is_storable = isinstance(payload, dict) and payload.keys() != {WRAPPED} and b"\\u0000" not in written
    return payload if is_storable else _wrapped(message)


def message_of(payload: dict[str, Any]) -> bytes:
    if payload.keys() == {WRAPPED}:
        return base64.b64decode(payload[WRAPPED])
    return json.dumps(payload).encode()


def _wrapped(message: bytes) -> dict[str, Any]:
    return {WRAPPED: base64.b64encode(message).decode()}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
