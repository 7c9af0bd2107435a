"""Links between the pages lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("deploy/**/*.md")])
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


def test_every_page_is_linked_from_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall((DOCS / "index.md").read_text())}
    assert set(PAGES) - {DOCS / "index.md"} <= linked
    assert "docs/index.md" in LINK.findall((ROOT / "README.md").read_text())


def test_pages_for_users_do_not_speak_of_our_tests() -> None:
    """Those that prove something, and those for developers, do."""
    proving = {DOCS / f"{name}.md" for name in ("contract", "reliability", "internals", "plans")}
    pages = {page for page in PAGES if page.parent != ROOT} - proving
    assert not [page.name for page in pages if re.search(r"`tests/", page.read_text())]
