"""Keeps numbers exact with `Decimal`: Pydantic reads JSON by way of floats, and writes a `Decimal` as a string."""

import json
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


class Written(float):
    """A float that knows how it was written: of its text Pydantic makes a `Decimal`, and a float of anything else."""

    text: str

    def __str__(self) -> str:
        return self.text


def has_decimals(schema: Any) -> bool:
    """Returns whether anything in a core schema is a `Decimal`."""
    if isinstance(schema, Mapping):
        return schema.get("type") == "decimal" or any(
            has_decimals(value) for key, value in schema.items() if key != "metadata"
        )
    return isinstance(schema, list | tuple) and any(has_decimals(one) for one in schema)


def exact_payloads(answer: bytes) -> list[dict[str, Any]] | None:
    """Returns the exact payloads of a pull; None when a float represents every number."""
    inexact = False

    def number(text: str) -> float:
        nonlocal inexact
        value = float(text)
        if _is_exact(text, value):
            return value
        inexact = True
        written = Written(value)
        written.text = text
        return written

    messages = json.loads(answer, parse_float=number)["data"]
    return [message["payload"] for message in messages] if inexact else None


def read_exactly(model: type[Model], answer: bytes) -> Model:
    """Filters and schemas in it have a `Decimal` where a number is no float."""
    model.model_validate_json(answer)  # which refuses what is no answer of ours
    return model.model_validate(loads_exactly(answer))


def loads_exactly(text: bytes) -> Any:
    return json.loads(text, parse_float=_float_or_decimal)


def write_exactly(value: Any, write: Callable[[Any], bytes]) -> bytes:
    """As JSON, a `Decimal` as the number that it is."""
    numbers: dict[str, str] = {}

    def marked(one: Any) -> Any:
        if isinstance(one, Decimal):
            mark = uuid.uuid4().hex
            numbers[mark] = str(one)
            return mark
        if isinstance(one, Mapping):
            return {name: marked(member) for name, member in one.items()}
        return [marked(member) for member in one] if isinstance(one, list | tuple) else one

    text = write(marked(value))
    for mark, number in numbers.items():
        text = text.replace(f'"{mark}"'.encode(), number.encode())
    return text


def _float_or_decimal(text: str) -> float | Decimal:
    value = float(text)
    return value if _is_exact(text, value) else Decimal(text)


def _is_exact(text: str, value: float) -> bool:
    try:
        return Decimal(text) == Decimal(repr(value))
    except InvalidOperation:  # an exponent beyond those of a Decimal
        return True
