"""The pictures of the documentation: each page has them, and `make screenshots` can take them again."""

import re
from pathlib import Path

import pytest

from tests.browser import screenshots
from tests.browser.pilot import Pilot
from tests.browser.screenshots import PAGES, PICTURES, SCHEMES, open_shop, pictures
from tests.chromium import Browser
from tests.pages import DOCS, ROOT

SOURCE = re.compile(r'(?:src|srcset)="([^"]+)"')
MAX_BYTES = 1_500_000
NAMES = ["log-in", *PAGES]
FILES = {f"{name}-{scheme}.webp" for name in NAMES for scheme in SCHEMES}


def sources(page: Path) -> set[Path]:
    return {(page.parent / source).resolve() for source in SOURCE.findall(page.read_text())}


def test_each_page_of_the_console_has_its_pictures() -> None:
    program = (ROOT / "fastpubsub/console/app.js").read_text()
    assert set(re.findall(r"import\(\"./pages/([\w-]+)\.js\"\)", program)) <= PAGES.keys()
    assert {file.name for file in PICTURES.iterdir()} == FILES
    assert sum(file.stat().st_size for file in PICTURES.iterdir()) < MAX_BYTES


def test_the_documentation_shows_all_of_them() -> None:
    assert {file.name for file in sources(DOCS / "console.md")} == FILES
    shown = sources(ROOT / "README.md")
    assert len(shown) in (4, 6)
    assert all(file.exists() for file in shown)


@pytest.mark.long
def test_a_picture_is_taken(browser: Browser, tmp_path: Path) -> None:
    with open_shop(tmp_path, minutes=1) as shop:
        taken = list(pictures(Pilot(browser, shop.base_url), shop, ["message"]))
    assert [(name, scheme) for name, scheme, _ in taken] == [("message", "light"), ("message", "dark")]
    assert len({picture for *_, picture in taken}) == 2
    for *_, picture in taken:
        assert (picture[:4], picture[8:12]) == (b"RIFF", b"WEBP")


def test_an_unknown_page_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert screenshots.main(["overview", "nowhere"]) == 2
    assert "there is no page nowhere; there are: log-in overview" in capsys.readouterr().err
