"""The guide: it is built from what the image is built from, and a server serves it and nothing else."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fastpubsub.api import guide
from fastpubsub.api.app import create_app
from fastpubsub.config import Settings
from tests.pages import ROOT
from tests.test_deploy import instructions, sources
from tests.together import together
from tests.wheels import once_a_run

pytestmark = pytest.mark.timeout(900)  # the first of them may build it, on whatever machine it is

SCRIPT = re.compile(r"<script(?![^>]* src=)[^>]*>(.*?)</script>", re.DOTALL)
FROM_ELSEWHERE = re.compile(r'(?:src|srcset|href)="((?:https?:)?//[^"]+)"')
BUILD = re.compile(r"python -m sphinx (.*) /guide$")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To build it takes as long as a hundred short tests, so all that ask for it are marked as long."""
    return once_a_run(tmp_path_factory, "image", build) / "guide"


def build(folder: Path) -> None:
    """As the image does."""
    for source in sources():
        (folder / source).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, folder / source)
    (arguments,) = (found[1] for _, rest in instructions() if (found := BUILD.search(rest)))
    words = [str(folder / "doctrees") if word == "/tmp/guide" else word for word in arguments.split()]
    command = [sys.executable, "-m", "sphinx", *words]
    done = subprocess.run([*command, str(folder / "guide")], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One of a few files, for what the server does with whatever is there."""
    folder = tmp_path / "guide"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs/index.html").write_text("<h1>The guide</h1>")
    (folder / "docs/http.md").write_text("# HTTP\n")
    (folder / "searchindex.js").write_text("Search.setIndex({})")
    (folder / "llms.txt").write_text("- [HTTP](docs/http.md)\n")
    return folder


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Lets the server find a guide in a folder."""

    def install(folder: Path) -> None:
        monkeypatch.setattr(guide, "GUIDE", folder)
        guide._files.cache_clear()

    yield install
    guide._files.cache_clear()


@pytest.fixture
def installed(small: Path, serve: Callable[[Path], None]) -> Path:
    serve(small)
    return small


@pytest.mark.long
def test_pages_load_nothing_from_elsewhere_and_run_one_known_script(built: Path) -> None:
    pages = sorted(built.rglob("*.html"))
    assert {ROOT / page.relative_to(built).with_suffix(".md") for page in pages} >= set((ROOT / "docs").glob("*.md"))
    for page in pages:
        text = page.read_text()
        assert set(SCRIPT.findall(text)) <= {guide.THEME}, page
        links = re.findall(r'<a [^>]*href="(?:https?:)?//[^"]+"', text)
        assert len(FROM_ELSEWHERE.findall(text)) == len(links), page
        assert not re.search(r"\son\w+=\"", text), page


@pytest.mark.long
def test_every_picture_and_link_within_leads_somewhere(built: Path) -> None:
    for page in built.rglob("*.html"):
        for reference in re.findall(r'(?:src|srcset|href)="([^"#?]+)', page.read_text()):
            if not re.match(r"(?:\w+:|//)", reference):
                assert (page.parent / reference).exists(), (page, reference)


@pytest.mark.long
def test_it_has_every_command_and_every_public_name(built: Path) -> None:
    commands, names = ((built / f"docs/reference/{page}.html").read_text() for page in ("commands", "python"))
    assert all(f'id="fastpubsub-{command}"' in commands for command in ("publish", "subscriptions-create", "doctor"))
    assert all(f'id="fastpubsub.{name}"' in names for name in ("client.Worker", "integrations.fastapi.Bus.subscriber"))
    assert all(
        f'id="fastpubsub.{name}"' in names for name in ("integrations.sqlalchemy.publish", "testing.InMemoryBus")
    )


@pytest.mark.long
def test_models_find_in_the_reference_what_is_generated(built: Path) -> None:
    commands, names, settings = (
        (built / f"docs/reference/{page}.md").read_text() for page in ("commands", "python", "settings")
    )
    assert "```{" not in commands + names + settings
    assert "## fastpubsub worker\n" in commands
    assert "--max-messages" in commands
    assert "### fastpubsub.client.Client.publish\n" in names
    assert "### fastpubsub.integrations.taskiq.BusResults\n" in names
    assert "| `FASTPUBSUB_DATABASE_URL` |" in settings


def pages_as_they_are(folder: Path) -> set[Path]:
    return set(folder.rglob("*.md"))


@pytest.mark.long
async def test_models_find_every_page_as_it_is(
    built: Path, serve: Callable[[Path], None], client: httpx.AsyncClient
) -> None:
    serve(built)
    answer = await client.get("/guide/llms.txt")
    pages = re.findall(r"\]\((\S+\.md)\)", answer.text)
    assert {built / page for page in pages} >= pages_as_they_are(built) - {built / "docs/index.md"}
    await markdown_is_served(client, pages[0], (ROOT / pages[0]).read_bytes())


async def test_markdown_is_served_as_it_is(installed: Path, client: httpx.AsyncClient) -> None:
    await markdown_is_served(client, "docs/http.md", (installed / "docs/http.md").read_bytes())


async def markdown_is_served(client: httpx.AsyncClient, page: str, content: bytes) -> None:
    listed = await client.get("/guide/llms.txt")
    assert listed.headers["content-type"].startswith("text/plain")
    assert f"]({page})" in listed.text
    answer = await client.get(f"/guide/{page}")
    assert answer.headers["content-type"].startswith("text/markdown")
    assert answer.content == content


@pytest.mark.long
async def test_what_was_built_is_served(built: Path, serve: Callable[[Path], None], client: httpx.AsyncClient) -> None:
    serve(built)
    await is_served(built, client)


async def test_it_is_served(installed: Path, client: httpx.AsyncClient) -> None:
    await is_served(installed, client)


async def is_served(folder: Path, client: httpx.AsyncClient) -> None:
    answer = await client.get("/guide")
    assert (answer.status_code, answer.headers["location"]) == (307, "/guide/docs/index.html")
    page = await client.get(answer.headers["location"])
    assert page.text == (folder / "docs/index.html").read_text()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert not {"http", "*"} & set(re.split(r"[ :;]", policy))
    script = await client.get("/guide/searchindex.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["content-security-policy"] == "default-src 'none'"


@together("name", ["nope.html", "", "docs", "../../pyvenv.cfg", "..%2f..%2fpyvenv.cfg", "%00"])
async def test_nothing_else_is_served(installed: Path, client: httpx.AsyncClient, name: str) -> None:
    (installed.parent / "pyvenv.cfg").touch()
    assert (await client.get(httpx.URL("http://test", raw_path=f"/guide/{name}".encode()))).status_code == 404


async def test_without_it_the_answer_says_how_to_get_it(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guide, "GUIDE", tmp_path)
    guide._files.cache_clear()
    answer = await client.get("/guide")
    guide._files.cache_clear()
    assert answer.status_code == 404
    assert "`make docs`" in answer.json()["detail"]


async def test_it_is_turned_off_with_the_docs(installed: Path, settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_docs_enabled": False}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in ("/guide", "/guide/docs/index.html"):
            assert (await client.get(path)).status_code == 404
