"""Runs pytest once for each of several interpreters: `python -m tests.pythons oldest 3.13 -- -x tests/client`.

Each has an environment of its own in .venv/pythons, made by `make install` as the main one is.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import series

ROOT = Path(__file__).parent.parent
MINORS = range(11, 15)
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))


@dataclass(frozen=True, order=True)
class Interpreter:
    version: tuple[int, ...]
    path: Path

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


def at_hand() -> list[Interpreter]:
    """The newest of each minor version, oldest first: by name on the path, and those of pyenv."""
    named = [shutil.which(f"python3.{minor}") for minor in MINORS]
    paths = [*map(Path, filter(None, named)), *PYENV.glob("versions/3.*/bin/python")]
    found = sorted(filter(None, map(interpreter, paths)))
    return sorted({one.version[:2]: one for one in found}.values())


def interpreter(path: Path) -> Interpreter | None:
    """None for what does not run, as pyenv's shims of versions that are not chosen, and for what is too old or new."""
    program = "import sys; print(*sys.version_info[:3])"
    done = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    version = tuple(map(int, done.stdout.split()))
    return Interpreter(version, path) if version[0] == 3 and version[1] in MINORS else None


def of_the_image() -> str:
    found = re.search(r"^ARG PYTHON=(\d+\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError("the Dockerfile does not say which Python it takes")
    return found[1]


def chosen(wanted: str, found: list[Interpreter]) -> list[Interpreter]:
    """`all`, `oldest`, `newest`, `image` (the version that the image takes), or a version such as 3.12."""
    match wanted:
        case "all":
            return found
        case "oldest":
            return found[:1]
        case "newest":
            return found[-1:]
    minor = of_the_image() if wanted == "image" else wanted
    return [one for one in found if one.name.startswith(f"{minor}.")]


def main() -> int:
    wanted, arguments = series.arguments()
    found = at_hand()
    interpreters = list(dict.fromkeys(one for word in wanted for one in chosen(word, found)))
    if missing := [word for word in wanted if not chosen(word, found)]:
        print(f"there is no Python at hand for: {' '.join(missing)}", flush=True)
    return series.run(steps(interpreters, arguments)) if interpreters else 1


def steps(interpreters: list[Interpreter], arguments: list[str]) -> Iterator[series.Step]:
    for one in interpreters:
        folder = f".venv/pythons/{one.name}"
        subprocess.run(
            ["make", "--silent", "--no-print-directory", "install", f"VENV={folder}", f"PYTHON={one.path}"],
            cwd=ROOT,
            check=True,
        )
        yield series.Step(f"Python {one.name}", [f"{folder}/bin/pytest", *arguments])


if __name__ == "__main__":
    sys.exit(main())
