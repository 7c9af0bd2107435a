"""Bodies as bytes: checked to the letter, cut into raw payloads, never turned into objects.

What PostgreSQL or a filter could not read later is refused here: text that is not UTF-8, NUL escapes, lone surrogates,
NaN and infinities, numbers beyond 1,000 digits or an exponent beyond ±1,000, nesting beyond the limit. Of duplicate
keys a filter sees the last; what is delivered is what was published, to the byte.
"""

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any

import msgspec

from fastpubsub.exceptions import InvalidRequest, TooLarge

_BRACE = ord("{")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MAX_DIGITS = 1000
_MAX_EXPONENT = 1000  # spelt out in _FAR_EXPONENT
_MANY_DIGITS = b"0" * (_MAX_DIGITS + 1)
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_FAR_EXPONENT = re.compile(rb"[eE][+-]?0*+(?:1(?!000(?!\d))\d{3}|[2-9]\d{3}|\d{5})")
_LEVELS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_NO_LEVELS = bytes(set(range(256)) - set(b"[]{}"))
_REASON_MAX = 200
_ATTRIBUTES_MAX = 100
_ATTRIBUTE_NAME_MAX = 256
_ATTRIBUTE_VALUE_MAX = 1024

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_raw_any = msgspec.json.Decoder(msgspec.Raw)
_text_list = msgspec.json.Decoder(list[str])


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    payload: msgspec.Raw
    attributes: dict[str, str] | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_Message]


_envelope = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages of one publish. `attributes` is None when no message has any."""

    payloads: list[bytes]
    attributes: list[bytes | None] | None
    size: int


def parse_batch(body: bytes, *, max_messages: int, max_depth: int) -> Batch:
    """The spec's list of payloads, or an envelope `{"messages": [{"payload": …, "attributes": …}]}`."""
    _check_text(body)
    is_envelope = body.lstrip(b" \t\r\n")[:1] == b"{"
    messages = _decode(_envelope, body).messages if is_envelope else []
    raws = [message.payload for message in messages] if is_envelope else _decode(_raw_list, body)
    if len(raws) > max_messages:
        raise TooLarge(f"{len(raws)} messages are more than the {max_messages} of one publish; send several")
    payloads = [bytes(raw) for raw in raws]
    _check_payloads(body, payloads, max_depth)
    attributes = None
    if any(message.attributes for message in messages):
        attributes = [_attributes(index, message.attributes) for index, message in enumerate(messages)]
    return Batch(payloads, attributes, len(body))


def parse_ids(body: bytes, *, max_ids: int) -> list[str]:
    """The spec's list of message ids (or ack ids)."""
    _check_text(body)
    ids: list[str] = _decode(_text_list, body)
    if len(ids) > max_ids:
        raise TooLarge(f"{len(ids)} ids are more than the {max_ids} of one request; send several")
    return ids


def check_json(body: bytes, *, max_depth: int = 64) -> None:
    """Refuses what is not strict JSON, whoever reads it later."""
    _check_text(body)
    raw = bytes(_decode(_raw_any, body))
    if _depth(raw) > max_depth:
        raise InvalidRequest(f"the body is nested deeper than {max_depth} levels")
    if _has_suspicious_numbers(body):
        _check_numbers(raw, "the body")


def member(body: bytes, name: str) -> bytes | None:
    """The raw JSON text of a member of the object in a checked body: numbers stay what they are."""
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return bytes(members[name]) if name in members else None


def number(text: str) -> float | int:
    """For `json.loads`: what no float can be is written with all its digits, for infinity is no JSON."""
    value = float(text)
    return value if math.isfinite(value) else int(Decimal(text))


def _check_payloads(body: bytes, payloads: list[bytes], max_depth: int) -> None:
    for index, payload in enumerate(payloads):
        if payload[0] != _BRACE:
            raise InvalidRequest(f"message {index} is not a JSON object")
    # A message cannot be deeper than the brackets of all are more than one for each.
    if _brackets(body) - len(payloads) >= max_depth:
        for index, payload in enumerate(payloads):
            if _brackets(payload) > max_depth and _depth(payload) > max_depth:
                raise InvalidRequest(f"message {index} is nested deeper than {max_depth} levels")
    if _has_suspicious_numbers(body):
        for index, payload in enumerate(payloads):
            _check_numbers(payload, f"message {index}")


def _decode(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body does not fit: {_short(error)}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else _short(error)
        if _SURROGATE.search(body):
            reason = f"{reason}; escapes of surrogates, \\ud800 to \\udfff, must come in pairs"
        raise InvalidRequest(f"the body is not JSON: {reason}") from None


def _short(error: Exception) -> str:
    """It may quote the name of a field, however long."""
    return str(error)[:_REASON_MAX]


def _check_text(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: byte {error.start} cannot be read") from None
    if b"\\u0000" in body and b"\\u0000" in body.replace(b"\\\\", b""):
        raise InvalidRequest("the body has the escape \\u0000, which PostgreSQL cannot store; leave it out")


def _attributes(index: int, attributes: dict[str, str] | None) -> bytes | None:
    if not attributes:
        return None
    if len(attributes) > _ATTRIBUTES_MAX:
        raise InvalidRequest(f"message {index} has more than {_ATTRIBUTES_MAX} attributes")
    for name, value in attributes.items():
        if not 0 < len(name) <= _ATTRIBUTE_NAME_MAX or len(value) > _ATTRIBUTE_VALUE_MAX:
            raise InvalidRequest(
                f"an attribute of message {index} is too long: names have 1 to {_ATTRIBUTE_NAME_MAX} characters, "
                f"values at most {_ATTRIBUTE_VALUE_MAX}"
            )
    return json.dumps(attributes, ensure_ascii=False).encode()


def _has_suspicious_numbers(body: bytes) -> bool:
    """Cheap, and misses none: digits become zeros, so a long run or an exponent of four digits is one substring."""
    zeros = body.translate(_DIGITS, b"+-.")
    return b"e0000" in zeros or _MANY_DIGITS in zeros


def _check_numbers(text: bytes, name: str) -> None:
    outside = _outside_strings(text)
    if _MANY_DIGITS in outside.translate(_DIGITS, b"."):
        raise InvalidRequest(f"{name} has a number of more than {_MAX_DIGITS} digits")
    if _FAR_EXPONENT.search(outside):
        raise InvalidRequest(f"{name} has a number with an exponent beyond ±{_MAX_EXPONENT}")


def _brackets(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def _depth(text: bytes) -> int:
    levels = _outside_strings(text).translate(_LEVELS, _NO_LEVELS)
    return max(accumulate(memoryview(levels).cast("b")), default=0)


def _outside_strings(text: bytes) -> bytes:
    """What is left of JSON without its strings. A regular expression would need a hundred bytes for each character."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2])
