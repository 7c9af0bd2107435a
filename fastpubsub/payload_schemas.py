"""Compiles the JSON Schema of a topic, draft 2020-12, and says where a payload does not match it.

The author of a schema must not be able to stop the server. Nothing is fetched, regular expressions run in linear time,
and the work for a payload is bounded: by the number of the schema's parts, with references followed, times its bytes,
and by the numbers of both, for their arithmetic is exact.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import jsonschema_rs

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.json_text import far_numbers
from fastpubsub.schema_shapes import Shape

# Parts times bytes, and comparisons of numbers, in units of some nanoseconds: what is refused, what is worth a thread,
# and up to where the errors of all alternatives of `anyOf` and `oneOf`, which the library collects before it says
# anything, stay few.
_MAX_WORK = 2_000_000_000
_QUICK_WORK = 2_000_000
_EXPLAINABLE_WORK = 200_000
_JUDGED_WORK = 200_000_000  # of the relay, which others wait for
_COMPARISON_WORK = 50
_FRACTION_WORK = 500
_FAR_WORK = 100_000  # of hundreds of digits

_REGEX_BYTES = 1 << 20
_MAX_TEXT = 200

_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES, dfa_size_limit=_REGEX_BYTES)


class Misfit(NamedTuple):
    """Why a payload does not match a schema; it shows none of its values."""

    detail: str
    pointer: str | None = None
    reason: str | None = None


class PayloadSchema:
    def __init__(self, text: bytes) -> None:
        """Raises InvalidRequest for an invalid or unsupported schema."""
        schema = json.loads(text, parse_float=Decimal)
        shape = Shape(schema)
        self._shape = shape
        self._explains_any_size = not shape.alternatives
        self._explains = not (shape.alternatives and shape.recursive)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                text.decode(),
                offline=True,
                mask="the value",
                pattern_options=_PATTERNS,
                validate_formats=True,
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise InvalidRequest(f"the schema is not valid: {_reason(error)}") from None

    def is_quick(self, payloads: Sequence[bytes]) -> bool:
        return sum(map(self._work, payloads)) <= _QUICK_WORK

    def _work(self, payload: bytes) -> int:
        shape = self._shape
        work = shape.size * len(payload)
        if shape.numbers:
            values = payload.count(b":") + payload.count(b",") + payload.count(b"[")
            work += (_COMPARISON_WORK * shape.numbers + _FRACTION_WORK * shape.fractions) * values
            work += _FAR_WORK * (shape.far_numbers * values + shape.numbers * far_numbers(payload))
        return work

    def check(self, payloads: Sequence[bytes]) -> None:
        """Raises InvalidRequest for the first one that does not match."""
        for index, payload in enumerate(payloads):
            misfit = self._misfit(payload, self._work(payload))
            if misfit is not None:
                raise _refusal(index, misfit)

    def misfits(self, payloads: Sequence[bytes], most_work: int = _JUDGED_WORK) -> list[Misfit | None]:
        """Of as many from the front as that much work allows, at least of one; None for those that match."""
        found: list[Misfit | None] = []
        for payload in payloads:
            work = self._work(payload)
            most_work -= work
            if found and most_work < 0:
                break
            found.append(self._misfit(payload, work))
        return found

    def _misfit(self, payload: bytes, work: int) -> Misfit | None:
        if work > _MAX_WORK:
            return Misfit("is too large to check against the schema of its topic")
        instance = json.loads(payload, parse_float=Decimal)
        return None if self._validator.is_valid(instance) else self._reason(instance, work)

    def _reason(self, instance: Any, work: int) -> Misfit:
        path: list[str | int] = []
        reason = "the value matches none of its alternatives"
        if self._explains and (self._explains_any_size or work <= _EXPLAINABLE_WORK):
            try:
                self._validator.validate(instance)
            except jsonschema_rs.ValidationError as error:
                path, reason = list(error.instance_path), error.message[:_MAX_TEXT]
        pointer = _pointer(path)
        return Misfit(f'does not match the schema of its topic at "{pointer}": {reason}', pointer, reason)


def _refusal(index: int, misfit: Misfit) -> InvalidRequest:
    detail, pointer, reason = misfit
    errors = [{"type": "json_schema", "loc": ["body", index], "pointer": pointer, "msg": reason}]
    return InvalidRequest(f"message {index} {detail}", *([] if pointer is None else [errors]))


def _pointer(path: Sequence[str | int]) -> str:
    """RFC 6901."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{part}" for part in parts)[:_MAX_TEXT]


def _reason(error: Exception) -> str:
    path = getattr(error, "instance_path", [])
    text = str(getattr(error, "message", error)).partition("\n")[0][:_MAX_TEXT]
    return f'at "{_pointer(path)}": {text}' if path else text
