"""The guide in a real browser: its search works, without anything from elsewhere and without a complaint."""

import subprocess

import pytest

from tests.browser.pilot import Pilot
from tests.chromium import Browser
from tests.lasting import Last
from tests.pages import ROOT


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_search_finds_a_page(browser: Browser, lasting_server: Last) -> None:
    built = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
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
