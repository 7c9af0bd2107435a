"""Message ids: UUIDs of the shape of version 7 (RFC 9562) that carry where a message is, so no id is stored or indexed.

48 bits creation time in ms, 32 bits topic key, 42 bits position. They can be guessed: authority never comes from an id
alone, an `ack_id` adds the 64 random bits of the delivery.
"""

import binascii
import itertools
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fastpubsub.exceptions import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_MILLISECONDS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND

_POSITION_BITS = 42
_POSITION_MASK = (1 << _POSITION_BITS) - 1
_LOW_BITS = 62
_LOW_MASK = (1 << _LOW_BITS) - 1
_VARIANT = 2 << _LOW_BITS
_TOPIC_BITS_LOW = _LOW_BITS - _POSITION_BITS

_SHAPE = re.compile(
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4})-([0-9a-f]{4}-[0-9a-f]{12})(?:\.([0-9a-f]{16}))?", re.IGNORECASE
)
_PUNCTUATION = b"-."
_PLACES = ((8, "-"), (13, "-"), (18, "-"), (23, "-"), (36, "."))
ACK_ID_CHARACTERS = 53
_ACK_ID_BYTES = 24


class MessageId(NamedTuple):
    topic_key: int
    position: int
    created_at: datetime


class MessageIds:
    """Writes the ids of one topic's messages that were created in the same millisecond.

    An id is the prefix and the sixteen hexadecimal digits of base + position, with a hyphen after the fourth.
    """

    __slots__ = ("base", "prefix")

    def __init__(self, topic_key: int, created_at: datetime) -> None:
        head = f"{(created_at - _EPOCH) // _MILLISECOND:012x}"
        self.prefix = f"{head[:8]}-{head[8:]}-7{topic_key >> _TOPIC_BITS_LOW:03x}-"
        self.base = _VARIANT | (topic_key << _POSITION_BITS & _LOW_MASK)

    def at(self, position: int) -> str:
        low = f"{self.base + position:016x}"
        return f"{self.prefix}{low[:4]}-{low[4:]}"


def parse(text: str) -> MessageId | None:
    """Returns None for a UUID that none of our messages can have; raises InvalidRequest for other texts."""
    match = _SHAPE.fullmatch(text)
    if match is None or match[3] is not None:
        raise InvalidRequest("a message id is a UUID, from the answer of a pull or a publish")
    high, low = _number(match[1]), _number(match[2])
    place = _place(high, low)
    return None if place is None else MessageId(*place, _created_at(high))


def ack_id(message_id: str, token: int) -> str:
    return f"{message_id}.{hexadecimal(token)}"


def hexadecimal(token: int) -> str:
    return f"{token & 0xFFFFFFFFFFFFFFFF:016x}"


class Target(NamedTuple):
    place: int
    position: int
    token: int | None
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Targets:
    """The messages that a settle names, in runs: `lengths` consecutive positions from `positions` on, which share a
    token or, as bare message ids, a time of creation. `indexes` are the places of the ids in the request, None when all
    are here.
    """

    positions: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tokens: list[int | None] = field(default_factory=list)
    created_at: list[datetime | None] = field(default_factory=list)
    indexes: list[int] | None = None

    def append(self, position: int, token: int | None, created_at: datetime | None) -> None:
        if (
            self.positions
            and self.positions[-1] + self.lengths[-1] == position
            and self.tokens[-1] == token
            and self.created_at[-1] == created_at
        ):
            self.lengths[-1] += 1
            return
        self.positions.append(position)
        self.lengths.append(1)
        self.tokens.append(token)
        self.created_at.append(created_at)

    def singly(self) -> Iterator[Target]:
        places = iter(self.indexes) if self.indexes is not None else itertools.count()
        for first, length, token, created_at in zip(
            self.positions, self.lengths, self.tokens, self.created_at, strict=True
        ):
            for position in range(first, first + length):
                yield Target(next(places), position, token, created_at)


def parse_targets(ids: Sequence[str], topic_key: int) -> Targets:
    """Message ids and ack ids of one topic; ids of anything else name nothing that could be held, and are left out."""
    numbers = _ack_numbers(ids)
    if numbers is not None and (delivery := _of_one_delivery(numbers, topic_key)):
        return delivery
    indexes: list[int] = []
    targets = Targets(indexes=indexes)
    for index, (high, low, token) in enumerate(
        struct.iter_unpack("!QQq", numbers) if numbers is not None else map(_numbers, range(len(ids)), ids)
    ):
        place = _place(high, low)
        if place is None or place[0] != topic_key:
            continue
        indexes.append(index)
        targets.append(place[1], token, _created_at(high) if token is None else None)
    return targets


def _of_one_delivery(numbers: bytes, topic_key: int) -> Targets | None:
    """Reads ack ids of one claim, as most consumers send them, without looking at each for all that it could be."""
    count = len(numbers) // _ACK_ID_BYTES
    values = struct.unpack("!" + "QQq" * count, numbers)
    high, low, token = values[:3]
    lows = values[1::3]
    place = _place(high, low)
    if (
        place is None
        or place[0] != topic_key
        or values[2::3].count(token) != count
        or not low >> _POSITION_BITS == min(lows) >> _POSITION_BITS == max(lows) >> _POSITION_BITS
        or any((one ^ high) & 0xFFFF or one >> 16 > _MAX_MILLISECONDS for one in set(values[::3]))
    ):
        return None
    if lows == tuple(range(low, low + count)):
        return Targets([place[1]], [count], [token], [None])
    positions: list[int] = []
    lengths: list[int] = []
    following = -1
    for one in lows:
        if one == following:
            lengths[-1] += 1
        else:
            positions.append(one & _POSITION_MASK)
            lengths.append(1)
        following = one + 1
    return Targets(positions, lengths, [token] * len(positions), [None] * len(positions))


def _ack_numbers(ids: Sequence[str]) -> bytes | None:
    """The 24 bytes of each, when every id is an ack id of the usual form; else None."""
    text = "".join(ids)
    count = len(ids)
    if len(text) != count * ACK_ID_CHARACTERS or not text.isascii() or set(map(len, ids)) != {ACK_ID_CHARACTERS}:
        return None
    if any(text[place::ACK_ID_CHARACTERS] != sign * count for place, sign in _PLACES):
        return None
    try:
        packed = binascii.unhexlify(text.encode().translate(None, _PUNCTUATION))
    except binascii.Error:
        return None
    return packed if len(packed) == count * _ACK_ID_BYTES else None


def _numbers(index: int, text: str) -> tuple[int, int, int | None]:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"id {index} of the list is neither a message id (a UUID) nor an ack_id; pass the ids of a pull"
        )
    token = None if match[3] is None else struct.unpack("!q", bytes.fromhex(match[3]))[0]
    return _number(match[1]), _number(match[2]), token


def _number(text: str) -> int:
    return int(text.replace("-", ""), 16)


def _place(high: int, low: int) -> tuple[int, int] | None:
    """Returns topic key and position from the two halves of an id; None when it is not one of our ids."""
    if high >> 12 & 0xF != 7 or low >> _LOW_BITS != 2 or high >> 16 > _MAX_MILLISECONDS:
        return None
    low &= _LOW_MASK
    return (high & 0xFFF) << _TOPIC_BITS_LOW | low >> _POSITION_BITS, low & _POSITION_MASK


def _created_at(high: int) -> datetime:
    return _EPOCH + (high >> 16) * _MILLISECOND
