"""Links between the pages lead somewhere, and the tests that they name exist."""

import re
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT, proved

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from the headings."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / path).is_file(), path
        defined = re.findall(r"^ *(?:async )?def (\w+)", (ROOT / path).read_text(), re.MULTILINE)
        assert not name or name in defined, f"{path}::{name}"


@pytest.mark.parametrize("page", [page for page in PAGES if proved(page)], ids=lambda page: page.name)
def test_every_claim_names_its_test(page: Path) -> None:
    """That the test exists is checked above."""
    for claim, proof in proved(page):
        assert re.search(r"`tests/[\w/]+\.py(::\w+)?`", proof), claim


def test_every_requirement_is_somewhere() -> None:
    """The checklist has 43 rows; each is met, not yet met, or does not apply."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert sorted(map(int, rows)) == list(range(1, 44))
    assert {"contract.md", "SECURITY.md"} <= {page.name for page in PAGES if proved(page)}


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall((ROOT / "README.md").read_text())}
    assert set(PAGES) - {ROOT / "README.md"} <= linked
