"""Pages that promise something name the tests that prove it: each promise at least one, and each of them is there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT, proved

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PROMISING = [DOCS / "contract.md", ROOT / "SECURITY.md"]
"""The promises are the rows of the tables whose last column is headed `proved by`."""

NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`")


@cache
def names_in(file: Path) -> set[str]:
    """The tests, as pytest names them; empty for a file that is not there."""
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
    of_classes = {
        f"{node.name}::{name}" for node in tree.body if isinstance(node, ast.ClassDef) for name in functions(node.body)
    }
    return of_classes | functions(tree.body)


def functions(body: list[ast.stmt]) -> set[str]:
    found = (node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in found if name.startswith("test_")}


def missing(text: str) -> Iterator[str]:
    for file, name in NAMED.findall(text):
        if not (name in names_in(ROOT / file) if name else (ROOT / file).is_file()):
            yield f"{file}::{name}" if name else file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_are_there(page: Path) -> None:
    assert list(missing(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", PROMISING, ids=lambda page: page.name)
def test_each_promise_names_what_proves_it(page: Path) -> None:
    rows = proved(page)
    assert rows
    assert [number for number, proof in rows if not NAMED.search(proof)] == []


@pytest.mark.parametrize("page", PROMISING, ids=lambda page: page.name)
def test_what_proves_a_promise_is_run_by_make_test(page: Path) -> None:
    left_out = re.search(r"^FAULT_TESTS := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert left_out is not None
    for number, proof in proved(page):
        named = {file for file, _ in NAMED.findall(proof)}
        assert named - set(left_out[1].split()), number


def test_no_page_promises_beside() -> None:
    assert [page for page in PAGES if proved(page)] == sorted(PROMISING)


def test_each_row_of_the_security_checklist_is_somewhere() -> None:
    """It has 43; each is met, not yet met, or does not apply."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(map(int, rows)) == list(range(1, 44))


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        """
| | promise | proved by |
|---|---|---|
| 1 | one | `tests/test_promises.py::test_what_is_not_there_is_found` |
| 2 | two | `tests/test_promises.py::test_nothing`, `tests/no_file.py::test_x`, `tests/no_file.py` |
| 3 | three | by word |
"""
    )
    assert [number for number, proof in proved(page) if not NAMED.search(proof)] == ["3"]
    assert list(missing(page.read_text())) == [
        "tests/test_promises.py::test_nothing",
        "tests/no_file.py::test_x",
        "tests/no_file.py",
    ]
