"""The pages in a real browser, which reports every request that it makes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import Browser, chromium
from tests.conftest import Run, StartServer

KEY = "k" * 32


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path / "profile") as opened:
        yield opened


@pytest.mark.parametrize(
    ("path", "rendered"),
    [
        ("/docs", "return document.querySelectorAll('.opblock').length > 10"),
        ("/redoc", "return document.querySelectorAll('[data-section-id]').length > 10"),
    ],
)
def test_a_page_renders_and_loads_nothing_from_elsewhere(
    browser: Browser, server: StartServer, path: str, rendered: str
) -> None:
    base_url = server().base_url
    browser.open(base_url + path)
    browser.wait_for(rendered)
    loaded = browser.loaded()
    assert f"{base_url}/openapi.json" in loaded
    assert [url for url in loaded if not url.startswith((f"{base_url}/", "data:", "blob:", "chrome:"))] == []


def test_authorize_with_client_id_and_secret(browser: Browser, server: StartServer, run: Run) -> None:
    made = run("create_client", "browser", "topics:read", auth_enabled=True, auth_secret_key=KEY)
    credentials = dict(re.findall(r"^(client_\w+)=(.*)$", made.stdout, re.MULTILINE))
    base_url = server(auth_enabled=True, auth_secret_key=KEY).base_url
    browser.open(f"{base_url}/docs")
    browser.wait_for("return document.querySelector('button.authorize')")
    browser.run("document.querySelector('button.authorize').click()")
    browser.wait_for("return document.querySelector('#client_secret_clientCredentials, .auth-container input')")
    fill = """
        const inputs = '.auth-container input[type=text], .auth-container input[type=password]';
        const [id, secret] = document.querySelectorAll(inputs);
        const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
        for (const [input, value] of [[id, arguments[0]], [secret, arguments[1]]]) {
            set.call(input, value);
            input.dispatchEvent(new Event('input', {bubbles: true}));
        }
        document.querySelector('.auth-btn-wrapper button.authorize').click();
    """
    browser.run(fill, credentials["client_id"], credentials["client_secret"])
    browser.wait_for("return document.body.innerText.includes('Logout')")
    browser.run("document.querySelector('.btn-done').click()")
    browser.run("document.querySelector('[id$=get_topics] button, [id*=list_topics] .opblock-summary-control').click()")
    browser.wait_for("return document.querySelector('button.execute')")
    browser.run("document.querySelector('button.execute').click()")
    status = browser.wait_for(
        "const cell = document.querySelector('.live-responses-table tbody .response-col_status');"
        "return cell && cell.innerText"
    )
    assert status.startswith("200")
