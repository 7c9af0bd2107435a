"""Compares an existing object with the one that was to be created."""

import json
import logging
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from fastpubsub.client.errors import AlreadyExists
from fastpubsub.removable import REMOVABLE

logger = logging.getLogger("fastpubsub.client")

CONFLICT = 409

KEPT = {"topic_id", "ordered", "fair_by"}
"""What a subscription keeps for life."""

OF_SCHEDULES = ("cron", "time_zone", "interval_seconds")
LEFT_OUT = {
    "ordered": False,
    "on_expired": "drop",
    "on_dead_letter": "continue",
    "on_full": "reject",
    **dict.fromkeys((*REMOVABLE, *OF_SCHEDULES)),
}
"""What it means when an answer does not have it."""


def require_same(kind: str, sent: bytes, found: bytes) -> None:
    """Compares only given settings; one that was left out may be anything."""
    differences = differences_of(sent, found)
    if differences:
        raise AlreadyExists(CONFLICT, f"{kind} {_id(sent)} already exists and differs: {sentence(differences)}")


def must_change(sent: bytes, found: bytes, tell: Callable[[str], None] = logger.info) -> bool:
    """Tells what. A subscription stays with its topic, and ordered, fair or not."""
    differences = differences_of(sent, found)
    if differences.keys() & KEPT:
        raise AlreadyExists(CONFLICT, f"subscription {_id(sent)} already exists, and {sentence(differences)}")
    if differences:
        tell(f"subscription {_id(sent)} changes: {changes(differences)}")
    return bool(differences)


def differences_of(sent: bytes, found: bytes) -> dict[str, tuple[Any, Any]]:
    """Returns the present and the wanted values. `start_from` and `fork_of` are not shown."""
    wanted, there = _read(sent), LEFT_OUT | _read(found)
    return {
        name: (there[name], value)
        for name, value in wanted.items()
        if name in there and _comparable(name, value) != _comparable(name, there[name])
    }


def _comparable(name: str, value: Any) -> Any:
    """True differs from 1, a filter may name its values in any order, and a limit of 0 or an empty topic is none."""
    if name in REMOVABLE:
        return value or None
    if name == "filter" and isinstance(value, dict):
        value = {field: sorted(values, key=repr) for field, values in value.items() if isinstance(values, list)} or None
    if isinstance(value, dict):
        return {key: _comparable("", one) for key, one in value.items()}
    if isinstance(value, list):
        return [_comparable("", one) for one in value]
    return (bool, value) if isinstance(value, bool) else value


def sentence(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} is {text(there)}, not {text(value)}" for name, (there, value) in differences.items())


def changes(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} from {text(there)} to {text(value)}" for name, (there, value) in differences.items())


def text(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(number: Decimal) -> float | int:
    return int(number) if number == number.to_integral_value() and number.adjusted() < 19 else float(number)


def _id(sent: bytes) -> str:
    return text(_read(sent).get("id"))


def _read(content: bytes) -> dict[str, Any]:
    value = json.loads(content, parse_float=_number, parse_int=_number)
    return value if isinstance(value, dict) else {}


def _number(written: str) -> Decimal | str:
    try:
        return Decimal(written).normalize()
    except InvalidOperation:
        return written
