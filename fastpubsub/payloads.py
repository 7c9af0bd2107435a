"""Bodies of publishes, settles and transactions: cut into raw payloads, never turned into objects.

Of duplicate keys a filter sees the last; what is delivered is what was published, to the byte.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Annotated, NamedTuple

import msgspec

from fastpubsub.exceptions import InvalidRequest, TooLarge
from fastpubsub.json_text import (
    brackets,
    check_numbers,
    check_text,
    decode,
    has_suspicious_numbers,
    is_deeper,
    is_object,
    strings,
)
from fastpubsub.models import MAX_ATTRIBUTES, MAX_MESSAGE_DELAY_SECONDS, MAX_ORDERING_KEY, MAX_TTL_SECONDS

_BRACE = ord("{")
_MANY = 100_000
"""Commas of a body. With fewer it has few elements, and what is wrong with them is found before it costs much."""

_ATTRIBUTE_NAME_MAX = 256
_ATTRIBUTE_VALUE_MAX = 1024
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
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
    check_text(body)
    is_envelope = is_object(body)
    count_messages(body, max_messages, is_envelope)
    messages = decode(_envelope, body).messages if is_envelope else []
    raws = [message.payload for message in messages] if is_envelope else decode(_raw_list, body)
    attributes = [message.attributes for message in messages]
    keys = [message.ordering_key for message in messages]
    batch = make_batch(body, raws, attributes, keys, max_messages=max_messages, max_depth=max_depth)
    return replace(batch, delays=_delays(messages), expiries=_expiries(messages)) if is_envelope else batch


def parse_transaction(body: bytes) -> RawTransaction:
    """Checks the text of all of it, and leaves the messages and ids to those who know their limits."""
    check_text(body)
    transaction: RawTransaction = decode(_transaction, body)
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
    suspicious = has_suspicious_numbers(body)
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

    decode(msgspec.json.Decoder(Envelope if is_envelope else list[Counted]), body)


def parse_ids(body: bytes, *, max_ids: int) -> list[str]:
    """Reads the spec's list of message ids (or ack ids)."""
    check_text(body)
    # No id has a comma.
    if body.count(b",") >= max_ids and not is_object(body):
        raise TooLarge(f"the body has more ids than the {max_ids} of one request; send several")
    ids: list[str] = decode(_text_list, body)
    return ids


def _check_payloads(body: bytes, payloads: list[bytes], max_depth: int, has_suspicious_numbers: bool) -> None:
    for index, payload in enumerate(payloads):
        if payload[0] != _BRACE:
            raise InvalidRequest(f"message {index} is not a JSON object")
    # A message cannot be deeper than the brackets of all are more than one for each.
    if brackets(body) - len(payloads) >= max_depth:
        for index, payload in enumerate(payloads):
            if brackets(payload) > max_depth and is_deeper(payload, max_depth):
                raise InvalidRequest(f"message {index} is nested deeper than {max_depth} levels")
    if has_suspicious_numbers:
        for index, payload in enumerate(payloads):
            check_numbers(payload, f"message {index}")


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


def _too_many(max_messages: int) -> TooLarge:
    return TooLarge(f"the body has more messages than the {max_messages} of one publish; send several")
