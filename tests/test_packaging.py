"""The wheels alone are enough, and the pins are complete."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fastpubsub import __version__
from fastpubsub.database import migrations
from tests import harness, wheels
from tests.lasting import Last
from tests.wheels import Wheels

ROOT = Path(__file__).parent.parent
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = CONFIGURATION["project"]
CLIENT = tomllib.loads((wheels.CLIENT / "pyproject.toml").read_text())["project"]
OURS = "fastpubsub-client"
MAX_CLIENT_BYTES = 30_000_000
USER = ROOT / "tests" / "application_of_a_user.py"
PUBLISH = """
import sys
from fastpubsub.client import Client, Topic
with Client(sys.argv[1]) as bus:
    bus.create_topic("orders")
    bus.create_subscription("billing", "orders")
    bus.publish(Topic("orders"), {"n": 7})
    print(bus.pull("billing")[0].payload)
"""


@pytest.mark.long
def test_no_file_is_in_both_and_none_is_in_neither(built: Wheels) -> None:
    client, server = (modules(one) for one in built)
    assert not client & server
    there = {str(file.relative_to(ROOT)) for file in (ROOT / "fastpubsub").rglob("*.py")}
    assert {name for name in client | server if not name.startswith("fastpubsub/migrations/")} == there
    assert (ROOT / "LICENSE").read_text() == (wheels.CLIENT / "LICENSE").read_text()


def modules(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}


def test_the_server_leaves_out_what_the_client_has() -> None:
    (listed,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((wheels.CLIENT / "hatch_build.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FILES"
    )
    excluded = CONFIGURATION["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    assert {f"/fastpubsub/{name}" for name in listed} <= set(excluded)
    assert all((ROOT / "fastpubsub" / name).exists() for name in listed)


def test_the_server_needs_the_client_of_its_version() -> None:
    assert f"{OURS}=={__version__}" in PROJECT["dependencies"]


@pytest.mark.long
def test_both_are_of_one_version(built: Wheels) -> None:
    assert built.client.name == f"fastpubsub_client-{__version__}-py3-none-any.whl"
    assert "fastpubsub/py.typed" in zipfile.ZipFile(built.client).namelist()


@pytest.mark.long
def test_the_server_holds_what_it_needs_and_nothing_else(built: Wheels) -> None:
    names = set(zipfile.ZipFile(built.server).namelist())
    migrations = {f"fastpubsub/{file.relative_to(ROOT)}" for file in (ROOT / "migrations" / "versions").glob("*.*")}
    static = {str(file.relative_to(ROOT)) for file in (ROOT / "fastpubsub").rglob("static/**/*") if file.is_file()}
    console = {str(file.relative_to(ROOT)) for file in (ROOT / "fastpubsub/console").rglob("*") if file.is_file()}
    assert migrations | static | console | {"fastpubsub/migrations/env.py"} <= names
    information = f"fastpubsub_server-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith("fastpubsub/")} == {
        information + file for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert not [name for name in names if name.endswith((".pyc", "freeze.py"))]


@pytest.mark.long
@pytest.mark.interpreter
def test_the_client_alone(built: Wheels, lasting_server: Last, tmp_path: Path) -> None:
    python = wheels.environment(tmp_path)
    wheels.install_linked(python, built.client)
    size = sum(file.stat().st_size for file in wheels.site_of(python).rglob("*") if file.is_file())
    assert size < MAX_CLIENT_BYTES
    command = [str(python), "-c", PUBLISH, lasting_server().base_url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.stdout == "{'n': 7}\n", done.stderr


@pytest.mark.long
@pytest.mark.interpreter
def test_the_client_beside_the_oldest_fastapi(built: Wheels, tmp_path: Path) -> None:
    """With the oldest of all that old Pythons can have."""
    python = wheels.environment(tmp_path)
    oldest = ["pydantic==2.10.*", "httpx==0.27.*", "httptools==0.6.*"] if sys.version_info < (3, 13) else []
    wheels.pip(python, "install", "--no-compile", f"{built.client}[fastapi,testing]", "fastapi==0.115.*", *oldest)
    works_in_an_application(python, tmp_path)


@pytest.mark.long
@pytest.mark.interpreter
def test_the_client_beside_the_newest_fastapi(built: Wheels, tmp_path: Path) -> None:
    """The one that the server has."""
    python = wheels.environment(tmp_path)
    versions = wheels.install_linked(python, built.client, extras=("fastapi", "testing"))
    assert pins("runtime")["fastapi"].specifier == SpecifierSet(f"=={versions['fastapi']}")
    works_in_an_application(python, tmp_path)


def works_in_an_application(python: Path, folder: Path) -> None:
    done = subprocess.run([str(python), str(USER)], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.stdout == "(7, 'of a dependency')\n", done.stderr


@pytest.mark.long
@pytest.mark.interpreter
def test_the_server_in_an_empty_environment(built: Wheels, tmp_path: Path, empty_database_url: str) -> None:
    """With the pins of production, and with all of them."""
    python = wheels.environment(tmp_path)
    versions = wheels.install_linked(python, *built)
    assert versions == {name: next(iter(pin.specifier)).version for name, pin in pins("runtime").items()}
    wheels.pip(python, "check")
    run(python.parent, tmp_path, "db-migrate", database_url=empty_database_url)
    assert migrations.current(empty_database_url) == migrations.head()


@pytest.mark.long
def test_help_is_there_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "--help").stdout
    assert "db-migrate" in shown
    where = [str(installed / "python"), "-c", "import fastpubsub; print(fastpubsub.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(found).is_relative_to(installed.parent)


@pytest.mark.long
def test_a_key_needs_nothing(installed: Path, tmp_path: Path) -> None:
    assert re.fullmatch(r"new_secret=\S{32,}\n", run(installed, tmp_path, "generate_secret_key").stdout)


@pytest.mark.long
def test_migrating_in_an_empty_folder(installed: Path, tmp_path: Path, empty_database_url: str) -> None:
    run(installed, tmp_path, "db-migrate", database_url=empty_database_url)
    assert migrations.current(empty_database_url) == migrations.head()
    assert not list(tmp_path.iterdir())


def run(installed: Path, folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in harness.environment(settings).items() if name != "PYTHONPATH"}
    command = [str(installed / "fastpubsub"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done


def pins(name: str) -> dict[str, Requirement]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found = [Requirement(line) for line in re.findall(r"^([^\s#][^\\\n]*?) \\$", text, re.MULTILINE)]
    assert text.count("\n    --hash=sha256:") >= len(found) > 0
    assert not re.search(r"^[^#]*(?:https?:|--index|--find-links|--trusted-host)|\w+://", text, re.MULTILINE)
    return {canonicalize_name(pin.name): pin for pin in found}


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("runtime", []),
        ("dev", ["embedded", "dev", "docs"]),
        ("docs", ["docs"]),
        ("image", ["otel"]),
        ("peers", ["embedded", "bench-peers"]),
    ],
)
def test_every_dependency_is_pinned(file: str, extras: list[str]) -> None:
    pinned = pins(file)
    wanted = PROJECT["dependencies"] + [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted + CLIENT["dependencies"]):
        if requirement.name == OURS:
            continue
        (specifier,) = pinned[canonicalize_name(requirement.name)].specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version), requirement


@pytest.mark.long
def test_the_bill_of_materials_is_what_is_pinned(tmp_path: Path) -> None:
    """As `make sbom` writes it."""
    steps = subprocess.run(["make", "--dry-run", "sbom"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in steps.splitlines() if "cyclonedx_py" in line)
    written = str(tmp_path / "sbom.json")
    arguments = [written if word == "dist/sbom.json" else word for word in line.split()[1:]]
    # To validate takes eight seconds, and is done by whoever makes it.
    subprocess.run([sys.executable, *arguments, "--no-validate"], cwd=ROOT, check=True)
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    assert listed == {name: next(iter(pin.specifier)).version for name, pin in pins("image").items()}


def test_development_runs_on_the_pins_of_production() -> None:
    development = {name: str(pin) for name, pin in pins("dev").items()}
    for file in ("runtime", "build", "docs", "image"):
        assert {name: str(pin) for name, pin in pins(file).items()}.items() <= development.items()
