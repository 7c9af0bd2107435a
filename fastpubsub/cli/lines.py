"""Payloads as they come in: arguments, or lines of JSON from a file or a pipe, of any number."""

import json
import os
import select
from collections.abc import Iterable, Iterator
from typing import NamedTuple

CHUNK = 1 << 18
MAX_LINE_BYTES = 64 << 20
"""More than a server takes; what has no ends of lines must not fill the memory."""

LINGER_SECONDS = 0.05
"""After so long without input, the lines so far are sent: the input may be typed."""

BATCH_MESSAGES = 500
BATCH_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    number: int
    text: bytes


class BadLineError(Exception):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason


def arguments(texts: Iterable[str]) -> Iterator[Line]:
    return (Line(number, os.fsencode(text)) for number, text in enumerate(texts, 1))


def lines(descriptor: int) -> Iterator[Line | None]:
    """Yields None when no more comes at the moment. Empty lines are skipped, but counted."""
    number = 0
    for text in _split(_chunks(descriptor)):
        if text is None:
            yield None
            continue
        number += 1
        if len(text) > MAX_LINE_BYTES:
            raise BadLineError(number, f"has more than {MAX_LINE_BYTES >> 20} MiB")
        if stripped := text.removeprefix(BYTE_ORDER_MARK if number == 1 else b"").strip():
            yield Line(number, stripped)


def batches(incoming: Iterable[Line | None]) -> Iterator[list[Line]]:
    """Checked; a bad line ends it before the batch that it would have been in."""
    batch: list[Line] = []
    size = 0
    for line in incoming:
        if batch and (line is None or len(batch) == BATCH_MESSAGES or size + len(line.text) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        if line is not None:
            check(line)
            batch.append(line)
            size += len(line.text)
    if batch:
        yield batch


def check(line: Line) -> None:
    try:
        value = json.loads(line.text.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise BadLineError(line.number, f"is not UTF-8: byte {error.start + 1} cannot be read") from None
    except ValueError as error:
        raise BadLineError(line.number, f"is not JSON: {error}") from None
    except RecursionError:
        raise BadLineError(line.number, "is nested too deeply") from None
    if not isinstance(value, dict):
        raise BadLineError(line.number, 'is not a JSON object; a payload must be one, such as {"a": 1}')


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _chunks(descriptor: int) -> Iterator[bytes | None]:
    while True:
        if not select.select([descriptor], [], [], LINGER_SECONDS)[0]:
            yield None
            select.select([descriptor], [], [])
        if not (chunk := os.read(descriptor, CHUNK)):
            return
        yield chunk


def _split(chunks: Iterable[bytes | None]) -> Iterator[bytes | None]:
    rest: list[bytes] = []
    held = 0
    for chunk in chunks:
        if chunk is None:
            yield None
            continue
        first, *others = chunk.split(b"\n")
        rest.append(first)
        held += len(first)
        if others:
            yield b"".join(rest)
            yield from others[:-1]
            rest, held = [others[-1]], len(others[-1])
        elif held > MAX_LINE_BYTES:
            break
    if last := b"".join(rest):
        yield last
