"""The guide in a real browser: its search works, without anything from elsewhere and without a complaint."""

import shutil

import pytest

from fastpubsub.api.guide import GUIDE
from tests.api.test_guide import build
from tests.browser.pilot import Pilot
from tests.chromium import Browser
from tests.lasting import Last
from tests.wheels import once_a_run


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_search_finds_a_page(
    browser: Browser, lasting_server: Last, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = once_a_run(tmp_path_factory, "image", build) / "guide"
    shutil.copytree(folder, GUIDE, dirs_exist_ok=True)
    base_url = lasting_server().base_url
    pilot = Pilot(browser, base_url)
    browser.open(f"{base_url}/guide")
    browser.wait_for("return document.querySelector('.sidebar-search') && document.body.dataset.theme === 'auto'")
    browser.run("document.querySelector('.sidebar-search').value = 'idempotency'")
    browser.run("document.querySelector('.sidebar-search-container').submit()")
    browser.wait_for(
        "return [...document.querySelectorAll('ul.search li a')].some((one) => one.href.includes('http.html'))"
    )
    browser.run("document.querySelector('.theme-toggle').click()")
    browser.wait_for("return document.body.dataset.theme !== 'auto'")
    assert [url for url in browser.loaded() if not url.startswith((f"{base_url}/", "data:"))] == []
    assert pilot.complaints() == []
