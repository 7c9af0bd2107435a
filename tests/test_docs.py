"""The pages of docs/ say what is: their commands run, and what they list is all there is."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from fastpubsub.api.app import create_app
from fastpubsub.client.connections import ENVIRONMENT
from fastpubsub.config import Settings
from fastpubsub.scopes import SCOPES
from tests.conftest import Run, StartServer
from tests.harness import libpq
from tests.pages import DOCS, ROOT, SECONDS, Block, Shell, blocks, canonical, mask, walk

OPERATIONS = DOCS / "operations.md"
UNDESCRIBED = {"WS /subscriptions/{id}/ws", "GET /metrics", "GET /", "GET /console"} | {
    f"GET /{name}" for name in ("docs", "redoc", "openapi.json", "guide")
}
"""By OpenAPI, that is."""

KEY = "0123456789abcdef" * 4
DATABASE = "postgresql+psycopg://shop:secret@localhost/shop"


@pytest.fixture
def walk_page(server: StartServer, database_url: str, tmp_path: Path) -> Callable[..., None]:
    """Runs the commands of a page, with a server of its own on the port that they name."""

    def walk_against(page: str, **settings: object) -> None:
        address = httpx.URL(server(**settings).base_url)
        shell = Shell(tmp_path, {"database_url": database_url, "api_port": address.port, "url": str(address)})
        shell.changes["localhost:8000"] = address.netloc.decode()
        walk(DOCS / page, shell)

    return walk_against


@pytest.mark.long
def test_http_reference(walk_page: Callable[..., None]) -> None:
    walk_page("http.md", auth_secret_key=KEY)


def test_authentication(walk_page: Callable[..., None]) -> None:
    walk_page("authentication.md", auth_enabled=True, auth_secret_key=KEY)


def test_troubleshooting(walk_page: Callable[..., None]) -> None:
    walk_page("troubleshooting.md")


@pytest.mark.long
def test_command_line(walk_page: Callable[..., None]) -> None:
    walk_page("cli.md")


def test_publishing_from_sql(server: StartServer, database_url: str, tmp_path: Path) -> None:
    """Its statements as one would type them into psql, its Python as a program, its commands as in a terminal."""
    started = server()
    address = httpx.URL(started.base_url)
    shell = Shell(tmp_path, {"database_url": database_url})
    role = f"shop_{address.port}"
    changes = {"localhost:8000": address.netloc.decode(), DATABASE: database_url, "shop": role}
    shell.changes |= changes
    ran = set()
    with psycopg.connect(libpq(database_url), autocommit=True) as connection:
        try:
            for block, after in pairwise([*blocks(DOCS / "sql.md"), Block("", "", "", "")]):
                if block.language == "sql":
                    connection.execute(replaced(block.text, changes).encode())
                elif block.language == "python":
                    (tmp_path / "shop.py").write_text(replaced(block.text, changes))
                    subprocess.run([sys.executable, "shop.py"], cwd=tmp_path, check=True, timeout=200)
                elif block.language == "bash":
                    until(shell, block.text, after.text if after.language == "json" else "")
                ran.add(block.language)
        finally:
            connection.execute("reset role")
            connection.execute(f"drop owned by {role}; drop role {role}".encode())
    assert ran >= {"sql", "python", "bash", "json"}


def replaced(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def until(shell: Shell, script: str, shown: str) -> None:
    """Runs it again as long as it prints something else: the relay takes a moment."""
    deadline = time.monotonic() + SECONDS
    while True:
        printed = shell.run(script)
        if not shown or mask(canonical(printed)) == mask(canonical(shown)):
            return
        assert time.monotonic() < deadline, printed


async def test_queries_of_the_operations_page(connection: psycopg.AsyncConnection) -> None:
    queries = [one.text for one in blocks(OPERATIONS) if one.language == "sql" and one.text.startswith("select")]
    assert len(queries) == 2
    for query in queries:
        await connection.execute(query.encode())


async def test_metrics(client: httpx.AsyncClient) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) ", OPERATIONS.read_text(), re.MULTILINE))
    shown = re.findall(r"^# TYPE (\w+) (\w+)$", (await client.get("/metrics")).text, re.MULTILINE)
    assert listed == {(name, kind) for name, kind in shown if not name.startswith(("process_", "python_"))}
    dashboard = json.loads((ROOT / "deploy/grafana/fastpubsub.json").read_text())
    expressions = [rule["expr"] for rule in alert_rules()]
    expressions += [one["expr"] for panel in dashboard["panels"] for one in panel.get("targets", [])]
    used = set(re.findall(r"(?:http|fastpubsub)_\w+", " ".join(expressions)))
    assert {name.removesuffix("_bucket") for name in used} == {name for name, _ in listed}


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_is_on_the_operations_page() -> None:
    listed = re.findall(r"^\| `(Fastpubsub\w+)` \|", OPERATIONS.read_text(), re.MULTILINE)
    assert listed == [rule["alert"] for rule in alert_rules()]


def test_panels_of_the_dashboard_have_a_place_each() -> None:
    panels = json.loads((ROOT / "deploy/grafana/fastpubsub.json").read_text())["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    assert all(one["description"] for one in panels if one["type"] != "row")
    taken: set[tuple[int, int]] = set()
    for place in (one["gridPos"] for one in panels):
        rows, columns = range(place["y"], place["y"] + place["h"]), range(place["x"], place["x"] + place["w"])
        squares = {(row, column) for row in rows for column in columns}
        assert not squares & taken
        assert max(columns) < 24
        taken |= squares


def test_every_route_is_in_the_http_reference(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    routes = {
        f"{method.upper()} {re.sub(r'{[^}]+}', '{id}', path)}": operation.get("security", [])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    text = (DOCS / "http.md").read_text()
    sections = dict(re.findall(r"^### `([A-Z]+ /[^`]*)`\n(.*?)(?=^#)", text + "#", re.MULTILINE | re.DOTALL))
    assert sections.keys() - routes.keys() == UNDESCRIBED
    assert routes.keys() <= sections.keys()
    for route, security in routes.items():
        scopes = [scope for one in security for scope in one["oauth2"]]
        assert re.findall(r"(?:Scope|(?<=`)\sor)\s`(\w+:\w+|\*)`", sections[route]) == scopes, route


def test_every_scope_is_on_its_page() -> None:
    text = (DOCS / "authentication.md").read_text()
    assert re.findall(r"^\| `(\*|\w+:\w+)` \|", text, re.MULTILINE) == list(SCOPES)


def test_every_command_is_on_its_page(run: Run) -> None:
    shown = run("--help").stdout.partition("Messages:")[2].partition("Examples:")[0]
    listed = re.findall(r"^  ([\w-]+) ", shown, re.MULTILINE)
    headings = re.findall(r"^## (`fastpubsub .*)", (DOCS / "cli.md").read_text(), re.MULTILINE)
    named = [command for heading in headings for command in re.findall(r"`(?:fastpubsub )?([\w-]+)", heading)]
    assert sorted(named) == sorted(listed)


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), ROOT / "README.md"], ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"FASTPUBSUB_(?!TEST)([A-Z_]+[A-Z])\b", page.read_text()))
    ours_of_the_client = {name.removeprefix("FASTPUBSUB_") for name in ENVIRONMENT}
    assert named <= {name.upper() for name in Settings.model_fields} | ours_of_the_client
