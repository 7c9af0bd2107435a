"""Bodies as bytes: checked to the letter, cut into raw payloads, never turned into objects.

What PostgreSQL or a filter could not read later is refused here: text that is not UTF-8, NUL escapes, lone surrogates,
NaN and infinities, numbers beyond 1,000 digits or an exponent beyond ±1,000, nesting beyond the limit. Of duplicate
keys a filter sees the last; what is delivered is what was published, to the byte.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, count
from typing import Annotated, Any, NamedTuple

import msgspec

from fastpubsub.exceptions import InvalidRequest, TooLarge
from fastpubsub.models import MAX_ATTRIBUTES, MAX_MESSAGE_DELAY_SECONDS, MAX_ORDERING_KEY, MAX_TTL_SECONDS

_BRACE = ord("{")
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
_MANY = 100_000
"""Commas of a body. With fewer it has few elements, and what is wrong with them is found before it costs much."""

MAX_MEMBERS = 20
_ATTRIBUTE_NAME_MAX = 256
_ATTRIBUTE_VALUE_MAX = 1024

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_raw_any = msgspec.json.Decoder(msgspec.Raw)
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_list = msgspec.json.Decoder(list[str])


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    payload: msgspec.Raw
    attributes: dict[str, str] | None = None
    ordering_key: str | None = None
    deliver_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    delay_seconds: Annotated[int, msgspec.Meta(ge=1, le=MAX_MESSAGE_DELAY_SECONDS)] | None = None
    ttl_seconds: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_SECONDS)] | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_Message]


class _Publication(msgspec.Struct, forbid_unknown_fields=True):
    topic_id: str
    messages: msgspec.Raw


class RawTransaction(msgspec.Struct, forbid_unknown_fields=True):
    """Its members as they stand; `parse_batch` reads the messages of an envelope."""

    settles: msgspec.Raw
    publishes: list[_Publication] = []


_envelope = msgspec.json.Decoder(_Envelope)
_transaction = msgspec.json.Decoder(RawTransaction)


class Delay(NamedTuple):
    """When a message is to come; both are None for now."""

    deliver_at: datetime | None
    seconds: int | None


class Expiry(NamedTuple):
    """When a message expires, or how long after it was published; both are None for never."""

    expires_at: datetime | None
    ttl_seconds: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages of one publish. What no message has is None: `attributes`, `ordering_keys`, `delays`, `expiries`."""

    payloads: list[bytes]
    attributes: list[bytes | None] | None
    size: int
    ordering_keys: list[str | None] | None = None
    delays: list[Delay] | None = None
    expiries: list[Expiry] | None = None


def parse_batch(body: bytes, *, max_messages: int, max_depth: int) -> Batch:
    """Reads the spec's list of payloads, or an envelope `{"messages": [{"payload": …}]}` with more of each message."""
    _check_text(body)
    is_envelope = is_object(body)
    count_messages(body, max_messages, is_envelope)
    messages = _decode(_envelope, body).messages if is_envelope else []
    raws = [message.payload for message in messages] if is_envelope else _decode(_raw_list, body)
    attributes = [message.attributes for message in messages]
    keys = [message.ordering_key for message in messages]
    batch = make_batch(body, raws, attributes, keys, max_messages=max_messages, max_depth=max_depth)
    return replace(batch, delays=_delays(messages), expiries=_expiries(messages)) if is_envelope else batch


def parse_transaction(body: bytes) -> RawTransaction:
    """Checks the text of all of it, and leaves the messages and ids to those who know their limits."""
    _check_text(body)
    transaction: RawTransaction = _decode(_transaction, body)
    return transaction


def make_batch(
    body: bytes,
    raws: Sequence[msgspec.Raw | bytes],
    attributes: Sequence[Mapping[str, str] | None],
    ordering_keys: Sequence[str | None],
    *,
    max_messages: int,
    max_depth: int,
) -> Batch:
    """Makes a batch of payloads that stood in a body whose text was checked."""
    if len(raws) > max_messages:
        raise _too_many(max_messages)
    suspicious = _has_suspicious_numbers(body)
    payloads = [bytes(raw) for raw in raws]
    _check_payloads(body, payloads, max_depth, suspicious)
    given = [_attributes(index, one) for index, one in enumerate(attributes)] if any(attributes) else None
    return Batch(payloads, given, len(body), _ordering_keys(ordering_keys))


def count_messages(body: bytes, max_messages: int, is_envelope: bool = False) -> None:
    """Counts the elements of a body without keeping one; stops at the first that is too many."""
    if body.count(b",") < _MANY:
        return
    index = count()

    class Counted(msgspec.Struct):
        def __post_init__(self) -> None:
            if next(index) == max_messages:
                raise _too_many(max_messages)

    class WithAttributes(Counted):
        attributes: msgspec.Raw = msgspec.Raw()

        def __post_init__(self) -> None:
            super().__post_init__()
            if strings(self.attributes) > 2 * MAX_ATTRIBUTES:
                raise InvalidRequest(f"a message has more than {MAX_ATTRIBUTES} attributes")

    class Envelope(msgspec.Struct):
        messages: list[WithAttributes]

    _decode(msgspec.json.Decoder(Envelope if is_envelope else list[Counted]), body)


def strings(raw: msgspec.Raw) -> int:
    """Counts the strings in it, including names."""
    return bytes(raw).replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') // 2


def parse_ids(body: bytes, *, max_ids: int) -> list[str]:
    """Reads the spec's list of message ids (or ack ids)."""
    _check_text(body)
    # No id has a comma.
    if body.count(b",") >= max_ids and not is_object(body):
        raise TooLarge(f"the body has more ids than the {max_ids} of one request; send several")
    ids: list[str] = _decode(_text_list, body)
    return ids


def check_object(body: bytes) -> None:
    """Refuses many members, because validation makes an error for each unknown one."""
    check_json(body)
    if is_object(body) and (members := len(_decode(_raw_members, body))) > MAX_MEMBERS:
        raise InvalidRequest(f"the body has {members} members; no body may have more than {MAX_MEMBERS}")


def is_object(body: bytes) -> bool:
    return body.lstrip(b" \t\r\n")[:1] == b"{"


def check_json(body: bytes, *, max_depth: int = 64) -> None:
    """Refuses everything but strict JSON."""
    _check_text(body)
    _decode(_raw_any, body)
    if _brackets(body) > max_depth and _is_deeper(body, max_depth):
        raise InvalidRequest(f"the body is nested deeper than {max_depth} levels")
    if _has_suspicious_numbers(body):
        _check_numbers(body, "the body")


def member(body: bytes, name: str) -> bytes | None:
    """The raw JSON text of a member of the object in a checked body: numbers stay what they are."""
    members = _raw_members.decode(body)
    return bytes(members[name]) if name in members else None


def far_numbers(payload: bytes) -> int:
    """Counts numbers of more than 100 digits, or with a three-digit exponent; long ones count several times."""
    return _far_numbers(b"".join(_outside_strings(payload))) if _far_numbers(payload) else 0


def _check_payloads(body: bytes, payloads: list[bytes], max_depth: int, has_suspicious_numbers: bool) -> None:
    for index, payload in enumerate(payloads):
        if payload[0] != _BRACE:
            raise InvalidRequest(f"message {index} is not a JSON object")
    # A message cannot be deeper than the brackets of all are more than one for each.
    if _brackets(body) - len(payloads) >= max_depth:
        for index, payload in enumerate(payloads):
            if _brackets(payload) > max_depth and _is_deeper(payload, max_depth):
                raise InvalidRequest(f"message {index} is nested deeper than {max_depth} levels")
    if has_suspicious_numbers:
        for index, payload in enumerate(payloads):
            _check_numbers(payload, f"message {index}")


def _decode(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
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


def _check_text(body: bytes) -> None:
    start = 0
    while start < len(body):
        try:
            _, read = codecs.utf_8_decode(body[start : start + _SLICE], "strict", start + _SLICE >= len(body))
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the body is not UTF-8: byte {start + error.start} cannot be read") from None
        start += read
    if b"\\u0000" in body and b"\\u0000" in body.replace(b"\\\\", b""):
        raise InvalidRequest("the body has the escape \\u0000, which PostgreSQL cannot store; leave it out")


def _attributes(index: int, attributes: Mapping[str, str] | None) -> bytes | None:
    if not attributes:
        return None
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidRequest(f"message {index} has more than {MAX_ATTRIBUTES} attributes")
    for name, value in attributes.items():
        if not 0 < len(name) <= _ATTRIBUTE_NAME_MAX or len(value) > _ATTRIBUTE_VALUE_MAX:
            raise InvalidRequest(
                f"an attribute of message {index} is too long: a name has 1 to {_ATTRIBUTE_NAME_MAX} characters, "
                f"a value at most {_ATTRIBUTE_VALUE_MAX}"
            )
    return json.dumps(attributes, ensure_ascii=False).encode()


def _ordering_keys(ordering_keys: Sequence[str | None]) -> list[str | None] | None:
    for index, key in enumerate(ordering_keys):
        if key is not None and not 0 < len(key) <= MAX_ORDERING_KEY:
            raise InvalidRequest(
                f"the ordering key of message {index} has {len(key)} characters; it must have 1 to {MAX_ORDERING_KEY}"
            )
    return None if all(key is None for key in ordering_keys) else list(ordering_keys)


def _delays(messages: Sequence[_Message]) -> list[Delay] | None:
    if all(message.deliver_at is None and message.delay_seconds is None for message in messages):
        return None
    delays = [Delay(message.deliver_at, message.delay_seconds) for message in messages]
    for index, delay in enumerate(delays):
        if None not in delay:
            raise InvalidRequest(f"message {index} has `deliver_at` and `delay_seconds`; give one of them")
    return delays


def _expiries(messages: Sequence[_Message]) -> list[Expiry] | None:
    if all(message.ttl_seconds is None and message.expires_at is None for message in messages):
        return None
    expiries = [Expiry(message.expires_at, message.ttl_seconds) for message in messages]
    for index, expiry in enumerate(expiries):
        if None not in expiry:
            raise InvalidRequest(f"message {index} has `ttl_seconds` and `expires_at`; give one of them")
    return expiries


def _has_suspicious_numbers(body: bytes) -> bool:
    """Cheap, and misses none: digits become zeros, so a long run or an exponent of four digits is one substring."""
    zeros = body.translate(_DIGITS, b"+-.")
    return b"e0000" in zeros or _MANY_DIGITS in zeros


def _far_numbers(text: bytes) -> int:
    zeros = text.translate(_DIGITS, b"+-.")
    return zeros.count(b"e000") + zeros.count(_FAR_DIGITS)


def _check_numbers(text: bytes, name: str) -> None:
    before = b""
    for part in _outside_strings(text):
        # A number that is cut is seen whole, or as much of it as it may have.
        outside = before + part
        if _MANY_DIGITS in outside.translate(_DIGITS, b"."):
            raise InvalidRequest(f"{name} has a number of more than {_MAX_DIGITS} digits")
        if _FAR_EXPONENT.search(outside):
            raise InvalidRequest(f"{name} has a number with an exponent beyond ±{_MAX_EXPONENT}")
        before = outside[-2 * _MAX_DIGITS :]


def _brackets(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def _is_deeper(text: bytes, max_depth: int) -> bool:
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


def _too_many(max_messages: int) -> TooLarge:
    return TooLarge(f"the body has more messages than the {max_messages} of one publish; send several")
