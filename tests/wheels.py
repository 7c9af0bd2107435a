"""The two distributions as users get them: built once a run, and installed into environments of their own."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterable
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "packages" / "client"
OURS = Path(sysconfig.get_path("purelib"))


class Wheels(NamedTuple):
    client: Path
    server: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Building takes longer than most tests, so all that ask for them are marked as long."""
    folder = once_a_run(tmp_path_factory, "wheels", build)
    return Wheels(*(next(folder.glob(f"{name}/*.whl")) for name in ("client", "server")))


@pytest.fixture(scope="session")
def installed(built: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with both, which finds all but fastpubsub in ours."""
    return once_a_run(tmp_path_factory, "installed", lambda folder: install(built, folder)) / "venv" / "bin"


def once_a_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder is made by the first process of the run that needs it; the others wait for it, or fail as it did."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def build(folder: Path) -> None:
    build_one(CLIENT, folder / "client")
    build_one(ROOT, folder / "server")


def build_one(source: Path, folder: Path) -> None:
    """Built from the source distribution, as the package index would get it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def environment(folder: Path) -> Path:
    """The Python of an empty one, without pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    return folder / "venv" / "bin" / "python"


def install(wheels: Wheels, folder: Path) -> None:
    python = environment(folder)
    pip(python, "install", "--no-deps", "--no-index", *map(str, wheels))
    # A .pth inside a folder named by a .pth does not count, so ours does not bring the checkout in.
    (site_of(python) / "dependencies.pth").write_text(str(OURS))


def install_linked(python: Path, *wheels: Path, extras: Iterable[str] = ()) -> dict[str, str]:
    """Installs wheels with what they say they need and nothing else, as links to ours, which saves the index.

    Returns the versions of what they need.
    """
    pip(python, "install", "--no-deps", "--no-index", *map(str, wheels))
    wanted = [Requirement(text) for wheel in wheels for text in needs(wheel)]
    names = {canonicalize_name(wheel.name.split("-")[0]) for wheel in wheels}
    linked: dict[str, Distribution] = {}
    follow([one for one in wanted if canonicalize_name(one.name) not in names], extras, linked)
    for one in linked.values():
        link(one, site_of(python))
    return {name: one.version for name, one in linked.items()}


def needs(wheel: Path) -> list[str]:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []


def follow(requirements: Iterable[Requirement], extras: Iterable[str], found: dict[str, Distribution]) -> None:
    """Adds what is needed with these extras, and what that needs."""
    for one in requirements:
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            ours = distribution(one.name)
            assert one.specifier.contains(ours.version), f"{one}: ours is {ours.version}"
            if found.setdefault(canonicalize_name(one.name), ours) is ours or one.extras:
                follow(map(Requirement, ours.requires or []), one.extras, found)


def link(one: Distribution, site: Path) -> None:
    for file in one.files or []:
        source = Path(str(one.locate_file(file))).resolve()
        if source.is_relative_to(OURS):
            target = site / source.relative_to(OURS)
            target.parent.mkdir(parents=True, exist_ok=True)
            link_one(source, target)


def link_one(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:  # of two distributions
        return
    except OSError:  # on another file system
        shutil.copy2(source, target)


def pip(python: Path, *arguments: str) -> None:
    """Ours, for another environment, with the package index of this machine."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def site_of(python: Path) -> Path:
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    return site
