"""The two distributions as users get them: built, and installed into environments of their own."""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "packages" / "client"


class Wheels(NamedTuple):
    client: Path
    server: Path


def build(folder: Path) -> Wheels:
    return Wheels(build_one(CLIENT, folder / "client"), build_one(ROOT, folder / "server"))


def build_one(source: Path, folder: Path) -> Path:
    """Built from the source distribution, as the package index would get it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path) -> Path:
    """The Python of an empty one, without pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    return folder / "venv" / "bin" / "python"


def install(wheels: Wheels, folder: Path) -> Path:
    """The `bin` folder of a fresh environment, which finds all but fastpubsub in ours."""
    python = environment(folder)
    pip(python, "install", "--no-deps", "--no-index", *map(str, wheels))
    # A .pth inside a folder named by a .pth does not count, so ours does not bring the checkout in.
    (site_of(python) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def pip(python: Path, *arguments: str) -> None:
    """Ours, for another environment, with the package index of this machine."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def site_of(python: Path) -> Path:
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    return site
