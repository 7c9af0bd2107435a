"""Compares an existing object with the one that was to be created."""

import json
import logging
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from fastpubsub.client.errors import AlreadyExists

logger = logging.getLogger("fastpubsub.client")

CONFLICT = 409


def require_same(kind: str, sent: bytes, found: bytes) -> None:
    """Compares only given settings; one that was left out may be anything."""
    differences = _differences(sent, found)
    if differences:
        raise AlreadyExists(CONFLICT, f"{kind} {_id(sent)} already exists and differs: {_sentence(differences)}")


def must_change(sent: bytes, found: bytes, tell: Callable[[str], None] = logger.info) -> bool:
    """Tells what. A subscription stays with its topic."""
    differences = _differences(sent, found)
    if "topic_id" in differences:
        raise AlreadyExists(CONFLICT, f"subscription {_id(sent)} already exists, and {_sentence(differences)}")
    if differences:
        changes = (f"{name} from {_text(there)} to {_text(value)}" for name, (there, value) in differences.items())
        tell(f"subscription {_id(sent)} changes: {', '.join(changes)}")
    return bool(differences)


def _differences(sent: bytes, found: bytes) -> dict[str, tuple[Any, Any]]:
    """Returns the present and the wanted values. `start_from` counts only at the beginning, and is not shown."""
    wanted, there = _read(sent), _read(found)
    return {
        name: (there[name], value)
        for name, value in wanted.items()
        if name in there and _comparable(name, value) != _comparable(name, there[name])
    }


def _comparable(name: str, value: Any) -> Any:
    """True differs from 1, and a filter may name its values in any order."""
    if name == "filter" and isinstance(value, dict):
        value = {field: sorted(values, key=repr) for field, values in value.items() if isinstance(values, list)} or None
    if isinstance(value, dict):
        return {key: _comparable("", one) for key, one in value.items()}
    if isinstance(value, list):
        return [_comparable("", one) for one in value]
    return (bool, value) if isinstance(value, bool) else value


def _sentence(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} is {_text(there)}, not {_text(value)}" for name, (there, value) in differences.items())


def _text(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(number: Decimal) -> float | int:
    return int(number) if number == number.to_integral_value() and number.adjusted() < 19 else float(number)


def _id(sent: bytes) -> str:
    return _text(_read(sent).get("id"))


def _read(text: bytes) -> dict[str, Any]:
    value = json.loads(text, parse_float=_number, parse_int=_number)
    return value if isinstance(value, dict) else {}


def _number(text: str) -> Decimal | str:
    try:
        return Decimal(text).normalize()
    except InvalidOperation:
        return text
