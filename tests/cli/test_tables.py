import json
from typing import Any

import pytest

from fastpubsub.cli.arguments import body_of, json_text
from fastpubsub.cli.exits import printable_json
from fastpubsub.cli.records import Record
from fastpubsub.cli.tables import Column, Table, cropped, text_of

COLUMNS = [Column("id"), Column("created_at"), Column("payload", grows=True)]


def lines(width: int, *rows: dict[str, Any]) -> list[str]:
    return Table(COLUMNS, width).lines(rows)


def test_columns_are_as_wide_as_their_content() -> None:
    row = {"id": "a", "created_at": "2026-01-31T12:00:00.123456Z", "payload": {"b": None}}
    assert lines(80, row, {"id": "abc", "created_at": None}) == [
        "ID   CREATED               PAYLOAD",
        'a    2026-01-31T12:00:00Z  {"b": null}',
        "abc  -                     -",
    ]


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    from rich.cells import cell_len

    row = {"id": "i" * 36, "created_at": "now", "payload": {"text": "日本語😀 " * 100}}
    for line in lines(width, row, row | {"id": "i" * 128}):
        assert cell_len(line) <= width


def test_later_rows_keep_to_the_columns() -> None:
    table = Table(COLUMNS, 40)
    assert table.lines([{"id": "a", "created_at": "b", "payload": {}}])[0] == "ID  CREATED  PAYLOAD"
    assert table.lines([{"id": "long", "created_at": "b", "payload": {"a": "b" * 99}}]) == [
        'l…  b        {"a": "bbbbbbbbbbbbbbbbbbb…'
    ]


def test_wide_letters_are_two_columns() -> None:
    assert cropped("日本語", 6) == "日本語"
    assert cropped("日本語", 5) == "日本…"
    assert cropped("日本語", 4) == "日 …"


def test_nothing_steers_the_terminal() -> None:
    row = {"id": "a", "created_at": "\x1b[31m\u202e", "payload": {"a": "\x9b31m [red]👩\u200d👩"}}
    assert lines(80, row)[1] == 'a   \\x1b[31m\\u202e  {"a": "\\x9b31m [red]👩\u200d👩"}'


@pytest.mark.parametrize("text", ["12345678901234567.89", "1e400", "1E-400", "-0", "1.10", "9" * 300])
def test_numbers_are_shown_as_they_are_written(text: str) -> None:
    record = Record(f'{{"id":"a","n":{text},"payload":{{"a":[{text},"{text}",null,true]}}}}'.encode())
    assert text_of(record.fields["n"]) == text
    assert text_of(record.fields["payload"]) == f'{{"a": [{text}, "{text}", null, true]}}'


@pytest.mark.parametrize("text", ["12345678901234567.89", "1e400", "1E-400", "-0", "1.10", "9" * 300])
def test_numbers_are_sent_as_they_are_written(text: str) -> None:
    assert body_of({"id": "a", "filter": json_text(f'{{"a": [{text}]}}', "--filter")}) == (
        f'{{"id":"a","filter":{{"a": [{text}]}}}}'.encode()
    )


@pytest.mark.parametrize(
    "text", ["\x7f", "\x80", "\x9b31m", "\u200b", "\u202e", "\u2028", "\ufeff", "\U000e0041", "\ud7ff"]
)
def test_escapes_are_the_same_json(text: str) -> None:
    line = f'{{"é{text}":\t"{text}👩\u200d👩"}}'
    escaped = printable_json(line)
    assert json.loads(escaped) == json.loads(line)
    assert escaped.replace("\u200d", "").isprintable()
