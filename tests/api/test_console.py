import hashlib
import re
from base64 import b64encode

import httpx

from fastpubsub.api import console
from fastpubsub.api.app import create_app
from fastpubsub.config import Settings
from tests.together import together

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HTML_OR_CODE = re.compile(r"innerHTML|outerHTML|insertAdjacent|dangerously|document\.write|eval\(|new Function")


async def test_the_page_refers_only_to_files_of_this_server(client: httpx.AsyncClient) -> None:
    page = await client.get("/console")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?:|//", page.text)
    found = re.findall(r'(?:src|href)="([^"]+)"|: "\./([^"]+)"', page.text)
    assert len(found) >= 10
    for reference in (first or second for first, second in found):
        asset = await client.get(f"/{reference}")
        assert asset.status_code == 200, reference
        assert asset.headers["content-type"].partition(";")[0] in console.TYPES.values()
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_no_script_or_style_may_stand_in_the_page_but_the_one_of_its_policy(client: httpx.AsyncClient) -> None:
    page = await client.get("/console")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "require-trusted-types-for 'script'" in policy
    (script,) = re.findall(r"<script[^>]*>([^<]+)</script>", page.text)
    assert f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.search(r"<style|style=|\son\w+=", page.text)


@together("name", ["README.md", "index.html", "vendor/preact.LICENSE", "nope.js", "..%2fapi%2fdocs.py"])
async def test_nothing_but_the_assets_is_served(client: httpx.AsyncClient, name: str) -> None:
    release = console._release()
    assert (await client.get(f"/console/{release}/app.js")).status_code == 200
    assert (await client.get(f"/console/{release}/{name}")).status_code == 404
    assert (await client.get("/console/0000000000000000/app.js")).status_code == 404


def test_the_vendored_files_are_the_originals() -> None:
    text = (console.CONSOLE / "README.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` .* `(vendor/[^`]+)` \| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    assert {name for name, _, _ in listed} == {name for name in console.assets() if name.startswith("vendor/")}
    for name, licence, checksum in listed:
        assert hashlib.sha256((console.CONSOLE / name).read_bytes()).hexdigest() == checksum
        assert (console.CONSOLE / licence).read_text()


def test_nothing_becomes_html_and_nothing_is_evaluated() -> None:
    """What could: the policy forbids it, and no module asks for it."""
    for name, file in console.assets().items():
        if not name.startswith("vendor/"):
            assert not HTML_OR_CODE.search(file.read_text())


async def test_the_entrance(client: httpx.AsyncClient) -> None:
    browser = await client.get("/", headers=HTML)
    assert (browser.status_code, browser.headers["location"]) == (307, "/console")
    program = await client.get("/")
    assert program.headers["vary"] == "Accept"
    links = program.json()
    assert links["is_authentication_on"] is False
    assert (links["console"], links["openapi"], links["topics"]) == ("/console", "/openapi.json", "/topics")


async def test_the_console_can_be_turned_off(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"console_enabled": False, "api_docs_enabled": False}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in ("/console", f"/console/{console._release()}/app.js"):
            assert (await client.get(path)).status_code == 404
        links = (await client.get("/", headers=HTML)).json()
    assert not {"console", "docs", "openapi"} & set(links)
