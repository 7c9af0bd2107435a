import hashlib
import re

import httpx
import pytest

from fastpubsub.api import docs
from fastpubsub.api.app import create_app
from fastpubsub.config import Settings
from tests.together import together

PAGES = {"/docs": "Swagger UI", "/redoc": "ReDoc"}


@pytest.mark.parametrize(("path", "title"), PAGES.items())
async def test_a_page_refers_only_to_files_of_this_server(client: httpx.AsyncClient, path: str, title: str) -> None:
    page = await client.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<title>fastpubsub - {title}</title>" in page.text
    assert not re.search(r"https?:|//", page.text)
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(found) >= 3
    for reference in found:
        asset = await client.get(f"/{reference}")
        assert asset.status_code == 200
        assert asset.headers["content-type"].partition(";")[0] == docs.ASSETS[reference.rpartition("/")[2]]


@pytest.mark.parametrize("path", PAGES)
async def test_the_browser_is_told_to_load_nothing_from_elsewhere(client: httpx.AsyncClient, path: str) -> None:
    policy = (await client.get(path)).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy
    assert "*" not in policy


@together("name", ["README.md", "nope.js", "..%2fdocs.py", "%2e%2e%2fdocs.py"])
async def test_nothing_but_the_assets_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/docs/static/{name}")).status_code == 404


def test_the_vendored_files_are_the_originals() -> None:
    listed = re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (docs.STATIC / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} | {"swagger.js", "redoc.js"} == set(docs.ASSETS)
    for name, checksum in listed:
        assert hashlib.sha256((docs.STATIC / name).read_bytes()).hexdigest() == checksum


async def test_the_openapi_document(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {"/topics", "/subscriptions/{subscription_id}/messages", "/oauth/token", "/readiness"} <= set(
        document["paths"]
    )
    assert not {"/docs", "/metrics"} & set(document["paths"])
    operations = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations))


async def test_docs_can_be_turned_off(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_docs_enabled": False}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in (*PAGES, "/openapi.json", "/docs/static/swagger.js"):
            assert (await client.get(path)).status_code == 404
