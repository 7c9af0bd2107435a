"""Lines of JSON as they come in, without a server."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastpubsub.cli.lines import BATCH_BYTES, BATCH_MESSAGES, MAX_LINE_BYTES, BadLineError, Line, batches, lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with suppress(OSError):
            os.close(descriptor)


def read(content: bytes, tmp_path: Path) -> list[Line | None]:
    path = tmp_path / "lines"
    path.write_bytes(content)
    with path.open("rb") as file:
        return list(lines(file.fileno()))


def test_numbers_count_empty_lines_too(tmp_path: Path) -> None:
    content = '\ufeff{"a":1}\r\n\n  \n{"b":"\u2028"}\n{"c":3}'.encode()
    assert read(content, tmp_path) == [(1, b'{"a":1}'), (4, '{"b":"\u2028"}'.encode()), (5, b'{"c":3}')]


def test_nothing(tmp_path: Path) -> None:
    assert read(b"", tmp_path) == read(b"\n\n", tmp_path) == []


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with path.open("wb") as file:
        file.truncate(1 << 36)
    with path.open("rb") as file:
        with pytest.raises(BadLineError, match=f"more than {MAX_LINE_BYTES >> 20} MiB"):
            list(lines(file.fileno()))
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) < 2 * MAX_LINE_BYTES


def test_no_more_is_read_than_a_batch_needs(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"a":"%b"}\n' % (b"x" * 1000) * 50_000)
    with path.open("rb") as file:
        first = next(batches(lines(file.fileno())))
        assert len(first) == BATCH_MESSAGES
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) < 2 * BATCH_BYTES


def test_batches_are_bounded_in_bytes() -> None:
    incoming = [Line(number, b'{"a":"%b"}' % (b"x" * (BATCH_BYTES // 3))) for number in range(10)]
    assert [len(batch) for batch in batches(incoming)] == [2] * 5


def test_what_somebody_types_goes_at_once(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    gathered = batches(lines(reading))
    os.write(writing, b'{"a":1}\n{"a":2}\n{"a"')
    assert next(gathered) == [(1, b'{"a":1}'), (2, b'{"a":2}')]

    def end() -> None:
        os.write(writing, b":3}")
        os.close(writing)

    threading.Timer(0.2, end).start()
    assert list(gathered) == [[(3, b'{"a":3}')]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a":', "is not JSON: Expecting value"),
        (b'{"a":NaN}', "is not JSON: NaN is not a JSON number"),
        (b"[1]", "is not a JSON object"),
        (b'"a"', "is not a JSON object"),
        (b'{"a":"\xff"}', "is not UTF-8: byte 7"),
        (b'{"a":' + b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_bad_line_ends_it_before_its_batch(text: bytes, reason: str) -> None:
    gathered = batches([Line(1, b"{}"), None, Line(2, b"{}"), Line(3, text)])
    assert next(gathered) == [(1, b"{}")]
    with pytest.raises(BadLineError) as raised:
        next(gathered)
    assert (raised.value.number, raised.value.reason[: len(reason)]) == (3, reason)
