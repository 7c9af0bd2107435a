"""Encodes and reads arrays in PostgreSQL's binary format (`array_recv`).

An array always has the same type, whatever its values, so that a call is one prepared
statement and a list of nulls needs no cast.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"

_length = struct.Struct("!i").pack
_bool = struct.Struct("!i?").pack
_float8 = struct.Struct("!id").pack
_int4 = struct.Struct("!ii").pack
_int8 = struct.Struct("!iq").pack
_header = struct.Struct("!iiIii").pack
_read_header = struct.Struct("!iiIii").unpack_from
_read_int8 = struct.Struct("!q").unpack_from
_HEADER_BYTES = 20
_NO_DIMENSION = b"\0\0\0\0"


class _Type(NamedTuple):
    array_oid: int
    element_oid: int
    encode: Callable[[Any], bytes]


def _text(value: str) -> bytes:
    return _bytes(value.encode())


def _bytes(value: bytes) -> bytes:
    return _length(len(value)) + value


def _jsonb(value: bytes) -> bytes:
    return _length(len(value) + 1) + b"\x01" + value


def _timestamp(value: datetime) -> bytes:
    return _int8(8, (value - _POSTGRES_EPOCH) // _MICROSECOND)


_TYPES = {
    "bool": _Type(1000, 16, lambda value: _bool(1, value)),
    "float8": _Type(1022, 701, lambda value: _float8(8, value)),
    "int4": _Type(1007, 23, lambda value: _int4(4, value)),
    "int8": _Type(1016, 20, lambda value: _int8(8, value)),
    "text": _Type(1009, 25, _text),
    "bytea": _Type(1001, 17, _bytes),
    "json": _Type(199, 114, _bytes),
    "jsonb": _Type(3807, 3802, _jsonb),
    "timestamptz": _Type(1185, 1184, _timestamp),
}


class Array:
    """`Array("json", [b"{}", None])`; JSON items are bytes."""

    __slots__ = ("element", "items")

    def __init__(self, element: str, items: Sequence[Any]) -> None:
        self.element = element
        self.items = items


class ArrayDumper(Dumper):
    format = Format.BINARY
    type = _TYPES["int8"]

    def get_key(self, obj: Array, _format: Any) -> Any:
        return _DUMPERS[obj.element]

    def upgrade(self, obj: Array, _format: Any) -> Dumper:
        return _DUMPERS[obj.element](Array)

    def dump(self, obj: Array) -> Buffer:
        if not obj.items:
            return struct.pack("!iiI", 0, 0, self.type.element_oid)
        has_null = None in obj.items
        header = _header(1, int(has_null), self.type.element_oid, len(obj.items), 1)
        if has_null and obj.items.count(None) == len(obj.items):
            return header + _NULL * len(obj.items)
        if obj.element == "int8" and not has_null:
            return header + _int8_items(obj.items)
        encode = self.type.encode
        return header + b"".join([_NULL if item is None else encode(item) for item in obj.items])


def _int8_items(items: Sequence[int]) -> bytes:
    """Encodes like `_int8` of each, in one call: most values are keys and positions."""
    interleaved = [8] * (2 * len(items))
    interleaved[1::2] = items
    return struct.pack("!" + "iq" * len(items), *interleaved)


_DUMPERS: dict[str, type[ArrayDumper]] = {
    name: type(f"{name}ArrayDumper", (ArrayDumper,), {"oid": of.array_oid, "type": of}) for name, of in _TYPES.items()
}


class TimesLoader(Loader):
    """Reads an array of times, in UTC. Messages that were published at once have the same one."""

    format = Format.BINARY

    def load(self, data: Buffer) -> list[datetime | None]:
        if data[:4] == _NO_DIMENSION:
            return []
        _, has_null, _, count, _ = _read_header(data)
        if has_null:
            return list(_times_and_nulls(bytes(data), count))
        microseconds = struct.unpack_from("!" + "iq" * count, data, _HEADER_BYTES)[1::2]
        times = {number: _time(number) for number in set(microseconds)}
        return [times[number] for number in microseconds]


def _times_and_nulls(data: bytes, count: int) -> Iterator[datetime | None]:
    start = _HEADER_BYTES
    for _ in range(count):
        is_null = data.startswith(_NULL, start)
        yield None if is_null else _time(*_read_int8(data, start + 4))
        start += 4 if is_null else 12


def _time(microseconds: int) -> datetime:
    return _POSTGRES_EPOCH + timedelta(microseconds=microseconds)


TIMES_OID = _TYPES["timestamptz"].array_oid
