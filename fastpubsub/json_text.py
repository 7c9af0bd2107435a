"""The text of JSON, checked to the letter, without making objects of it.

What PostgreSQL or a filter could not read later is refused here: text that is not UTF-8, NUL escapes, lone surrogates,
NaN and infinities, numbers beyond 1,000 digits or an exponent beyond ±1,000, nesting beyond the limit.
"""

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import msgspec

from fastpubsub.exceptions import InvalidRequest

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MAX_DIGITS = 1000
_MAX_EXPONENT = 1000  # spelt out in _FAR_EXPONENT
_MANY_DIGITS = b"0" * (_MAX_DIGITS + 1)
_FAR_DIGITS = b"0" * 100
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_FAR_EXPONENT = re.compile(rb"[eE][+-]?0*+(?:1(?!000(?!\d))\d{3}|[2-9]\d{3}|\d{5})")
_LEVELS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_NO_LEVELS = bytes(set(range(256)) - set(b"[]{}"))
_NEST = b"\x01\xff"
_PEELED = 8
_SLICE = 1 << 16
_REASON_MAX = 200
MAX_MEMBERS = 20
_raw_any = msgspec.json.Decoder(msgspec.Raw)
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def strings(raw: msgspec.Raw) -> int:
    """Counts the strings in it, including names."""
    return bytes(raw).replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') // 2


def check_object(body: bytes) -> None:
    """Refuses many members, because validation makes an error for each unknown one."""
    check_json(body)
    if is_object(body) and (members := len(decode(_raw_members, body))) > MAX_MEMBERS:
        raise InvalidRequest(f"the body has {members} members; no body may have more than {MAX_MEMBERS}")


def is_object(body: bytes) -> bool:
    return body.lstrip(b" \t\r\n")[:1] == b"{"


def check_json(body: bytes, *, max_depth: int = 64) -> None:
    """Refuses everything but strict JSON."""
    check_text(body)
    decode(_raw_any, body)
    if brackets(body) > max_depth and is_deeper(body, max_depth):
        raise InvalidRequest(f"the body is nested deeper than {max_depth} levels")
    if has_suspicious_numbers(body):
        check_numbers(body, "the body")


def member(body: bytes, name: str) -> bytes | None:
    """The raw JSON text of a member of the object in a checked body: numbers stay what they are."""
    members = _raw_members.decode(body)
    return bytes(members[name]) if name in members else None


def far_numbers(payload: bytes) -> int:
    """Counts numbers of more than 100 digits, or with a three-digit exponent; long ones count several times."""
    return _far_numbers(b"".join(_outside_strings(payload))) if _far_numbers(payload) else 0


def decode(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body is invalid: {_short(error)}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else _short(error)
        if _SURROGATE.search(body):
            reason = f"{reason}; escapes of surrogates, \\ud800 to \\udfff, must come in pairs"
        raise InvalidRequest(f"the body is not JSON: {reason}") from None


def _short(error: Exception) -> str:
    """It may quote the name of a field, however long."""
    return str(error)[:_REASON_MAX]


def check_text(body: bytes) -> None:
    start = 0
    while start < len(body):
        try:
            _, read = codecs.utf_8_decode(body[start : start + _SLICE], "strict", start + _SLICE >= len(body))
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the body is not UTF-8: byte {start + error.start} cannot be read") from None
        start += read
    if b"\\u0000" in body and b"\\u0000" in body.replace(b"\\\\", b""):
        raise InvalidRequest("the body has the escape \\u0000, which PostgreSQL cannot store; leave it out")


def has_suspicious_numbers(body: bytes) -> bool:
    """Cheap, and misses none: digits become zeros, so a long run or an exponent of four digits is one substring."""
    zeros = body.translate(_DIGITS, b"+-.")
    return b"e0000" in zeros or _MANY_DIGITS in zeros


def _far_numbers(text: bytes) -> int:
    zeros = text.translate(_DIGITS, b"+-.")
    return zeros.count(b"e000") + zeros.count(_FAR_DIGITS)


def check_numbers(text: bytes, name: str) -> None:
    before = b""
    for part in _outside_strings(text):
        # A number that is cut is seen whole, or as much of it as it may have.
        outside = before + part
        if _MANY_DIGITS in outside.translate(_DIGITS, b"."):
            raise InvalidRequest(f"{name} has a number of more than {_MAX_DIGITS} digits")
        if _FAR_EXPONENT.search(outside):
            raise InvalidRequest(f"{name} has a number with an exponent beyond ±{_MAX_EXPONENT}")
        before = outside[-2 * _MAX_DIGITS :]


def brackets(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def is_deeper(text: bytes, max_depth: int) -> bool:
    depth = 0
    for part in _outside_strings(text):
        levels = part.translate(_LEVELS, _NO_LEVELS)
        if _may_reach(levels, max_depth + 1 - depth):
            deepest = max(accumulate(memoryview(levels).cast("b")), default=0)
            if depth + deepest > max_depth:
                return True
        depth += 2 * levels.count(1) - len(levels)
    return False


def _may_reach(levels: bytes, height: int) -> bool:
    """Quickly, for what is broad: each round takes the innermost pairs away, which are one level."""
    for peeled in range(_PEELED):
        if levels.count(1) + peeled < height:
            return False
        before, levels = len(levels), levels.replace(_NEST, b"")
        if len(levels) > before // 2:
            break
    return True


def _outside_strings(text: bytes) -> Iterator[bytes]:
    """JSON without its strings, by slices: ten megabytes that are split at once can be three million objects."""
    start, is_inside = 0, 0
    while start < len(text):
        part = text[start : start + _SLICE]
        if (len(part) - len(part.rstrip(b"\\"))) % 2:
            part = text[start : start + _SLICE + 1]
        start += len(part)
        if b"\\" in part:
            part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = part.split(b'"')
        yield b"".join(pieces[is_inside::2])
        is_inside ^= (len(pieces) - 1) % 2
