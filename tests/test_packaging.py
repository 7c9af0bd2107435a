"""The wheel alone is enough, and the pins are complete."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fastpubsub import __version__
from fastpubsub.database import migrations
from tests import harness, wheels

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.install(wheel, tmp_path_factory.mktemp("installed"))


def test_it_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    migrations = {f"fastpubsub/{file.relative_to(ROOT)}" for file in (ROOT / "migrations" / "versions").glob("*.*")}
    static = {str(file.relative_to(ROOT)) for file in (ROOT / "fastpubsub").rglob("static/**/*") if file.is_file()}
    console = {str(file.relative_to(ROOT)) for file in (ROOT / "fastpubsub/console").rglob("*") if file.is_file()}
    assert migrations | static | console | {"fastpubsub/migrations/env.py", "fastpubsub/py.typed"} <= names
    information = f"fastpubsub_server-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith("fastpubsub/")} == {
        information + file for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert not [name for name in names if name.endswith((".pyc", "freeze.py"))]


def test_help_is_there_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "--help").stdout
    assert "db-migrate" in shown
    where = [str(installed / "python"), "-c", "import fastpubsub; print(fastpubsub.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(found).is_relative_to(installed.parent)


def test_a_key_needs_nothing(installed: Path, tmp_path: Path) -> None:
    assert re.fullmatch(r"new_secret=\S{32,}\n", run(installed, tmp_path, "generate_secret_key").stdout)


def test_migrating_in_an_empty_folder(installed: Path, tmp_path: Path, empty_database_url: str) -> None:
    run(installed, tmp_path, "db-migrate", database_url=empty_database_url)
    assert migrations.current(empty_database_url) == migrations.head()
    assert not list(tmp_path.iterdir())


def run(installed: Path, folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in harness.environment(settings).items() if name != "PYTHONPATH"}
    command = [str(installed / "fastpubsub"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
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
        ("peers", ["embedded", "bench-peers"]),
    ],
)
def test_every_dependency_is_pinned(file: str, extras: list[str]) -> None:
    pinned = pins(file)
    wanted = PROJECT["dependencies"] + [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        (specifier,) = pinned[canonicalize_name(requirement.name)].specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version), requirement


@pytest.mark.long
def test_the_bill_of_materials_is_what_is_pinned(tmp_path: Path) -> None:
    """As `make sbom` writes it."""
    steps = subprocess.run(["make", "--dry-run", "sbom"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in steps.splitlines() if "cyclonedx_py" in line)
    arguments = line.replace("dist/sbom.json", str(tmp_path / "sbom.json")).split()[1:]
    # To validate takes eight seconds, and is done by whoever makes it.
    subprocess.run([sys.executable, *arguments, "--no-validate"], cwd=ROOT, check=True)
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    assert listed == {name: next(iter(pin.specifier)).version for name, pin in pins("runtime").items()}


def test_development_runs_on_the_pins_of_production() -> None:
    development = {name: str(pin) for name, pin in pins("dev").items()}
    for file in ("runtime", "build", "docs"):
        assert {name: str(pin) for name, pin in pins(file).items()}.items() <= development.items()
