"""Pages that promise something name the tests that prove it: each promise at least one, and each of them is there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT

PAGES = [DOCS / "contract.md"]
"""A promise is a numbered row of a table whose last column is headed `proved by`."""

HEADER = re.compile(r"^\|(?:[^|\n]*\|)*\s*proved by\s*\|$", re.MULTILINE)
NUMBERED = re.compile(r"\|\s*(\d+)\s*\|(.*)\|([^|]*)\|")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


def promises(text: str) -> Iterator[tuple[int, str]]:
    """Numbers, and what is in the last column."""
    for header in HEADER.finditer(text):
        rows = text[header.end() :].partition("\n\n")[0].strip().splitlines()[1:]
        for row in rows:
            found = NUMBERED.fullmatch(row)
            assert found is not None, f"not a numbered row: {row}"
            yield int(found[1]), found[3]


@cache
def names_in(file: Path) -> set[str]:
    """As pytest names them; empty for a file that is not there."""
    names: set[str] = set()
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.exists() else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{name}" for name in functions(node.body)}
    return names | functions(tree.body)


def functions(body: list[ast.stmt]) -> set[str]:
    return {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def missing(text: str) -> list[str]:
    return [f"{file}::{name}" for file, name in NAMED.findall(text) if name not in names_in(ROOT / file)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_promise_names_its_tests_and_they_are_there(page: Path) -> None:
    found = list(promises(page.read_text(encoding="utf-8")))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert found
    assert [number for number, proof in found if not NAMED.search(proof)] == []
    assert missing(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_proves_a_promise_is_run_by_make_test(page: Path) -> None:
    left_out = re.search(r"^FAULT_TESTS := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert left_out is not None
    named = {file for file, _ in NAMED.findall(page.read_text(encoding="utf-8"))}
    assert not named & set(left_out[1].split())


def test_what_is_not_there_is_found() -> None:
    page = """
| | promise | proved by |
|---|---|---|
| 1 | one | `tests/test_promises.py::test_what_is_not_there_is_found` |
| 2 | two \\| both | `tests/test_promises.py::test_nothing`, `tests/no_file.py::test_x` |
| 3 | three | by word |
"""
    rows = dict(promises(page))
    assert list(rows) == [1, 2, 3]
    assert [number for number, proof in rows.items() if not NAMED.search(proof)] == [3]
    assert missing(page) == ["tests/test_promises.py::test_nothing", "tests/no_file.py::test_x"]
